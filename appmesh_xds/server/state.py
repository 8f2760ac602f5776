"""The last good snapshots on disk, so that a server which starts over broken specs serves what it served.

One file a proxy, in a folder that only its owner may read. Private keys are never written: a proxy whose
snapshot comes from here keeps the ones it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import Problem, UsageError
from ..snapshot import Snapshot
from .keys import without_keys

_SUFFIX: Final = ".snapshot"


class _Kept(msgspec.Struct, frozen=True):
    #: Of the layout of this file and of `Snapshot`.
    layout: int
    snapshot: Snapshot


_LAYOUT: Final = 1


def unchangeable(before: Iterable[Snapshot], newest: Callable[[str], Snapshot | None]) -> list[Problem]:
    """A warning for each proxy whose Envoy, if it runs on `before`, refuses the newest until it is restarted:
    `enable_reuse_port`, which depends on the kind of interception, is fixed while a listener lives."""
    found = []
    for snapshot in before:
        after = newest(snapshot.node_id)
        reused = {} if after is None else _reuse_port(after)
        names = [name for name, reuse in _reuse_port(snapshot).items() if reused.get(name, reuse) != reuse]
        if names:
            text = f"listeners cannot change so in a running Envoy (--interception): {', '.join(names)}"
            found.append(
                Problem(resource=snapshot.proxy, message=text, hint="restart this Envoy", severity="warning")
            )
    return found


def _reuse_port(snapshot: Snapshot) -> dict[str, bool]:
    found = {}
    for resource in snapshot.listeners:
        listener: Any = resource.message()
        # What is not said is true.
        found[resource.name] = not listener.HasField("enable_reuse_port") or listener.enable_reuse_port.value
    return found


class State:
    """A folder of snapshots. Raises `UsageError` when it cannot be made or is open to others."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self.folder.stat().st_mode
        except OSError as error:
            raise UsageError(f"--state {self.folder}: {error.strerror}") from None
        if mode & 0o077:
            raise UsageError(f"--state {self.folder}: others may look into it: chmod 700 {self.folder}")

    def load(self) -> list[Snapshot]:
        """What was kept. Files that are damaged, or of another version, are passed over."""
        found = []
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(msgspec.MsgspecError, OSError):
                kept = msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
                if kept.layout == _LAYOUT and path == self._path(kept.snapshot.node_id):
                    found.append(kept.snapshot)
        return found

    def keep(self, snapshots: Iterable[Snapshot]) -> None:
        """Writes snapshots, each in place of the last one of its node. Raises OSError."""
        for snapshot in snapshots:
            bare = msgspec.structs.replace(without_keys(snapshot), problems=())
            path = self._path(snapshot.node_id)
            new = path.with_suffix(".new")
            new.write_bytes(msgspec.msgpack.encode(_Kept(_LAYOUT, bare)))
            os.replace(new, path)

    def drop(self, node_ids: Iterable[str]) -> None:
        """Forgets nodes. Raises OSError."""
        for node_id in node_ids:
            self._path(node_id).unlink(missing_ok=True)

    def _path(self, node_id: str) -> Path:
        # Names of nodes may be longer than those of files, and hold anything.
        name = hashlib.blake2b(node_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self.folder / f"{name}{_SUFFIX}"
