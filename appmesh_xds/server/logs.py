"""What a server writes down: one line per event, for people or for machines.

    set_up("json", logging.INFO)
    note(logging.INFO, "loaded", mesh="shop", proxies=12)

    2026-11-21T04:44:28.120Z info    loaded mesh=shop proxies=12
    {"time":"2026-11-21T04:44:28.120Z","level":"info","event":"loaded","mesh":"shop","proxies":12}

It goes through `logging`, under the name `appmesh_xds`. Whatever text a client or a spec put into a value is
on one line, in ASCII, of at most 1 kB, without key material.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ..resource import TYPE_NAMES
from .hints import hint
from .limits import TokenBucket
from .messages import (
    Ack,
    Connected,
    Ended,
    GateTimeout,
    Nack,
    Observed,
    Refused,
    Response,
    UnknownSecrets,
    UnknownType,
)
from .redact import mask, printable, redact

if TYPE_CHECKING:
    from .session import Peer

Format = Literal["text", "json"]

LOG: Final = logging.getLogger("appmesh_xds")
#: Type URL to what people call it.
SHORT: Final = {url: name for name, url in TYPE_NAMES.items()}

#: Ends of streams that are nobody's fault.
_ORDINARY: Final = ("UNAVAILABLE", "CANCELLED")
#: As many of a sequence as are looked at; 1 kB holds no more.
_NAMES: Final = 1000
#: A value that needs no quotes in a line of text.
_BARE: Final = re.compile(r"[A-Za-z0-9_./:@+*\[\]$,-]+")


def set_up(form: Format, level: int) -> logging.Handler:
    """Sends the process's log to stderr. Returns the handler, for whoever wants it gone again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.addHandler(handler)
    # Of other libraries only what is wrong: their debugging knows nothing of what must not be printed.
    root.setLevel(max(level, logging.WARNING))
    LOG.setLevel(level)
    return handler


def note(level: int, event: str, /, **fields: Any) -> None:
    """One line. Values are text, numbers, or sequences of text; None and empty ones are left out."""
    if LOG.isEnabledFor(level):
        kept = {key: _plain(value) for key, value in fields.items() if value not in (None, "", ())}
        LOG.log(level, "%s", _line(event, kept), extra={"event": event, "fields": kept})


def _plain(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    return redact(value) if isinstance(value, str) else printable(",".join(map(redact, value[:_NAMES])))


def _line(event: str, fields: dict[str, Any]) -> str:
    return " ".join((event, *(f"{key}={_quoted(value)}" for key, value in fields.items())))


def _quoted(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_time(record)} {record.levelname.lower():<7} {_message(record)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None)
        fields = getattr(record, "fields", {}) if event else {"logger": record.name, "text": _message(record)}
        head = {"time": _time(record), "level": record.levelname.lower(), "event": event or "log"}
        return json.dumps(head | fields, separators=(",", ":"))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _message(record: logging.LogRecord) -> str:
    """Of our own lines what was said; of other libraries' one line, escaped, traceback included."""
    if hasattr(record, "event"):
        return record.getMessage()
    text = record.getMessage()
    if record.exc_info:
        text += " | " + logging.Formatter().formatException(record.exc_info)
    return printable(mask(text))


class EventLog:
    """An observer that notes what happens to streams.

    What repeats is noted once, and again after `quiet` seconds with the number of times in between. Beyond
    that, clients get `rate` lines a second out of us, and a burst of `burst`; what is over is counted.
    """

    def __init__(
        self,
        *,
        quiet: float = 600,
        rate: float = 50,
        burst: int = 1000,
        remember: int = 2000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._remember = remember
        self._bucket = TokenBucket(rate, burst)
        self._clock = clock
        #: What was noted: when, and how often since. Oldest first.
        self._seen: dict[tuple[Any, ...], list[float]] = {}
        self._dropped = 0

    def __call__(self, node_id: str, peer: Peer, event: Observed) -> None:
        kind = type(event)
        if (kind is Response or kind is Ack) and not LOG.isEnabledFor(logging.DEBUG):
            return
        match event:
            case Nack():
                about = {"type": _short(event.type_url), "resources": event.resources, "text": event.text}
                more = {"version": event.version, "spec": event.origins, "hint": hint(event.text)}
                self._once(logging.ERROR, "nack", node_id, about, **more)
            case UnknownSecrets():
                self._once(logging.ERROR, "unknown_secrets", node_id, {"names": event.names})
            case GateTimeout():
                self._once(logging.WARNING, "gate_timeout", node_id, {})
            case UnknownType():
                self._once(logging.WARNING, "unknown_type", node_id, {"type": event.type_url})
            case Connected():
                self._write(logging.INFO, "connected", node=node_id, peer=peer.address, uris=peer.uris)
            case Ended() if event.status in _ORDINARY:
                self._write(logging.INFO, "ended", node=node_id, peer=peer.address, text=event.text)
            case Ended():
                about = {"status": event.status, "text": event.text}
                self._once(logging.WARNING, "refused", node_id, about, peer=peer.address)
            case Refused():
                pass  # the end of the stream follows, and says it
            case Ack():
                about = {"type": _short(event.type_url), "version": event.version}
                note(logging.DEBUG, "ack", node=node_id, **about, seconds=event.after)
            case Response():
                about = {"type": _short(event.type_url), "version": event.version}
                note(logging.DEBUG, "push", node=node_id, **about, size=len(event.data), names=event.names)

    def _once(self, level: int, event: str, node_id: str, about: dict[str, Any], **more: Any) -> None:
        if not LOG.isEnabledFor(level):
            return
        now, key = self._clock(), (event, node_id, *about.values())
        noted = self._seen.get(key)
        if noted is not None and now < noted[0] + self._quiet:
            noted[1] += 1
            return
        times = None if noted is None or not noted[1] else int(noted[1])
        self._seen.pop(key, None)
        self._seen[key] = [now, 0]
        if len(self._seen) > self._remember:
            del self._seen[next(iter(self._seen))]
        self._write(level, event, node=node_id, **about, **more, repeated=times)

    def _write(self, level: int, event: str, **fields: Any) -> None:
        if not LOG.isEnabledFor(level):
            return
        if not self._bucket.take(self._clock()):
            self._dropped += 1
            return
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            note(logging.WARNING, "too_many_lines", lines=dropped)
        note(level, event, **fields)


def _short(type_url: str) -> str:
    return SHORT.get(type_url, type_url)
