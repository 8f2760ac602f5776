"""The protocol, without input or output: one state machine per stream.

    stream = Sotw()                                   # or Delta()
    events = stream.receive(wire.request(data), now)  # -> [Connected(node_id=...)]
    events = stream.update(snapshot_of(stream.node_id), now)
    while (response := stream.respond(now)) is not None:
        await send(response.data)

There is no socket, clock, task, log or chance in it: a caller brings messages, snapshots and the time, and
sends what it is given. `stream` has the rules that both variants share, `sotw` and `delta` what differs.
"""

from __future__ import annotations

from .delta import Delta
from .limits import Limits
from .messages import (
    Ack,
    Connected,
    DeltaRequest,
    Ended,
    Event,
    GateTimeout,
    Memory,
    Nack,
    Observed,
    Refused,
    Request,
    Response,
    Standing,
    UnknownSecrets,
    UnknownType,
)
from .sotw import Sotw
from .stream import GATE_TIMEOUT, Stream

__all__ = [
    "GATE_TIMEOUT",
    "Ack",
    "Connected",
    "Delta",
    "DeltaRequest",
    "Ended",
    "Event",
    "GateTimeout",
    "Limits",
    "Memory",
    "Nack",
    "Observed",
    "Refused",
    "Request",
    "Response",
    "Sotw",
    "Standing",
    "Stream",
    "UnknownSecrets",
    "UnknownType",
]
