"""The specs against the service model that AWS publishes (botocore, `appmesh` 2019-01-25).

Both are walked together from the seven `*Spec` shapes: every member, required flag, enum, bound and pattern,
in both directions. Where ours is tighter the type stands in `BEYOND_MODEL`, with the reason.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import botocore
import msgspec
import pytest
from msgspec import inspect

from appmesh_xds import spec
from appmesh_xds.spec import checks, types
from appmesh_xds.spec._route_checks import HTTP_RETRY_EVENTS

#: Model shape -> our struct, where the walk begins.
ROOTS: dict[str, type[msgspec.Struct]] = {
    "MeshSpec": spec.MeshSpec,
    "VirtualNodeSpec": spec.VirtualNodeSpec,
    "VirtualGatewaySpec": spec.VirtualGatewaySpec,
    "VirtualServiceSpec": spec.VirtualServiceSpec,
    "VirtualRouterSpec": spec.VirtualRouterSpec,
    "RouteSpec": spec.RouteSpec,
    "GatewayRouteSpec": spec.GatewayRouteSpec,
}
#: Alias of a list -> alias of its entries.
ENTRIES = {
    "CertificateAuthorityArns": "Arn",
    "SubjectAlternativeNameList": "SubjectAlternativeName",
}


@cache
def model() -> dict[str, Any]:
    path = Path(botocore.__file__).parent / "data/appmesh/2019-01-25/service-2.json.gz"
    shapes: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))["shapes"]
    return shapes


class Difference(NamedTuple):
    path: str
    what: str
    #: Names in the member's annotation: the type aliases it is made of.
    types: frozenset[str]


class Walk:
    """Both sides, together; what differs, what was seen."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.leaves: dict[str, int] = {}
        self.structs: dict[str, type[msgspec.Struct]] = {}

    def differ(self, path: str, what: str, annotation: str) -> None:
        self.differences.append(Difference(path, what, frozenset(re.findall(r"\w+", annotation))))

    def shape(self, name: str, ours: inspect.Type, path: str, annotation: str) -> None:
        shape = model()[name]
        kind = shape["type"]
        if isinstance(ours, inspect.UnionType):
            ours = next(t for t in ours.types if not isinstance(t, inspect.NoneType))
        if kind == "structure":
            assert isinstance(ours, inspect.StructType), path
            self.structure(name, ours, path)
        elif kind == "list":
            assert isinstance(ours, inspect.VarTupleType), path
            self.bounds(shape, ours.min_length, ours.max_length, path, annotation)
            entries = next((e for alias, e in ENTRIES.items() if alias in annotation), annotation)
            self.shape(shape["member"]["shape"], ours.item_type, f"{path}[]", entries)
        else:
            root = path.partition(".")[0]
            self.leaves[root] = self.leaves.get(root, 0) + 1
            self.leaf(shape, ours, path, annotation)

    def structure(self, name: str, ours: inspect.StructType, path: str) -> None:
        shape = model()[name]
        assert self.structs.setdefault(name, ours.cls) is ours.cls, path
        fields = {field.encode_name: field for field in ours.fields}
        annotations = ours.cls.__annotations__
        assert set(fields) == set(shape["members"]), path
        assert {f.encode_name for f in ours.fields if f.required} == set(shape.get("required", ())), path
        for member, reference in shape["members"].items():
            field = fields[member]
            self.shape(reference["shape"], field.type, f"{path}.{member}", annotations[field.name])

    def leaf(self, shape: dict[str, Any], ours: inspect.Type, path: str, annotation: str) -> None:
        kind = shape["type"]
        if "enum" in shape:
            assert isinstance(ours, inspect.LiteralType), path
            assert set(ours.values) == set(shape["enum"]), path
        elif kind == "string":
            assert isinstance(ours, inspect.StrType), path
            assert ours.pattern == shape.get("pattern"), path
            self.bounds(shape, ours.min_length, ours.max_length, path, annotation)
        elif kind == "boolean":
            assert isinstance(ours, inspect.BoolType), path
        else:
            assert isinstance(ours, inspect.IntType), path
            assert ours.gt is None and ours.lt is None and ours.multiple_of is None, path
            self.bounds(shape, ours.ge, ours.le, path, annotation)

    def bounds(self, shape: dict[str, Any], low: Any, high: Any, path: str, annotation: str) -> None:
        for what, theirs, our in (("min", shape.get("min"), low), ("max", shape.get("max"), high)):
            if theirs != our:
                # Tighter may be a decision of ours, anything else is a mistake.
                assert theirs is None, (path, what)
                self.differ(path, what, annotation)


@pytest.fixture(scope="module")
def walk() -> Walk:
    walk = Walk()
    for name, struct in ROOTS.items():
        walk.shape(name, inspect.type_info(struct), name, "")
    return walk


def test_every_shape_is_there(walk: Walk) -> None:
    """The walk itself compares members, required flags, enums, patterns and stated bounds."""
    # Scalars in the tree under each spec, a shape that is used twice counted twice.
    assert walk.leaves == {
        "MeshSpec": 2,
        "VirtualNodeSpec": 73,
        "VirtualGatewaySpec": 34,
        "VirtualServiceSpec": 2,
        "VirtualRouterSpec": 2,
        "RouteSpec": 87,
        "GatewayRouteSpec": 62,
    }
    assert sum(walk.leaves.values()) == 262
    assert len(walk.structs) == 119


def test_no_struct_is_ours_alone(walk: Walk) -> None:
    exported = [getattr(spec, name) for name in spec.__all__]
    structs = {s for s in exported if isinstance(s, type) and issubclass(s, msgspec.Struct)}
    assert structs - set(walk.structs.values()) == {spec.Spec, *spec.DATA_TYPES}
    assert set(walk.structs.values()) <= structs


def test_bounds_beyond_the_model_are_the_ones_that_are_listed(walk: Walk) -> None:
    used = set()
    for difference in walk.differences:
        reasons = difference.types & types.BEYOND_MODEL.keys()
        assert len(reasons) == 1, difference
        used |= reasons
    assert used == set(types.BEYOND_MODEL)


def test_unions_are_those_that_the_checks_hold(walk: Walk) -> None:
    theirs = {struct for name, struct in walk.structs.items() if model()[name].get("union")}
    assert theirs == set(checks.UNIONS)


def test_http_retry_events_are_those_of_the_documentation() -> None:
    """The model's type is a plain string; its documentation lists the values."""
    text = model()["HttpRetryPolicy"]["members"]["httpRetryEvents"]["documentation"]
    assert tuple(re.findall(r"<b>([a-z-]+)</b>", text)) == HTTP_RETRY_EVENTS


@pytest.mark.parametrize("data", spec.DATA_TYPES, ids=lambda data: data.kind)
def test_names_beside_the_spec_are_those_of_the_create_request(data: type[msgspec.Struct]) -> None:
    shape = f"Create{data.__name__.removesuffix('Data')}Input"
    theirs = set(model()[shape]["members"]) - {"clientToken", "tags", "spec"}
    ours = {field.encode_name: field for field in msgspec.structs.fields(data)}
    # The owner of a mesh is in the request's answer.
    assert set(ours) - {"spec"} == theirs | {"meshOwner"}
    # The spec of a mesh may be absent, as all of the request's names may not.
    assert {n for n, f in ours.items() if f.required} == {
        n for n in model()[shape]["required"] if (shape, n) != ("CreateMeshInput", "spec")
    }
    walk = Walk()
    info = inspect.type_info(data)
    assert isinstance(info, inspect.StructType)
    types_ = {field.encode_name: field.type for field in info.fields}
    for name in theirs:
        walk.shape(model()[shape]["members"][name]["shape"], types_[name], name, name)
    # A virtual service's name becomes a domain: our bounds, listed under `ServiceName`.
    assert {d.path for d in walk.differences} <= (
        {"virtualServiceName"} if data is spec.VirtualServiceData else set()
    )
