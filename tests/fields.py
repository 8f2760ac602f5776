"""Every field of the App Mesh API, changed one at a time: what in Envoy changes with it.

`python -m tests.fields` (from the project's folder) rewrites docs/fields.md. Nothing in that page is stated
by hand but the reasons of fields without effect: rich meshes are translated, one field is changed to another
valid value, and what differs in the translations is the row.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

sys.path.insert(0, str(Path(__file__).parent))

from field_meshes import meshes

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.spec.checks import check
from appmesh_xds.spec.convert import convert

PAGE = Path(__file__).parent.parent / "docs" / "fields.md"
RERUN = "python -m tests.fields"

#: Fields that change nothing in any Envoy, and why.
NO_EFFECT = {
    **{
        f"virtualGateway.spec.listeners[].healthCheck.{member}": "No proxy of the mesh sends to a gateway; "
        "what stands before it runs its own checks (reference §4.5)."
        for member in (
            "protocol",
            "healthyThreshold",
            "unhealthyThreshold",
            "intervalMillis",
            "timeoutMillis",
            "path",
            "port",
        )
    },
    "virtualNode.spec.listeners[].healthCheck.port": "It must be the listener's own port, and is that port "
    "when it is left out.",
}

KINDS = (
    ("mesh", spec.MeshSpec),
    ("virtualNode", spec.VirtualNodeSpec),
    ("virtualGateway", spec.VirtualGatewaySpec),
    ("virtualService", spec.VirtualServiceSpec),
    ("virtualRouter", spec.VirtualRouterSpec),
    ("route", spec.RouteSpec),
    ("gatewayRoute", spec.GatewayRouteSpec),
)


class Row(NamedTuple):
    """One field: which Envoy fields change with it; `sample` is the change that was made."""

    leaf: str
    fields: tuple[str, ...]
    sample: str


def leaves(kind: inspect.Type, path: str) -> Iterator[tuple[str, inspect.Type]]:
    """Every scalar below a type, lists as `[]`."""
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            if not isinstance(one, inspect.NoneType):
                yield from leaves(one, path)
    elif isinstance(kind, inspect.Metadata):
        yield from leaves(kind.type, path)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from leaves(field.type, f"{path}.{field.encode_name}")
    elif isinstance(kind, inspect.VarTupleType):
        yield from leaves(kind.item_type, f"{path}[]")
    else:
        yield path, kind


@cache
def all_leaves() -> dict[str, inspect.Type]:
    found: dict[str, inspect.Type] = {}
    for kind, struct in KINDS:
        found.update(leaves(inspect.type_info(struct), f"{kind}.spec"))
    return found


# --- places and changes ---------------------------------------------------------------------------------


def places(value: Any, parts: list[str]) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every place in a request that a leaf names, there or not."""
    head, rest = parts[0], parts[1:]
    many = head.endswith("[]")
    key = head.removesuffix("[]")
    if not isinstance(value, dict):
        return
    if not rest and not many:
        yield value, key
        return
    inner = value.get(key)
    if many and isinstance(inner, list):
        for index, item in enumerate(inner):
            if not rest:
                yield inner, index
            else:
                yield from places(item, rest)
        if not rest:
            # The list as a whole: leaving it out.
            yield value, key
    elif not many and inner is not None:
        yield from places(inner, rest)


#: Other values to try for a leaf, by its last part.
TRY: Mapping[str, tuple[Any, ...]] = {
    "regex": ("/other/.*", "[0-9]+"),
    "prefix": ("/other/", "/other", "other"),
    "exact": ("/other", "other.local"),
    "suffix": (".other.org", "other"),
    "value": ("/other/", "other", 77, "%PROTOCOL%"),
    "text": ("%PROTOCOL%\n",),
    "end": (1000,),
    "start": (2,),
    "responseType": ("ENDPOINTS", "LOADBALANCER"),
    "httpRetryEvents[]": ("client-error", "server-error"),
    "grpcRetryEvents[]": ("internal",),
    "tcpRetryEvents[]": (None,),
    "virtualNodeName": ("other-node",),
    "virtualRouterName": ("other-router",),
    "virtualServiceName": ("other.local",),
    "virtualNode": ("other-node",),
    "certificateArn": ("arn:other",),
    "certificateAuthorityArns[]": ("arn:other",),
    "port": (8080, 8081, 8090, 9091, 6379),
    "ports[]": (8090, 8081),
    "path": ("/other",),
    "name": ("x-other",),
    "methodName": ("Other",),
}


def candidates(leaf: str, kind: inspect.Type, now: Any) -> Iterator[Any]:
    last = leaf.rpartition(".")[2]
    yield from TRY.get(last, ())
    if isinstance(kind, inspect.LiteralType):
        yield from kind.values
    elif isinstance(kind, inspect.BoolType):
        yield not now
    elif isinstance(kind, inspect.IntType):
        yield from ((now or 0) + 1, (now or 2) - 1, (now or 0) + 1000)
    else:
        yield f"{now or ''}x"
        yield "other"
    # Left out altogether: for the last member of a union, and lists of one.
    yield None


# --- translations ---------------------------------------------------------------------------------------

FACTS: dict[str, Any] = {
    "certificates": {
        arn: FileCertificate(certificate_chain=f"/{arn}.crt", private_key=f"/{arn}.key")
        for arn in ("arn:cert", "arn:other")
    },
    "authorities": {
        arn: FileTrust(certificate_chain=f"/{arn}.ca") for arn in ("arn:ca", "arn:cert", "arn:other")
    },
    "endpoints": {
        name: (
            Endpoint(address="10.0.0.1", other_address="fd00::1", attributes=(("k", "v"),)),
            Endpoint(address="10.0.0.2", attributes=(("k", "other"), ("other", "v"))),
        )
        for name in ("cloud", "other-node")
    },
}
OPTIONS = am.Options(sds_socket="/sds.sock")

Facts = frozenset[tuple[str, str]]


def flatten(value: Any, path: str, shown: str) -> Iterator[tuple[str, str, Any]]:
    """(exact path, path with lists as `[]`, value) of every scalar. What has a name stands under it."""
    if isinstance(value, dict):
        if not value:
            yield path, shown, {}
        for key, item in value.items():
            if key != "@type":
                spelt = "" if key == "typed_config" else f".{key}"
                yield from flatten(item, f"{path}.{key}", f"{shown}{spelt}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            mark = item["name"] if isinstance(item, dict) and isinstance(item.get("name"), str) else index
            yield from flatten(item, f"{path}[{mark}]", f"{shown}[]")
    else:
        yield path, shown, value


def translated(resources: tuple[spec.Data, ...]) -> Counter[tuple[str, str, str]]:
    """Every scalar of every proxy: (shown path, exact path, value)."""
    mesh = am.Mesh.trusted(resources, name="m").replace(**FACTS)
    found: Counter[tuple[str, str, str]] = Counter()
    for proxy in mesh.proxies():
        for kind, items in am.translate(mesh, proxy, OPTIONS).to_dict().items():
            for item in items:
                name = item.get("name") or item.get("cluster_name")
                for path, shown, value in flatten(item, f"{proxy} {name}", _TYPE[kind]):
                    found[shown, path, repr(value)] += 1
    return found


_TYPE = {
    "listeners": "Listener",
    "clusters": "Cluster",
    "routes": "RouteConfiguration",
    "endpoints": "ClusterLoadAssignment",
    "secrets": "Secret",
}


def _data(request: Mapping[str, Any], kind: str) -> spec.Data | None:
    made = convert(request, spec.BY_KIND[kind]).value
    if made is None or any(problem.severity == "error" for problem in check(made)):
        return None
    return made


class Bench:
    """One rich mesh: its requests by kind, and its translation."""

    def __init__(self, requests: list[tuple[str, dict[str, Any]]]) -> None:
        self.requests = requests
        made = [_data(request, kind) for kind, request in requests]
        wrong = [requests[index] for index, data in enumerate(made) if data is None]
        assert not wrong, wrong
        self.made = tuple(data for data in made if data is not None)
        self.base = translated(self.made)

    def row(self, leaf: str, kind: inspect.Type) -> Row | None:
        """The first change of the field that another Envoy field changes with."""
        of, _, path = leaf.partition(".")
        for index, (request_kind, request) in enumerate(self.requests):
            if request_kind != of:
                continue
            copy = msgspec.json.decode(msgspec.json.encode(request))
            for container, key in list(places(copy, path.split("."))):
                there = isinstance(container, list) or key in container
                before = container[key] if there else None
                for value in candidates(leaf, kind, before):
                    if value == before or (value is None and not there):
                        continue
                    fields = self._changed(copy, container, key, value, index, of)
                    _put(container, key, before, there)
                    if fields:
                        return Row(leaf, fields, f"{before!r} to {value!r}")
        return None

    def _changed(
        self, request: dict[str, Any], container: Any, key: Any, value: Any, index: int, kind: str
    ) -> tuple[str, ...]:
        if value is None and isinstance(container, list):
            if len(container) < 2:
                return ()
            container[key] = container[key - 1]
        else:
            _put(container, key, value, value is not None)
        data = _data(request, kind)
        if data is None:
            return ()
        after = translated((*self.made[:index], data, *self.made[index + 1 :]))
        gone, new = self.base - after, after - self.base
        shown = {one for one, _, _ in gone} | {one for one, _, _ in new}
        return tuple(sorted(shown))


def _put(container: Any, key: Any, value: Any, there: bool) -> None:
    if there:
        container[key] = value
    else:
        container.pop(key, None)


@cache
def rows() -> dict[str, Row]:
    """Every field with an effect."""
    benches = [Bench(requests) for requests in meshes()]
    found: dict[str, Row] = {}
    for leaf, kind in all_leaves().items():
        for bench in benches:
            row = bench.row(leaf, kind)
            if row is not None and (leaf not in found or len(row.fields) < len(found[leaf].fields)):
                found[leaf] = row
    return found


# --- the page -------------------------------------------------------------------------------------------

_HEAD = """\
# Fields

Every field of the App Mesh API (`appmesh/2019-01-25`, {count} of them), and what changes in Envoy with it.
This page is generated (`{rerun}`): a rich mesh is translated, one field is changed, and the differences are
the row. A field that changes names or ports changes whatever carries them; {shown} differences are shown.
With `--file-certificates sds` the files of certificates and authorities stand in secrets instead, which
listeners and clusters name (`Secret.tls_certificate`, `Secret.validation_context`).

Rows of `awsCloudMap` are of services whose endpoints are known. With `--cloud-map dns`, `serviceName` and
`namespaceName` are what `hostname` is below, `ipPreference` is `Cluster.dns_lookup_family`, and `attributes`
are refused.
"""
_SHOWN = 4


def page() -> str:
    made = rows()
    lines = [_HEAD.format(count=len(all_leaves()), rerun=RERUN, shown=_SHOWN)]
    by_kind: dict[str, list[str]] = defaultdict(list)
    for leaf in all_leaves():
        by_kind[leaf.partition(".")[0]].append(leaf)
    for kind, _ in KINDS:
        lines += [f"## {kind}", "", "| field | Envoy |", "|---|---|"]
        for leaf in by_kind[kind]:
            row = made.get(leaf)
            if row is None:
                text = f"No effect. {NO_EFFECT.get(leaf, '')}"
            else:
                text = ", ".join(f"`{field}`" for field in _told(row.fields))
                more = len(row.fields) - _SHOWN
                text += f" and {more} more" if more > 0 else ""
            lines.append(f"| `{leaf.partition('.')[2].removeprefix('spec.')}` | {text} |")
        lines.append("")
    return "\n".join(lines)


def _told(fields: tuple[str, ...]) -> list[str]:
    """The shortest say most."""
    return sorted(sorted(fields, key=lambda field: (len(field), field))[:_SHOWN])


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    missing = [leaf for leaf in all_leaves() if leaf not in rows() and leaf not in NO_EFFECT]
    print(f"{len(rows())} fields with an effect, {len(NO_EFFECT)} without, unexplained: {missing}")
