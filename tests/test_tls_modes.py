"""What TLS modes do to real clients of a real Envoy, counted by Envoy's own stats.

One node holds a listener for every case, so that one Envoy serves them all. With no name of its own, a
listener counts under `listener.<address>_<port>.`, as the dashboards of App Mesh's users expect.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from apps import App, GrpcApp, H2App, HttpApp, ServerFirstApp, TcpApp
from clients import NO_ANSWER, GrpcTls, connect, get, grpc_echo, h2_get, read_exactly, tcp_echo, tls_client
from conftest import RunEnvoy
from cryptography import x509
from pki import CLIENT_NAME, CLIENT_URI, SERVER_NAME, CertificateFiles, Certificates
from proxies import static_proxy
from real_envoy import Envoy, free_port
from sds_server import SdsServer

import appmesh_xds as am
from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.envoy.tls import certificate_secret, trust_secret
from appmesh_xds.facts import Certificate, FileCertificate, FileTrust, Pem, SdsSecret

Json = dict[str, Any]

#: Certificate and trust of a listener as its spec names them.
FILE, SDS = "file", "sds"


# --- the node under test ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A listener: the TLS it asks for and where it serves."""

    protocol: str
    mode: str | None
    certificate: str = FILE
    trust: str | None = None
    names: tuple[str, ...] = ()


MODES: Final = ("STRICT", "PERMISSIVE", "DISABLED", None)
PROTOCOLS: Final = ("http", "http2", "grpc", "tcp")
#: Every listener of the node. Its App Mesh port is 8000 + its place.
LISTENERS: Final = (
    *(Case(protocol, mode) for mode in MODES for protocol in PROTOCOLS),
    Case("http", "STRICT", SDS),
    # Mutual TLS: names of both kinds, of which a client needs one; only the URI; any that the trust signed.
    Case("http", "STRICT", FILE, FILE, (CLIENT_NAME,)),
    Case("http", "STRICT", SDS, SDS, (CLIENT_NAME,)),
    Case("http", "STRICT", FILE, FILE, ("other.mesh.local", CLIENT_URI)),
    Case("http", "STRICT", FILE, FILE),
    Case("http", "STRICT", FILE, SDS),
    Case("http", "PERMISSIVE", FILE, FILE, (CLIENT_NAME,)),
    Case("tcp", "STRICT", FILE, FILE, (CLIENT_NAME,)),
)


def tls_spec(case: Case, certificates: Certificates) -> Json:
    own = certificates.server
    file = {"certificateChain": str(own.certificate), "privateKey": str(own.private_key)}
    sources: Json = {FILE: {"file": file}, SDS: {"sds": {"secretName": "server-cert"}}}
    spec: Json = {"mode": case.mode, "certificate": sources[case.certificate]}
    if case.trust is not None:
        trusts: Json = {
            FILE: {"file": {"certificateChain": str(certificates.authority)}},
            SDS: {"sds": {"secretName": "trusted-ca"}},
        }
        spec["validation"] = {"trust": trusts[case.trust]}
        if case.names:
            spec["validation"]["subjectAlternativeNames"] = {"match": {"exact": list(case.names)}}
    return spec


def listener_spec(port: int, protocol: str, tls: Json | None = None) -> Json:
    spec: Json = {"portMapping": {"port": port, "protocol": protocol}}
    return spec if tls is None else {**spec, "tls": tls}


def mesh_of(listeners: list[Json]) -> am.Mesh:
    spec = {"listeners": listeners, "serviceDiscovery": {"dns": {"hostname": SERVER_NAME}}}
    return am.loads({"meshName": "app1", "virtualNodeName": "n", "spec": spec})


@dataclass(frozen=True)
class Node:
    """A running Envoy, the port of each of its listeners, and the application behind it."""

    envoy: Envoy
    ports: Mapping[Case, int]
    apps: Mapping[str, App]

    def ssl_counts(self, case: Case, counted: Mapping[str, int]) -> contextlib.AbstractContextManager[None]:
        return self.envoy.counts(ssl_counters(self.ports[case]), counted)


def listener_stats(port: int) -> str:
    return rf"^listener\.127\.0\.0\.1_{port}\."


def ssl_counters(port: int) -> str:
    """The counters that say what became of a handshake."""
    return listener_stats(port) + r"ssl\.(handshake|connection_error|no_certificate|fail_.*)$"


def secret_files(files: CertificateFiles) -> FileCertificate:
    return FileCertificate(certificate_chain=str(files.certificate), private_key=str(files.private_key))


@pytest.fixture(scope="session")
def sds(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdsServer]:
    trust = FileTrust(certificate_chain=str(certificates.authority))
    with SdsServer(
        tmp_path_factory.mktemp("sds") / "s",
        certificate_secret("server-cert", secret_files(certificates.server)),
        trust_secret("trusted-ca", trust),
    ) as server:
        yield server


@pytest.fixture(scope="session")
def node(
    run_envoy: RunEnvoy,
    certificates: Certificates,
    sds: SdsServer,
    http_app: HttpApp,
    h2_app: H2App,
    grpc_app: GrpcApp,
    tcp_app: TcpApp,
) -> Node:
    apps: dict[str, App] = {"http": http_app, "http2": h2_app, "grpc": grpc_app, "tcp": tcp_app}
    places = list(enumerate(LISTENERS, 8000))
    ports = {case: free_port() for case in LISTENERS}
    specs = [
        listener_spec(place, case.protocol, None if case.mode is None else tls_spec(case, certificates))
        for place, case in places
    ]
    bootstrap = static_proxy(
        mesh_of(specs),
        "virtualNode/n",
        interception="none",
        ingress_ports=tuple((place, ports[case]) for place, case in places),
        app_ports=tuple((place, apps[case.protocol].port) for place, case in places),
        sds_socket=str(sds.path),
    )
    return Node(run_envoy(bootstrap), ports, apps)


# --- modes, protocols, clients ------------------------------------------------------------------------------


def ask(protocol: str, port: int, tls: ssl.SSLContext | None, trusted: Path) -> bool:
    """Whether the application behind the port answered a client of this protocol.

    Anything else than its answer or a refusal (a time-out above all) raises.
    """
    host = SERVER_NAME
    try:
        if protocol == "http":
            return get(port, host=host, tls=tls).text == "http-app"
        if protocol == "http2":
            return h2_get(port, host=host, tls=tls).text == "h2-app"
        if protocol == "tcp":
            # More bytes than a TLS alert has, which a STRICT listener answers to plaintext.
            return tcp_echo(port, b"sixteen bytes...", tls=tls, server_name=host) == b"sixteen bytes..."
        return grpc_echo(port, b"hi", tls=GrpcTls(trusted, host) if tls else None) == b"hi"
    except NO_ANSWER:
        return False
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


PLAIN, TLS = False, True
HANDSHAKE = {"ssl.handshake": 1, "ssl.no_certificate": 1}
NOT_TLS = {"ssl.connection_error": 1}
BAD_REQUEST = {"downstream_rq_4xx": 1}

#: (mode, protocol, client, answered by the application, counters that change)
#: The App Mesh user guide, "TLS": STRICT only accepts connections with TLS, PERMISSIVE with or without,
#: DISABLED only without.
MODE_TABLE: Final[tuple[tuple[str | None, str, bool, bool, dict[str, int]], ...]] = (
    ("STRICT", "http", PLAIN, False, NOT_TLS),
    ("STRICT", "http2", PLAIN, False, NOT_TLS),
    ("STRICT", "grpc", PLAIN, False, NOT_TLS),
    ("STRICT", "tcp", PLAIN, False, NOT_TLS),
    ("STRICT", "http", TLS, True, HANDSHAKE),
    ("STRICT", "http2", TLS, True, HANDSHAKE),
    ("STRICT", "grpc", TLS, True, HANDSHAKE),
    ("STRICT", "tcp", TLS, True, HANDSHAKE),
    ("PERMISSIVE", "http", PLAIN, True, {}),
    ("PERMISSIVE", "http2", PLAIN, True, {}),
    ("PERMISSIVE", "grpc", PLAIN, True, {}),
    ("PERMISSIVE", "tcp", PLAIN, True, {}),
    ("PERMISSIVE", "http", TLS, True, HANDSHAKE),
    ("PERMISSIVE", "http2", TLS, True, HANDSHAKE),
    ("PERMISSIVE", "grpc", TLS, True, HANDSHAKE),
    ("PERMISSIVE", "tcp", TLS, True, HANDSHAKE),
    ("DISABLED", "http", PLAIN, True, {}),
    ("DISABLED", "http2", PLAIN, True, {}),
    ("DISABLED", "grpc", PLAIN, True, {}),
    ("DISABLED", "tcp", PLAIN, True, {}),
    ("DISABLED", "http", TLS, False, BAD_REQUEST),
    ("DISABLED", "http2", TLS, False, BAD_REQUEST),
    ("DISABLED", "grpc", TLS, False, BAD_REQUEST),
    # Forwarded to the application as any bytes are; ours does not speak TLS.
    ("DISABLED", "tcp", TLS, False, {}),
    # A listener without `tls` is the same.
    (None, "http", PLAIN, True, {}),
    (None, "http2", PLAIN, True, {}),
    (None, "grpc", PLAIN, True, {}),
    (None, "tcp", PLAIN, True, {}),
    (None, "http", TLS, False, BAD_REQUEST),
    (None, "http2", TLS, False, BAD_REQUEST),
    (None, "grpc", TLS, False, BAD_REQUEST),
    (None, "tcp", TLS, False, {}),
)


@pytest.mark.parametrize(
    ("mode", "protocol", "client", "answered", "counted"),
    MODE_TABLE,
    ids=[f"{row[0]}-{row[1]}-{'tls' if row[2] else 'plain'}" for row in MODE_TABLE],
)
def test_mode(
    node: Node,
    certificates: Certificates,
    mode: str | None,
    protocol: str,
    client: bool,
    answered: bool,
    counted: Mapping[str, int],
) -> None:
    case = Case(protocol, mode)
    alpn = {"http": ["http/1.1"], "http2": ["h2"]}.get(protocol, ())
    tls = tls_client(certificates.authority, alpn=alpn) if client == TLS else None
    app = node.apps[protocol]
    before = app.count

    place = 8000 + LISTENERS.index(case)
    refused_requests = rf"^http\.ingress\.{protocol}\.{place}\.downstream_rq_4xx$"
    with node.envoy.counts(f"{ssl_counters(node.ports[case])}|{refused_requests}", counted):
        assert ask(protocol, node.ports[case], tls, certificates.authority) is answered

    if mode in ("DISABLED", None):
        assert node.envoy.stats(listener_stats(node.ports[case]) + "ssl") == {}
    forwarded = answered or (mode in ("DISABLED", None) and protocol == "tcp")
    assert app.count - before == (1 if forwarded else 0)


def test_envoy_warns_of_nothing(node: Node, tmp_path: Path) -> None:
    """Deprecated fields, missing limits and insecure defaults would stand in its log."""
    assert node.envoy.log_text() == ""
    bootstrap = json.loads((node.envoy.folder / "bootstrap.json").read_text(encoding="utf-8"))
    del bootstrap["overload_manager"]
    bootstrap["static_resources"]["listeners"].clear()
    with Envoy(bootstrap, tmp_path) as careless:
        assert "no configured limit to the number of allowed active downstream" in careless.log_text()


def test_the_table_has_every_case() -> None:
    assert len(MODE_TABLE) == len({row[:3] for row in MODE_TABLE}) == len(MODES) * len(PROTOCOLS) * 2


def test_tls_to_a_plaintext_listener(node: Node, certificates: Certificates) -> None:
    """The name that this error has for a client, in whose connection Envoy answers in the clear."""
    tls = tls_client(certificates.authority)
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
        get(node.ports[Case("http", "DISABLED")], host=SERVER_NAME, tls=tls)


def test_tcp_without_tls_forwards_the_client_hello(
    node: Node, certificates: Certificates, tcp_app: TcpApp
) -> None:
    with (
        pytest.raises(NO_ANSWER),
        connect(node.ports[Case("tcp", "DISABLED")], tls_client(certificates.authority), SERVER_NAME),
    ):
        pass
    assert tcp_app.last.body[:2] == b"\x16\x03", "a TLS handshake record"


def test_an_http_listener_serves_http2_too(node: Node, certificates: Certificates, http_app: HttpApp) -> None:
    """ALPN offers both, and the codec goes by what the client speaks."""
    port = node.ports[Case("http", "STRICT")]
    tls = tls_client(certificates.authority, alpn=["h2"])
    assert h2_get(port, host=SERVER_NAME, tls=tls).text == "http-app"
    assert h2_get(node.ports[Case("http", None)]).text == "http-app"


@pytest.mark.parametrize(
    ("protocol", "offered", "chosen"),
    [
        ("http", ["http/1.1", "h2"], "h2"),
        ("http", ["http/1.1"], "http/1.1"),
        ("http2", ["http/1.1", "h2"], "h2"),
        ("http2", ["http/1.1"], None),
        ("grpc", ["h2"], "h2"),
        ("tcp", ["h2"], None),
    ],
)
def test_alpn(
    node: Node, certificates: Certificates, protocol: str, offered: list[str], chosen: str | None
) -> None:
    port = node.ports[Case(protocol, "STRICT")]
    with connect(port, tls_client(certificates.authority, alpn=offered), SERVER_NAME) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(node: Node, certificates: Certificates, version: ssl.TLSVersion) -> None:
    case = Case("http", "STRICT")
    with node.ssl_counts(case, HANDSHAKE):
        tls = tls_client(certificates.authority, version=version)
        assert get(node.ports[case], host=SERVER_NAME, tls=tls).status == 200


def test_older_tls_is_refused(node: Node, certificates: Certificates) -> None:
    case = Case("http", "STRICT")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls = tls_client(certificates.authority, version=ssl.TLSVersion.TLSv1_1)
    tls.set_ciphers("ALL:@SECLEVEL=0")  # else the client would not even try
    with (
        node.ssl_counts(case, {"ssl.connection_error": 1}),
        pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"),
    ):
        get(node.ports[case], host=SERVER_NAME, tls=tls)


# --- mutual TLS ---------------------------------------------------------------------------------------------

GOOD = {"ssl.handshake": 1}

#: (certificate that the client shows, alert in a TLS 1.2 handshake or None, handshake counters that change)
MUTUAL_TABLE: Final = (
    ("client", None, GOOD),
    (None, "HANDSHAKE_FAILURE", {"ssl.fail_verify_no_cert": 1}),
    ("wrong_name", "CERTIFICATE_UNKNOWN", {"ssl.fail_verify_san": 1}),
    # Common names do not count.
    ("no_name", "CERTIFICATE_UNKNOWN", {"ssl.fail_verify_san": 1}),
    ("other_ca", "UNKNOWN_CA", {"ssl.fail_verify_error": 1}),
    ("expired", "CERTIFICATE_EXPIRED", {"ssl.fail_verify_error": 1}),
    ("server_only", "UNSUPPORTED_CERTIFICATE", {"ssl.fail_verify_error": 1}),
)


@pytest.mark.parametrize("source", [FILE, SDS])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("shown", "alert", "counted"), MUTUAL_TABLE, ids=[str(row[0]) for row in MUTUAL_TABLE]
)
def test_mutual_tls(
    node: Node,
    certificates: Certificates,
    source: str,
    version: ssl.TLSVersion,
    shown: str | None,
    alert: str | None,
    counted: Mapping[str, int],
) -> None:
    case = Case("http", "STRICT", source, source, (CLIENT_NAME,))
    own = None if shown is None else getattr(certificates, shown)
    tls = tls_client(certificates.authority, certificate=own, version=version)
    with node.ssl_counts(case, counted):
        if alert is None:
            assert get(node.ports[case], host=SERVER_NAME, tls=tls).text == "http-app"
        elif version is ssl.TLSVersion.TLSv1_2:
            with pytest.raises(ssl.SSLError, match=alert):
                get(node.ports[case], host=SERVER_NAME, tls=tls)
        else:
            # TLS 1.3 tells a client after its handshake, and it may see the end of the stream first.
            with pytest.raises(NO_ANSWER):
                get(node.ports[case], host=SERVER_NAME, tls=tls)


#: (listener, certificate that the client shows, handshake counters that change)
NAMES_TABLE: Final = (
    # One of several names is enough, here the URI.
    (Case("http", "STRICT", FILE, FILE, ("other.mesh.local", CLIENT_URI)), "client", GOOD),
    (
        Case("http", "STRICT", FILE, FILE, ("other.mesh.local", CLIENT_URI)),
        "wrong_name",
        {"ssl.fail_verify_san": 1},
    ),
    # No names: any certificate that the trust signed, and still none is not enough.
    (Case("http", "STRICT", FILE, FILE), "wrong_name", GOOD),
    (Case("http", "STRICT", FILE, FILE), "no_name", GOOD),
    (Case("http", "STRICT", FILE, FILE), "other_ca", {"ssl.fail_verify_error": 1}),
    (Case("http", "STRICT", FILE, FILE), None, {"ssl.fail_verify_no_cert": 1}),
    (Case("http", "STRICT", FILE, SDS), "wrong_name", GOOD),
    (Case("http", "STRICT", FILE, SDS), "other_ca", {"ssl.fail_verify_error": 1}),
    (Case("http", "STRICT", FILE, SDS), None, {"ssl.fail_verify_no_cert": 1}),
    # PERMISSIVE asks those who come with TLS.
    (Case("http", "PERMISSIVE", FILE, FILE, (CLIENT_NAME,)), "client", GOOD),
    (Case("http", "PERMISSIVE", FILE, FILE, (CLIENT_NAME,)), None, {"ssl.fail_verify_no_cert": 1}),
    (Case("tcp", "STRICT", FILE, FILE, (CLIENT_NAME,)), "client", GOOD),
    (Case("tcp", "STRICT", FILE, FILE, (CLIENT_NAME,)), "wrong_name", {"ssl.fail_verify_san": 1}),
)


@pytest.mark.parametrize(("case", "shown", "counted"), NAMES_TABLE)
def test_who_may_come(
    node: Node, certificates: Certificates, case: Case, shown: str | None, counted: Mapping[str, int]
) -> None:
    own = None if shown is None else getattr(certificates, shown)
    tls = tls_client(certificates.authority, certificate=own)
    with node.ssl_counts(case, counted):
        assert ask(case.protocol, node.ports[case], tls, certificates.authority) is (counted == GOOD)


def test_plaintext_passes_by_mutual_tls_of_a_permissive_listener(node: Node) -> None:
    case = Case("http", "PERMISSIVE", FILE, FILE, (CLIENT_NAME,))
    with node.ssl_counts(case, {}):
        assert get(node.ports[case]).text == "http-app"


# --- certificates from the proxy's own secret service -------------------------------------------------------


def test_a_certificate_from_sds(node: Node, certificates: Certificates, sds: SdsServer) -> None:
    case = Case("http", "STRICT", SDS)
    with node.ssl_counts(case, HANDSHAKE):
        tls = tls_client(certificates.authority)
        assert get(node.ports[case], host=SERVER_NAME, tls=tls).text == "http-app"
    assert sds.asked == {"server-cert", "trusted-ca"}
    assert sds.refused == []


def test_a_certificate_rotates_without_a_drop(run_envoy: RunEnvoy, http_app: HttpApp, tmp_path: Path) -> None:
    authority = certificate_authority("rotating")
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(authority.certificate_chain)
    old, new = (issue_certificate(authority, [SERVER_NAME]) for _ in range(2))
    tls: Json = {"mode": "STRICT", "certificate": {"sds": {"secretName": "cert"}}}
    port = free_port()

    def shown() -> bytes | None:
        with connect(port, tls_client(trusted), SERVER_NAME) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            return sock.getpeercert(binary_form=True)

    with SdsServer(tmp_path / "s", certificate_secret("cert", old)) as sds:
        bootstrap = static_proxy(
            mesh_of([listener_spec(80, "http", tls)]),
            "virtualNode/n",
            interception="none",
            ingress_port=port,
            app_port=http_app.port,
            sds_socket=str(sds.path),
        )
        with Envoy(bootstrap, tmp_path / "envoy") as envoy:
            with connect(port, tls_client(trusted), SERVER_NAME) as before:
                assert shown() == der(old)
                sds.put(certificate_secret("cert", new))
                envoy.wait_stat(
                    f"listener.127.0.0.1_{port}.server_ssl_socket_factory.ssl_context_update_by_sds", 2
                )
                assert shown() == der(new)
                before.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                assert read_exactly(before, 15) == b"HTTP/1.1 200 OK"
            assert sds.refused == []


def der(pem: Pem) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pem.certificate_chain).public_bytes(Encoding.DER)


# --- the user guide's own example ---------------------------------------------------------------------------

ARN: Final = "arn:aws:acm:us-west-2:123456789012:certificate/12345678-1234-1234-1234-123456789012"
#: App Mesh user guide, "TLS Encryption", create-virtual-node.json.
GUIDE: Final = """\
{ "meshName" : "app1", "spec" : { "listeners" : [ { "portMapping" : { "port" : 80, "protocol" : "http" },
"tls" : { "mode" : "STRICT", "certificate" : { "acm" : { "certificateArn" :
"arn:aws:acm:us-west-2:123456789012:certificate/12345678-1234-1234-1234-123456789012" } } } } ],
"serviceDiscovery" : { "dns" : { "hostname" : "serviceBv1.mesh.local" } } },
"virtualNodeName" : "serviceBv1" }
"""


def grep(pattern: str, text: str) -> list[str]:
    """`grep -e PATTERN`: the guide's patterns, their `\\(a\\|b\\)` written as Python does."""
    return [line for line in text.splitlines() if re.search(pattern, line)]


@pytest.mark.parametrize("fact", ["file", "pem", "sds"])
def test_the_guides_example_and_its_two_commands(
    fact: str, certificates: Certificates, sds: SdsServer, http_app: HttpApp, tmp_path: Path
) -> None:
    """Whatever stands behind the certificate's ARN."""
    own = certificates.server
    facts: dict[str, Certificate] = {
        "file": secret_files(own),
        "pem": Pem(certificate_chain=own.certificate.read_bytes(), private_key=own.private_key.read_bytes()),
        "sds": SdsSecret(secret_name="server-cert"),
    }
    port = free_port()
    bootstrap = static_proxy(
        am.loads(GUIDE).replace(certificates={ARN: facts[fact]}),
        "virtualNode/serviceBv1",
        keys=tmp_path,
        interception="none",
        ingress_port=port,
        app_port=http_app.port,
        sds_socket=str(sds.path),
    )
    prefix = f"listener.127.0.0.1_{port}.ssl."
    errors = r"ssl.*(fail|error)"
    with Envoy(bootstrap, tmp_path) as envoy:
        for _ in range(3):
            assert get(port, host=SERVER_NAME, tls=tls_client(certificates.authority)).text == "http-app"
        envoy.wait_stat(f"{prefix}handshake", 3)
        stats = envoy.get("/stats")
        assert grep("ssl.handshake", stats) == [f"{prefix}handshake: 3"]
        # The guide shows five lines, all of them zero. One of today's is younger than the guide.
        assert grep(errors, stats) == [
            f"{prefix}connection_error: 0",
            f"{prefix}fail_verify_cert_hash: 0",
            f"{prefix}fail_verify_error: 0",
            f"{prefix}fail_verify_no_cert: 0",
            f"{prefix}fail_verify_san: 0",
            f"{prefix}ocsp_staple_failed: 0",
        ]

        with pytest.raises(NO_ANSWER):
            get(port)
        envoy.wait_stat(f"{prefix}connection_error", 1)
        assert [line for line in grep(errors, envoy.get("/stats")) if not line.endswith(": 0")] == [
            f"{prefix}connection_error: 1"
        ]


def test_an_arn_without_a_fact_is_an_error_and_opens_no_port() -> None:
    snapshot = am.translate(am.loads(GUIDE), "virtualNode/serviceBv1", am.Options(interception="none"))
    assert [(p.path, p.message) for p in snapshot.errors] == [
        ("$.spec.listeners[0].tls.certificate.acm.certificateArn", f"no certificate is known for {ARN}")
    ]
    assert snapshot.listeners == ()


# --- several listeners on one socket ------------------------------------------------------------------------

STRICT_HTTP, PERMISSIVE_TCP, SERVER_FIRST, PERMISSIVE_SERVER_FIRST = 8080, 9090, 2525, 2526


@pytest.fixture(scope="session")
def shared(
    run_envoy: RunEnvoy,
    certificates: Certificates,
    http_app: HttpApp,
    tcp_app: TcpApp,
    server_first_app: ServerFirstApp,
) -> tuple[Envoy, int]:
    """A node behind interception: one socket for STRICT http, PERMISSIVE and DISABLED tcp.

    In place of iptables, which needs root, a client says in a PROXY header which port it wanted. Envoy's
    filter for that takes the place of `original_dst`; everything after it is as translated.
    """
    port = free_port()
    listeners = [
        listener_spec(STRICT_HTTP, "http", tls_spec(Case("http", "STRICT"), certificates)),
        listener_spec(PERMISSIVE_TCP, "tcp", tls_spec(Case("tcp", "PERMISSIVE"), certificates)),
        listener_spec(SERVER_FIRST, "tcp", tls_spec(Case("tcp", "DISABLED"), certificates)),
        listener_spec(PERMISSIVE_SERVER_FIRST, "tcp", tls_spec(Case("tcp", "PERMISSIVE"), certificates)),
    ]
    bootstrap = static_proxy(
        mesh_of(listeners),
        "virtualNode/n",
        bind="127.0.0.1",
        ingress_port=port,
        egress_port=free_port(),
        app_ports=(
            (STRICT_HTTP, http_app.port),
            (PERMISSIVE_TCP, tcp_app.port),
            (SERVER_FIRST, server_first_app.port),
            (PERMISSIVE_SERVER_FIRST, server_first_app.port),
        ),
    )
    (ingress,) = (
        listener
        for listener in bootstrap["static_resources"]["listeners"]
        if listener["address"]["socket_address"]["port_value"] == port
    )
    assert [f["name"] for f in ingress["listener_filters"]] == [
        "envoy.filters.listener.original_dst",
        "envoy.filters.listener.tls_inspector",
    ]
    kind = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
    ingress["listener_filters"][0] = {
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {"@type": f"type.googleapis.com/{kind}"},
    }
    return run_envoy(bootstrap), port


@contextlib.contextmanager
def redirected(port: int, wanted: int, tls: ssl.SSLContext | None = None) -> Iterator[socket.socket]:
    """A connection that iptables would have redirected from port `wanted`."""
    with connect(port) as raw:
        raw.sendall(f"PROXY TCP4 127.0.0.1 127.0.0.1 40000 {wanted}\r\n".encode())
        if tls is None:
            yield raw
        else:
            with tls.wrap_socket(raw, server_hostname=SERVER_NAME) as wrapped:
                yield wrapped


def test_strict_http_on_a_shared_socket(shared: tuple[Envoy, int], certificates: Certificates) -> None:
    envoy, port = shared
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with (
        envoy.counts(ssl_counters(port), HANDSHAKE),
        redirected(port, STRICT_HTTP, tls_client(certificates.authority)) as sock,
    ):
        sock.sendall(request)
        assert read_exactly(sock, 15) == b"HTTP/1.1 200 OK"
    with envoy.counts(ssl_counters(port), NOT_TLS), redirected(port, STRICT_HTTP) as sock:
        sock.sendall(request)
        with contextlib.suppress(ConnectionError):
            assert not sock.recv(100).startswith(b"HTTP")


def test_permissive_tcp_on_a_shared_socket(shared: tuple[Envoy, int], certificates: Certificates) -> None:
    envoy, port = shared
    for tls, counted in ((None, {}), (tls_client(certificates.authority), HANDSHAKE)):
        with envoy.counts(ssl_counters(port), counted), redirected(port, PERMISSIVE_TCP, tls) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"


def test_a_server_that_speaks_first_is_not_kept_waiting(shared: tuple[Envoy, int]) -> None:
    """The inspector waits for a client's first bytes: on this port it must not look."""
    envoy, port = shared
    started = time.monotonic()
    with (
        envoy.counts(listener_stats(port) + "downstream_pre_cx_timeout$", {}),
        redirected(port, SERVER_FIRST) as sock,
    ):
        assert read_exactly(sock, 11) == b"220 hello\r\n"
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize(
    ("wanted", "sent", "answer"),
    [
        (PERMISSIVE_SERVER_FIRST, b"", b"220 hello\r\n"),
        (PERMISSIVE_TCP, b"hey", b"hey"),  # shorter than the head of a TLS record
    ],
)
def test_what_permissive_tcp_costs_a_client_that_says_too_little(
    shared: tuple[Envoy, int], wanted: int, sent: bytes, answer: bytes
) -> None:
    """A second, not its connection."""
    envoy, port = shared
    timed_out = listener_stats(port) + "downstream_pre_cx_timeout$"
    started = time.monotonic()
    with envoy.counts(timed_out, {"downstream_pre_cx_timeout": 1}), redirected(port, wanted) as sock:
        sock.sendall(sent)
        assert read_exactly(sock, len(answer)) == answer
    assert 0.9 < time.monotonic() - started < 4
