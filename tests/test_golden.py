"""Golden files: what a mesh becomes, read by people and accepted by Envoy.

Each folder of `golden/` is a case: `mesh.yaml`, and where they are needed `facts.yaml`, `options.yaml` and
`case.yaml` (which proxies). For each proxy it holds `<kind>.<name>.ads.yaml`, the snapshot as it travels, and
`<kind>.<name>.static.yaml`, the listeners and clusters of a bootstrap without a server.

After a meant change: `UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py`, then read the difference.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import appmesh_xds as am
from appmesh_xds import betterproto, render
from appmesh_xds.lint import check
from appmesh_xds.readers.facts import load_facts

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir())
RERUN = "UPDATE_GOLDEN=1 python -m pytest tests/test_golden.py"


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def _case(name: str) -> tuple[am.Mesh, tuple[str, ...], am.Options]:
    folder = GOLDEN / name
    mesh = am.load(folder / "mesh.yaml")
    if (folder / "facts.yaml").exists():
        mesh = load_facts(folder / "facts.yaml").apply(mesh)
    options = msgspec.convert(_yaml(folder / "options.yaml"), am.Options)
    return mesh, tuple(_yaml(folder / "case.yaml").get("proxies") or mesh.proxies()), options


def _expected(name: str) -> dict[str, str]:
    """File name to text, as the library writes it now."""
    mesh, proxies, options = _case(name)
    files = {}
    for proxy in proxies:
        stem = proxy.replace("/", ".")
        snapshot = am.translate(mesh, proxy, options)
        problems = "".join(f"# {problem}\n" for problem in _without_place(snapshot.problems))
        files[f"{stem}.ads.yaml"] = problems + snapshot.to_yaml()
        inline = am.translate(mesh, proxy, msgspec.structs.replace(options, delivery="inline"))
        data = {key: value for key, value in inline.to_dict().items() if value}
        files[f"{stem}.static.yaml"] = render.to_yaml(data)
    return files


def _without_place(problems: tuple[am.Problem, ...]) -> list[am.Problem]:
    return [msgspec.structs.replace(problem, file="", line=0, column=0) for problem in problems]


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    expected = _expected(name)
    folder = GOLDEN / name
    there = {path.name: path.read_text() for path in folder.glob("*.*.*.yaml")}
    if os.environ.get("UPDATE_GOLDEN"):
        for stale in there.keys() - expected.keys():
            (folder / stale).unlink()
        for file, text in expected.items():
            (folder / file).write_text(text)
        return
    assert there.keys() == expected.keys(), f"after a meant change: {RERUN}"
    for file, text in expected.items():
        difference = "".join(
            difflib.unified_diff(there[file].splitlines(True), text.splitlines(True), file, "now")
        )
        assert not difference, f"{difference}\nafter a meant change: {RERUN}"


@pytest.mark.parametrize("name", CASES)
def test_envoy_accepts(name: str) -> None:
    mesh, proxies, options = _case(name)
    found = check(mesh, options, proxies=proxies, envoy="auto")
    assert "checked by" in found.envoy
    assert "not checked" not in found.envoy
    assert [str(problem) for problem in found.problems if problem.severity == "error"] == []


@pytest.mark.parametrize("name", CASES)
def test_deliveries_differ_only_in_sources(name: str) -> None:
    """Inline and ADS say the same; only where a thing comes from differs."""
    mesh, proxies, options = _case(name)
    for proxy in proxies:
        ads = am.translate(mesh, proxy, options)
        inline = am.translate(mesh, proxy, msgspec.structs.replace(options, delivery="inline"))
        routes = {r["name"]: r for r in ads.to_dict()["routes"]}
        endpoints = {e["cluster_name"]: e for e in ads.to_dict()["endpoints"]}
        moved = [_inlined(listener, routes, endpoints) for listener in ads.to_dict()["listeners"]]
        assert moved == inline.to_dict()["listeners"]
        moved = [_inlined(cluster, routes, endpoints) for cluster in ads.to_dict()["clusters"]]
        assert moved == inline.to_dict()["clusters"]
        assert inline.routes == inline.endpoints == ()
        assert inline.secrets == ads.secrets


def _inlined(value: Any, routes: dict[str, Any], endpoints: dict[str, Any]) -> Any:
    """The ADS form of a message turned into the inline form."""
    if isinstance(value, list):
        return [_inlined(item, routes, endpoints) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if key == "rds":
            result["route_config"] = routes[item["route_config_name"]]
        elif key == "eds_cluster_config":
            result["load_assignment"] = endpoints[value["name"]]
        elif key == "type" and item == "EDS":
            result["type"] = "STATIC"
        elif key == "ignore_health_on_host_removal" or (key == "sds_config" and "ads" in item):
            continue
        else:
            result[key] = _inlined(item, routes, endpoints)
    return result


@pytest.mark.parametrize("name", CASES)
def test_the_other_runtime_says_the_same(name: str) -> None:
    mesh, proxies, options = _case(name)
    for proxy in proxies:
        snapshot = am.translate(mesh, proxy, options)
        for type_url in {
            r.type_url for kind in am.Snapshot.__struct_fields__ for r in _resources(snapshot, kind)
        }:
            for resource in snapshot.resources(type_url):
                view = betterproto.message(resource)
                assert betterproto.to_dict(view) == render.to_dict(resource.message())
                assert betterproto.resource(view) == resource


def _resources(snapshot: am.Snapshot, attribute: str) -> tuple[am.Resource, ...]:
    value = getattr(snapshot, attribute)
    return value if isinstance(value, tuple) and value and isinstance(value[0], am.Resource) else ()


@pytest.mark.parametrize("name", CASES)
def test_a_translator_says_the_same(name: str) -> None:
    mesh, proxies, options = _case(name)
    translator = am.Translator(options)
    for proxy in proxies:
        assert translator.snapshot(proxy, mesh) == am.translate(mesh, proxy, options)


def test_yaml_loads_back_to_the_same_data() -> None:
    for name in CASES:
        mesh, proxies, options = _case(name)
        for proxy in proxies:
            snapshot = am.translate(mesh, proxy, options)
            assert yaml.safe_load(snapshot.to_yaml()) == snapshot.to_dict()
