"""Aggregated discovery over gRPC: a thin shell around the state machines of `protocol`.

    async with serve(source, listen="127.0.0.1:18000") as server:
        await server.wait_closed()

For each stream a task reads, and another writes while there is something to write. It asks the state machine
for the next response only when the transport took the last one: nothing is queued, and what goes out is
always the newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

import grpc
import grpc.aio

from ..errors import UsageError
from ..snapshot import Snapshot
from .address import is_local, unix_path
from .health import Health
from .listeners import Listener, UnixSocket
from .logs import EventLog
from .messages import Ended, Memory
from .protocol import Delta, Sotw
from .session import Access, Observer, Peer, Session, Settings, no_keys, peer_of
from .source import SnapshotSource, without_owner

_SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
#: Attached to every connection. With gRPC's own defaults, which allow a ping in five minutes, healthy Envoys
#: that ping every 30 seconds are reset about every two minutes.
_OPTIONS: Final = (
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # This is what counts: without it a client that is gone is waited for a minute, whatever stands above.
    ("grpc.http2.ping_timeout_ms", 10_000),
    # A second server on the same port shall fail, not take half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_connection_age_grace_ms", 5_000),
    # Of streams that come at once, as after a restart, gRPC cancels some when more than a thousand wait to be
    # accepted. All of a fleet shall come through; how many there may be is counted below.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)


#: How many streams are given a new snapshot before others have their turn.
_AT_ONCE: Final = 512


class Server:
    """A running server; see `serve`."""

    def __init__(self, source: SnapshotSource, settings: Settings, observe: Observer) -> None:
        #: Where it listens, with the ports that it was given.
        self.addresses: tuple[str, ...] = ()
        #: The first port of these; 0 when all are unix sockets.
        self.port = 0
        self.settings = settings
        self.source = source
        self.observe = observe
        self._memories: dict[str, Memory] = {}
        self._streams: dict[Session, None] = {}
        #: Admitted streams by their node's id without the mesh's owner, whom a change may add or take away.
        self._by_node: dict[str, dict[Session, None]] = {}
        #: Streams that have not been given the newest snapshot yet.
        self._stale: dict[Session, None] = {}
        #: Reads and writes that are about to begin.
        self._transfers: list[Callable[[], None]] = []
        self._health = Health()
        self._draining = False
        self._closed = asyncio.Event()
        #: One for each address: gRPC does not say which of its own a stream came in by.
        self._grpc: list[grpc.aio.Server] = []
        self._sockets: list[UnixSocket] = []

    def _handler(self, listener: Listener) -> grpc.GenericRpcHandler:
        def method(kind: type[Sotw] | type[Delta]) -> grpc.RpcMethodHandler[bytes, bytes]:
            async def serve_stream(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
                await self._serve(kind, context, listener)

            return grpc.stream_stream_rpc_method_handler(serve_stream)

        methods = {"StreamAggregatedResources": method(Sotw), "DeltaAggregatedResources": method(Delta)}
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    async def start(self, listeners: Iterable[Listener]) -> None:
        """Takes streams at all of these, or raises `UsageError` and at none."""
        try:
            for listener in listeners:
                await self._listen(listener)
            for socket in self._sockets:
                socket.publish()
        except UsageError:
            await self._end(0)
            raise

    async def _listen(self, listener: Listener) -> None:
        path, at = unix_path(listener.address), listener.address
        if path is not None:
            self._sockets.append(UnixSocket(path, listener.mode, listener.group))
            at = self._sockets[-1].address
        server = grpc.aio.server(
            handlers=(self._handler(listener), self._health.handler()),
            options=(
                *_OPTIONS,
                ("grpc.max_receive_message_length", self.settings.request_bytes),
                ("grpc.server_handshake_timeout_ms", int(self.settings.handshake * 1000)),
                # gRPC adds or takes away up to a tenth by chance.
                ("grpc.max_connection_age_ms", int(self.settings.connection_age * 1000)),
            ),
        )
        try:
            if listener.credentials is None:
                port = server.add_insecure_port(at)
            else:
                port = server.add_secure_port(at, listener.credentials)
        except RuntimeError as error:
            raise UsageError(f"cannot listen on {listener.address}: {error}") from None
        await server.start()
        self._grpc.append(server)
        if path is None:
            at = f"{listener.address.rpartition(':')[0]}:{port}"
            self.port = self.port or port
        self.addresses += (at if path is None else f"unix:{path}",)

    async def _serve(
        self,
        kind: type[Sotw] | type[Delta],
        context: grpc.aio.ServicerContext[bytes, bytes],
        listener: Listener,
    ) -> None:
        if self._draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        peer = peer_of(context, listener.address)
        if len(self._streams) >= self.settings.streams:
            code, text = grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams"
            self.observe("a client", peer, Ended(status=code.name, text=text))
            await context.abort(code, text)
        stream = Session(self, kind, context, peer, listener.access)
        self._streams[stream] = None
        try:
            await stream.run()
        finally:
            del self._streams[stream]
            self._stale.pop(stream, None)
            self._forget(stream)
        try:
            await context.abort(*stream.end)
        except grpc.aio.AbortError:
            raise
        except Exception:  # grpc.aio has no public name for it: the client went away, and hears no status
            return

    @property
    def draining(self) -> bool:
        """Whether it takes no more streams."""
        return self._draining

    def sessions(self) -> tuple[Session, ...]:
        """The streams there are now."""
        return tuple(self._streams)

    def admit(self, session: Session, node_id: str) -> Memory | None:
        """See `session.Host`."""
        streams = self._by_node.setdefault(without_owner(node_id), {})
        if len(streams) >= self.settings.streams_per_node:
            return None
        streams[session] = None
        return self._memories.get(node_id, Memory())

    def _forget(self, stream: Session) -> None:
        if stream.node is None:
            return
        name = without_owner(stream.node)
        del self._by_node[name][stream]
        if not self._by_node[name]:
            del self._by_node[name]
        if stream.machine is not None and self.source.snapshot(stream.node) is not None:
            self._memories[stream.node] = stream.machine.memory()

    def changed(self, node_ids: Iterable[str]) -> None:
        """The snapshots of these nodes are others now."""
        idle = not self._stale
        for node_id in node_ids:
            streams = self._by_node.get(without_owner(node_id))
            if streams is not None:
                self._stale.update(streams)
            elif node_id in self._memories and self.source.snapshot(node_id) is None:
                del self._memories[node_id]  # nodes come and go, for years
        if idle and self._stale:
            self._refresh_some()

    def _refresh_some(self) -> None:
        """A few at a time: what was written for the first is on its way before the last is looked at, and
        whoever reads or asks for our health in between is served."""
        for stream in list(islice(self._stale, _AT_ONCE)):
            del self._stale[stream]
            try:
                stream.refresh()
            except Exception as fault:  # of the source, say: others go on
                stream.fail(fault)
        if self._stale:
            asyncio.get_running_loop().call_soon(self._refresh_some)

    def soon(self, transfer: Callable[[], None]) -> None:
        """See `session.Host`. What many streams read and write is begun in one go, after what they say was
        looked at: to go back and forth between the two empties the processor's caches."""
        if not self._transfers:
            asyncio.get_running_loop().call_soon(self._transfer)
        self._transfers.append(transfer)

    def _transfer(self) -> None:
        transfers, self._transfers = self._transfers, []
        for transfer in transfers:
            transfer()

    async def drain(self) -> None:
        """Takes no more streams, says so to health checks, ends streams one after another, then stops."""
        if self._draining:
            await self._closed.wait()
            return
        self._draining = True
        self._health.stop()
        for socket in self._sockets:
            socket.remove()  # whoever comes next may have the path already
        streams = list(self._streams)
        for number, stream in enumerate(streams):
            if number:
                await asyncio.sleep(self.settings.drain / len(streams))
            stream.finish(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        await self._end(1)
        self._closed.set()

    async def _end(self, grace: float) -> None:
        for socket in self._sockets:
            socket.remove()
        await asyncio.gather(*(server.stop(grace) for server in self._grpc))

    async def wait_closed(self) -> None:
        """Returns when `drain` is done."""
        await self._closed.wait()


@asynccontextmanager
async def serve(
    source: SnapshotSource,
    *,
    listen: str | Sequence[Listener] = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    access: Callable[[Peer, Snapshot], Access] = no_keys,
    observe: Observer | None = None,
) -> AsyncIterator[Server]:
    """Serves a source's snapshots for as long as the context lasts, then drains.

    `listen` is `HOST:PORT`, port 0 for a free one, or `unix:PATH`. There `credentials` and `access` hold;
    `access` says what a client may have, and is asked again with every change. Several addresses are
    `Listener`s, each with its own of both. `observe` is called with the node's id (fit to print), the peer
    and what happened or was sent; without it, that is logged. Raises `UsageError` for an address beyond
    loopback without TLS, and for one that cannot be bound.
    """
    listeners = [Listener(listen, credentials, access)] if isinstance(listen, str) else listen
    if not isinstance(listen, str) and (credentials is not None or access is not no_keys):
        raise UsageError("credentials and access stand in each Listener, when there are some")
    for listener in listeners:
        if listener.credentials is None and not is_local(listener.address):
            raise UsageError(f"{listener.address} is beyond loopback: it needs TLS")
    server = Server(source, settings, observe or EventLog())
    await server.start(listeners)
    loop = asyncio.get_running_loop()

    def changed(node_ids: Collection[str]) -> None:
        loop.call_soon_threadsafe(server.changed, node_ids)

    unsubscribe = source.subscribe(changed)
    try:
        yield server
    finally:
        unsubscribe()
        await server.drain()
