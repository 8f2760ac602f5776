"""One stream on the wire: its state machine, its two tasks, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Literal, NamedTuple, Protocol

import grpc
import grpc.aio
from msgspec import Struct

from ..snapshot import Snapshot
from . import wire
from .keys import without_keys
from .limits import Limits
from .messages import Ended, Event, Memory, Observed, Refused
from .protocol import GATE_TIMEOUT, Delta, Sotw
from .redact import printable
from .source import SnapshotSource


class Peer(NamedTuple):
    """Who is at the other end. URIs and DNS names are those of a verified client certificate, by kind."""

    address: str
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


#: Is told the node's id (fit to print), the peer and what happened. It must not wait, nor raise.
Observer = Callable[[str, Peer, Observed], None]


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
    #: How long a new stream may be silent.
    first_message: float = 10
    gate_timeout: float = GATE_TIMEOUT
    #: Over how long streams are ended when the server stops, so that not all come back at once elsewhere.
    drain: float = 5


def no_keys(peer: Peer, snapshot: Snapshot) -> Access:
    """Everybody may have everything but private keys."""
    return Access.WITHOUT_KEYS


class Host(Protocol):
    """What a session needs of its server."""

    settings: Settings
    source: SnapshotSource
    access: Callable[[Peer, Snapshot], Access]
    observe: Observer

    def admit(self, node_id: str) -> Memory | None:
        """What the node's last stream left, when one more stream of it may be; that counts then."""


class Session:
    """One stream: its state machine, its two tasks, and how it ends."""

    def __init__(
        self, server: Host, kind: type[Sotw] | type[Delta], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        self.server = server
        self.kind = kind
        self.context = context
        self.peer = peer_of(context)
        self.machine: Sotw | Delta | None = None
        #: The node's id as its snapshot has it, once the stream is admitted.
        self.node: str | None = None
        self.end = (grpc.StatusCode.UNAVAILABLE, "the stream is over")
        #: The node's id as the client sent it, fit to print.
        self.label = "a client"
        self.newest: Snapshot | None = None
        #: The node left the mesh, and the client keeps what it has.
        self.frozen = False
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self.now = asyncio.get_running_loop().time
        self.since = self.now()

    @property
    def protocol(self) -> Literal["sotw", "delta"]:
        return "delta" if self.kind is Delta else "sotw"

    async def run(self) -> None:
        tasks = [asyncio.ensure_future(work()) for work in (self._read, self._write, self._over.wait)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tell(self._ended())

    def _ended(self) -> Ended:
        if self._over.is_set():
            return Ended(status=self.end[0].name, text=self.end[1])
        return Ended(status=grpc.StatusCode.CANCELLED.name, text="the client went away")

    def _tell(self, what: Observed) -> None:
        self.server.observe(self.label, self.peer, what)

    def finish(self, code: grpc.StatusCode, text: str) -> None:
        """Ends the stream, with the first status that it is given."""
        if not self._over.is_set():
            self.end = (code, text)
            self._over.set()

    # --- in -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._over.is_set():
            timeout = None if self.machine is not None else self.server.settings.first_message
            try:
                data: Any = await asyncio.wait_for(self.context.read(), timeout)
            except TimeoutError:
                self.finish(grpc.StatusCode.DEADLINE_EXCEEDED, "no message came")
                return
            if data is grpc.aio.EOF:
                return
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            request: Any = wire.delta_request(data) if self.kind is Delta else wire.request(data)
        except ValueError as error:
            self.finish(grpc.StatusCode.INVALID_ARGUMENT, printable(str(error)))
            return
        if self.machine is None and not self._begin(request.node_id):
            return
        assert self.machine is not None
        self._handle(self.machine.receive(request, self.now()))
        if self.newest is None:
            self.refresh()
        self._wake.set()

    def _begin(self, node_id: str) -> bool:
        """Looks at who it is. False when the stream ends here."""
        settings, snapshot = self.server.settings, self.server.source.snapshot(node_id)
        self.label = printable(node_id)
        if not node_id:
            self.finish(grpc.StatusCode.INVALID_ARGUMENT, "the first message names no node")
        elif snapshot is None:
            self.finish(grpc.StatusCode.NOT_FOUND, f"{self.label} is not in the mesh")
        elif snapshot.errors:
            self.finish(grpc.StatusCode.UNAVAILABLE, f"{self.label} has a configuration with errors")
        elif self.server.access(self.peer, snapshot) is Access.NONE:
            self.finish(grpc.StatusCode.PERMISSION_DENIED, f"this client may not have {self.label}")
        elif (memory := self.server.admit(snapshot.node_id)) is None:
            self.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, f"too many streams of {self.label}")
        else:
            self.node = snapshot.node_id
            self.machine = self.kind(
                limits=settings.limits, gate_timeout=settings.gate_timeout, memory=memory
            )
            return True
        return False

    def refresh(self) -> None:
        """Takes over the newest snapshot. A node that left the mesh keeps what it has."""
        if self.machine is None or self.machine.node_id is None:
            return
        snapshot = self.server.source.snapshot(self.machine.node_id)
        self.frozen = snapshot is None
        if snapshot is None or snapshot is self.newest or snapshot.errors:
            return
        access = self.server.access(self.peer, snapshot)
        if access is Access.NONE:
            self.finish(grpc.StatusCode.PERMISSION_DENIED, f"this client may no longer have {self.label}")
            return
        self.newest = snapshot
        given = snapshot if access is Access.FULL else without_keys(snapshot)
        self._handle(self.machine.update(given, self.now()))
        self._wake.set()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            self._tell(event)
            if isinstance(event, Refused):
                code = grpc.StatusCode
                self.finish(code.RESOURCE_EXHAUSTED if event.limit else code.INVALID_ARGUMENT, event.text)

    # --- out ----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            self._wake.clear()
            while self.machine is not None:
                response = self.machine.respond(self.now())
                if response is None:
                    break
                await self.context.write(response.data)
                self._tell(response)
            await self._until_something_happens()

    async def _until_something_happens(self) -> None:
        deadline = None if self.machine is None else self.machine.deadline
        try:
            await asyncio.wait_for(self._wake.wait(), None if deadline is None else deadline - self.now())
        except TimeoutError:
            assert self.machine is not None
            self._handle(self.machine.advance(self.now()))


def peer_of(context: grpc.aio.ServicerContext[bytes, bytes]) -> Peer:
    about = context.auth_context()

    def names(kind: str) -> tuple[str, ...]:
        return tuple(name.decode("utf-8", "replace") for name in about.get(kind, ()))

    return Peer(printable(context.peer()), names("peer_uri"), names("peer_dns"))
