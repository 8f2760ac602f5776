"""Patch: a snapshot in which only the bytes of some resources of its backends are others.

Most changes of a node reach its callers in this way: the same clusters, endpoints and secrets with another
content. Then the callers' snapshots need not be put together again. Whatever is more than that (a name, a
port, a route, a problem, another TLS) is not a patch, and the answer here is None.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from .resource import Resource, TypeName

if TYPE_CHECKING:
    from .envoy.backend import Backend
    from .snapshot import Snapshot

#: Old and new resource by name, by type; of types in which something changed.
Exchanges = dict[TypeName, dict[str, tuple[Resource, Resource]]]


def exchanges(old: Backend, new: Backend) -> Exchanges | None:
    """What changed between two backends of one service and policy; None when it is more than contents."""
    if (
        old.ports != new.ports
        or old.problems != new.problems
        or len(old.clusters) != len(new.clusters)
        or len(old.secrets) != len(new.secrets)
    ):
        return None
    found: Exchanges = {}
    for one, other in zip(old.clusters, new.clusters, strict=True):
        if one.tls != other.tls or not _add(found, "clusters", one.resource, other.resource):
            return None
        if one.assignment is not None and other.assignment is not None:
            if not _add(found, "endpoints", one.assignment, other.assignment):
                return None
        elif one.assignment is not other.assignment:
            return None
    for secret, other_secret in zip(old.secrets, new.secrets, strict=True):
        if not _add(found, "secrets", secret, other_secret):
            return None
    return found


def _add(found: Exchanges, kind: TypeName, old: Resource, new: Resource) -> bool:
    if old.name != new.name or old.origin != new.origin:
        return False
    if old.value != new.value:
        found.setdefault(kind, {})[old.name] = (old, new)
    return True


def merged(given: Sequence[Exchanges]) -> Exchanges:
    """All of them. What several name is the same in each: they share the nodes that they lead to."""
    if len(given) == 1:
        return given[0]
    found: Exchanges = {}
    for one in given:
        for kind, exchange in one.items():
            found.setdefault(kind, {}).update(exchange)
    return found


def patched(snapshot: Snapshot, given: Exchanges) -> Snapshot | None:
    """The snapshot with every exchange made.

    None when it does not hold what is to be exchanged: a proxy with two policies for one target has
    clusters under other names.
    """
    replaced: dict[str, tuple[Resource, ...]] = {}
    for kind, exchange in given.items():
        resources = list(getattr(snapshot, kind))
        for name, (old, new) in exchange.items():
            place = bisect_left(resources, name, key=_name)
            found = resources[place] if place < len(resources) else None
            if found is None or found.name != name or found.value != old.value:
                return None
            resources[place] = new
        replaced[kind] = tuple(resources)
    return msgspec.structs.replace(snapshot, **replaced)


_name = attrgetter("name")
