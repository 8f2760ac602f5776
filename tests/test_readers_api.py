"""App Mesh's own JSON: every envelope, names from outside, responses, old shapes, samples, real files."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import strategies
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.errors import Problem
from appmesh_xds.readers import Reading, api, load, loads, read, work

SHARED = Path(__file__).parents[2] / "shared"
CORPUS = Path(os.environ.get("APPMESH_XDS_CORPUS", SHARED / "corpus"))
DOCUMENTS = SHARED / "reference" / "documents"

SPEC = {
    "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
    "serviceDiscovery": {"dns": {"hostname": "a.local"}},
}
NAMES = {"meshName": "m", "virtualNodeName": "a"}
METADATA = {
    "arn": "arn:aws:appmesh:eu-west-1:111122223333:mesh/m/virtualNode/a",
    "createdAt": 1.551295405298e9,
    "lastUpdatedAt": "2020-07-06T14:46:18.215000+00:00",
    "meshOwner": "111122223333",
    "resourceOwner": "111122223333",
    "uid": "887cfab8-a727-41b2-8cd7-2fdebfd6304e",
    "version": 1,
}
NODE = msgspec.convert({**NAMES, "spec": SPEC}, spec.VirtualNodeData)


def _read(tmp_path: Path, content: Any, file: str = "f.json", **outside: Any) -> Reading:
    path = tmp_path / file
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read(path, **outside)


def _errors(*paths: Any, **outside: Any) -> list[str]:
    """`line:column path: message (hint)` of each problem."""
    return [_short(problem) for problem in read(*paths, **outside).problems]


def _problems(content: Any, **outside: Any) -> tuple[Problem, ...]:
    """What `loads` raises; empty where it gives a mesh."""
    try:
        mesh = loads(content, **outside)
    except am.SpecErrors as error:
        return error.problems
    return () if mesh.name else (Problem(message="a mesh without a name"),)


def _short(problem: Problem) -> str:
    return str(problem).split(": ", 1)[1].removeprefix(problem.file)


# --- envelopes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "outside"),
    [
        ({**NAMES, "spec": SPEC}, {}),
        ({**NAMES, "spec": SPEC, "clientToken": "t", "tags": [{"key": "k", "value": "v"}]}, {}),
        ({"virtualNode": {**NAMES, "spec": SPEC, "metadata": METADATA, "status": {"status": "ACTIVE"}}}, {}),
        ({"virtualNode": {**NAMES, "spec": SPEC}, "ResponseMetadata": {"HTTPStatusCode": 200}}, {}),
        ({**NAMES, "spec": SPEC, "metadata": METADATA, "status": {"status": "ACTIVE"}}, {}),
        ([{**NAMES, "spec": SPEC}], {}),
        ([{"virtualNode": {**NAMES, "spec": SPEC}}], {}),
        ({"virtualNodes": [{**NAMES, "spec": SPEC}]}, {}),
        ({"spec": SPEC}, {"kind": "virtualNode", "name": "a", "mesh": "m"}),
        (SPEC, {"kind": "virtualNode", "name": "a", "mesh": "m"}),
        ({"virtualNodeName": "a", "spec": SPEC}, {"mesh": "m"}),
        ({"meshName": "m", "spec": SPEC}, {"kind": "virtualNode", "name": "a"}),
        # A name that is said twice may be said the same.
        ({**NAMES, "spec": SPEC}, {"kind": "virtualNode", "name": "a", "mesh": "m"}),
        # A mesh given from outside is for those that state none.
        ({**NAMES, "spec": SPEC}, {"mesh": "other"}),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_envelopes(tmp_path: Path, content: Any, outside: dict[str, str], suffix: str) -> None:
    text = json.dumps(content) if suffix == "json" else yaml.safe_dump(content)
    reading = _read(tmp_path, text, f"f.{suffix}", **outside)
    assert reading.problems == ()
    assert reading.resources == (NODE,)


@pytest.mark.parametrize("kind", sorted(spec.BY_KIND))
def test_every_kind_is_recognised_by_its_names(kind: str) -> None:
    body: dict[str, Any] = {"meshName": "m"} | dict.fromkeys(api._MEMBERS[kind], "x")
    body["spec"] = _SMALLEST.get(kind, {})
    expected = msgspec.convert(body, spec.BY_KIND[kind])
    for content in (body, {kind: body}, {kind: body | {"metadata": METADATA}}):
        mesh = loads(content)
        assert mesh.get(expected.key) == expected


_SMALLEST: dict[str, Any] = {
    "virtualGateway": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]},
    "route": {
        "httpRoute": {
            "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]},
            "match": {"prefix": "/"},
        }
    },
    "gatewayRoute": {
        "httpRoute": {
            "action": {"target": {"virtualService": {"virtualServiceName": "s"}}},
            "match": {"prefix": "/"},
        }
    },
}


def test_names_in_the_path(tmp_path: Path) -> None:
    file = tmp_path / "spec=1.json"
    file.write_text(json.dumps({"spec": SPEC}))
    reading = read(f"virtualNode/a={file}", f"virtualNode/b={file}", mesh="m")
    assert reading.problems == ()
    assert [resource.key for resource in reading.resources] == ["virtualNode/a", "virtualNode/b"]

    route = tmp_path / "route.json"
    route.write_text(json.dumps(_SMALLEST["route"]))
    reading = read(f"route/r/one={route}", mesh="m")
    assert reading.problems == ()
    assert [resource.key for resource in reading.resources] == ["virtualRouter/r/route/one"]
    assert _errors(f"route/one={route}", mesh="m") == [
        ":1:1 $: a route is named by its parent and its own name (route/PARENT/NAME=PATH)"
    ]


def test_a_mesh_that_is_only_named_is_implied(tmp_path: Path) -> None:
    mesh = loads({**NAMES, "spec": SPEC})
    assert mesh.data == spec.MeshData(mesh_name="m")
    (tmp_path / "empty.json").write_text("{}")
    assert load(tmp_path / "empty.json", kind="mesh", name="m").data == spec.MeshData(mesh_name="m")


@pytest.mark.parametrize(
    ("content", "outside", "expected"),
    [
        (
            {"spec": SPEC},
            {},
            ":1:1 $: this spec does not say what it is a spec of (give its kind and name: "
            "virtualNode/NAME=PATH, and --mesh MESH)",
        ),
        (
            SPEC,
            {},
            ":1:1 $: this spec does not say what it is a spec of (give its kind and name: "
            "virtualNode/NAME=PATH, and --mesh MESH)",
        ),
        (
            {"virtualNodeName": "a", "spec": SPEC},
            {},
            ":1:1 $: the meshName is missing (add it, or give it from outside: --mesh MESH)",
        ),
        (
            {"spec": SPEC},
            {"kind": "virtualNode", "mesh": "m"},
            ":1:1 $: the virtualNodeName is missing (add it, or give it from outside: virtualNode/NAME=PATH)",
        ),
        (
            {**NAMES, "spec": SPEC},
            {"kind": "virtualNode", "name": "b"},
            ':1:19 $.virtualNodeName: the virtualNodeName is "a" here and "b" from outside '
            "(give one of the two)",
        ),
        (
            {"meshName": "m", "virtualNodeName": 7, "spec": SPEC},
            {},
            ":1:19 $.virtualNodeName: expected a text",
        ),
        ([], {"kind": "virtualNode"}, ":1:1 $: an empty list: there is nothing in it"),
        ([{**NAMES, "spec": SPEC}, 5], {}, ":1:177 $[1]: expected an App Mesh resource, got int"),
        (
            {"virtualNodes": [{"meshName": "m", "virtualNodeName": "a", "arn": "arn:x"}]},
            {},
            ":1:2 $.virtualNodes: a list response: it names 1 resources and does not hold their specs "
            "(save what `aws appmesh describe-...` prints for each of them)",
        ),
        (
            {"meshName": "m", "virtualNodeName": "a"},
            {},
            ":1:1 virtualNode/a $.spec: missing: the field is required (an object with `backendDefaults`, "
            "`backends`, `listeners`, `logging`, `serviceDiscovery`)",
        ),
    ],
)
def test_what_cannot_be_told(tmp_path: Path, content: Any, outside: dict[str, str], expected: str) -> None:
    reading = _read(tmp_path, content, **outside)
    assert [_short(problem) for problem in reading.problems] == [expected]


def test_unknown_fields_are_errors_in_requests_and_warnings_in_responses(tmp_path: Path) -> None:
    body = {**NAMES, "extra": 1, "spec": {**SPEC, "tracing": {}}}
    reading = _read(tmp_path, body)
    assert reading.resources == ()
    assert [(p.severity, p.path) for p in reading.problems] == [
        ("error", "$.extra"),
        ("error", "$.spec.tracing"),
    ]
    for response in ({"virtualNode": body}, body | {"metadata": METADATA}, {"virtualNodes": [body]}):
        reading = _read(tmp_path, response)
        assert reading.resources == (NODE,)
        assert [(p.severity, p.path, p.line) for p in reading.problems] == [
            ("warning", "$.extra", 1),
            ("warning", "$.spec.tracing", 1),
        ]


def test_every_problem_has_its_place(tmp_path: Path) -> None:
    text = """\
meshName: m
virtualNodeName: a
spec:
  listeners:
  - portMapping: {port: 080, protocol: HTTP}
    tls:
      mode: strict
      certificate: {file: {certificateChain: /c}}
  backends: [b.local]
  serviceDiscovery:
    dns: {serviceName: a.local}
---
virtualNode:
  meshName: m
  virtualNodeName: b
  spec:
    backendDefaults: {clientPolicy: {tls: {enforce: yes, validation: {trust: {}}}}}
"""
    reading = _read(tmp_path, text, "f.yaml")
    assert [(p.line, p.column, p.resource, p.path, p.hint) for p in reading.problems] == [
        (
            5,
            19,
            "virtualNode/a",
            "$.spec.listeners[0].portMapping.port",
            "YAML 1.2 reads 080 as a text: write 80",
        ),
        (5, 30, "virtualNode/a", "$.spec.listeners[0].portMapping.protocol", "write it `http`"),
        (7, 7, "virtualNode/a", "$.spec.listeners[0].tls.mode", "write it `STRICT`"),
        (
            8,
            21,
            "virtualNode/a",
            "$.spec.listeners[0].tls.certificate.file.privateKey",
            "a string",
        ),
        (9, 14, "virtualNode/a", "$.spec.backends[0]", "with the fields `virtualService`"),
        (11, 5, "virtualNode/a", "$.spec.serviceDiscovery.dns.hostname", "a string"),
        (11, 11, "virtualNode/a", "$.spec.serviceDiscovery.dns.serviceName", "it is called `hostname`"),
        (
            17,
            44,
            "virtualNode/b",
            "$.spec.backendDefaults.clientPolicy.tls.enforce",
            "YAML 1.2 reads yes as a text: write true",
        ),
    ]


def test_strings_for_numbers_only_when_asked(tmp_path: Path) -> None:
    text = json.dumps({**NAMES, "spec": SPEC}).replace("8080", '"8080"')
    assert [p.path for p in _read(tmp_path, text).problems] == ["$.spec.listeners[0].portMapping.port"]
    assert _read(tmp_path, text, strict=False).resources == (NODE,)


def test_the_owner_counts_for_shared_meshes_only() -> None:
    for owner, resource_owner, expected in (
        ("111122223333", "111122223333", None),
        ("111122223333", "444455556666", "111122223333"),
    ):
        metadata = METADATA | {"meshOwner": owner, "resourceOwner": resource_owner}
        node = loads({**NAMES, "spec": SPEC, "metadata": metadata}).virtual_nodes["a"]
        assert node.mesh_owner == expected
    # A row of digits that begins with 0 stays one.
    text = "meshName: m\nmeshOwner: 011122223333\nspec: {}\n"
    assert loads(text).owner == "011122223333"


# --- in memory ----------------------------------------------------------------------------------------


def test_loads_takes_texts_and_responses_of_boto3() -> None:
    now = datetime(2020, 1, 1, tzinfo=UTC)
    response = {
        "virtualNode": {**NAMES, "spec": SPEC, "metadata": METADATA | {"createdAt": now}},
        "ResponseMetadata": {"RequestId": "x", "RetryAttempts": 0},
    }
    text = json.dumps({**NAMES, "spec": SPEC})
    for content in (text, text.encode(), response, [response], (response,)):
        assert loads(content).virtual_nodes == {"a": NODE}
    assert loads({"spec": SPEC}, mesh="m", kind="virtualNode", name="a").virtual_nodes == {"a": NODE}


def test_a_datetime_where_none_belongs_is_a_problem() -> None:
    with pytest.raises(am.SpecErrors) as raised:
        loads({**NAMES, "spec": {**SPEC, "logging": datetime(2020, 1, 1, tzinfo=UTC)}})
    assert [p.path for p in raised.value.problems] == ["$.spec.logging"]


def test_data_in_circles_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MAX_NODES", 10_000)
    circle: list[Any] = []
    circle += [circle, circle]
    wide: Any = [{}]
    for _ in range(30):
        wide = [wide, wide]
    for content, message in (
        (circle, "is nested deeper"),
        ({"spec": circle}, "is nested deeper"),
        (wide, "nodes"),
    ):
        with pytest.raises(am.SpecErrors, match=message):
            loads(content)


def test_wrong_usage() -> None:
    with pytest.raises(am.UsageError, match="'virtualnode' is no kind"):
        loads("{}", kind="virtualnode", name="a")
    with pytest.raises(am.UsageError, match="the name 'a' needs a kind"):
        read("f.json", name="a")


# --- the fast path ------------------------------------------------------------------------------------


def _slow(content: bytes) -> tuple[Any, ...]:
    from appmesh_xds.readers.found import Context, Found
    from appmesh_xds.readers.text import documents

    found, problems = documents(content, "f", yaml=False)
    items = [item for document in found for item in api.read(document, Context())]
    assert all(isinstance(item, Found) for item in items) and not problems, items
    return tuple(item.data for item in items if isinstance(item, Found))


@settings(max_examples=30, deadline=None)
@given(strategies.resources())
def test_both_ways_to_read_agree(resources: list[spec.Data]) -> None:
    content = msgspec.json.encode(resources)
    fast = api.read_fast(content)
    if fast is not None:
        assert tuple(fast) == _slow(content) == tuple(resources)


@pytest.mark.parametrize(
    "text",
    [
        # Duplicate keys: msgspec takes the last.
        '{"meshName": "m", "meshName": "m", "virtualNodeName": "a", "spec": {}}',
        '{"meshName": "m", "virtualNodeName": "a", "spec": {"listeners": [], "listeners": []}}',
        '{"meshName": "m", "virtualNodeName": "a", "spec": {}, "meshOwner": null, "meshOwner": null}',
        # Names that msgspec's constructors do not check.
        '{"meshName": "", "virtualNodeName": "a", "spec": {}}',
        '{"meshName": "m", "virtualNodeName": "%s", "spec": {}}' % ("x" * 256),
        '{"meshName": "m", "virtualServiceName": "", "spec": {}}',
        '{"meshName": "m", "meshOwner": "1", "virtualNodeName": "a", "spec": {}}',
        # Names that do not belong together, and a spec that is missing.
        '{"meshName": "m", "virtualNodeName": "a", "virtualServiceName": "a", "spec": {}}',
        '{"meshName": "m", "virtualNodeName": "a"}',
        '{"meshName": "\\u0041\\u0041", "virtualNodeName": "a"}',
        '[{"meshName": "m", "virtualNodeName": "a", "spec": {}}, {}]',
        "[]",
        "{}",
        '{"meshName": "m", "virtualNodeName": "a", "spec": {}} x',
        '{"meshName": "\\ud800", "virtualNodeName": "a", "spec": {}}',
    ],
)
def test_the_fast_path_leaves_doubtful_texts_alone(text: str) -> None:
    assert api.read_fast(text.encode()) is None


def test_the_fast_path_is_taken() -> None:
    text = json.dumps([{**NAMES, "spec": SPEC}, {"meshName": "m", "spec": {}}], indent=2)
    assert api.read_fast(text.encode()) == [NODE, spec.MeshData(mesh_name="m")]


# --- samples and real files ---------------------------------------------------------------------------


def _samples() -> Iterator[tuple[str, str]]:
    """(file, JSON) of each sample in the documents: not the syntax with its placeholders."""
    for path in sorted(DOCUMENTS.glob("*.txt")):
        for line in path.read_text().splitlines():
            text = line[line.find("{") :]
            if ('"spec"' in text or '"meshName"' in text) and '"string"' not in text:
                yield path.stem, text


_LISTENER = '"portMapping": { "port": 80, "protocol": "http2" }'
_FOUND = '"serviceDiscovery": { "dns": { "hostname": "n.local" } }'
_BACKENDS = '"backends": [{ "virtualService": { "virtualServiceName": "t.local" } }]'
_TLS = (
    '"tls" : { "mode" : "STRICT", "certificate" : { "acm" : { "certificateArn" : '
    '"arn:aws:acm:us-west-2:111122223333:certificate/1" } } }'
)
_GATEWAY_RESPONSE = (
    '{ "meshName": "apps", "metadata": { "meshOwner": "111122223333", "resourceOwner": "111122223333", '
    '"version": 1 }, "spec": { "backendDefaults": null, "listeners": [{ "healthCheck": null, '
    f'{_LISTENER}, "tls": null }}], "logging": null }}, "status": {{ "status": "ACTIVE" }}, '
    '"virtualGatewayName": "g" }'
)
#: Texts like those of the documents: (mesh of what names none, key, text).
SAMPLES = [
    (
        None,
        "virtualNode/b",
        f'{{ "meshName" : "app1", "spec" : {{ "listeners" : [ {{ {_LISTENER}, {_TLS} }} ], {_FOUND} }}, '
        '"virtualNodeName" : "b" }',
    ),
    (None, "mesh/ecs", '{ "meshName": "ecs", "clientToken": "34a20934-da3a" }'),
    (
        None,
        "mesh/ecs",
        '{ "meshName": "ecs", "metadata": { "arn": "arn:aws:appmesh:us-east-1:1:mesh/ecs", "createdAt": '
        '1.551295405298E9, "version": 1 }, "status": { "status": "ACTIVE" } }',
    ),
    (
        "apps",
        "virtualGateway/g",
        f'{{ "spec": {{ "listeners": [{{ {_LISTENER} }}] }}, "virtualGatewayName": "g", "clientToken": "" }}',
    ),
    (None, "virtualGateway/g", _GATEWAY_RESPONSE),
    (
        "ecs",
        "virtualNode/n",
        f'{{ "spec": {{ "listeners": [ {{ {_LISTENER} }} ], {_FOUND}, {_BACKENDS} }}, '
        '"virtualNodeName": "n", "clientToken": "c148ccbb" }',
    ),
    (
        None,
        "virtualNode/n",
        '{ "meshName": "ecs", "metadata": { "createdAt": 1.551295471546E9 }, "spec": { '
        f'{_BACKENDS}, "listeners": [{{ "healthCheck": null, {_LISTENER} }}], "logging": null, {_FOUND} }}, '
        '"status": { "status": "ACTIVE" }, "virtualNodeName": "n" }',
    ),
]


@pytest.mark.parametrize(("mesh", "key", "text"), SAMPLES)
def test_requests_and_responses_like_the_documents(mesh: str | None, key: str, text: str) -> None:
    loaded = loads(text, mesh=mesh)
    assert loaded.get(key) is not None


def test_a_quote_that_is_missing() -> None:
    text = _GATEWAY_RESPONSE.replace('"111122223333", "version"', '"111122223333, "version"')
    (problem,) = _problems(text)
    assert problem.message == "is not valid JSON: Expecting ',' delimiter"
    assert (problem.line, problem.column) == (1, text.index('version": 1') + 1)
    assert problem.hint == "a comma or a quote is missing before this place"


def test_the_samples_of_the_documents() -> None:
    if not DOCUMENTS.is_dir():
        pytest.skip(f"no documents at {DOCUMENTS}")
    samples = list(_samples())
    assert len(samples) == 7
    broken = {}
    for file, text in samples:
        problems = _problems(text, mesh=None if '"meshName"' in text else "m")
        if problems:
            broken[file] = [(problem.line, problem.column) for problem in problems]
            assert loads(text.replace('012, "uid"', '012", "uid"')).get("virtualGateway/myVirtualGateway")
            assert broken[file] == [(1, text.index('uid": "ff111ff2') + 1)]
    assert list(broken) == ["create-virtual-gateway"]


#: Of a test double's data, which no service has checked: what App Mesh, or Envoy, would refuse.
CORPUS_PROBLEMS = {
    "data__grpc_virtual_node_spec.json": ["Envoy knows no command operator `%END_TIME%`"],
    "data__http2_virtual_node_spec.json": ["Envoy knows no command operator `%END_TIME%`"],
    "data__http2_route_spec.json": ["there is a `prefix` already"],
}


def test_real_files() -> None:
    index = CORPUS / "INDEX.csv"
    if not index.is_file():
        pytest.skip(f"no corpus at {CORPUS}: set APPMESH_XDS_CORPUS")
    with index.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dialect"] == "api"]
    assert len(rows) > 100
    refused = {}
    for row in rows:
        path = CORPUS / row["file"]
        kinds = {kind: int(number) for kind, number in (item.split("=") for item in row["kinds"].split(";"))}
        reading = read(path, mesh="m")
        if not reading.resources:
            # A spec alone: the calls that used it named it.
            (kind,) = kinds
            name = "parent/a" if kind in ("route", "gatewayRoute") else "a"
            reading = read(path, mesh="m", kind=kind, name=name)
        problems = [problem for problem in reading.problems if problem.severity == "error"]
        if problems:
            refused[path.name.rpartition("-")[2].removeprefix("_")] = problems
        else:
            assert Counter(resource.kind for resource in reading.resources) == kinds, row["file"]
    assert {
        name: [problem.message for problem in found] for name, found in refused.items()
    } == CORPUS_PROBLEMS
    assert all(problem.line > 1 for found in refused.values() for problem in found)


# --- anything at all ----------------------------------------------------------------------------------

_KEYS = st.sampled_from(
    [
        *(name for name, _ in api._NAMES),
        "spec",
        *sorted(api._LISTS),
        *sorted(spec.BY_KIND),
        "metadata",
        "status",
        "tags",
        "listeners",
        "arn",
        "x",
    ]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(_KEYS, _ANY, max_size=5) | st.lists(_ANY, max_size=3),
    st.sampled_from([None, *spec.BY_KIND]),
)
def test_any_data_gives_a_mesh_or_problems(content: Any, kind: str | None) -> None:
    problems = _problems(content, mesh="m", kind=kind, name=None if kind is None else "a")
    assert all(problem.message and str(problem) for problem in problems)


#: Every kind, and most fields that hold others.
_WHOLE: list[Any] = [
    {"meshName": "m", "spec": {"egressFilter": {"type": "ALLOW_ALL"}}},
    *(json.loads(text) | {"meshName": "m"} for _, key, text in SAMPLES if key.startswith("virtual")),
    {"meshName": "m", "virtualRouterName": "p", "routeName": "r", "spec": _SMALLEST["route"]},
    {"meshName": "m", "virtualGatewayName": "p", "gatewayRouteName": "r", "spec": _SMALLEST["gatewayRoute"]},
    {"virtualService": {"meshName": "m", "virtualServiceName": "s", "spec": {"provider": None}}},
]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_specs_give_a_mesh_or_problems(data: st.DataObject) -> None:
    value = json.loads(json.dumps(_WHOLE))
    for _ in range(data.draw(st.integers(1, 4))):
        _damage(value, data)
    text = json.dumps(value, indent=1)
    if data.draw(st.booleans()):
        text = f"# now it is YAML\n{text}"
    lines = text.count("\n") + 1
    assert all(0 < problem.line <= lines for problem in _problems(text) if problem.file)


def _damage(value: Any, data: st.DataObject) -> None:
    """Replaces, removes or renames one thing somewhere below."""
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 4)):
            value = inner
            continue
        how = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        if how == "replace":
            value[key] = data.draw(
                st.sampled_from([None, True, -1, 70000, 1.5, "", "x" * 300, [], {}, "strict"])
            )
        elif how == "remove" or isinstance(value, list):
            del value[key]
        else:
            value[data.draw(st.sampled_from(["mode", "tls", "foo", ""]))] = value.pop(key)
        return
