"""One mesh in any dialect: what is written is read back as the same mesh, and gives Envoy the same bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import meshes

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.cli import main
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.resource import TYPE_NAMES
from appmesh_xds.writers import LOSSES, Converted, Dialect, convert
from appmesh_xds.writers.plain import body

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
BY_HAND = Path(__file__).parent / "dialects"
ROOT = Path(__file__).parent.parent


def _bodies(mesh: am.Mesh, *, empty_lists: bool) -> dict[str, Any]:
    """Specs by key. The controller takes an empty list for none."""
    found = {data.key: body(data) for data in mesh.resources()}
    return found if empty_lists else {key: _without_empty(value) for key, value in found.items()}


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item != []}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _with_facts_of(mesh: am.Mesh, other: am.Mesh) -> am.Mesh:
    return mesh.replace(
        certificates=other.certificates, authorities=other.authorities, endpoints=other.endpoints
    )


def _assert_same(one: am.Snapshot, two: am.Snapshot) -> None:
    """The same bytes; problems may stand elsewhere."""
    for kind in TYPE_NAMES:
        assert getattr(one, kind) == getattr(two, kind), kind
    assert sorted(p.message for p in one.problems) == sorted(p.message for p in two.problems)


# --- by hand ----------------------------------------------------------------------------------------------


def _facts(mesh: am.Mesh) -> am.Mesh:
    return mesh.replace(
        certificates={
            "arn:aws:acm:eu-west-1:111122223333:certificate/1": FileCertificate(
                certificate_chain="/acm/red.pem", private_key="/acm/red.key"
            )
        },
        authorities={
            arn: FileTrust(certificate_chain="/acm/ca.pem")
            for arn in (
                "arn:aws:acm:eu-west-1:111122223333:certificate/1",
                "arn:aws:acm-pca:eu-west-1:111122223333:certificate-authority/1",
            )
        },
        endpoints={"red": [Endpoint(address="10.0.0.1", attributes=(("stage", "beta"),))]},
    )


@pytest.mark.parametrize("dialect", ["cloudformation", "kubernetes"])
def test_a_mesh_written_by_hand_in_each_dialect(dialect: str) -> None:
    api = _facts(am.load(BY_HAND / "api.yaml"))
    other = _facts(am.load(BY_HAND / f"{dialect}.yaml"))
    assert api.proxies() == (
        "virtualGateway/edge",
        "virtualNode/blue",
        "virtualNode/front",
        "virtualNode/red",
    )
    for proxy in api.proxies():
        one, two = am.translate(api, proxy), am.translate(other, proxy)
        assert not one.errors
        assert one.listeners and one.clusters
        _assert_same(one, two)


# --- there and back ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(mesh=meshes(), dialect=st.sampled_from(DIALECTS), style=st.sampled_from(["yaml", "json"]))
def test_what_is_written_is_read_back(mesh: am.Mesh, dialect: Dialect, style: Any) -> None:
    converted = convert(mesh, dialect)
    if converted.problems:
        return
    again = am.loads(converted.to_text(style))
    exact = dialect != "kubernetes"
    assert _bodies(again, empty_lists=exact) == _bodies(mesh, empty_lists=exact)
    again = _with_facts_of(again, mesh)
    for proxy in mesh.proxies():
        one, two = am.translate(mesh, proxy), am.translate(again, proxy)
        _assert_same(one, two)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("source", sorted(BY_HAND.glob("*.yaml")), ids=lambda path: path.stem)
def test_from_every_dialect_to_every_other(source: Path, dialect: Dialect) -> None:
    mesh = am.load(source)
    converted = convert(mesh, dialect)
    assert converted.problems == ()
    assert _bodies(am.loads(converted.to_text()), empty_lists=True) == _bodies(mesh, empty_lists=True)


def test_the_same_text_whatever_the_hash_seed() -> None:
    code = (
        "import appmesh_xds as am; from appmesh_xds.writers import convert; import sys;"
        f"mesh = am.load({str(BY_HAND / 'api.yaml')!r});"
        "sys.stdout.write(''.join(convert(mesh, to).to_text() for to in "
        f"{DIALECTS!r}))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1 and len(texts.pop()) > 5000


# --- names ------------------------------------------------------------------------------------------------


def _service(name: str, provider: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"meshName": "m", "virtualServiceName": name, "spec": {"provider": provider} if provider else {}}


def _node(name: str, **body: Any) -> dict[str, Any]:
    return {"meshName": "m", "virtualNodeName": name, "spec": body}


def test_names_that_a_dialect_cannot_hold_are_told_apart() -> None:
    names = ["a.b", "a-b", "A_B", "ab", "ü", "é", "x" * 255, "x" * 254 + "y", "yes", "012", "no: #"]
    mesh = am.loads([_node(name) for name in names])
    template = yaml.safe_load(convert(mesh, "cloudformation").to_text())["Resources"]
    assert len(template) == len(names) + 1
    assert all(re.fullmatch("[A-Za-z0-9]{1,255}", logical) for logical in template)
    manifests = list(yaml.safe_load_all(convert(mesh, "kubernetes").to_text()))
    objects = [one["metadata"]["name"] for one in manifests if one["kind"] == "VirtualNode"]
    assert len(set(objects)) == len(names)
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in objects)
    assert {one["spec"]["awsName"] for one in manifests if one["kind"] == "VirtualNode"} == set(names)
    for dialect in DIALECTS:
        assert set(am.loads(convert(mesh, dialect).to_text()).virtual_nodes) == set(names)


def test_a_template_creates_in_order() -> None:
    """References are GetAtt, except those that may run in a circle."""
    template = yaml.safe_load(convert(am.load(BY_HAND / "api.yaml"), "cloudformation").to_text())["Resources"]
    service = template["VirtualServiceColorsShopLocal"]["Properties"]
    assert service["MeshName"] == {"Fn::GetAtt": ["MeshShop", "MeshName"]}
    assert service["Spec"]["Provider"]["VirtualRouter"]["VirtualRouterName"] == {
        "Fn::GetAtt": ["VirtualRouterColors", "VirtualRouterName"]
    }
    target = template["RouteColorsRest"]["Properties"]["Spec"]["Http2Route"]["Action"]["WeightedTargets"][0]
    assert target["VirtualNode"] == {"Fn::GetAtt": ["VirtualNodeBlue", "VirtualNodeName"]}
    backends = template["VirtualNodeFront"]["Properties"]["Spec"]["Backends"]
    assert backends[0]["VirtualService"]["VirtualServiceName"] == "colors.shop.local"


# --- what is lost -----------------------------------------------------------------------------------------

_LISTENER = {"portMapping": {"port": 80, "protocol": "http"}}
_ROUTE = {
    "httpRoute": {
        "match": {"prefix": "/"},
        "action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]},
    }
}
_GATEWAY_ROUTE = {
    "httpRoute": {
        "match": {"prefix": "/"},
        "action": {"target": {"virtualService": {"virtualServiceName": "s"}}},
    }
}
#: (dialect, kind, path) -> resources that lose just this.
LOSING: dict[tuple[str, str, str], list[dict[str, Any]]] = {
    ("kubernetes", "virtualNode", ".spec.serviceDiscovery.dns.ipPreference"): [
        _node(
            "n",
            listeners=[_LISTENER],
            serviceDiscovery={"dns": {"hostname": "h", "ipPreference": "IPv6_ONLY"}},
        )
    ],
    ("kubernetes", "virtualNode", ".spec.serviceDiscovery.awsCloudMap.ipPreference"): [
        _node(
            "n",
            listeners=[_LISTENER],
            serviceDiscovery={
                "awsCloudMap": {"namespaceName": "x", "serviceName": "y", "ipPreference": "IPv4_ONLY"}
            },
        )
    ],
    ("kubernetes", "mesh", ".spec.serviceDiscovery.ipPreference"): [
        {"meshName": "m", "spec": {"serviceDiscovery": {"ipPreference": "IPv4_PREFERRED"}}}
    ],
    ("kubernetes", "virtualRouter", ".spec.listeners"): [
        {"meshName": "m", "virtualRouterName": "r", "spec": {}}
    ],
    ("kubernetes", "virtualGateway", ".spec.listeners"): [
        {"meshName": "m", "virtualGatewayName": "g", "spec": {"listeners": []}}
    ],
    ("kubernetes", "virtualNode", ".spec.logging.accessLog.file.format.json"): [
        _node("n", logging={"accessLog": {"file": {"path": "/l", "format": {"json": []}}}})
    ],
    ("kubernetes", "virtualGateway", ".spec.logging.accessLog.file.format.json"): [
        {
            "meshName": "m",
            "virtualGatewayName": "g",
            "spec": {
                "listeners": [_LISTENER],
                "logging": {"accessLog": {"file": {"path": "/l", "format": {"json": []}}}},
            },
        }
    ],
    ("kubernetes", "route", ".virtualRouterName"): [
        _node("n", listeners=[_LISTENER], serviceDiscovery={"dns": {"hostname": "h"}}),
        {"meshName": "m", "virtualRouterName": "r", "routeName": "x", "spec": _ROUTE},
    ],
    ("kubernetes", "gatewayRoute", ".virtualGatewayName"): [
        _service("s"),
        {"meshName": "m", "virtualGatewayName": "g", "gatewayRouteName": "x", "spec": _GATEWAY_ROUTE},
    ],
    ("kubernetes", "any", ".spec...Name"): [
        _service("s", {"virtualNode": {"virtualNodeName": "gone"}}),
    ],
    ("cloudformation", "virtualRouter", ".spec.listeners"): [
        {"meshName": "m", "virtualRouterName": "r", "spec": {}}
    ],
    ("cloudformation", "mesh", ".meshOwner"): [
        {"meshName": "m", "meshOwner": "111122223333", "spec": {}},
        _node("n"),
    ],
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.dialect} {loss.kind} {loss.path}")
def test_what_is_lost_is_said(loss: Any) -> None:
    mesh = am.loads(LOSING[loss.dialect, loss.kind, loss.path])
    converted = convert(mesh, loss.dialect)
    (problem,) = converted.problems
    assert problem.severity == "error"
    assert f"is {loss.becomes} in {loss.dialect}" in problem.message
    path = ".spec.provider.virtualNode.virtualNodeName" if loss.kind == "any" else loss.path
    assert problem.path == f"${path}"
    assert convert(mesh, "api").problems == ()
    if loss.becomes != "refused":
        again = _bodies(am.loads(converted.to_text()), empty_lists=False)
        lost = _bodies(mesh, empty_lists=False)
        assert (again == lost) is (loss.becomes == "made up" or loss.path == ".meshOwner")


def test_the_page_lists_every_loss() -> None:
    page = (ROOT / "docs" / "dialects.md").read_text()
    for loss in LOSSES:
        assert f"| {loss.dialect} | {loss.kind} | `{loss.path}` | {loss.becomes} | {loss.why} |" in page


def test_another_dialect_is_refused() -> None:
    with pytest.raises(am.UsageError, match="'helm' is no dialect: api, cloudformation, kubernetes"):
        convert(am.loads(_node("n")), "helm")  # type: ignore[arg-type]


# --- the command ------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(BY_HAND / "cloudformation.yaml"), "--to", "kubernetes"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert _bodies(am.loads(out), empty_lists=True) == _bodies(
        am.load(BY_HAND / "api.yaml"), empty_lists=True
    )
    out_dir = tmp_path / "out"
    assert main(["convert", str(BY_HAND / "kubernetes.yaml"), "--to", "api", "--out", str(out_dir)]) == 0
    assert (out_dir / "shop" / "route" / "colors" / "beta.yaml").is_file()
    assert _bodies(am.load(out_dir), empty_lists=True) == _bodies(
        am.load(BY_HAND / "api.yaml"), empty_lists=True
    )


def test_nothing_is_lost_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(
        "meshName: m\nvirtualNodeName: n\nspec:\n  serviceDiscovery:\n"
        "    dns: {hostname: h, ipPreference: IPv6_ONLY}\n"
        "  listeners: [{portMapping: {port: 80, protocol: http}}]\n"
    )
    arguments = ["convert", str(path), "--to", "kubernetes"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {path}:5:24 virtualNode/n $.spec.serviceDiscovery.dns.ipPreference: ")
    assert "--lossy" in err
    assert main([*arguments, "--lossy"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: ")
    assert "ipPreference" not in out and "hostname: h" in out
    assert main([*arguments, "--lossy", "--strict"]) == 1


def test_json_is_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = am.load(BY_HAND / "api.yaml")
    for dialect in DIALECTS:
        assert main(["convert", str(BY_HAND / "api.yaml"), "--to", dialect, "--format", "json"]) == 0
        out = capsys.readouterr().out
        assert _bodies(am.loads(out), empty_lists=True) == _bodies(mesh, empty_lists=True)
    assert isinstance(convert(mesh, "api"), Converted)


def test_specs_of_every_kind_are_written() -> None:
    mesh = am.load(BY_HAND / "api.yaml")
    assert {data.kind for data in mesh.resources()} == set(spec.BY_KIND)
