"""The server on a wire: real Envoys follow it in both modes, and what odd clients get."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from apps import HttpApp
from clients import Http1, get
from real_envoy import Envoy, free_port, poll_until
from traces import snapshot

import appmesh_xds as am
from appmesh_xds import proto, render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.errors import Problem, UsageError
from appmesh_xds.facts import Endpoint, Pem
from appmesh_xds.resource import CLUSTER, SECRET, Resource
from appmesh_xds.server.grpc import serve
from appmesh_xds.server.messages import Connected, Ended, Nack, Refused, Response, UnknownSecrets
from appmesh_xds.server.session import Access, Settings
from appmesh_xds.server.source import Snapshots

QUICK = Settings(drain=0.05)
NODE = "mesh/m/virtualNode/n"
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"


class Running:
    """A server in a thread of its own, for tests with clients that wait."""

    def __init__(self, source: Snapshots, listen: str = "127.0.0.1:0", **options: Any) -> None:
        self.source = source
        self.events: list[tuple[str, Any]] = []
        self.listen = listen
        self.options = {"settings": QUICK, "observe": lambda n, _, e: self.events.append((n, e)), **options}
        self.port = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            async with serve(self.source, listen=self.listen, **self.options) as server:
                self.server, self.port = server, server.port
                self._started.set()
                await self._stop.wait()
        finally:
            self._started.set()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._started.wait(10) and self.port, "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Twice is once."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"

    def seen(self, kind: type[Any]) -> list[Any]:
        return [event for _, event in self.events if isinstance(event, kind)]


# --- real Envoys --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colors() -> Iterator[tuple[HttpApp, HttpApp]]:
    with HttpApp("blue") as blue, HttpApp("green") as green:
        yield blue, green


class Shop:
    """A mesh whose node `front` reaches `colors.shop.local`, which is one of two nodes."""

    def __init__(self, blue: HttpApp, green: HttpApp) -> None:
        self.ports = {"blue": blue.port, "green": green.port}
        self.options = am.Options(interception="none", ingress_port=free_port(), egress_port=free_port())

    def snapshot(self, color: str, *nodes: str) -> am.Snapshot:
        mesh = am.loads([self.front(), self.service(color), *(self.node(name) for name in (color, *nodes))])
        mesh = mesh.replace(
            endpoints={n: (Endpoint(address="127.0.0.1", port=port),) for n, port in self.ports.items()}
        )
        made = am.translate(mesh, "virtualNode/front", self.options)
        assert not made.errors, made.errors
        return made

    def front(self) -> dict[str, Any]:
        backends = [{"virtualService": {"virtualServiceName": "colors.shop.local"}}]
        return self.node("front", backends=backends)

    def node(self, name: str, **more: Any) -> dict[str, Any]:
        discovery = {"awsCloudMap": {"namespaceName": "shop", "serviceName": name}}
        listeners = [{"portMapping": {"port": 8080, "protocol": "http"}}]
        spec = {"listeners": listeners, "serviceDiscovery": discovery, **more}
        return {"meshName": "shop", "virtualNodeName": name, "spec": spec}

    def service(self, color: str) -> dict[str, Any]:
        spec = {"provider": {"virtualNode": {"virtualNodeName": color}}}
        return {"meshName": "shop", "virtualServiceName": "colors.shop.local", "spec": spec}

    def envoy(self, port: int, folder: Path, delta: bool) -> Envoy:
        server = XdsServer(f"127.0.0.1:{port}")
        made = ads_bootstrap("shop", "virtualNode/front", server, self.options, delta=delta)
        return Envoy(render.to_dict(made), folder)

    def color(self) -> str:
        return get(self.options.egress_port, host="colors.shop.local").text


@contextmanager
def customers(shop: Shop, count: int = 3) -> Iterator[list[str]]:
    """Clients that ask without a pause. Yields what they were told, status and text, as it comes."""
    told: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with Http1(shop.options.egress_port) as client:
            while not stop.is_set():
                reply = client.request("/", host="colors.shop.local")
                told.append(f"{reply.status} {reply.text}")

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def _clusters(envoy: Envoy) -> set[str]:
    names = {line.partition("::")[0] for line in envoy.get("/clusters").splitlines()}
    return {name.split("_")[3] for name in names if name.startswith("cds_egress_shop")} & {"blue", "green"}


@pytest.mark.parametrize("delta", [False, True])
def test_envoy_follows_a_changing_mesh_without_a_failed_request(
    tmp_path: Path, colors: tuple[HttpApp, HttpApp], delta: bool
) -> None:
    shop = Shop(*colors)
    with (
        Running(Snapshots([shop.snapshot("blue")])) as server,
        shop.envoy(server.port, tmp_path, delta) as envoy,
    ):
        assert shop.color() == "blue"
        with customers(shop) as told:
            for color in ("green", "blue") * 5:
                server.source.put(shop.snapshot(color))
                poll_until(lambda c=color: told and told[-1] == f"200 {c}", lambda: str(told[-3:]))
                poll_until(lambda c=color: _clusters(envoy) == {c}, lambda: str(_clusters(envoy)))
            poll_until(lambda: len(told) > 300, lambda: f"{len(told)} requests")
        assert set(told) == {"200 blue", "200 green"}
        assert server.seen(Nack) == [] and server.seen(Refused) == []
        assert envoy.log_text() == ""


@pytest.mark.parametrize("delta", [False, True])
def test_envoy_lives_through_a_restart(tmp_path: Path, colors: tuple[HttpApp, HttpApp], delta: bool) -> None:
    shop = Shop(*colors)
    rejected = r"\.update_(success|rejected)$"
    source = Snapshots([shop.snapshot("blue")])
    with (
        Running(source) as server,
        shop.envoy(server.port, tmp_path, delta) as envoy,
        customers(shop) as told,
    ):
        before = envoy.stats(rejected)
        server.stop()
        envoy.wait_stat("control_plane.connected_state", 0)
        with Running(source, listen=f"127.0.0.1:{server.port}") as again:
            envoy.wait_stat("control_plane.connected_state", 1)
            poll_until(lambda: again.events, lambda: "nobody came back")
            source.put(shop.snapshot("green"))
            poll_until(lambda: told[-1] == "200 green", lambda: str(told[-3:]))
            after = envoy.stats(rejected)
        assert set(told) == {"200 blue", "200 green"}
        listeners = "listener_manager.lds.update_success"
        assert after[listeners] == before[listeners], "what had not changed was sent again"
        assert not any(v for name, v in after.items() if name.endswith("rejected"))


# --- odd clients --------------------------------------------------------------------------------------------


Stream = grpc.aio.StreamStreamCall[bytes, bytes]


def _talk(
    source: Snapshots, client: Callable[[Any, Any], Awaitable[None]], **options: Any
) -> list[tuple[str, Any]]:
    """Runs a client against a server; returns the server's events."""
    events: list[tuple[str, Any]] = []

    async def both() -> None:
        options.setdefault("settings", QUICK)
        async with (
            serve(source, observe=lambda n, _, e: events.append((n, e)), **options) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            await asyncio.wait_for(client(channel, server), 20)

    asyncio.run(both())
    return events


def _sotw(channel: Any) -> Any:
    return channel.stream_stream(_ADS + "StreamAggregatedResources")()


def _request(**fields: Any) -> bytes:
    node = fields.pop("node", None)
    message = proto.DiscoveryRequest(**{"type_url": CLUSTER, **fields})
    if node is not None:
        message.node.id = node
    return message.SerializeToString()


def _ended(events: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(event.status, event.text) for _, event in events if isinstance(event, Ended)]


async def _ends(stream: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.read()
    return ended.value.code(), str(ended.value.details())


@pytest.mark.parametrize(
    ("first", "code", "text"),
    [
        (_request(node="mesh/m/virtualNode/x\n"), "NOT_FOUND", r"mesh/m/virtualNode/x\n is not in the mesh"),
        (_request(), "INVALID_ARGUMENT", "the first message names no node"),
        (b"\xff", "INVALID_ARGUMENT", "not a DiscoveryRequest"),
        (_request(node=NODE, resource_names=map(str, range(6000))), "RESOURCE_EXHAUSTED", "6000 names of"),
        (_request(node="mesh/m/virtualNode/bad"), "UNAVAILABLE", "has a configuration with errors"),
    ],
    ids=["no such node", "no node", "no message", "too many names", "only errors"],
)
def test_clients_that_are_turned_away(first: bytes, code: str, text: str) -> None:
    bad = am.Snapshot(mesh="m", proxy="virtualNode/bad", problems=(Problem(message="no"),))

    async def client(channel: Any, _: Any) -> None:
        stream = _sotw(channel)
        await stream.write(first)
        ended, said = await _ends(stream)
        assert (ended.name, text in said) == (code, True), said

    ((status, why),) = _ended(_talk(Snapshots([snapshot(cds="a1"), bad]), client))
    assert (status, text in why) == (code, True)


@pytest.mark.parametrize(
    "node",
    [
        NODE,
        "mesh/m@111122223333/virtualNode/n",
        "arn:aws:appmesh:us-west-2:111122223333:mesh/m/virtualNode/n",
        "arn:aws-cn:appmesh:cn-north-1:111122223333:mesh/m@444455556666/virtualNode/n",
    ],
)
def test_the_forms_of_a_node_id(node: str) -> None:
    async def client(channel: Any, _: Any) -> None:
        stream = _sotw(channel)
        await stream.write(_request(node=node))
        response = proto.DiscoveryResponse.FromString(await stream.read())
        assert [entry.value for entry in response.resources] == [b"a1"]
        await stream.done_writing()
        await _ends(stream)

    events = _talk(Snapshots([snapshot(cds="a1")]), client)
    assert [type(event) for _, event in events] == [Connected, Response, Ended]
    assert _ended(events) == [("CANCELLED", "the client went away")]


def test_a_client_that_says_nothing() -> None:
    async def client(channel: Any, _: Any) -> None:
        code, text = await _ends(_sotw(channel))
        assert (code, text) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no message came")

    events = _talk(Snapshots(), client, settings=Settings(first_message=0.05, drain=0.05))
    assert _ended(events) == [("DEADLINE_EXCEEDED", "no message came")]


def test_a_client_that_spoke_may_be_silent() -> None:
    async def client(channel: Any, server: Any) -> None:
        stream = _sotw(channel)
        await stream.write(_request(node=NODE))
        await stream.read()
        await asyncio.sleep(0.3)
        server.source.put(snapshot(cds="a2"))
        response = proto.DiscoveryResponse.FromString(await stream.read())
        assert [entry.value for entry in response.resources] == [b"a2"]

    _talk(Snapshots([snapshot(cds="a1")]), client, settings=Settings(first_message=0.1, drain=0.05))


def test_too_many_streams() -> None:
    async def client(channel: Any, _: Any) -> None:
        first = _sotw(channel)
        await first.write(_request(node=NODE))
        await first.read()
        assert (await _ends(_sotw(channel))) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")

    events = _talk(Snapshots([snapshot(cds="a1")]), client, settings=Settings(streams=1, drain=0.05))
    assert ("RESOURCE_EXHAUSTED", "too many streams") in _ended(events)


def test_too_many_streams_of_a_node() -> None:
    async def client(channel: Any, _: Any) -> None:
        first, second = _sotw(channel), _sotw(channel)
        await first.write(_request(node=NODE))
        await first.read()
        await second.write(_request(node=NODE))
        code, text = await _ends(second)
        assert (code.name, text) == ("RESOURCE_EXHAUSTED", f"too many streams of {NODE}")
        first.cancel()
        for _ in range(200):
            third = _sotw(channel)
            await third.write(_request(node=NODE))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await third.read()
                return
        raise AssertionError("an ended stream still counts")

    _talk(Snapshots([snapshot(cds="a1")]), client, settings=Settings(streams_per_node=1, drain=0.05))


def test_a_change_reaches_every_stream_it_concerns_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """More streams than are looked at in one go; an owner that a mesh gets is no other node."""
    monkeypatch.setattr("appmesh_xds.server.grpc._AT_ONCE", 32)
    nodes = [f"virtualNode/n{number}" for number in range(3)]

    def made(proxy: str, value: str, owner: str | None = None) -> am.Snapshot:
        cluster = Resource(type_url=CLUSTER, name="a", value=value.encode(), version=value)
        return am.Snapshot(mesh="m", mesh_owner=owner, proxy=proxy, clusters=(cluster,))

    async def client(channel: Any, server: Any) -> None:
        async def value(stream: Any) -> bytes:
            response = proto.DiscoveryResponse.FromString(await stream.read())
            return bytes(response.resources[0].value)

        streams = {proxy: [_sotw(channel) for _ in range(50)] for proxy in nodes}
        for proxy, some in streams.items():
            for stream in some:
                await stream.write(_request(node=f"mesh/m/{proxy}"))
                assert await value(stream) == b"1"
        changed = nodes[:2]
        server.source.put(*(made(proxy, "2") for proxy in changed))
        for proxy in changed:
            assert {await value(stream) for stream in streams[proxy]} == {b"2"}
        server.source.remove(*(f"mesh/m/{proxy}" for proxy in nodes))
        await asyncio.sleep(0.05)
        assert all(session.frozen for session in server.sessions())
        server.source.put(*(made(proxy, "3", "111122223333") for proxy in nodes))
        for proxy in nodes:
            server.source.put(made(proxy, "4"))
            last = [await value(stream) for stream in streams[proxy]]
            while b"4" not in last:
                last = [await value(stream) for stream in streams[proxy]]
            assert set(last) <= {b"3", b"4"}

    _talk(Snapshots([made(proxy, "1") for proxy in nodes]), client)


def test_a_client_that_never_reads_gets_the_newest() -> None:
    """What lies between is never made: only what the transport holds is old."""
    big = "x" * 100_000

    async def client(channel: Any, server: Any) -> None:
        stream = _sotw(channel)
        await stream.write(_request(node=NODE))
        for number in range(200):
            value = f"{number:04}{big}".encode()
            cluster = Resource(type_url=CLUSTER, name="a", value=value, version=str(number))
            server.source.put(am.Snapshot(mesh="m", proxy="virtualNode/n", clusters=(cluster,)))
            await asyncio.sleep(0.002)
        numbers = []
        while not numbers or numbers[-1] != 199:
            response = proto.DiscoveryResponse.FromString(await stream.read())
            # The first may be from before the changes.
            numbers += [int(entry.value[:4]) for entry in response.resources if entry.value != b"a1"]
        assert len(numbers) < 150, "it was sent what was out of date long ago"

    _talk(Snapshots([snapshot(cds="a1")]), client)


def test_a_node_that_leaves_keeps_its_stream() -> None:
    async def client(channel: Any, server: Any) -> None:
        stream = _sotw(channel)
        await stream.write(_request(node=NODE))
        await stream.read()
        server.source.remove(NODE)
        await asyncio.sleep(0.05)
        server.source.put(snapshot(cds="a2"))
        response = proto.DiscoveryResponse.FromString(await stream.read())
        assert [entry.value for entry in response.resources] == [b"a2"]

    _talk(Snapshots([snapshot(cds="a1")]), client)


def test_what_a_stream_left_is_kept_as_long_as_its_node_is_there() -> None:
    """Nodes come and go, for years."""

    async def client(channel: Any, server: Any) -> None:
        async def visit() -> Any:
            stream = _sotw(channel)
            await stream.write(_request(node=NODE))
            await stream.read()
            return stream

        async def leave(stream: Any) -> None:
            stream.cancel()
            while server.sessions():
                await asyncio.sleep(0.01)

        await leave(await visit())
        assert list(server._memories) == [NODE]
        server.source.remove(NODE)
        await asyncio.sleep(0.05)
        assert not server._memories
        server.source.put(snapshot(cds="a1"))
        stream = await visit()
        server.source.remove(NODE)
        await asyncio.sleep(0.05)
        await leave(stream)
        assert not server._memories

    _talk(Snapshots([snapshot(cds="a1")]), client)


def test_a_fault_of_the_source_ends_no_other_stream(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Snapshots):
        broken = False

        def snapshot(self, node_id: str) -> am.Snapshot | None:
            if self.broken and node_id.endswith("/n0"):
                raise RuntimeError("a fault of the source")
            return super().snapshot(node_id)

    def made(number: int, value: str) -> am.Snapshot:
        cluster = Resource(type_url=CLUSTER, name="a", value=value.encode(), version=value)
        return am.Snapshot(mesh="m", proxy=f"virtualNode/n{number}", clusters=(cluster,))

    async def client(channel: Any, server: Any) -> None:
        streams = [_sotw(channel) for _ in range(3)]
        for number, stream in enumerate(streams):
            await stream.write(_request(node=f"mesh/m/virtualNode/n{number}"))
            await stream.read()
        server.source.broken = True
        server.source.put(*(made(number, "2") for number in range(3)))
        for stream in streams[1:]:
            response = proto.DiscoveryResponse.FromString(await stream.read())
            assert response.resources[0].value == b"2"
        code, _ = await _ends(streams[0])
        assert code is grpc.StatusCode.UNKNOWN
        server.source.broken = False

    _talk(Faulty([made(number, "1") for number in range(3)]), client)
    assert "a fault of the source" in caplog.text


def test_errors_are_never_sent() -> None:
    source = Snapshots([snapshot(cds="a1")])
    source.put(am.Snapshot(mesh="m", proxy="virtualNode/n", problems=(Problem(message="no"),)))
    held = source.snapshot(NODE)
    assert held is not None and held.clusters == snapshot(cds="a1").clusters


@pytest.mark.parametrize(("access", "given"), [(Access.WITHOUT_KEYS, ["ca"]), (Access.FULL, ["ca", "key"])])
def test_private_keys_go_only_where_they_may(access: Access, given: list[str]) -> None:
    pem = Pem(certificate_chain=b"certificate", private_key=b"-----BEGIN PRIVATE KEY-----")
    key, ca = proto.Secret(name="key"), proto.Secret(name="ca")
    key.tls_certificate.certificate_chain.inline_bytes = pem.certificate_chain
    key.tls_certificate.private_key.inline_bytes = pem.private_key
    ca.validation_context.trusted_ca.inline_bytes = pem.certificate_chain
    secrets = am.Snapshot(mesh="m", proxy="virtualNode/n", secrets=(Resource.of(ca), Resource.of(key)))

    async def client(channel: Any, _: Any) -> None:
        stream = _sotw(channel)
        await stream.write(_request(node=NODE, type_url=SECRET, resource_names=["key", "ca"]))
        response = proto.DiscoveryResponse.FromString(await stream.read())
        assert [proto.Secret.FromString(r.value).name for r in response.resources] == given
        assert (b"PRIVATE KEY" in response.SerializeToString()) == ("key" in given)

    events = _talk(Snapshots([secrets]), client, access=lambda *_: access)
    missing = [event.names for _, event in events if isinstance(event, UnknownSecrets)]
    assert missing == ([] if access is Access.FULL else [("key",)])


def test_a_client_that_may_not() -> None:
    async def client(channel: Any, _: Any) -> None:
        stream = _sotw(channel)
        await stream.write(_request(node=NODE))
        assert (await _ends(stream))[0] is grpc.StatusCode.PERMISSION_DENIED

    _talk(Snapshots([snapshot(cds="a1")]), client, access=lambda *_: Access.NONE)


def test_health_and_the_end() -> None:
    async def client(channel: Any, server: Any) -> None:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"") == b"\x08\x01"
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await watch.read() == b"\x08\x01"
        stream = _sotw(channel)
        await stream.write(_request(node=NODE))
        await stream.read()
        ending = asyncio.ensure_future(server.drain())
        assert await watch.read() == b"\x08\x02"
        assert await _ends(stream) == (grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        await ending

    _talk(Snapshots([snapshot(cds="a1")]), client)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "example.org:1"])
def test_beyond_loopback_it_needs_tls(listen: str) -> None:
    async def start() -> None:
        async with serve(Snapshots(), listen=listen):
            raise AssertionError("it serves")

    with pytest.raises(UsageError, match="beyond loopback: it needs TLS"):
        asyncio.run(start())


def test_a_port_in_use() -> None:
    async def twice() -> None:
        async with (
            serve(Snapshots(), settings=QUICK) as server,
            serve(Snapshots(), listen=f"127.0.0.1:{server.port}", settings=QUICK),
        ):
            raise AssertionError("two servers on one port")

    with pytest.raises(UsageError, match="cannot listen on 127"):
        asyncio.run(twice())


def test_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def both() -> None:
        async with (
            serve(Snapshots([snapshot(cds="a1")]), settings=QUICK) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stream = _sotw(channel)
            await stream.write(_request(node=NODE))
            response = proto.DiscoveryResponse.FromString(await stream.read())
            refusal = proto.DiscoveryRequest(type_url=CLUSTER, response_nonce=response.nonce)
            refusal.error_detail.message = "a: bad -----BEGIN PRIVATE KEY-----\\nSECRET"
            await stream.write(refusal.SerializeToString())
            while len(caplog.messages) < 2:
                await asyncio.sleep(0.01)

    with caplog.at_level(logging.INFO, "appmesh_xds"):
        asyncio.run(both())
    connected, refused = caplog.messages[:2]
    assert connected.startswith(f"connected node={NODE} peer=ipv4:127.0.0.1:")
    version = snapshot(cds="a1").version(CLUSTER)
    start = f"nack node={NODE} type=clusters resources=a "
    assert refused == f'{start}text="a: bad [redacted]" version={version}'
