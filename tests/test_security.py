"""Who may have what of `appmesh-xds serve`: rules, mutual TLS, replaced certificates, private keys."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from clients import Http1, tls_client
from cryptography import x509
from pki import SERVER_NAME, Certificates
from real_envoy import Envoy, free_port
from served import Served
from test_cli import Run, run
from test_meshes import UNKNOWN, node
from test_serve import FRONT, ports, write
from test_serve_envoys import until

import appmesh_xds as am
from appmesh_xds import render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.facts import Pem
from appmesh_xds.resource import SECRET
from appmesh_xds.server.identity import Identities
from appmesh_xds.server.session import Access, Peer

__all__ = ["run"]

ARN = "arn:aws:acm:us-west-2:123456789012:certificate/1"
SPIFFE = "spiffe://shop.local/mesh/shop/virtualNode/front"


# --- rules --------------------------------------------------------------------------------------------------


def _peer(*names: str) -> Peer:
    uris = tuple(name for name in names if "://" in name)
    return Peer("ipv4:127.0.0.1:1", uris, tuple(name for name in names if name not in uris))


@pytest.mark.parametrize(
    ("name", "proxy", "allowed"),
    [
        (SPIFFE, "virtualNode/front", True),
        (SPIFFE, "virtualNode/front2", False),
        (SPIFFE, "virtualGateway/front", False),
        ("spiffe://shop.local/mesh/other/virtualNode/front", "virtualNode/front", False),
        ("spiffe://evil.local/mesh/shop/virtualNode/front", "virtualNode/front", False),
        ("spiffe://shop.local/mesh/shop/virtualNode/a/b", "virtualNode/a/b", False),
        ("spiffe://shop.local/mesh/shop/virtualNode/.*", "virtualNode/front", False),
        ("ci.shop.local", "virtualNode/a/b", True),
        ("ci.shop.local", "virtualGateway/edge", True),
        ("ci.shop.local", "virtualNode/front", False),
        ("other.shop.local", "virtualNode/a/b", False),
        ("spiffe://old/front", "virtualNode/front", True),
        ("stranger", "virtualNode/front", False),
    ],
)
def test_rules(name: str, proxy: str, allowed: bool) -> None:
    table = {
        "ci.shop.local": ("virtualNode/a/b", "mesh/shop/virtualGateway/edge"),
        "other.shop.local": ("mesh/other/virtualNode/a/b",),
        "spiffe://old/front": ("virtualNode/front",),
    }
    rules = Identities(trust_domain="shop.local", table=table)
    access = rules.access(_peer("x", name), am.Snapshot(mesh="shop", proxy=proxy))
    assert access is (Access.FULL if allowed else Access.NONE)


def test_a_dns_name_is_no_uri() -> None:
    """A certificate may hold any text as a DNS name; as one, it is not the URI of a rule."""
    rules = Identities(trust_domain="shop.local", table={"spiffe://old/front": ("virtualNode/front",)})
    snapshot = am.Snapshot(mesh="shop", proxy="virtualNode/front")
    for name in (SPIFFE, "spiffe://old/front"):
        assert rules.access(Peer("", (), (name,)), snapshot) is Access.NONE
    assert rules.access(Peer("", (), ()), snapshot) is Access.NONE


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--listen 0.0.0.0:0", "0.0.0.0:0 is beyond loopback: it needs TLS"),
        ("--listen 0.0.0.0:0 {tls}", "0.0.0.0:0 is beyond loopback: it needs --client-ca"),
        ("--listen 0.0.0.0:0 {tls} --no-client-auth --insecure-serve-keys", "is beyond loopback"),
        ("--client-ca {ca}", "--client-ca needs --tls-certificate and --tls-key"),
        ("--no-client-auth", "--no-client-auth needs --tls-certificate and --tls-key"),
        ("--tls-certificate x", "--tls-certificate and --tls-key go together"),
        ("{tls} --client-ca {ca}", "--client-ca needs --trust-domain or --identities"),
        ("{tls} --client-ca {ca} --no-client-auth", "--no-client-auth does not go with --client-ca"),
        ("{tls} --trust-domain a.b", "--trust-domain and --identities need --client-ca"),
        ("{tls} --client-ca {ca} --trust-domain a/b", "--trust-domain a/b: "),
        ("{tls} --client-ca {ca} --identities {rules}", "'front' is no proxy"),
        ("{tls} --client-ca {ca} --identities nowhere", "--identities nowhere: cannot be read"),
        ("--tls-certificate {cert} --tls-key {ca}", "holds no private key in PEM"),
        ("--tls-certificate {cert} --tls-key {other}", "is not the key of"),
        ("--tls-certificate {rules} --tls-key {key}", "holds no certificate in PEM"),
        ("--tls-certificate nowhere --tls-key {key}", "nowhere: cannot be read"),
    ],
)
def test_what_does_not_go_together(run: Run, certificates: Certificates, arguments: str, text: str) -> None:
    pair = certificates.server
    named = {
        "ca": certificates.authority,
        "cert": pair.certificate,
        "key": pair.private_key,
        "other": certificates.client.private_key,
        "tls": f"--tls-certificate {pair.certificate} --tls-key {pair.private_key}",
        "rules": run.file("rules.yaml", "a.local: [front]\n"),
    }
    done = run("serve", run.mesh(node()), *arguments.format(**named).split())
    assert (done.status, done.out) == (2, "")
    assert text in done.err and "PRIVATE" not in done.err


# --- on the wire --------------------------------------------------------------------------------------------


class Site:
    """An authority, a server's certificate and clients', a mesh whose node `front` has a PEM certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificate_authority("site")
        (folder / "ca.crt").write_bytes(self.authority.certificate_chain)
        self.put("server", self.issue(SERVER_NAME))
        self.put("front", self.issue(SERVER_NAME))
        pem = {"certificateChain": "front.crt", "privateKey": "front.key"}
        (folder / "facts.yaml").write_text(json.dumps({"certificates": {ARN: {"pem": pem}}}))
        write(folder / "mesh.json", node(tls=UNKNOWN), node("back"))

    def issue(self, *names: str) -> Pem:
        return issue_certificate(self.authority, list(names))

    def put(self, stem: str, pem: Pem, *parts: str) -> None:
        """Writes a pair as most tools do: two files, one after the other."""
        for suffix, content in (("crt", pem.certificate_chain), ("key", pem.private_key)):
            new = self.folder / f"{stem}.new"
            new.write_bytes(content)
            os.replace(new, self.folder / f"{stem}.{suffix}")

    def serve(self, *arguments: str | Path) -> Served:
        files = (self.folder / "mesh.json", "--facts", self.folder / "facts.yaml", "--watch")
        return Served(*files, *arguments, log=self.folder / "log")

    def mutual(self, *arguments: str | Path) -> Served:
        tls = ("--tls-certificate", self.folder / "server.crt", "--tls-key", self.folder / "server.key")
        return self.serve(*tls, "--client-ca", self.folder / "ca.crt", *arguments)

    def client(self, pem: Pem | None) -> grpc.ChannelCredentials:
        pair = (None, None) if pem is None else (pem.private_key, pem.certificate_chain)
        return grpc.ssl_channel_credentials(self.authority.certificate_chain, *pair)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _code(ask: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        ask()
    return refused.value.code()


def _serial(server: Served) -> int:
    """Of the certificate that the server shows."""
    text = ssl.get_server_certificate(("127.0.0.1", server.port))
    return x509.load_pem_x509_certificate(text.encode()).serial_number


def test_mutual_tls_and_rules(site: Site) -> None:
    (site.folder / "rules.yaml").write_text("ci.shop.local: [virtualNode/back]\n")
    rules = ("--trust-domain", "shop.local", "--identities", site.folder / "rules.yaml")
    with site.mutual(*rules) as server:
        server.credentials = site.client(site.issue(SPIFFE))
        assert ports(server) == {"8080"}
        assert server.ask(FRONT, SECRET, ARN)[ARN].tls_certificate.private_key.inline_bytes
        assert _code(lambda: server.ask("mesh/shop/virtualNode/back")) is grpc.StatusCode.PERMISSION_DENIED
        server.credentials = site.client(site.issue("ci.shop.local"))
        assert ports(server, "mesh/shop/virtualNode/back") == {"8080"}
        assert _code(lambda: server.ask(FRONT)) is grpc.StatusCode.PERMISSION_DENIED
        # Of another authority, and without a certificate.
        for pem in (issue_certificate(certificate_authority("other"), [SPIFFE]), None):
            server.credentials = site.client(pem)
            assert _code(lambda: server.ask(FRONT)) is grpc.StatusCode.UNAVAILABLE
    assert "keys are not served" not in server.err_text() and "PRIVATE" not in server.err_text()


def test_the_servers_own_certificate_is_replaced_while_it_runs(site: Site) -> None:
    tls = ("--tls-certificate", site.folder / "server.crt", "--tls-key", site.folder / "server.key")
    with site.serve(*tls) as server:
        first = _serial(server)
        (site.folder / "server.key").write_text("half")
        assert _serial(server) == first
        server.wait_for("certificate_not_loaded.*server.key")
        new = site.issue(SERVER_NAME)
        site.put("server", new)
        assert _serial(server) == x509.load_pem_x509_certificate(new.certificate_chain).serial_number
        server.wait_for("certificate_loaded")
        # TLS without client certificates: everything but keys.
        server.credentials = site.client(None)
        assert ports(server) == {"8080"}
    assert "virtualNode/front $: its private keys are not served" in server.err_text()


@pytest.mark.parametrize("insecure", [False, True])
def test_keys_stay_unless_told(site: Site, insecure: bool) -> None:
    with site.serve(*(["--insecure-serve-keys"] if insecure else [])) as server:
        server.ask(FRONT)
        assert ("its private keys are not served" in server.err_text()) != insecure
        if insecure:
            assert server.ask(FRONT, SECRET, ARN)[ARN].tls_certificate.private_key.inline_bytes


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_a_certificate_rotates_without_a_dropped_connection(site: Site, delta: bool) -> None:
    """An Envoy on mutual TLS, whose listener's certificate comes over SDS from files of the server."""
    options = am.Options(interception="none", ingress_port=free_port(), app_port=free_port())
    site.put("envoy", site.issue(SPIFFE))
    shape = ("--interception", "none", "--ingress-port", str(options.ingress_port))
    with site.mutual("--trust-domain", "shop.local", *shape, "--app-port", str(options.app_port)) as server:
        server.credentials = site.client(site.issue(SPIFFE))
        xds = XdsServer(
            f"127.0.0.1:{server.port}",
            ca=str(site.folder / "ca.crt"),
            certificate=str(site.folder / "envoy.crt"),
            key=str(site.folder / "envoy.key"),
            server_name=SERVER_NAME,
        )
        bootstrap = render.to_dict(ads_bootstrap("shop", "virtualNode/front", xds, options, delta=delta))
        with Envoy(bootstrap, site.folder / "envoy") as envoy:
            assert options.ingress_port is not None
            port = options.ingress_port
            first = _shown(port)
            updates = r"(lds|cds)\.update_success$"
            with Http1(port, tls_client(site.folder / "ca.crt"), SERVER_NAME) as kept:
                assert kept.request("/").status == 503  # no application runs
                before = envoy.stats(updates)
                with _visitors(port, site.folder / "ca.crt") as told:
                    for _ in range(3):
                        new = site.issue(SERVER_NAME)
                        site.put("front", new)
                        wanted = x509.load_pem_x509_certificate(new.certificate_chain).serial_number
                        until(lambda: _shown(port) == wanted, lambda: f"{first}, {server.err_text()}")  # noqa: B023
                    enough = len(told) + 20
                    until(lambda: len(told) >= enough, lambda: str(told[-3:]))
                assert set(told) == {503}
                assert kept.request("/").status == 503
                assert envoy.stats(updates) == before
            assert not any(envoy.stats(r"update_rejected$").values())
    assert "PRIVATE" not in server.err_text() and " nack " not in server.err_text()


@contextmanager
def _visitors(port: int, authority: Path) -> Iterator[list[Any]]:
    """Clients that connect without a pause. Yields what became of each, as it comes: a status or an error."""
    told: list[Any] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            try:
                with Http1(port, tls_client(authority), SERVER_NAME) as client:
                    told.append(client.request("/").status)
            except OSError as error:
                told.append(str(error))

    threads = [threading.Thread(target=visit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def _shown(port: int) -> int:
    text = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(text.encode()).serial_number
