"""gRPC, websockets, health checks and IPv6 through a client's Envoy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from apps import GrpcApp, HttpApp
from clients import get, grpc_echo
from conftest import RunEnvoy
from pairs import backend, listener, mesh, node, route, router, service, targets
from proxies import static_proxy
from real_envoy import Envoy, free_port

from appmesh_xds.facts import Endpoint

Json = dict[str, Any]


class WebSocketApp:
    """Answers an upgrade with 101, and what comes then with the same bytes."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(4000)
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                )
                while data := connection.recv(100):
                    connection.sendall(data)

    def close(self) -> None:
        self.listening.close()


@dataclass(frozen=True)
class Client:
    envoy: Envoy
    port: int
    one: GrpcApp
    two: GrpcApp


@pytest.fixture(scope="module")
def client(run_envoy: RunEnvoy, http_app: HttpApp) -> Iterator[Client]:
    web = WebSocketApp()
    with GrpcApp("one") as one, GrpcApp("two") as two:
        check = {
            "protocol": "http",
            "path": "/ping",
            "healthyThreshold": 2,
            "unhealthyThreshold": 2,
            "intervalMillis": 5000,
            "timeoutMillis": 2000,
        }
        metadata = {"serviceName": "test.Echo", "methodName": "Say"}
        match = {**metadata, "metadata": [{"name": "tenant", "match": {"exact": "b"}}]}
        resources = [
            node("one", [listener(80, "grpc")]),
            node("two", [listener(80, "grpc")]),
            node("web", [listener(80)]),
            node("sick", [listener(80, healthCheck=check)]),
            router("grpc", "grpc"),
            service("grpc.local", to_router="grpc"),
            route("grpc", "tenant", priority=1, grpcRoute={"match": match, "action": targets(two=1)}),
            route("grpc", "method", grpcRoute={"match": metadata, "action": targets(one=1)}),
            route("grpc", "service", grpcRoute={"match": {"serviceName": "b.B"}, "action": targets(two=1)}),
            service("web.local", to_node="web"),
            service("sick.local", to_node="sick"),
        ]
        names = ("grpc.local", "web.local", "sick.local")
        resources.append(node("client", [listener(1)], backends=[backend(name) for name in names]))
        port = free_port()
        found = {"one": one.port, "two": two.port, "web": web.port, "sick": free_port()}
        bootstrap = static_proxy(
            mesh(resources, found),
            "virtualNode/client",
            interception="none",
            ingress_port=free_port(),
            egress_port=port,
            app_port=http_app.port,
            admin_port=free_port(),
        )
        yield Client(run_envoy(bootstrap), port, one, two)
    web.close()


@pytest.mark.parametrize(
    ("method", "metadata", "app"),
    [
        ("/test.Echo/Say", (), "one"),
        ("/test.Echo/Say", (("tenant", "b"),), "two"),
        ("/test.Echo/Say", (("tenant", "c"),), "one"),
        ("/b.B/Any", (), "two"),
    ],
)
def test_grpc_routes(client: Client, method: str, metadata: tuple[tuple[str, str], ...], app: str) -> None:
    chosen = {"one": client.one, "two": client.two}[app]
    before = chosen.count
    assert grpc_echo(client.port, b"x", method=method, authority="grpc.local", metadata=metadata)
    assert chosen.count == before + 1
    assert chosen.last.path == method


def test_grpc_without_a_route(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        grpc_echo(client.port, method="/test.Echo/Other", authority="grpc.local")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_websockets_are_let_through(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=5) as sock:
        head = ("GET / HTTP/1.1", "host: web.local", "connection: upgrade", "upgrade: websocket", "", "")
        sock.sendall("\r\n".join(head).encode())
        assert sock.recv(4000).startswith(b"HTTP/1.1 101")
        sock.sendall(b"anything at all")
        assert sock.recv(100) == b"anything at all"


def test_a_host_that_fails_its_check_is_not_used(client: Client) -> None:
    prefix = "cluster.cds_egress_pair_sick_http_80"
    client.envoy.wait_stat(f"{prefix}.health_check.failure", 1)
    assert client.envoy.stats(prefix)[f"{prefix}.membership_healthy"] == 0
    assert get(client.port, host="sick.local").status == 503


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6(run_envoy: RunEnvoy, http_app: HttpApp) -> None:
    """A listener on ::1 is reached over IPv6, by an endpoint that facts give as IPv6."""
    ingress, egress = free_port(), free_port()
    server = static_proxy(
        mesh([node("server", [listener(80)])], {}),
        "virtualNode/server",
        interception="none",
        bind="::1",
        ingress_port=ingress,
        app_port=http_app.port,
        admin_port=free_port(),
        egress_port=free_port(),
    )
    found = {"awsCloudMap": {"namespaceName": "l", "serviceName": "s", "ipPreference": "IPv6_ONLY"}}
    resources = [
        node("target", [listener(80)], serviceDiscovery=found),
        service("six.local", to_node="target"),
        node("client", [listener(1)], backends=[backend("six.local")]),
    ]
    six = (Endpoint(address="::1", port=ingress), Endpoint(address="127.0.0.1", port=1))
    caller = static_proxy(
        mesh(resources, {}).replace(endpoints={"target": six}),
        "virtualNode/client",
        interception="none",
        ingress_port=free_port(),
        egress_port=egress,
        app_port=http_app.port,
        admin_port=free_port(),
    )
    run_envoy(server)
    run_envoy(caller)
    before = http_app.count
    assert get(egress, host="six.local").status == 200
    assert http_app.count == before + 1
