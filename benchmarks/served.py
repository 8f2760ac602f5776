"""The servers that `serve` measures: ours, and the least that a grpc.aio server can do, which is `bare`, or
`settled` when its garbage collector is set as ours sets it.

One process each. Commands come as JSON lines on stdin, answers go to stdout; see `serve.Process`. The
snapshots are made beforehand (`make`), in another process: memory that a translation used and gave back would
hide what streams need.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import pickle
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

import appmesh_xds as am
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from appmesh_xds.server import wire
from appmesh_xds.server.collector import settle
from appmesh_xds.server.grpc import _OPTIONS, serve
from appmesh_xds.server.logs import EventLog
from appmesh_xds.server.messages import Ack, Response
from appmesh_xds.server.metrics import Metrics, each
from appmesh_xds.server.session import Settings
from appmesh_xds.server.source import Snapshots

from . import synthetic

#: Seconds after which a server that waits for its streams gives up.
PATIENCE = 300.0
#: What an Envoy asks for, in its order.
_TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)


def make(path: Path, nodes: int, backends: int) -> None:
    """Writes the snapshots of all nodes: as they are, and with other retries, which only routes tell."""
    translator, mesh = am.Translator(), synthetic.mesh(nodes, backends)
    now = translator.translate_all(mesh)
    translator.update(mesh.replace(*(synthetic.changed_route(i, nodes, 3) for i in range(nodes))))
    then = [translator.snapshot(one.proxy) for one in now]
    with path.open("wb") as file:
        pickle.dump((now, then), file)


class Count:
    """Pushes and ACKs, and the moment when there are enough."""

    def __init__(self) -> None:
        self.pushes = self.acks = self.bytes = 0
        self._enough = asyncio.Event()
        self._wanted = 0

    def pushed(self, size: int) -> None:
        self.pushes += 1
        self.bytes += size

    def acked(self) -> None:
        self.acks += 1
        if self.acks >= self._wanted:
            self._enough.set()

    def expect(self, acks: int) -> None:
        self._wanted = self.acks + acks
        self._enough.clear()

    async def enough(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._enough.wait()


class Bare:
    """Pushes constant bytes: a queue and a reader task for each stream, ACKs read and discarded."""

    def __init__(self, path: Path, count: Count) -> None:
        self.count = count
        self._queues: list[asyncio.Queue[bytes]] = []
        self._before = 0
        with path.open("rb") as file:
            now, _ = pickle.load(file)
        first = now[0]
        self._opening = [wire.response(url, first.version(url), "1", first.resources(url)) for url in _TYPES]

    @asynccontextmanager
    async def running(self, port: int, credentials: grpc.ServerCredentials | None) -> AsyncIterator[int]:
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        generic = grpc.method_handlers_generic_handler(service, {"StreamAggregatedResources": handler})
        server = grpc.aio.server(handlers=(generic,), options=_OPTIONS)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
        await server.start()
        yield bound
        await server.stop(0)

    async def _serve(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.append(queue)
        reader = asyncio.ensure_future(self._read(context))
        for data in self._opening:
            queue.put_nowait(data)
        try:
            while True:
                data = await queue.get()
                await context.write(data)
                self.count.pushed(len(data))
        finally:
            self._queues.remove(queue)
            reader.cancel()

    async def _read(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.read()
        while await context.read() is not grpc.aio.EOF:
            self.count.acked()

    def settled(self, streams: int) -> bool:
        return self.count.acks - self._before >= len(_TYPES) * streams

    def ready(self) -> bool:
        """Whether the streams that were there are gone."""
        self._before = self.count.acks
        return not self._queues

    def push(self, what: str) -> None:
        self.count.expect(len(self._queues))
        for queue in self._queues:
            queue.put_nowait(self._opening[-1])


class Ours:
    """The server as people run it, with its metrics and its log."""

    def __init__(self, path: Path, count: Count) -> None:
        self.count = count
        with path.open("rb") as file:
            self._now, self._then = pickle.load(file)
        self.source = Snapshots(self._now)
        self._metrics = Metrics()
        self._nodes = len(self._now)
        self._backends = 0
        self._steps = 3

    @asynccontextmanager
    async def running(self, port: int, credentials: grpc.ServerCredentials | None) -> AsyncIterator[int]:
        observe = each(self._metrics.observe, EventLog(), self._observe)
        listen, settings = f"127.0.0.1:{port}", Settings(drain=0)
        async with serve(
            self.source, listen=listen, credentials=credentials, settings=settings, observe=observe
        ) as self._server:
            yield self._server.port

    def _observe(self, node_id: str, peer: object, event: object) -> None:
        kind = type(event)
        if kind is Ack:
            self.count.acked()
        elif kind is Response:
            self.count.pushed(len(event.data))  # type: ignore[attr-defined]

    def ready(self) -> bool:
        return not self._server.sessions()

    def settled(self, streams: int) -> bool:
        """Whether every stream asked for all there is, and took what it was sent."""
        sessions = [one.machine.standing() for one in self._server.sessions() if one.machine is not None]
        if len(sessions) < streams:
            return False
        return all(len(types) == len(_TYPES) and not any(one.waits for one in types) for types in sessions)

    def push(self, what: str) -> None:
        """`prepared`: snapshots made long ago. Otherwise a change to specs, translated now."""
        if what == "prepared":
            self._now, self._then = self._then, self._now
            self.count.expect(self._nodes)
            self.source.put(*self._now)
            return
        self.mesh = self.mesh.replace(*self._changes)
        changes = self.translator.update(self.mesh)
        expected = sum(len(change.differences) for change in changes)
        assert expected, f"{what} changes nothing"
        self.count.expect(expected)
        self.source.put(*(change.snapshot for change in changes if change.snapshot is not None))

    def specs(self, backends: int) -> None:
        """Loads the specs, for changes to them."""
        self.translator, self.mesh = am.Translator(), synthetic.mesh(self._nodes, backends)
        self._backends = backends
        self.translator.translate_all(self.mesh)
        settle()

    def prepare(self, what: str) -> None:
        """Makes the next change, which is not the server's work."""
        self._steps += 1
        nodes = range(self._nodes)
        if what == "node":
            size = (self._nodes, self._backends)
            self._changes = [synthetic.changed_node(8 % self._nodes, *size, number=200 + self._steps)]
        elif what == "route":
            self._changes = [synthetic.changed_route(8 % self._nodes, self._nodes, self._steps)]
        elif what == "routes":
            self._changes = [synthetic.changed_route(i, self._nodes, self._steps) for i in nodes]


def _cpu() -> float:
    """Seconds of CPU of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident() -> float:
    """KiB in memory, after what is free was given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


async def _round(subject: Any, what: str) -> dict[str, float]:
    """A push, until the server has read the last ACK."""
    count = subject.count
    if what != "prepared":
        subject.prepare(what)
    pushes, size, used, start = count.pushes, count.bytes, _cpu(), time.perf_counter()
    subject.push(what)
    called = time.perf_counter()
    await count.enough()
    return {
        "seconds": time.perf_counter() - start,
        "translation": called - start,
        "cpu": _cpu() - used,
        "pushes": count.pushes - pushes,
        "bytes": count.bytes - size,
    }


async def _settle(subject: Any, streams: int) -> dict[str, float]:
    async with asyncio.timeout(PATIENCE):
        while not subject.settled(streams):
            await asyncio.sleep(0.05)
    return {}


async def _serve(options: argparse.Namespace) -> None:
    subject: Any = (Ours if options.kind == "ours" else Bare)(options.file, Count())
    if options.kind == "bare":
        gc.collect()
        gc.freeze()
    else:
        settle()
    credentials = None
    if options.tls:
        files = json.loads(options.tls)
        key, certificate, ca = (Path(files[name]).read_bytes() for name in ("key", "certificate", "ca"))
        credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with subject.running(options.port, credentials) as port:
        _say({"port": port, "resident": _resident()})
        while line := await reader.readline():
            command = json.loads(line)
            match command["do"]:
                case "ready":
                    while not subject.ready():
                        await asyncio.sleep(0.05)
                    _say({"resident": _resident()})
                case "settle":
                    found = await _settle(subject, command["streams"])
                    _say({**found, "resident": _resident(), "cpu": _cpu()})
                case "round":
                    _say(await _round(subject, command["what"]))
                case "specs":
                    subject.specs(command["backends"])
                    _say({})


def _say(found: dict[str, float]) -> None:
    print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("make", "bare", "settled", "ours"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--backends", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", default="")
    options = parser.parse_args()
    if options.kind == "make":
        make(options.file, options.nodes, options.backends)
    else:
        asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
