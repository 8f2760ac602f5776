"""Where a server gets its snapshots from."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from ..snapshot import Snapshot

#: `mesh/M@OWNER/KIND/NAME`. Names of meshes hold no @; other names may hold slashes.
_WITH_OWNER: Final = re.compile(r"mesh/([^@]*?)@([^/]*)/(.*)", re.DOTALL)


#: Is told which nodes' snapshots changed, by their `Snapshot.node_id`.
Changed = Callable[[Collection[str]], None]


class SnapshotSource(Protocol):
    """What feeds a server. Both methods are called in the server's event loop and must not wait."""

    def snapshot(self, node_id: str) -> Snapshot | None:
        """The newest snapshot of a node, None when there is no such node.

        `node_id` is what the client sent: an ARN or `mesh/M[@owner]/virtualNode|virtualGateway/N` from an
        Envoy as App Mesh ran it (reference §6.2), anything from others. A snapshot with errors is never sent:
        the source should keep offering the last one without.
        """

    def subscribe(self, changed: Changed) -> Callable[[], None]:
        """Has `changed` called, from any thread, after snapshots changed, came or went. Returns what ends
        that."""


class Snapshots:
    """A `SnapshotSource` that holds what it is given. May be used from any thread."""

    def __init__(self, snapshots: Iterable[Snapshot] = ()) -> None:
        self._lock = Lock()
        self._snapshots: dict[str, Snapshot] = {}
        self._callbacks: list[Changed] = []
        self.put(*snapshots)

    def put(self, *snapshots: Snapshot) -> None:
        """Adds or replaces snapshots, each under its node id. One with errors does not replace another."""
        with self._lock:
            changed = [snapshot.node_id for snapshot in snapshots]
            for node_id, snapshot in zip(changed, snapshots, strict=True):
                if not snapshot.problems or not snapshot.errors or node_id not in self._snapshots:
                    self._snapshots[node_id] = snapshot
        self._tell(changed)

    def remove(self, *node_ids: str) -> None:
        """Forgets nodes. Their streams stay as they are, new ones are refused."""
        with self._lock:
            for node_id in node_ids:
                self._snapshots.pop(node_id, None)
        self._tell(node_ids)

    def snapshot(self, node_id: str) -> Snapshot | None:
        found = self._snapshots.get(node_id)  # as nearly all of them ask
        if found is not None:
            return found
        name = resource_name(node_id)
        with self._lock:
            # A mesh that says nothing of its owner may be anybody's.
            return self._snapshots.get(name) or self._snapshots.get(without_owner(name))

    def subscribe(self, changed: Changed) -> Callable[[], None]:
        with self._lock:
            self._callbacks.append(changed)
        return lambda: self._callbacks.remove(changed)

    def _tell(self, node_ids: Collection[str]) -> None:
        with self._lock:
            callbacks = tuple(self._callbacks)
        for changed in callbacks:
            changed(node_ids)


def resource_name(node_id: str) -> str:
    """`mesh/...` of an ARN of any partition; anything else as it is (reference §6.2)."""
    return node_id.split(":", 5)[-1] if node_id.startswith("arn:") else node_id


def without_owner(node_id: str) -> str:
    """The same for every id that a node may have: `mesh/M/...` of `mesh/M@OWNER/...`."""
    with_owner = _WITH_OWNER.fullmatch(node_id) if "@" in node_id else None
    return f"mesh/{with_owner[1]}/{with_owner[3]}" if with_owner else node_id
