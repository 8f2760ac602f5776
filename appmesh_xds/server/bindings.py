"""Unix sockets that are each for one proxy: whoever may connect there is that proxy, and is given its keys.

bindings = Bindings({"/run/xds/front.sock": "virtualNode/front"})
bindings.look(snapshots)                    # which proxies there are now
bindings.access("/run/xds/front.sock")      # a rule for a `Listener`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ..errors import Problem
from .session import Access, Peer

if TYPE_CHECKING:
    from ..snapshot import Snapshot


class Bindings:
    """Paths, and the proxy of each: `KIND/NAME`, or `mesh/M/KIND/NAME` where several meshes are served."""

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self.proxies = dict(proxies)
        #: What each proxy that is named is, by mesh and all: one, unless meshes share the name.
        self._found: dict[str, list[str]] = {}

    def look(self, snapshots: Iterable[Snapshot]) -> None:
        """Takes note of the proxies that there are."""
        found: dict[str, list[str]] = {proxy: [] for proxy in self.proxies.values()}
        for snapshot in snapshots if found else ():
            whole = _whole(snapshot)
            for name in (snapshot.proxy, whole):
                if name in found:
                    found[name].append(whole)
        self._found = found

    def access(self, path: str) -> Callable[[Peer, Snapshot], Access]:
        """Everything, keys included, of the socket's own proxy; nothing of others."""
        proxy = self.proxies[path]

        def access(peer: Peer, snapshot: Snapshot) -> Access:
            return Access.FULL if self._found.get(proxy) == [_whole(snapshot)] else Access.NONE

        return access

    def serve(self, snapshot: Snapshot) -> bool:
        """Whether there is a socket of this proxy."""
        whole = _whole(snapshot)
        return [whole] in (self._found.get(snapshot.proxy), self._found.get(whole))

    def problems(self) -> list[Problem]:
        """A warning for each socket that nobody is served on."""
        said = []
        for path, proxy in self.proxies.items():
            there = sorted(self._found.get(proxy, ()))
            if len(there) > 1:
                message = f"{path} is for it, and several meshes have it"
                hint = f"name the one: --unix {path}={there[0]}"
            elif not there:
                message = f"{path} is for it, and it is not in the mesh"
                hint = "until it is, its Envoy gets status 5 and tries again"
            else:
                continue
            said.append(Problem(resource=proxy, message=message, hint=hint, severity="warning"))
        return said


def _whole(snapshot: Snapshot) -> str:
    return f"mesh/{snapshot.mesh}/{snapshot.proxy}"
