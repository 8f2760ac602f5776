"""Conversations of a client with a stream, as text: what comes in, and all that goes out for it.

    snapshot cds=a1,b1 eds=a1          the newest snapshot; a1 is the resource `a` with the content `1`
    > CDS                              a request; names follow the type, `-name` unsubscribes (delta)
    < CDS a1 b1                        a response, whole; `-name` is a removal (delta), `a0` is empty
    > EDS a had:a1                     what the client has from an earlier stream
    > CDS ack                          takes the last response of that type; names stay
    > CDS nack:text_of_it              refuses it
    > CDS ack#1                        answers the first response of that type instead
    wait 30                            seconds
    reconnect                          a new stream, with what the server remembers
    restart                            a new stream of a new server
    ! nack CDS b: text                 an event; those of ACKs and of the first message are left out

A trace passes when the stream says exactly what stands in it.
"""

from __future__ import annotations

from typing import Any

from appmesh_xds import proto
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource
from appmesh_xds.server import wire
from appmesh_xds.server.protocol import (
    Ack,
    Connected,
    Delta,
    DeltaRequest,
    Event,
    GateTimeout,
    Memory,
    Nack,
    Refused,
    Request,
    Response,
    Sotw,
    UnknownSecrets,
    UnknownType,
)
from appmesh_xds.snapshot import Snapshot, set_version

TYPES = {"CDS": CLUSTER, "EDS": ENDPOINTS, "LDS": LISTENER, "RDS": ROUTES, "SDS": SECRET}
SHORT = {url: short for short, url in TYPES.items()}
_FIELDS = {"cds": "clusters", "eds": "endpoints", "lds": "listeners", "rds": "routes", "sds": "secrets"}


def resource(type_url: str, text: str) -> Resource:
    """`a1`: name `a`, content and version `1`; `a0` is the empty resource."""
    if text[-1] == "0":
        empty = wire.empty_resource(type_url, text[:-1])
        assert empty is not None
        return empty
    return Resource(type_url=type_url, name=text[:-1], value=text.encode(), version=text[-1])


def snapshot(**types: str) -> Snapshot:
    """`snapshot(cds="a1,b1", eds="a1")`"""
    parts = {
        _FIELDS[short]: tuple(resource(TYPES[short.upper()], one) for one in sorted(text.split(",")) if one)
        for short, text in types.items()
    }
    return Snapshot(mesh="m", proxy="virtualNode/n", **parts)


class Talk:
    """A client that says what a trace tells it to."""

    def __init__(self, kind: type[Sotw] | type[Delta]) -> None:
        self.kind = kind
        self.now = 0.0
        self.newest: Snapshot | None = None
        self.memory: Memory | None = None
        self.nonces_used: set[str] = set()
        self.events: list[Event] = []
        self.new_stream()

    def new_stream(self) -> None:
        self.stream: Any = self.kind(memory=self.memory)
        self.nonces: dict[str, list[str]] = {short: [] for short in TYPES}
        #: Versions by nonce, and the last that the client took of each type.
        self.versions: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.first = True
        self.nonces_used = set()

    def step(self, line: str) -> list[str]:
        """Does what a line says and returns all that comes of it."""
        word, _, rest = line.partition(" ")
        events: list[Event] = []
        if word == "snapshot":
            self.newest = snapshot(**dict(part.split("=") for part in rest.split()))
            if not self.first:
                events = self.stream.update(self.newest, self.now)
        elif word == "wait":
            self.now += float(rest)
            events = self.stream.advance(self.now)
        elif word in ("reconnect", "restart"):
            self.memory = self.stream.memory() if word == "reconnect" else None
            self.new_stream()
        else:
            assert word == ">", line
            events = self.ask(*rest.split())
        return self.said(events)

    def ask(self, short: str, *words: str) -> list[Event]:
        message = self.sotw(short, words) if self.kind is Sotw else self.delta(short, words)
        # An ACK and no more is taken as it comes; the model of Envoy has all its messages parsed.
        data = encoded(message, self.kind)
        ack = self.stream.acknowledge(data, self.now)
        events = [ack] if ack is not None else list(self.stream.receive(message, self.now))
        if self.first and self.newest is not None:
            events += self.stream.update(self.newest, self.now)
        self.first = False
        return events

    def sotw(self, short: str, words: tuple[str, ...]) -> Request:
        names = tuple(word for word in words if not _is_keyword(word))
        if names or short not in self.names or "none" in words:
            self.names[short] = names
        had, nonce = self.had(short, words), self.nonce(short, words, default="last")
        if had is not None:
            self.taken[short] = set_version(had)
        elif any(word.startswith("ack") for word in words):
            self.taken[short] = self.versions.get(nonce, "")
        return Request(
            type_url=TYPES.get(short, short),
            names=self.names[short],
            version=self.taken.get(short, ""),
            nonce=nonce,
            error=_error(words),
            node_id="mesh/m/virtualNode/n" if self.first else "",
        )

    def delta(self, short: str, words: tuple[str, ...]) -> DeltaRequest:
        names = [word for word in words if not _is_keyword(word)]
        return DeltaRequest(
            type_url=TYPES.get(short, short),
            subscribe=tuple(name for name in names if not name.startswith("-")),
            unsubscribe=tuple(name[1:] for name in names if name.startswith("-")),
            versions={r.name: r.version for r in self.had(short, words) or ()},
            nonce=self.nonce(short, words, default="none"),
            error=_error(words),
            node_id="mesh/m/virtualNode/n" if self.first else "",
        )

    def had(self, short: str, words: tuple[str, ...]) -> list[Resource] | None:
        for word in words:
            if word.startswith("had:"):
                return [resource(TYPES[short], one) for one in word[4:].split(",") if one]
        return None

    def nonce(self, short: str, words: tuple[str, ...], default: str) -> str:
        used = self.nonces.get(short, [])
        for word in words:
            keyword, _, number = word.partition("#")
            if number and keyword in ("ack", "nack", "nonce"):
                return used[int(number.partition(":")[0]) - 1]
            if word == "ack" or word.startswith("nack:"):
                return used[-1]
            if word == "nonce-less":
                return ""
        return used[-1] if used and default == "last" else ""

    def said(self, events: list[Event]) -> list[str]:
        self.events += events
        lines = [text for event in events if (text := _event(event))]
        while (response := self.stream.respond(self.now)) is not None:
            assert response.nonce and response.nonce not in self.nonces_used, "a nonce came twice"
            self.nonces_used.add(response.nonce)
            self.nonces[SHORT[response.type_url]].append(response.nonce)
            self.versions[response.nonce] = response.version
            lines.append(f"< {SHORT[response.type_url]} {' '.join(self.contents(response))}".rstrip())
        return lines

    def contents(self, response: Response) -> list[str]:
        """What is in the message itself."""
        if self.kind is Sotw:
            message: Any = proto.DiscoveryResponse.FromString(response.data)
            assert message.version_info == response.version
            bodies = list(message.resources)
            removed = []
        else:
            message = proto.DeltaDiscoveryResponse.FromString(response.data)
            bodies = [one.resource for one in message.resources]
            removed = [f"-{name}" for name in message.removed_resources]
            assert tuple(one.name for one in message.resources) == response.names
        assert message.nonce == response.nonce and message.type_url == response.type_url
        assert all(body.type_url == response.type_url for body in bodies)
        texts = zip(response.names, (body.value for body in bodies), strict=True)
        return [*(_text(name, value) for name, value in texts), *removed]


def _is_keyword(word: str) -> bool:
    return word.startswith(("ack", "nack", "had:", "nonce")) or word == "none"


def _error(words: tuple[str, ...]) -> str | None:
    for word in words:
        if word.startswith("nack"):
            return word.partition(":")[2].replace("_", " ")
    return None


def encoded(message: Request | DeltaRequest, kind: type[Sotw] | type[Delta]) -> bytes:
    """As a client's protobuf library writes it."""
    made: Any = proto.DiscoveryRequest() if kind is Sotw else proto.DeltaDiscoveryRequest()
    made.type_url, made.response_nonce = message.type_url, message.nonce
    if message.node_id:
        made.node.id = message.node_id
    if message.error is not None:
        made.error_detail.message = message.error
    if isinstance(message, Request):
        made.version_info = message.version
        made.resource_names.extend(message.names)
    else:
        made.resource_names_subscribe.extend(message.subscribe)
        made.resource_names_unsubscribe.extend(message.unsubscribe)
        made.initial_resource_versions.update(message.versions)
    data: bytes = made.SerializeToString()
    return data


def _text(name: str, value: bytes) -> str:
    return value.decode() if not value.startswith(b"\n") else f"{name}0"


def _event(event: Event) -> str:
    match event:
        case Ack() | Connected():
            return ""
        case Nack():
            return f"! nack {SHORT[event.type_url]} {','.join(event.resources)}: {event.text}"
        case GateTimeout():
            return "! gate timeout"
        case UnknownSecrets():
            return f"! unknown secrets {','.join(event.names)}"
        case UnknownType():
            return f"! unknown type {event.type_url}"
        case Refused():
            return f"! refused {'limit' if event.limit else 'request'}: {event.text}"


def run(kind: type[Sotw] | type[Delta], trace: str) -> tuple[list[str], list[str]]:
    """What was said, line by line, and what should have been."""
    expected = [line.strip() for line in trace.strip().splitlines() if line.strip()]
    talk, actual = Talk(kind), []
    for line in expected:
        if not line.startswith(("<", "!")):
            actual += [line, *talk.step(line)]
    return actual, expected
