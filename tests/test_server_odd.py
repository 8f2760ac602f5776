"""Clients that do what they should not: each is bounded, and a healthy one beside it notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from real_envoy import Envoy, poll_until
from test_server_grpc import NODE, QUICK, Running, Shop, _request, _sotw, colors
from traces import snapshot

import appmesh_xds as am
from appmesh_xds import proto, render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.resource import CLUSTER, Resource
from appmesh_xds.server import grpc as shell
from appmesh_xds.server.grpc import serve
from appmesh_xds.server.messages import Connected, Ended
from appmesh_xds.server.session import Settings
from appmesh_xds.server.source import Snapshots

__all__ = ["colors"]


class Healthy:
    """A client that does as Envoy does, and what it was sent last."""

    def __init__(self, channel: Any) -> None:
        self.stream = _sotw(channel)

    async def get(self, first: bool = False) -> bytes:
        if first:
            await self.stream.write(_request(node="mesh/m/virtualNode/healthy"))
        data = await asyncio.wait_for(self.stream.read(), 20)
        response = proto.DiscoveryResponse.FromString(data)
        await self.stream.write(_request(version_info=response.version_info, response_nonce=response.nonce))
        (entry,) = response.resources
        value: bytes = entry.value
        return value


def _healthy(value: str) -> am.Snapshot:
    made = snapshot(cds=f"a{value}")
    return am.Snapshot(mesh="m", proxy="virtualNode/healthy", clusters=made.clusters)


@asynccontextmanager
async def _server(**options: Any) -> AsyncIterator[tuple[Any, Snapshots, list[Any], Healthy]]:
    """A server with a healthy client, which must be served to the end."""
    source, events = Snapshots([snapshot(cds="a1"), _healthy("1")]), list[Any]()
    options.setdefault("settings", QUICK)
    async with (
        serve(source, observe=lambda n, _, e: events.append((n, e)), **options) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        healthy = Healthy(channel)
        assert await healthy.get(first=True) == b"a1"
        yield server, source, events, healthy
        source.put(_healthy("2"))
        assert await healthy.get() == b"a2"


def test_a_client_that_never_acknowledges() -> None:
    """It is sent the newest all the same, and nothing piles up."""

    async def run() -> None:
        async with _server() as (server, source, _, _healthy_one):  # noqa: SIM117
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stream = _sotw(channel)
                await stream.write(_request(node=NODE))
                await stream.read()
                for number in range(500):
                    value = b"%d" % number
                    cluster = Resource(type_url=CLUSTER, name="a", value=value, version=str(number))
                    source.put(am.Snapshot(mesh="m", proxy="virtualNode/n", clusters=(cluster,)))
                    if number % 50 == 0:
                        await asyncio.sleep(0)
                last = b""
                while last != b"499":
                    response = proto.DiscoveryResponse.FromString(await asyncio.wait_for(stream.read(), 20))
                    last = response.resources[0].value

    asyncio.run(run())


def test_a_client_that_reconnects_in_a_loop() -> None:
    """Every stream ends, and what is remembered of the node is one memory, however often it comes."""

    async def run() -> None:
        async with _server() as (server, _, events, _healthy_one):
            for _ in range(100):
                async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                    stream = _sotw(channel)
                    await stream.write(_request(node=NODE))
                    await stream.read()
            async with asyncio.timeout(20):
                while len(server.sessions()) > 1:
                    await asyncio.sleep(0.01)
            assert sum(isinstance(event, Connected) for _, event in events) == 101
            assert sum(isinstance(event, Ended) for _, event in events) == 100
            assert len(server._memories) <= 2

    asyncio.run(run())


def test_connections_that_say_nothing() -> None:
    async def run() -> None:
        async with _server() as (server, _, _, _healthy_one):
            with contextlib.ExitStack() as held:
                for _ in range(50):
                    held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                begun = held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                begun.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                await asyncio.sleep(0.2)
                assert len(server.sessions()) == 1

    asyncio.run(run())


class _Blackhole:
    """Stands between a client and a server, and at some point passes nothing on. Both stay connected."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open = True
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Blackhole:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.listens = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        for one, other in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass(one, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                if self.open:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


def test_a_half_open_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server asks whether the client is still there; here after half a second instead of thirty."""
    quick = {
        **dict(shell._OPTIONS),
        **dict.fromkeys(
            ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"), 500
        ),
    }
    monkeypatch.setattr(shell, "_OPTIONS", tuple(quick.items()))

    async def run() -> None:
        async with (
            _server() as (server, _, events, _healthy_one),
            _Blackhole(server.port) as between,
            grpc.aio.insecure_channel(f"127.0.0.1:{between.listens}") as channel,
        ):
            stream = _sotw(channel)
            await stream.write(_request(node=NODE))
            await stream.read()
            assert len(server.sessions()) == 2
            between.open = False
            async with asyncio.timeout(20):
                while len(server.sessions()) > 1:
                    await asyncio.sleep(0.02)
            assert [event.status for _, event in events if isinstance(event, Ended)] == ["CANCELLED"]

    asyncio.run(run())


def test_pings_of_a_healthy_envoy_do_not_end_its_stream(
    tmp_path: Path, colors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC resets clients that ping more often than it likes. Here Envoy pings every second, and what the
    server likes is scaled down as much: with gRPC's own default the stream would not last for ten seconds."""
    options, limit = dict(shell._OPTIONS), "grpc.http2.min_ping_interval_without_data_ms"
    quick = options | {limit: options[limit] // 25}
    monkeypatch.setattr(shell, "_OPTIONS", tuple(quick.items()))
    shop = Shop(*colors)
    with Running(Snapshots([shop.snapshot("blue")])) as running:
        server = XdsServer(f"127.0.0.1:{running.port}")
        bootstrap = render.to_dict(ads_bootstrap("shop", "virtualNode/front", server, shop.options))
        keepalive = _keepalive(bootstrap)
        keepalive["interval"] = "1s"
        with Envoy(bootstrap, tmp_path) as envoy:
            envoy.wait_stat("control_plane.connected_state", 1)
            pings = "cluster.static_cluster_xds.http2.keepalive_timeout"
            poll_until(lambda: envoy.stats("^server.uptime$")["server.uptime"] >= 6, lambda: "no uptime")
            assert envoy.stats(pings).get(pings, 0) == 0
        assert len(running.seen(Connected)) == 1, "Envoy had to come again"


def _keepalive(bootstrap: dict[str, Any]) -> dict[str, Any]:
    """The keepalive of the control plane's cluster."""
    (cluster,) = (c for c in bootstrap["static_resources"]["clusters"] if c["name"] == "static_cluster_xds")
    (options,) = cluster["typed_extension_protocol_options"].values()
    found: dict[str, Any] = options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]
    return found


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_that_says_nothing(tls: bool, tmp_path: Path) -> None:
    """No TLS, no HTTP/2: it is closed after a while, which is ten seconds outside of tests."""

    async def run() -> float:
        credentials = None
        if tls:
            made = issue_certificate(certificate_authority("test"), ["localhost"])
            credentials = grpc.ssl_server_credentials([(made.private_key, made.certificate_chain)])
        settings = Settings(handshake=0.5, drain=0.05)
        async with serve(Snapshots(), credentials=credentials, settings=settings) as server:
            start = asyncio.get_running_loop().time()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            async with asyncio.timeout(30):
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1000):
                        pass
            writer.close()
            return asyncio.get_running_loop().time() - start

    assert 0.4 < asyncio.run(run()) < 20
    assert Settings().handshake == 10
