"""Files and folders: what is found, what is passed over, what is said about each; bad input, by name."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.errors import Problem
from appmesh_xds.readers import DIALECTS, Dialect, FileReport, Reading, load, read, work
from appmesh_xds.readers.found import Context, Found


def _node(name: str = "a", mesh: str = "m", **spec: Any) -> dict[str, Any]:
    return {"meshName": mesh, "virtualNodeName": name, "spec": spec}


def _write(folder: Path, **files: Any) -> Path:
    """`a_json={...}` becomes folder/a.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder


def _keys(reading: Reading) -> list[str]:
    return [resource.key for resource in reading.resources]


def _said(reading: Reading, folder: Path) -> list[tuple[str, str]]:
    """(file below the folder, message) of every problem."""
    return [(os.path.relpath(problem.file, folder), problem.message) for problem in reading.problems]


# --- what is found ------------------------------------------------------------------------------------


def test_a_folder_is_read_with_all_below_in_order(tmp_path: Path) -> None:
    _write(
        tmp_path / "b", z_json=_node("z"), y_yaml=json.dumps(_node("y")), x_yml="{}", t_template=_node("t")
    )
    _write(tmp_path / "a" / "deep", n_json=[_node("n1"), _node("n2")], readme_md="# text", c_txt="{")
    _write(tmp_path / ".git", hidden_json=_node("hidden"))
    reading = read(tmp_path)
    assert _keys(reading) == [f"virtualNode/{name}" for name in ("n1", "n2", "t", "y", "z")]
    assert reading.problems == ()
    assert load(tmp_path).name == "m"


def test_a_mixed_folder_is_counted(tmp_path: Path) -> None:
    others = "apiVersion: v1\nkind: Service\n---\napiVersion: apps/v1\nkind: Deployment\n---\n"
    _write(
        tmp_path,
        mixed_yaml=others + json.dumps(_node("a")),
        only_yaml=others,
        package_json={"name": "x", "version": "1"},
        list_json=[1, 2],
        empty_yaml="# nothing\n",
        tsconfig_json='{ // comments\n "strict": true }',
        whole_json=[_node("b"), {"meshName": "m"}],
    )
    reading = read(tmp_path)
    assert reading.problems == ()
    kubernetes = ("v1 Service", "apps/v1 Deployment")
    assert {Path(report.path).name: report for report in reading.files} == {
        name: FileReport(path=str(tmp_path / name), **report)
        for name, report in {
            "mixed.yaml": {"dialects": ("api",), "kinds": {"virtualNode": 1}, "skipped": kubernetes},
            "only.yaml": {"skipped": kubernetes},
            "package.json": {"skipped": ("no App Mesh names in it",)},
            "list.json": {"skipped": ("a list, not a mapping",)},
            "empty.yaml": {"skipped": ("empty",)},
            "tsconfig.json": {
                "skipped": (
                    "is not valid JSON: Expecting property name enclosed in double quotes; "
                    "App Mesh is not mentioned",
                )
            },
            "whole.json": {"dialects": ("api",), "kinds": {"mesh": 1, "virtualNode": 1}},
        }.items()
    }


def test_what_is_named_must_hold_something(tmp_path: Path) -> None:
    _write(tmp_path, package_json={"name": "x"}, empty_yaml="", tsconfig_json="{ // no\n}")
    _write(tmp_path / "none")
    _write(tmp_path / "others", package_json={"name": "x"}, other_json=[1])
    paths = [
        tmp_path / name for name in ("package.json", "empty.yaml", "tsconfig.json", "none", "others", "gone")
    ]
    assert _said(read(*paths), tmp_path) == [
        ("empty.yaml", "is empty"),
        ("gone", "cannot be read: No such file or directory"),
        ("none", "the folder holds nothing to read"),
        ("others", "no App Mesh resource in the 2 files of this folder"),
        ("package.json", "no App Mesh resource in it (no App Mesh names in it)"),
        ("tsconfig.json", "is not valid JSON: Expecting property name enclosed in double quotes"),
    ]
    # Asked twice, answered the same.
    assert _said(read(tmp_path / "none", tmp_path / "none"), tmp_path) == [
        ("none", "the folder holds nothing to read")
    ]


def test_a_broken_file_beside_others_counts_when_it_speaks_of_a_mesh(tmp_path: Path) -> None:
    _write(tmp_path, a_json=_node("a"), broken_json='{"meshName": "m", "virtualNodeName": "b", ')
    reading = read(tmp_path)
    assert _keys(reading) == ["virtualNode/a"]
    assert [Path(problem.file).name for problem in reading.problems] == ["broken.json"]
    with pytest.raises(am.SpecErrors):
        load(tmp_path)


def test_links_in_circles_end(tmp_path: Path) -> None:
    _write(tmp_path / "a", n_json=_node("n"))
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    reading = read(tmp_path)
    assert _keys(reading) == ["virtualNode/n"]
    assert _said(reading, tmp_path) == [
        ("gone.json", "cannot be read: No such file or directory"),
        ("loop.json", "cannot be read: Too many levels of symbolic links"),
    ]


def test_pipes_in_folders_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, n_json=_node("n"))
    os.mkfifo(tmp_path / "pipe.json")
    assert _keys(read(tmp_path)) == ["virtualNode/n"]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, n_json=_node("n"))
    _write(tmp_path / "closed", o_json=_node("o"))
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    # As the superuser, who may read everything, runs tests too.
    monkeypatch.setattr(work.os, "listdir", listdir)
    reading = read(tmp_path)
    assert _keys(reading) == ["virtualNode/n"]
    assert _said(reading, tmp_path) == [("closed", "cannot be read: Permission denied")]


def test_folders_may_be_deep(tmp_path: Path) -> None:
    depth = 1200
    for _ in range(depth):
        # From the inside out: no path gets long before it is there.
        (tmp_path / "outer").mkdir()
        if (tmp_path / "d").exists():
            (tmp_path / "d").rename(tmp_path / "outer" / "d")
        (tmp_path / "outer").rename(tmp_path / "d")
    try:
        problems = read(tmp_path).problems
    finally:
        for _ in range(depth - 1):
            # pytest's own cleaning recurses.
            (tmp_path / "d").rename(tmp_path / "outer")
            (tmp_path / "outer" / "d").rename(tmp_path / "d")
            (tmp_path / "outer").rmdir()
    assert [problem.message for problem in problems] == ["the folder holds nothing to read"]


def test_names_that_no_file_can_have() -> None:
    messages = [problem.message for problem in read("a\0b", "x" * 5000, "").problems]
    assert sorted(messages) == [
        "cannot be read: File name too long",
        "cannot be read: No such file or directory",
        "cannot be read: embedded null byte",
    ]


# --- meshes -------------------------------------------------------------------------------------------


def test_one_of_several_meshes_is_picked(tmp_path: Path) -> None:
    _write(tmp_path, a_json=_node("a", "one"), b_json=_node("b", "two"))
    assert read(tmp_path).meshes == ("one", "two")
    with pytest.raises(am.SpecErrors, match="the input holds 2 meshes: one, two") as raised:
        load(tmp_path)
    assert "--mesh" in raised.value.problems[0].hint
    assert load(tmp_path, mesh="two").proxies() == ("virtualNode/b",)
    with pytest.raises(am.SpecErrors, match=r"mesh 'three' is not in the input \(there: one, two\)"):
        load(tmp_path, mesh="three")


def test_two_resources_of_one_name(tmp_path: Path) -> None:
    _write(tmp_path, a_json="\n" + json.dumps(_node("a")), b_yaml=f"# b\n\n---\n{json.dumps(_node('a'))}")
    reading = read(tmp_path)
    (problem,) = reading.problems
    assert (problem.file, problem.line, problem.resource) == (str(tmp_path / "b.yaml"), 4, "virtualNode/a")
    assert problem.message == (f"mesh 'm' has a resource of this name already, in {tmp_path / 'a.json'}:2")
    assert _keys(reading) == ["virtualNode/a"]
    # The same name in another mesh, or of another kind, is another.
    _write(tmp_path, b_yaml=_node("a", "m2"), c_json={"meshName": "m", "virtualRouterName": "a", "spec": {}})
    assert read(tmp_path).problems == ()


@pytest.mark.parametrize("fast", [True, False])
def test_problems_of_a_translation_get_their_place(tmp_path: Path, fast: bool) -> None:
    nodes = [_node("a"), _node("b")] + ([] if fast else [{**_node("c"), "clientToken": "t"}])
    text = json.dumps(nodes, indent=1)
    _write(tmp_path, nodes_json=text)
    mesh = load(tmp_path)
    problem = mesh.locate(Problem(resource="virtualNode/b", path="$.spec.listeners[0].tls", message="x"))
    assert problem.file == str(tmp_path / "nodes.json")
    assert text.splitlines()[problem.line - 1].strip() == '"spec": {}'
    assert [n for n, line in enumerate(text.splitlines(), 1) if "spec" in line][1] == problem.line
    other = Problem(resource="virtualNode/z", message="x")
    assert mesh.locate(other) == other


def test_a_dialect_is_a_row_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_other(found: Any, context: Context) -> Any:
        assert context.parameters == {"Stage": "test"}
        for document in found:
            name = document.value["Other"]
            data = spec.VirtualNodeData(mesh_name="m", virtual_node_name=name, spec=spec.VirtualNodeSpec())
            yield Found(data, document, "$", "$", lambda rest: ".Other" if rest == ".listeners" else rest)
        yield Problem(file=found[0].file, message=f"{len(found)} at once", severity="warning")

    other = Dialect("other", lambda value: isinstance(value, dict) and "Other" in value, read_other)
    monkeypatch.setattr(work, "DIALECTS", (*DIALECTS, other))
    _write(tmp_path, a_yaml="Other: a\n---\nX: 1\nOther: b\n", n_json=_node("n"))
    reading = read(tmp_path, parameters={"Stage": "test"})
    assert sorted(_keys(reading)) == ["virtualNode/a", "virtualNode/b", "virtualNode/n"]
    assert _said(reading, tmp_path) == [("a.yaml", "2 at once")]
    assert [report.dialects for report in reading.files] == [("other",), ("api",)]
    located = reading.mesh().locate(Problem(resource="virtualNode/b", path="$.spec.listeners", message="x"))
    assert (located.line, located.column) == (4, 1)


# --- bad input, by name -------------------------------------------------------------------------------

_HTTP = {"portMapping": {"port": 80, "protocol": "http"}}
_FILE = {"file": {"certificateChain": "/c", "privateKey": "/k"}}
_CHECK = {
    "protocol": "http",
    "path": "/",
    "healthyThreshold": 2,
    "unhealthyThreshold": 2,
    "timeoutMillis": 2000,
    "intervalMillis": 5000,
}


def _listener(**parts: Any) -> str:
    listener = {**_HTTP, **parts}
    discovery = {"dns": {"hostname": "a.local"}}
    return json.dumps(_node("a", listeners=[listener], serviceDiscovery=discovery), indent=1)


def _strict(**parts: Any) -> str:
    return _listener(tls={"mode": "STRICT", "certificate": _FILE, **parts})


LISTENER = "$.spec.listeners[0]"


@pytest.mark.parametrize(
    ("text", "path", "line", "message"),
    [
        (_listener(tls={"certificate": _FILE}), f"{LISTENER}.tls.mode", 11, "missing: the field is required"),
        (
            _strict(mode="strict"),
            f"{LISTENER}.tls.mode",
            12,
            'expected one of DISABLED, PERMISSIVE, STRICT, got "strict"',
        ),
        (
            _listener(tls={"mode": "STRICT"}),
            f"{LISTENER}.tls.certificate",
            11,
            "missing: the field is required",
        ),
        (
            _strict(validation={"trust": {"acm": {"certificateAuthorityArns": ["arn:x"]}}}),
            f"{LISTENER}.tls.validation.trust.acm",
            21,
            'unknown field "acm"',
        ),
        (
            _listener(portMapping={"port": 0, "protocol": "http"}),
            f"{LISTENER}.portMapping.port",
            8,
            "0 is out of range",
        ),
        (
            _listener(portMapping={"port": 70000, "protocol": "http"}),
            f"{LISTENER}.portMapping.port",
            8,
            "70000 is out of range",
        ),
        (
            _listener(connectionPool={"http": {"maxConnections": 1}, "tcp": {"maxConnections": 1}}),
            f"{LISTENER}.connectionPool.tcp",
            15,
            "only one of `http` and `tcp` may be set",
        ),
        (
            _listener(healthCheck={**_CHECK, "port": 81}),
            f"{LISTENER}.healthCheck.port",
            18,
            "must be the listener's port, 80",
        ),
        (
            _strict(
                validation={
                    "trust": {"file": {"certificateChain": "/ca"}},
                    "subjectAlternativeNames": {"match": {"exact": []}},
                }
            ),
            f"{LISTENER}.tls.validation.subjectAlternativeNames.match.exact",
            27,
            "empty",
        ),
        (
            _strict(certificate={**_FILE, "sds": {"secretName": "s"}}),
            f"{LISTENER}.tls.certificate.sds",
            18,
            "only one of `file` and `sds` may be set",
        ),
        (_listener()[:-20], "$", 15, "is not valid JSON"),
        (
            json.dumps({"meshName": "m", "virtualNodeName": "x" * 10_000_000, "spec": {}}, indent=1),
            "$.virtualNodeName",
            3,
            "at most 255 characters, got 10000000",
        ),
    ],
)
def test_bad_input(tmp_path: Path, text: str, path: str, line: int, message: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    start = time.monotonic()
    problem, *more = read(file).problems
    assert time.monotonic() - start < 5
    assert all(another.path == path for another in more)
    assert (problem.file, problem.path, problem.line) == (str(file), path, line)
    assert message in problem.message
    assert problem.severity == "error"
    assert len(str(problem)) < 1000
    with pytest.raises(am.SpecErrors) as raised:
        load(file)
    assert raised.value.problems == (problem, *more)


def test_yaml_with_tabs(tmp_path: Path) -> None:
    _write(tmp_path, tabs_yaml="meshName: m\nvirtualNodeName: a\nspec:\n\tlisteners: []\n")
    (problem,) = read(tmp_path).problems
    assert (problem.line, problem.column) == (4, 1)
    assert problem.hint == "YAML is indented with spaces, never with tabs"


def test_all_problems_at_once(tmp_path: Path) -> None:
    _write(
        tmp_path,
        a_json=_node("a", foo=1, bar=2),
        b_json='{"meshName"',
        c_yaml="meshName: m\nvirtualNodeName: c\n",
    )
    with pytest.raises(am.SpecErrors) as raised:
        load(tmp_path, tmp_path / "gone")
    assert [(Path(p.file).name, p.path) for p in raised.value.problems] == [
        ("a.json", "$.spec.foo"),
        ("a.json", "$.spec.bar"),
        ("b.json", "$"),
        ("c.yaml", "$.spec"),
        ("gone", "$"),
    ]
