"""What goes into a stream's state machine and what comes out: requests, responses and events."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..resource import Resource


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """A DiscoveryRequest (state of the world), as far as a server needs it."""

    type_url: str
    names: tuple[str, ...] = ()
    #: The last version that the client accepted; on a new stream too.
    version: str = ""
    #: Nonce of the response that this one answers; empty before the first.
    nonce: str = ""
    #: Text of `error_detail`; None when the message has none, which makes it an ACK.
    error: str | None = None
    #: `node.id`; clients may leave it out after their first message.
    node_id: str = ""


class DeltaRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A DeltaDiscoveryRequest, as far as a server needs it."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    #: What the client has already, by name; in the first message of a type on a stream.
    versions: Mapping[str, str] = {}
    #: Nonce of the response that this one answers; empty when it answers none.
    nonce: str = ""
    #: Text of `error_detail`; None when the message has none, which makes it an ACK.
    error: str | None = None
    node_id: str = ""


class Response(Struct, frozen=True, kw_only=True, gc=False):
    """A response, ready to be sent."""

    type_url: str
    nonce: str
    #: `version_info`, or `system_version_info` of a delta stream.
    version: str
    #: Names of the resources it holds, and (delta) of those it removes.
    names: tuple[str, ...]
    removed: tuple[str, ...] = ()
    #: The serialised message.
    data: bytes

    def __repr__(self) -> str:
        # `data` may hold private keys.
        return (
            f"Response(type_url={self.type_url!r}, nonce={self.nonce!r}, version={self.version!r}, "
            f"names={self.names!r}, removed={self.removed!r}, data=[{len(self.data)} bytes])"
        )


class Memory(Struct, frozen=True, kw_only=True):
    """What one stream leaves for the next one of the same node. Streams work without; see `Stream.memory`."""

    #: State of the world: clusters by the version of the response that held them, newest last.
    clusters: Mapping[str, tuple[Resource, ...]] = {}
    #: By type: names and versions of what was sent and not taken, as far as was heard. Some of it may have
    #: been: Envoy takes the good resources of a response that it refuses, and does not say so later.
    doubts: Mapping[str, Mapping[str, str]] = {}


class Connected(Struct, frozen=True, kw_only=True, gc=False):
    """The first message came. Whoever runs the stream now owes it `update(snapshot of this node)`."""

    #: As the client sent it: not to be trusted, nor to be printed as it is.
    node_id: str


class Ack(Struct, frozen=True, kw_only=True, gc=False):
    """The client took a response."""

    type_url: str
    nonce: str
    #: Of the response.
    version: str
    #: How long the client took, in seconds.
    after: float


class Nack(Struct, frozen=True, kw_only=True, gc=False):
    """The client refused a response, or some of its resources."""

    type_url: str
    nonce: str
    #: Of the response.
    version: str
    #: What the client said, fit to print: no keys, no control characters, at most 1 kB.
    text: str
    #: Those of the response's resources that the text names, sorted; empty when it names none.
    resources: tuple[str, ...]
    #: Where these come from: `Resource.origin` of each, if the snapshot still has it; the first 16.
    origins: tuple[str, ...] = ()


class UnknownType(Struct, frozen=True, kw_only=True, gc=False):
    """A request for a type that no snapshot holds. It is ignored; each type is reported once."""

    #: Fit to print.
    type_url: str


class UnknownSecrets(Struct, frozen=True, kw_only=True, gc=False):
    """Secrets were asked for that the snapshot does not hold; each is reported once. They get no answer:
    whatever uses them waits, and a listener accepts nothing meanwhile."""

    #: As the client sent them.
    names: tuple[str, ...]


class GateTimeout(Struct, frozen=True, kw_only=True, gc=False):
    """The client was silent about its clusters for too long. It gets listeners and routes all the same, but
    nothing is taken from it."""


class Refused(Struct, frozen=True, kw_only=True, gc=False):
    """The client did what it must not. Nothing more comes out of the stream, which is to be ended."""

    #: A limit was exceeded; otherwise the request itself was wrong.
    limit: bool
    #: Fit to print.
    text: str


class Ended(Struct, frozen=True, kw_only=True, gc=False):
    """The stream is over."""

    #: The gRPC status that the client is given, `UNAVAILABLE`; `CANCELLED` when it went away by itself.
    status: str
    #: Fit to print.
    text: str


class Standing(Struct, frozen=True, kw_only=True, gc=False):
    """How a stream stands with one type, for people who look into a running server."""

    type_url: str
    #: How many names the client asked for; None when it asked for all there are.
    names: int | None
    #: Version and time of the last response; empty before the first.
    sent: str = ""
    sent_at: float = 0
    #: Version and time of the last response that the client took, and of its last refusal.
    taken: str = ""
    taken_at: float = 0
    nack: Nack | None = None
    nack_at: float = 0

    @property
    def refused(self) -> bool:
        """Whether its last answer was a refusal."""
        return self.nack is not None and self.nack_at >= self.taken_at

    @property
    def waits(self) -> bool:
        """Whether an answer to the last response is still to come."""
        return self.sent_at > max(self.taken_at, self.nack_at)


#: What a state machine makes.
Event = Connected | Ack | Nack | UnknownType | UnknownSecrets | GateTimeout | Refused
#: What a server tells its observer: also what went out, and how it ended.
Observed = Event | Response | Ended
