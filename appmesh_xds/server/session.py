"""One stream on the wire: its state machine, its two tasks, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, Literal, NamedTuple, Protocol

import grpc
import grpc.aio
from msgspec import Struct

from ..snapshot import Snapshot
from . import wire
from .keys import without_keys
from .limits import Limits
from .messages import Ended, Event, Memory, Observed, Refused, Response
from .protocol import GATE_TIMEOUT, Delta, Sotw
from .redact import printable
from .source import SnapshotSource
from .transfer import Transfer


class Peer(NamedTuple):
    """Who is at the other end. URIs and DNS names are those of a verified client certificate, by kind."""

    address: str
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


#: How long the last write of a stream may take, in seconds.
_LAST_WRITE: Final = 1.0

#: Is told the node's id (fit to print), the peer and what happened. It must not wait, nor raise.
Observer = Callable[[str, Peer, Observed], None]


#: How a stream ends that says nothing.
_SILENT: Final = (grpc.StatusCode.DEADLINE_EXCEEDED, "no message came")


class Access(Enum):
    """What a peer may have of a proxy's snapshot."""

    NONE = auto()
    #: Everything but private keys.
    WITHOUT_KEYS = auto()
    FULL = auto()


class Settings(Struct, frozen=True, kw_only=True):
    """How a server behaves. Times are in seconds."""

    limits: Limits = Limits()
    #: Streams at once, of everybody and of one node. Every copy of a service has the same node id.
    streams: int = 10_000
    streams_per_node: int = 1_000
    #: The largest request, in bytes.
    request_bytes: int = 4 * 1024 * 1024
    #: How long a new connection may take until TLS and HTTP/2 are agreed on, and a new stream be silent.
    handshake: float = 10
    first_message: float = 10
    gate_timeout: float = GATE_TIMEOUT
    #: Over how long streams are ended when the server stops, so that not all come back at once elsewhere.
    drain: float = 5
    #: How old a connection may become, give or take a tenth. Its clients come back, elsewhere perhaps.
    connection_age: float = 1800


def no_keys(peer: Peer, snapshot: Snapshot) -> Access:
    """Everybody may have everything but private keys."""
    return Access.WITHOUT_KEYS


class Host(Protocol):
    """What a session needs of its server."""

    settings: Settings
    source: SnapshotSource
    observe: Observer

    def soon(self, transfer: Callable[[], None]) -> None:
        """Calls it, together with others, when what is going on has come to an end."""

    def admit(self, session: Session, node_id: str) -> Memory | None:
        """What the node's last stream left, when one more stream of it may be; that counts then."""


class Session:
    """One stream: its state machine, the task that reads, what is being written, and how it ends."""

    __slots__ = (
        "_access",
        "_context",
        "_due",
        "_ended",
        "_in",
        "_kind",
        "_loop",
        "_out",
        "_over",
        "_server",
        "_timer",
        "end",
        "frozen",
        "label",
        "machine",
        "newest",
        "node",
        "peer",
        "since",
    )

    def __init__(
        self,
        server: Host,
        kind: type[Sotw] | type[Delta],
        context: grpc.aio.ServicerContext[bytes, bytes],
        peer: Peer,
        access: Callable[[Peer, Snapshot], Access],
    ) -> None:
        """`access` says what the peer may have, where it came in."""
        self._server = server
        self._access = access
        self._kind = kind
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._in = Transfer(self._was_read)
        self._out = Transfer(self._was_written)
        #: The response that is about to be written.
        self._due: Response | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self.peer = peer
        self.machine: Sotw | Delta | None = None
        #: The node's id as its snapshot has it, once the stream is admitted.
        self.node: str | None = None
        self.end = (grpc.StatusCode.CANCELLED, "the client went away")
        #: The node's id as the client sent it, fit to print.
        self.label = "a client"
        self.newest: Snapshot | None = None
        #: The node left the mesh, and the client keeps what it has.
        self.frozen = False
        self.since = self.now()

    @property
    def protocol(self) -> Literal["sotw", "delta"]:
        return "delta" if self._kind is Delta else "sotw"

    #: On the clock of the event loop.
    now = staticmethod(time.monotonic)

    async def run(self) -> None:
        """Until the client or `finish` ends the stream."""
        self._timer = self._loop.call_later(self._server.settings.first_message, self.finish, *_SILENT)
        self._server.soon(self._read)
        try:
            await self._ended
        finally:
            self._forget_timer()
            try:
                await self._end_writing()
            finally:  # also when gRPC cancels us while we wait
                self._tell(Ended(status=self.end[0].name, text=self.end[1]))

    async def _end_writing(self) -> None:
        """A write that is going on ends by itself, unless its client does not read."""
        self._over = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._out.idle(), _LAST_WRITE)

    def finish(self, code: grpc.StatusCode, text: str) -> None:
        """Ends the stream, with the first status that it is given."""
        if not self._over:
            self.end = (code, text)
            self._stop()

    def fail(self, fault: Exception) -> None:
        """Ends the stream for a fault that is not the client's: `run` raises it."""
        self._over = True
        if not self._ended.done():
            self._ended.set_exception(fault)

    def _stop(self) -> None:
        self._over = True
        if not self._ended.done():
            self._ended.set_result(None)

    def _tell(self, what: Observed) -> None:
        self._server.observe(self.label, self.peer, what)

    # --- in -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if not self._over:
            self._in.begin(self._context.read())

    def _was_read(self, data: Any, error: BaseException | None) -> None:
        if self._over:
            return
        if error is not None or data is grpc.aio.EOF:
            self._stop()
            return
        try:
            self._receive(data)
        except Exception as fault:
            self.fail(fault)
        else:
            self._server.soon(self._read)

    def _receive(self, data: bytes) -> None:
        if self.machine is not None and (ack := self.machine.acknowledge(data, self.now())) is not None:
            self._tell(ack)
            self._pump()
            return
        try:
            request: Any = wire.delta_request(data) if self._kind is Delta else wire.request(data)
        except ValueError as error:
            self.finish(grpc.StatusCode.INVALID_ARGUMENT, printable(str(error)))
            return
        if self.machine is None:
            self._forget_timer()
            if not self._begin(request.node_id):
                return
        assert self.machine is not None
        self._handle(self.machine.receive(request, self.now()))
        if self.newest is None:
            self.refresh()
        else:
            self._pump()

    def _begin(self, node_id: str) -> bool:
        """Looks at who it is. False when the stream ends here."""
        settings, snapshot = self._server.settings, self._server.source.snapshot(node_id)
        self.label = printable(node_id)
        if not node_id:
            self.finish(grpc.StatusCode.INVALID_ARGUMENT, "the first message names no node")
        elif snapshot is None:
            self.finish(grpc.StatusCode.NOT_FOUND, f"{self.label} is not in the mesh")
        elif snapshot.errors:
            self.finish(grpc.StatusCode.UNAVAILABLE, f"{self.label} has a configuration with errors")
        elif self._access(self.peer, snapshot) is Access.NONE:
            self.finish(grpc.StatusCode.PERMISSION_DENIED, f"this client may not have {self.label}")
        elif (memory := self._server.admit(self, snapshot.node_id)) is None:
            self.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, f"too many streams of {self.label}")
        else:
            self.node = snapshot.node_id
            self.machine = self._kind(
                limits=settings.limits, gate_timeout=settings.gate_timeout, memory=memory
            )
            return True
        return False

    def refresh(self) -> None:
        """Takes over the newest snapshot. A node that left the mesh keeps what it has."""
        machine = self.machine
        if machine is None or machine.node_id is None or self._over:
            return
        snapshot = self._server.source.snapshot(machine.node_id)
        self.frozen = snapshot is None
        if snapshot is None or snapshot is self.newest or (snapshot.problems and snapshot.errors):
            return
        access = self._access(self.peer, snapshot)
        if access is Access.NONE:
            self.finish(grpc.StatusCode.PERMISSION_DENIED, f"this client may no longer have {self.label}")
            return
        self.newest = snapshot
        given = snapshot if access is Access.FULL else without_keys(snapshot)
        if events := machine.update(given, self.now()):
            self._handle(events)
        self._pump()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            self._tell(event)
            if isinstance(event, Refused):
                code = grpc.StatusCode
                self.finish(code.RESOURCE_EXHAUSTED if event.limit else code.INVALID_ARGUMENT, event.text)

    # --- out ----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Has what is due written, unless that is going on already."""
        if self._due is not None or self.machine is None or self._over or self._out.busy:
            return
        try:
            self._due = self.machine.respond(self.now())
        except Exception as fault:
            self.fail(fault)
            return
        if self._due is None:
            self._set_timer()
        else:
            self._server.soon(self._write)

    def _write(self) -> None:
        response, self._due = self._due, None
        if response is not None and not self._over:
            self._tell(response)  # before it is written, because its answer may be quicker than we
            self._out.begin(self._context.write(response.data))

    def _was_written(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            # grpc's own, of several kinds: the connection broke, which the reader sees too.
            self.finish(grpc.StatusCode.UNAVAILABLE, printable(f"could not write: {error}"))
        self._pump()

    def _set_timer(self) -> None:
        """Has the machine told when its time is up. To come too early does no harm: it is set again."""
        assert self.machine is not None
        deadline = self.machine.deadline
        if deadline is None:
            return
        if self._over or (self._timer is not None and self._timer.when() <= deadline):
            return
        self._forget_timer()
        self._timer = self._loop.call_at(deadline, self._time_is_up)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        if self.machine is not None and not self._over:
            self._handle(self.machine.advance(self.now()))
            self._pump()
            self._set_timer()


def peer_of(context: grpc.aio.ServicerContext[bytes, bytes], address: str) -> Peer:
    """Who connected to an address. Clients of a unix socket have none of their own."""
    about = context.auth_context()
    own = context.peer()

    def names(kind: str) -> tuple[str, ...]:
        return tuple(name.decode("utf-8", "replace") for name in about.get(kind, ()))

    return Peer(printable(address if own.startswith("unix:") else own), names("peer_uri"), names("peer_dns"))
