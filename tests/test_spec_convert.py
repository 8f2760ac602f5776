"""Plain values to specs: every problem, each at its path; never an exception."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from appmesh_xds import spec
from appmesh_xds.spec.convert import Conversion, convert, validate

NODE: dict[str, Any] = {
    "meshName": "m",
    "virtualNodeName": "n",
    "spec": {
        "listeners": [
            {
                "portMapping": {"port": 8080, "protocol": "http"},
                "tls": {
                    "mode": "STRICT",
                    "certificate": {"file": {"certificateChain": "/c.pem", "privateKey": "/k.pem"}},
                    "validation": {"trust": {"sds": {"secretName": "roots"}}},
                },
            }
        ],
        "serviceDiscovery": {"dns": {"hostname": "n.local"}},
        "backendDefaults": {
            "clientPolicy": {
                "tls": {"enforce": True, "validation": {"trust": {"file": {"certificateChain": "/a"}}}}
            }
        },
    },
}
LISTENER = "$.spec.listeners[0]"


def changed(path: str, value: object) -> dict[str, Any]:
    """NODE with one member set (`...` removes it); `path` is like `spec.listeners.0.tls.mode`."""
    node = msgspec.json.decode(msgspec.json.encode(NODE))
    *steps, last = path.split(".")
    here = node
    for step in steps:
        here = here[int(step)] if isinstance(here, list) else here[step]
    if value is ...:
        del here[last]
    else:
        here[int(last) if isinstance(here, list) else last] = value
    return dict(node)


def problems(value: object, **options: Any) -> list[tuple[str, str, str]]:
    found = convert(value, spec.VirtualNodeData, **options)
    assert (found.value is None) == any(p.severity == "error" for p in found.problems)
    return [(p.path, p.message, p.hint) for p in found.problems]


def test_a_good_value_converts() -> None:
    node, found = convert(NODE, spec.VirtualNodeData)
    assert found == ()
    assert node == msgspec.convert(NODE, spec.VirtualNodeData)
    assert node is not None and node.spec.listeners is not None
    assert node.spec.listeners[0].port_mapping == spec.PortMapping(port=8080, protocol="http")


TLS = "spec.listeners.0.tls"
PORT = "spec.listeners.0.portMapping.port"
POLICY = "spec.backendDefaults.clientPolicy.tls"
ROWS: list[tuple[str, object, str, str, str]] = [
    # what is changed, to what, path, message, hint (parts of both)
    (f"{TLS}.mode", ..., f"{LISTENER}.tls.mode", "missing", "one of DISABLED, PERMISSIVE, STRICT"),
    (f"{TLS}.mode", "strict", f"{LISTENER}.tls.mode", 'got "strict"', "write it `STRICT`"),
    (f"{TLS}.mode", "STRCT", f"{LISTENER}.tls.mode", "one of DISABLED, PERMISSIVE, STRICT", "mean `STRICT`?"),
    (f"{TLS}.mode", True, f"{LISTENER}.tls.mode", "got true", ""),
    (f"{TLS}.certificate", ..., f"{LISTENER}.tls.certificate", "missing", "`acm`, `file`, `sds`"),
    (
        f"{TLS}.validation.trust",
        {"acm": {"certificateAuthorityArns": ["arn:x"]}},
        f"{LISTENER}.tls.validation.trust.acm",
        'unknown field "acm"',
        "`file` or `sds`",
    ),
    (PORT, 0, f"{LISTENER}.portMapping.port", "0 is out of range", "from 1 to 65535"),
    (PORT, 70000, f"{LISTENER}.portMapping.port", "70000 is out of range", "from 1 to 65535"),
    (PORT, 10**5000, f"{LISTENER}.portMapping.port", "a number of 16610 bits is out of range", ""),
    (PORT, "8080", f"{LISTENER}.portMapping.port", 'whole number, got "8080"', "without quotes"),
    (PORT, 8080.0, f"{LISTENER}.portMapping.port", "whole number, got 8080.0", "write it as 8080"),
    (PORT, float("nan"), f"{LISTENER}.portMapping.port", "got nan", ""),
    (PORT, True, f"{LISTENER}.portMapping.port", "got true", ""),
    (PORT, None, f"{LISTENER}.portMapping.port", "got null", ""),
    (PORT, {}, f"{LISTENER}.portMapping.port", "got an object", ""),
    (PORT, datetime(2026, 1, 1, tzinfo=UTC), f"{LISTENER}.portMapping.port", "got a datetime", ""),
    ("spec.listeners", {}, "$.spec.listeners", "expected a list, got an object", "list of one"),
    ("spec.listeners", "x", "$.spec.listeners", 'expected a list, got "x"', ""),
    ("spec.listeners.0", [], LISTENER, "expected an object, got a list", "`portMapping`"),
    ("spec.listeners.0", None, LISTENER, "expected an object, got null", ""),
    ("spec", None, "$.spec", "expected an object, got null", ""),
    ("spec.listener", [], "$.spec.listener", 'unknown field "listener"', "mean `listeners`?"),
    ("spec.service_discovery", 1, "$.spec.service_discovery", "unknown", "write it `serviceDiscovery`"),
    ("spec.ServiceDiscovery", 1, "$.spec.ServiceDiscovery", "unknown", "write it `serviceDiscovery`"),
    ("spec.a b", 1, '$.spec["a b"]', 'unknown field "a b"', "known here: `backendDefaults`"),
    ("spec.", 1, '$.spec[""]', 'unknown field ""', "known here"),
    ("spec.\ud800", 1, '$.spec["\\ud800"]', "unknown field", "known here"),
    ("spec.serviceDiscovery.dns.serviceName", "x", "$.spec.serviceDiscovery.dns.serviceName",
     "unknown", "`hostname`"),
    (f"{POLICY}.mode", "STRICT", f"$.{POLICY}.mode", "unknown", "`enforce`"),
    (f"{POLICY}.enforce", "true", f"$.{POLICY}.enforce", "expected true or false", "without quotes"),
    ("meshName", "", "$.meshName", "must not be empty", ""),
    ("meshName", "x" * 256, "$.meshName", "at most 255 characters, got 256", ""),
    ("meshName", 12, "$.meshName", "expected a string, got 12", "in quotes"),
    ("meshName", "a\udfff", "$.meshName", "surrogate", ""),
    ("meshOwner", "123", "$.meshOwner", "at least 12 characters, got 3", ""),
    ("meshOwner", 123456789012, "$.meshOwner", "expected a string", "in quotes"),
    ("virtualNodeName", ..., "$.virtualNodeName", "missing", "a string"),
    ("spec.serviceDiscovery", {"awsCloudMap": {"namespaceName": "a", "serviceName": "b",
                                               "attributes": [{"key": "a b", "value": "c"}]}},
     "$.spec.serviceDiscovery.awsCloudMap.attributes[0].key", '"a b" does not match the pattern', ""),
    (f"{TLS}.validation.subjectAlternativeNames", {"match": {"exact": []}},
     f"{LISTENER}.tls.validation.subjectAlternativeNames.match.exact", "must not be empty", ""),
    ("spec.backendDefaults.clientPolicy.tls.validation.trust",
     {"acm": {"certificateAuthorityArns": ["a", "b", "c", "d"]}},
     "$.spec.backendDefaults.clientPolicy.tls.validation.trust.acm.certificateAuthorityArns",
     "at most 3 entries, got 4", ""),
    ("spec.serviceDiscovery.dns.hostname", "x" * 10_000_000, "$.spec.serviceDiscovery.dns.hostname",
     "at most 254 characters, got 10000000", ""),
]  # fmt: skip


@pytest.mark.parametrize(("change", "value", "path", "message", "hint"), ROWS, ids=range(len(ROWS)))
def test_a_problem(change: str, value: object, path: str, message: str, hint: str) -> None:
    found = problems(changed(change, value))
    assert [p for p, _, _ in found] == [path]
    assert message in found[0][1]
    assert hint in found[0][2]
    assert len(found[0][1]) < 300 and len(found[0][2]) < 300


def test_all_of_them_at_once() -> None:
    value = {
        "meshName": 1,
        "extra": 2,
        "spec": {"listeners": [{"portMapping": {"port": 0}}, 7], "backends": [{"virtualService": {}}]},
    }
    assert [path for path, _, _ in problems(value)] == [
        "$.meshName",
        "$.extra",
        "$.spec.listeners[0].portMapping.port",
        "$.spec.listeners[0].portMapping.protocol",
        "$.spec.listeners[1]",
        "$.spec.backends[0].virtualService.virtualServiceName",
        "$.virtualNodeName",
    ]


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "x", [], [NODE], datetime.now(UTC), b"x", object()])
def test_anything_else_than_an_object(value: object) -> None:
    assert [(path, message.partition(", ")[0]) for path, message, _ in problems(value)] == [
        ("$", "expected an object")
    ]


def test_the_path_begins_where_told() -> None:
    assert problems(changed("meshName", 1), path="$.virtualNode")[0][0] == "$.virtualNode.meshName"


def test_none_is_absent_for_optional_members() -> None:
    value = changed("spec.backends", None)
    value["meshOwner"] = None
    assert convert(value, spec.VirtualNodeData).value == msgspec.convert(NODE, spec.VirtualNodeData)
    # A mesh's spec has a default: `spec:` with nothing behind it is that.
    mesh = convert({"meshName": "m", "spec": None}, spec.MeshData)
    assert mesh == Conversion(spec.MeshData(mesh_name="m"), ())


def test_keys_that_are_not_strings() -> None:
    value = changed("spec.backends", [])
    value["spec"].update({8080: 1, None: 2, True: 3})
    assert [path for path, _, _ in problems(value)] == ["$.spec[8080]", "$.spec[null]", "$.spec[true]"]


def test_unknown_fields_can_be_warnings() -> None:
    value = changed("metadata", {"uid": "x"})
    found = convert(value, spec.VirtualNodeData, unknown="warning")
    assert found.value == msgspec.convert(NODE, spec.VirtualNodeData)
    assert [(p.path, p.severity) for p in found.problems] == [("$.metadata", "warning")]


LOOSE: list[tuple[object, type, object]] = [
    ("50", int, 50),
    ("-5", int, -5),
    (50.0, int, 50),
    ("true", bool, True),
    ("False", bool, False),
]


@pytest.mark.parametrize(("value", "type_", "expected"), LOOSE)
def test_numbers_and_booleans_as_strings(value: object, type_: type, expected: object) -> None:
    loose = convert(value, type_, strict=False)
    assert loose == Conversion(expected, ())
    assert type(loose.value) is type_
    assert convert(value, type_).value is None


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        *((value, int) for value in ("5.0", "", "five", 5.5, True, "1" * 5000, float("inf"))),
        *((value, bool) for value in ("yes", 1, None)),
        (5, str),
    ],
)
def test_what_stays_wrong_when_strings_may_be_numbers(value: object, type_: type) -> None:
    loose = convert(value, type_, strict=False)
    assert loose.value is None and len(loose.problems) == 1


# --- hostile input --------------------------------------------------------------------------------


def test_deep_and_cyclic_values() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    cyclic: dict[str, Any] = {}
    cyclic["spec"] = cyclic["listeners"] = cyclic
    for value in (deep, cyclic, changed("spec", deep), changed("meshName", cyclic)):
        assert problems(value)


def test_time_grows_with_the_input_and_no_faster() -> None:
    many = 20_000
    value = {f"unknown field {i} {'x' * 50}": i for i in range(many)}
    value["spec"] = {"listeners": [{"portMapping": {"prot": i}} for i in range(many)]}
    begin = time.process_time()
    found = problems(value)
    assert len(found) == many + 3 * many + 2
    # 0.6 s on a slow machine; a suggestion for every unknown field, or errors counted anew, take minutes.
    assert time.process_time() - begin < 10


# --- Hypothesis -----------------------------------------------------------------------------------


def _keys() -> st.SearchStrategy[Any]:
    names = sorted({f.encode_name for s in _structs() for f in msgspec.structs.fields(s)})
    return st.sampled_from(names) | st.text(max_size=5) | st.integers()


def _structs() -> list[type[msgspec.Struct]]:
    exported = [getattr(spec, name) for name in spec.__all__]
    return [s for s in exported if isinstance(s, type) and issubclass(s, msgspec.Struct)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(_keys(), children, max_size=4),
    max_leaves=12,
)


def _values(kind: inspect.Type, *, spoilt: bool) -> st.SearchStrategy[Any]:
    """Plain values of a type; `spoilt`: a few of them out of bounds or something else altogether."""
    wrong = st.sampled_from([None, True, 0, -1, 1.0, 2**70, "", "x" * 300, [], {}, {"x": 1}, "strict"])
    right = _RIGHT[type(kind)](kind, spoilt)
    return st.one_of(right, right, right, right, right, wrong) if spoilt else right


def _struct(kind: inspect.StructType, spoilt: bool) -> st.SearchStrategy[Any]:
    parts = {f.encode_name: _values(f.type, spoilt=spoilt) for f in kind.fields}
    needed = {f.encode_name for f in kind.fields if f.required}
    return st.fixed_dictionaries(
        {name: part for name, part in parts.items() if name in needed},
        optional={name: part for name, part in parts.items() if name not in needed},
    )


def _list(kind: inspect.VarTupleType, spoilt: bool) -> st.SearchStrategy[Any]:
    low = kind.min_length or 0
    high = min(kind.max_length or 99, low + 1)
    return st.lists(_values(kind.item_type, spoilt=spoilt), min_size=low, max_size=high)


def _text(kind: inspect.StrType, spoilt: bool) -> st.SearchStrategy[Any]:
    alphabet = st.characters(exclude_categories=("Cs",)) if kind.pattern is None else st.sampled_from("aB9!")
    low = kind.min_length or 0
    return st.text(alphabet, min_size=low, max_size=min(kind.max_length or 99, low + 4))


_RIGHT: dict[type, Any] = {
    inspect.StructType: _struct,
    inspect.VarTupleType: _list,
    inspect.StrType: _text,
    inspect.UnionType: lambda kind, spoilt: st.one_of(_values(t, spoilt=spoilt) for t in kind.types),
    inspect.NoneType: lambda kind, spoilt: st.none(),
    inspect.BoolType: lambda kind, spoilt: st.booleans(),
    inspect.IntType: lambda kind, spoilt: st.integers(kind.ge, kind.le),
    inspect.LiteralType: lambda kind, spoilt: st.sampled_from(kind.values),
}


def _data_values(spoilt: bool) -> st.SearchStrategy[tuple[type[msgspec.Struct], Any]]:
    def of(data: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
        values = st.deferred(lambda: _values(inspect.type_info(data), spoilt=spoilt))
        return values.map(lambda value: (data, value))

    return st.one_of(of(data) for data in spec.DATA_TYPES)


QUICK = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@QUICK
@given(value=JSON, data=st.sampled_from(spec.DATA_TYPES), strict=st.booleans())
def test_never_raises(value: object, data: type[msgspec.Struct], strict: bool) -> None:
    found: Conversion[Any] = convert(value, data, strict=strict)
    assert (found.value is None) == any(p.severity == "error" for p in found.problems)
    assert all(p.path.startswith("$") and p.message and str(p) for p in found.problems)


@QUICK
@given(_data_values(spoilt=True))
def test_agrees_with_msgspec(case: tuple[type[msgspec.Struct], Any]) -> None:
    data, value = case
    if data is spec.MeshData and isinstance(value, dict) and value.get("spec", 1) is None:
        return  # The one difference that is meant: `spec:` with nothing behind it.
    try:
        expected = msgspec.convert(value, data)
    except msgspec.ValidationError:
        expected = None
    found = convert(value, data)
    assert found.value == expected
    assert (expected is None) == bool(found.problems)


@QUICK
@given(_data_values(spoilt=False))
def test_there_and_back(case: tuple[type[msgspec.Struct], Any]) -> None:
    data, value = case
    first = convert(value, data)
    assert first.problems == () and first.value is not None
    assert convert(msgspec.to_builtins(first.value), data) == first
    # The rules among fields may find something, and never fail.
    assert all(p.resource == first.value.key for p in validate(first.value))


# --- structs made in memory -----------------------------------------------------------------------


def node_of(*listeners: Any, **more: Any) -> spec.VirtualNodeData:
    discovery = spec.ServiceDiscovery(dns=spec.DnsServiceDiscovery(hostname="n.local"))
    return spec.VirtualNodeData(
        mesh_name="m",
        virtual_node_name="n",
        spec=spec.VirtualNodeSpec(listeners=listeners, service_discovery=discovery, **more),
    )


HTTP = spec.PortMapping(port=80, protocol="http")
BUILT: list[tuple[Any, str, str]] = [
    (node_of(spec.Listener(port_mapping=spec.PortMapping(port=0, protocol="http"))),
     "$.spec.listeners[0].portMapping.port", "out of range"),
    (node_of(spec.Listener(port_mapping=spec.PortMapping(port=True, protocol="http"))),
     "$.spec.listeners[0].portMapping.port", "got true"),
    (node_of(spec.Listener(port_mapping=None)),  # type: ignore[arg-type]
     "$.spec.listeners[0].portMapping", "expected a PortMapping, got null"),
    (node_of(spec.Listener(port_mapping={"port": 80, "protocol": "http"})),  # type: ignore[arg-type]
     "$.spec.listeners[0].portMapping", "expected a PortMapping, got an object"),
    (node_of(spec.VirtualGatewayListener(port_mapping=HTTP)),  # type: ignore[arg-type]
     "$.spec.listeners[0]", "expected a Listener, got a VirtualGatewayListener"),
    (node_of(spec.Listener(port_mapping=HTTP), backends=[]),
     "$.spec.backends", "expected a tuple, got a list"),
    (spec.MeshData(mesh_name="m", spec=None),  # type: ignore[arg-type]
     "$.spec", "expected a MeshSpec, got null"),
    (spec.MeshData(mesh_name=object()),  # type: ignore[arg-type]
     "$.meshName", "expected a string, got a object"),
    (node_of(spec.Listener(port_mapping=HTTP), backends=(spec.Backend(),)),
     "$.spec.backends[0]", "empty"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "path", "message"), BUILT, ids=range(len(BUILT)))
def test_validate(data: Any, path: str, message: str) -> None:
    (problem,) = validate(data)
    assert (problem.path, problem.severity) == (path, "error")
    assert problem.resource == data.key
    assert message in problem.message


def test_validate_finds_nothing_in_what_is_right() -> None:
    assert validate(node_of(spec.Listener(port_mapping=HTTP), backends=())) == ()
