"""CloudTrail: what was done to a mesh, as AWS logged it. The last event of a resource tells its state.

Log files hold `{"Records": [...]}`; `aws cloudtrail lookup-events` prints `{"Events": [...]}`, each with the
event as a JSON text. The request of a create or update call holds names and the whole spec; a delete call
ends the resource, and a refused call (`errorCode`) changed nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ..errors import Problem
from . import api
from .found import Context, Found
from .text import Document

_SOURCE: Final = "appmesh.amazonaws.com"
_ACTIONS: Final = ("Create", "Update", "Delete")


class _Event(NamedTuple):
    document: Document
    path: str
    body: dict[str, Any]

    @property
    def request(self) -> dict[str, Any]:
        found = self.body.get("requestParameters")
        return found if isinstance(found, dict) else {}


def recognise(value: Any) -> bool:
    """A log of which at least one event is of App Mesh."""
    return any(True for _ in _events(Document("", value, dict)))


def read(documents: Sequence[Document], context: Context) -> Iterator[Found | Problem]:
    """The resources as the last event of each left them, whatever file it stands in."""
    events = [event for document in documents for event in _events(document)]
    last: dict[tuple[str, ...], _Event] = {}
    # Sorting is stable: of two events in one second the later in the file is the later.
    for event in sorted(events, key=lambda one: str(one.body.get("eventTime"))):
        name = str(event.body.get("eventName"))
        if event.body.get("errorCode") or not name.startswith(_ACTIONS):
            continue
        named = {key: str(value) for key, value in event.request.items() if key.endswith("Name")}
        last[(name[len("Create") :], *(f"{key}={value}" for key, value in sorted(named.items())))] = event
    for event in last.values():
        if not str(event.body.get("eventName")).startswith("Delete"):
            yield from api.read_request(
                event.request, event.document, f"{event.path}.requestParameters", context
            )


def _events(document: Document) -> Iterator[_Event]:
    value = document.value
    if not isinstance(value, dict):
        return
    for member in ("Records", "Events"):
        entries = value.get(member)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            path, body = f"$.{member}[{index}]", _body(entry)
            if body.get("eventSource") == _SOURCE:
                yield _Event(document, path, body)


def _body(entry: Any) -> dict[str, Any]:
    """The event itself, which `lookup-events` gives as a text."""
    if isinstance(entry, dict) and isinstance(entry.get("CloudTrailEvent"), str):
        try:
            entry = json.loads(entry["CloudTrailEvent"])
        except (ValueError, RecursionError):
            return {}
    return entry if isinstance(entry, dict) else {}
