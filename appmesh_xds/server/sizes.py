"""How large the largest responses may become. Clients of Google's gRPC, as in App Mesh's images, take 4 MiB
unless told otherwise, and end the stream over more; state of the world sends a whole type at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from ..errors import Problem
from ..resource import TYPE_NAMES
from .wire import response_size

if TYPE_CHECKING:
    from ..resource import Resource
    from ..snapshot import Snapshot

#: gRPC's own limit of what is received, in bytes.
LIMIT: Final = 4 * 1024 * 1024
#: How many of the largest resources are named.
_NAMED: Final = 3


class Sizes:
    """Of every proxy there is. Those that did not change since the last look are not looked at again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Snapshot, int]] = {}
        #: The largest response that some proxy may be sent, in bytes.
        self.largest = 0
        self._problems: list[Problem] = []

    def look(self, snapshots: Iterable[Snapshot]) -> None:
        known = {}
        for snapshot in snapshots:
            at = snapshot.mesh, snapshot.proxy
            before = self._known.get(at)
            known[at] = (
                before if before is not None and before[0] is snapshot else (snapshot, _size(snapshot))
            )
        self._known = known
        self.largest = max((size for _, size in known.values()), default=0)
        large = sorted(at for at, (_, size) in known.items() if size > LIMIT)
        self._problems = [problem for at in large for problem in _problems(known[at][0])]

    def problems(self) -> list[Problem]:
        """A warning for each type of a proxy that is too large for one response."""
        return self._problems


def _size(snapshot: Snapshot) -> int:
    return max(response_size(url, snapshot.resources(url)) for url in TYPE_NAMES.values())


def _problems(snapshot: Snapshot) -> Iterable[Problem]:
    for name, url in TYPE_NAMES.items():
        resources = snapshot.resources(url)
        size = response_size(url, resources)
        if size > LIMIT:
            yield Problem(
                resource=snapshot.proxy,
                message=f"its {name} are {size} bytes, and Envoys of App Mesh's images take {LIMIT} in one "
                f"response; the largest: {_largest(resources)}",
                hint="have it need less, above all fewer backends; or use the bootstrap of 'appmesh-xds "
                "bootstrap', whose client has no limit",
                severity="warning",
            )


def _largest(resources: Sequence[Resource]) -> str:
    found = sorted(resources, key=lambda one: (-len(one.value), one.name))[:_NAMED]
    return ", ".join(f"{one.name} ({len(one.value)})" for one in found)
