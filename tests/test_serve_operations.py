"""What `appmesh-xds serve` shows of itself while its files change under it."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from pki import Certificates
from real_envoy import Envoy, free_port
from served import PATIENCE, Served
from test_cli import run
from test_meshes import node
from test_serve import FRONT, write

from appmesh_xds import render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.cli import main
from appmesh_xds.facts import FileCertificate, Pem, PemTrust
from appmesh_xds.mesh import Mesh
from appmesh_xds.server.operations import _expiries, expiry

__all__ = ["run"]


def _answers(server: Served, event: str = "admin") -> str:
    """Where it answers."""
    deadline = time.monotonic() + PATIENCE
    while not (found := re.search(f" {event} listen=(\\S+)$", server.err_text(), re.MULTILINE)):
        assert time.monotonic() < deadline, server.err_text()
        time.sleep(0.02)
    return found[1]


def _get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _metric(address: str, name: str) -> float:
    _, text = _get(address, "/metrics")
    (value,) = re.findall(f"^appmesh_xds_{re.escape(name)} (\\S+)$", text, re.MULTILINE)
    return float(value)


def _until(reached: Callable[[], Any], server: Served) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, server.err_text()
        time.sleep(0.02)


def test_a_broken_edit_shows_and_so_does_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    write(folder / "mesh.json", node())
    arguments = ("--watch", "--admin-listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0")
    with Served(folder, *arguments, log=tmp_path / "log") as server:
        admin, probe = _answers(server), _answers(server, "probe")
        assert _get(probe, "/readyz") == (200, "ready\n")
        assert _get(probe, "/debug/proxies")[0] == 404
        assert _metric(probe, 'proxies{mesh="shop"}') == 1
        assert _metric(probe, "load_failing") == 0
        good = _metric(probe, "last_good_timestamp_seconds")
        assert abs(good - time.time()) < PATIENCE
        server.ask(FRONT)
        assert _metric(admin, 'pushes_total{type="clusters"}') == 1
        assert "name: lds_ingress" in _get(admin, "/debug/config/virtualNode/front")[1]
        assert main(["status", admin]) == 0
        assert "mesh shop: 1 proxies" in capsys.readouterr().out

        (folder / "mesh.json").write_text(
            '{"meshName": "shop", "virtualNodeName": "front", "spec": {"x": 1}}'
        )
        _until(lambda: _metric(admin, "load_failing") == 1, server)
        assert _metric(admin, 'loads_total{result="failure"}') >= 1
        assert _metric(admin, 'problems{severity="error"}') >= 1
        assert _metric(admin, "last_good_timestamp_seconds") == good
        assert _get(probe, "/readyz")[0] == 200, "what was good is served"
        assert main(["status", admin]) == 1
        assert "error: " in capsys.readouterr().out

        write(folder / "mesh.json", node(), node("back"))
        _until(lambda: _metric(admin, "load_failing") == 0, server)
        assert _metric(admin, 'proxies{mesh="shop"}') == 2
        assert _metric(admin, "last_good_timestamp_seconds") > good
        assert server.stop() == 0


def test_its_log_is_for_machines_too(tmp_path: Path) -> None:
    write(tmp_path / "mesh.json", node())
    arguments = ("--log-format", "json", "--log-level", "debug")
    with Served(tmp_path / "mesh.json", *arguments, log=tmp_path / "log") as server:
        server.ask(FRONT)
        with pytest.raises(grpc.RpcError):
            server.ask("mesh/shop/virtualNode/nobody")
        server.stop()
    lines = [json.loads(line) for line in server.err_text().splitlines() if line.startswith("{")]
    assert {"connected", "push", "refused", "stopping"} <= {line["event"] for line in lines}
    assert all("time" in line and "level" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--admin-listen", "0.0.0.0:0"), "beyond loopback"),
        (("--probe-listen", "nonsense"), "cannot listen on nonsense"),
    ],
)
def test_addresses_that_cannot_be(
    arguments: tuple[str, str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "mesh.json", node())
    others = () if arguments[0] == "--admin-listen" else ("--admin-listen", "off")
    listen = ("--listen", "127.0.0.1:0", "--drain", "0")
    assert main(["serve", str(tmp_path / "mesh.json"), *listen, *arguments, *others]) == 2
    assert text in capsys.readouterr().err


def test_when_certificates_expire(certificates: Certificates) -> None:
    chain = certificates.server.certificate.read_bytes()
    authority = certificates.authority.read_bytes()
    assert expiry(chain + authority) == min(expiry(chain), expiry(authority))
    assert expiry(certificates.expired.certificate.read_bytes()) < time.time() < expiry(chain)
    mesh = Mesh.of(name="m").replace(
        certificates={
            "arn:a": Pem(certificate_chain=chain, private_key=b""),
            "arn:b": FileCertificate(certificate_chain="/c", private_key="/k"),
            "arn:c": Pem(certificate_chain=b"no certificate", private_key=b""),
        },
        authorities={"arn:d": PemTrust(certificate_chain=authority)},
    )
    assert dict(_expiries([mesh])) == {
        ("secret", "arn:a"): expiry(chain),
        ("secret", "arn:d"): expiry(authority),
    }


def test_what_a_real_envoy_refuses_is_joined_to_the_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"certificateChain": "/nowhere/chain.pem", "privateKey": "/nowhere/key.pem"}
    refused = node()
    refused["spec"]["listeners"][0]["tls"] = {"mode": "STRICT", "certificate": {"file": files}}
    write(tmp_path / "mesh.json", refused)
    port = str(free_port())
    options = ("--interception", "none", "--ingress-port", port, "--admin-listen", "127.0.0.1:0")
    with Served(tmp_path / "mesh.json", *options, log=tmp_path / "log") as server:
        admin = _answers(server)
        made = ads_bootstrap("shop", "virtualNode/front", XdsServer(f"127.0.0.1:{server.port}"))
        with Envoy(render.to_dict(made), tmp_path):
            series = 'refusing_streams{node="mesh/shop/virtualNode/front",type="listeners"} 1.0'
            _until(lambda: series in _get(admin, "/metrics")[1], server)
            assert main(["status", admin]) == 1
            printed = capsys.readouterr().out
    assert re.search(r"^  listeners  REFUSED  .*path: /nowhere/", printed, re.MULTILINE)
    assert "from     virtualNode/front $.spec.listeners[0]" in printed
    assert re.search(r" error   nack .*\$\.spec\.listeners\[0\]", server.err_text())
