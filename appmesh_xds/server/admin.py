"""What a running server says about itself, over HTTP.

    /healthz               200 while the process answers at all
    /readyz                200 once meshes are loaded and streams are taken; otherwise 503 and the reason
    /metrics               for Prometheus
    /debug/proxies         JSON: every stream, and how it stands with each type
    /debug/config/PROXY    the newest resources of a proxy as YAML, private keys redacted

The last two tell what a mesh looks like, so they answer this machine alone; `probe_answers` has the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from .. import __version__
from ..errors import Problem
from ..snapshot import Snapshot
from .hints import hint
from .http import Answer, Handler
from .logs import SHORT
from .messages import Nack, Standing
from .metrics import CONTENT_TYPE, Metrics
from .redact import redact
from .session import Session

_CONFIG: Final = "/debug/config/"


class MeshStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One mesh, as it is served."""

    name: str
    proxies: int
    #: Seconds since the epoch.
    loaded_at: float


class Subject(Protocol):
    """The server that is looked at."""

    metrics: Metrics

    def not_ready(self) -> str:
        """Why it is not ready; empty when it is."""

    def meshes(self) -> Iterable[MeshStatus]: ...

    def problems(self) -> Iterable[Problem]:
        """What is wrong with the files as they are now."""

    def sessions(self) -> Iterable[Session]: ...

    def snapshot(self, node_id: str) -> Snapshot | None: ...


def probe_answers(subject: Subject) -> Handler:
    """`/healthz`, `/readyz` and `/metrics`: for whoever may connect."""

    def answer(path: str) -> Answer:
        match path:
            case "/healthz":
                return Answer.text(200, "ok")
            case "/readyz":
                reason = subject.not_ready()
                return Answer.text(503, reason) if reason else Answer.text(200, "ready")
            case "/metrics":
                return Answer(200, subject.metrics.exposition(), CONTENT_TYPE)
        return Answer.text(404, "not here; there are /healthz /readyz /metrics")

    return answer


def admin_answers(subject: Subject) -> Handler:
    """All of it: for this machine."""
    probe = probe_answers(subject)

    def answer(path: str) -> Answer:
        if path == "/debug/proxies":
            body = msgspec.json.format(msgspec.json.encode(status(subject)))
            return Answer(200, body + b"\n", "application/json")
        if path.startswith(_CONFIG):
            return _config(subject, path[len(_CONFIG) :])
        found = probe(path)
        if found.status != 404:
            return found
        return Answer.text(
            404, "not here; there are /healthz /readyz /metrics /debug/proxies /debug/config/PROXY"
        )

    return answer


def _config(subject: Subject, proxy: str) -> Answer:
    snapshot = subject.snapshot(proxy)
    meshes = sorted(mesh.name for mesh in subject.meshes())
    if snapshot is None and len(meshes) == 1:
        snapshot = subject.snapshot(f"mesh/{meshes[0]}/{proxy}")
    if snapshot is None:
        known = ", ".join(meshes) or "none"
        hint = f"name it as mesh/MESH/virtualNode/NAME; the meshes are: {known}"
        return Answer.text(404, f"{redact(proxy)} is not served; {hint}")
    return Answer(200, snapshot.to_yaml().encode(), "application/yaml")


def status(subject: Subject, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """What `/debug/proxies` tells, as plain data."""
    reason = subject.not_ready()
    return {
        "version": __version__,
        "ready": not reason,
        **({"reason": reason} if reason else {}),
        "meshes": [
            {"name": mesh.name, "proxies": mesh.proxies, "loaded": _moment(mesh.loaded_at)}
            for mesh in subject.meshes()
        ],
        "problems": [redact(str(problem)) for problem in subject.problems()],
        "proxies": [
            _stream(session, now())
            for session in sorted(subject.sessions(), key=lambda one: (one.label, one.peer.address))
            if session.machine is not None
        ],
    }


def _stream(session: Session, now: float) -> dict[str, Any]:
    assert session.machine is not None
    # Streams count on the clock of their loop.
    offset = now - session.now()
    snapshot = session.newest
    return {
        "node": session.label,
        "proxy": None if snapshot is None else snapshot.node_id,
        "peer": session.peer.address,
        "identities": [redact(name) for name in (*session.peer.uris, *session.peer.dns)],
        "protocol": session.protocol,
        "since": _moment(session.since + offset),
        "frozen": session.frozen,
        "types": {SHORT[one.type_url]: _standing(one, offset) for one in session.machine.standing()},
    }


def _standing(one: Standing, offset: float) -> dict[str, Any]:
    """How it stands with a type. `state` says what became of the last response: it `waits` for its answer,
    was `refused`, was `taken`; or `none` had to be sent, as the client came with what it should have."""
    state = "refused" if one.refused else "waits" if one.waits else "taken" if one.taken else "none"
    found: dict[str, Any] = {"state": state, "names": one.names}
    if one.sent:
        found |= {"sent": one.sent, "sent_at": _moment(one.sent_at + offset)}
    if one.taken:
        found |= {"taken": one.taken, "taken_at": _moment(one.taken_at + offset)}
    if one.nack is not None:
        found["nack"] = _nack(one.nack, one.nack_at + offset)
    return found


def _nack(nack: Nack, at: float) -> Mapping[str, Any]:
    found = {
        "at": _moment(at),
        "version": nack.version,
        "text": nack.text,
        "resources": nack.resources,
        "spec": nack.origins,
    }
    advice = hint(nack.text)
    return found | {"hint": advice} if advice else found


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
