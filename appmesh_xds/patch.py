"""Patch: a snapshot in which only the bytes of some resources of its backends are others.

Most changes of a node reach its callers in this way: the same clusters, endpoints and secrets with another
content. Then the callers' snapshots need not be put together again. Whatever is more than that (a name, a
port, a route, a problem, another TLS) is not a patch, and the answer here is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .resource import Resource, TypeName

if TYPE_CHECKING:
    from .envoy.backend import Backend
    from .snapshot import Snapshot

#: Old and new resource by name.
_Exchange = dict[str, tuple[Resource, Resource]]


class Exchanges(NamedTuple):
    """What changed between two backends of one service and policy."""

    clusters: _Exchange
    endpoints: _Exchange
    secrets: _Exchange


_TYPES: tuple[TypeName, ...] = ("clusters", "endpoints", "secrets")


def exchanges(old: Backend, new: Backend) -> Exchanges | None:
    """The resources to exchange; None when more than their content differs."""
    if (
        old.ports != new.ports
        or old.problems != new.problems
        or len(old.clusters) != len(new.clusters)
        or len(old.secrets) != len(new.secrets)
    ):
        return None
    found = Exchanges({}, {}, {})
    for one, other in zip(old.clusters, new.clusters, strict=True):
        if one.tls != other.tls or not _add(found.clusters, one.resource, other.resource):
            return None
        if one.assignment is not None and other.assignment is not None:
            if not _add(found.endpoints, one.assignment, other.assignment):
                return None
        elif one.assignment is not other.assignment:
            return None
    for secret, other_secret in zip(old.secrets, new.secrets, strict=True):
        if not _add(found.secrets, secret, other_secret):
            return None
    return found


def _add(exchange: _Exchange, old: Resource, new: Resource) -> bool:
    if old.name != new.name or old.origin != new.origin:
        return False
    if old.value != new.value:
        exchange[old.name] = (old, new)
    return True


def patched(
    snapshot: Snapshot, given: Iterable[Exchanges]
) -> tuple[Snapshot, dict[TypeName, tuple[str, ...]]] | None:
    """The snapshot with every exchange made, and the names of what changed by type, sorted.

    None when the snapshot does not hold what is to be exchanged: a proxy with two policies for one target
    has clusters under other names.
    """
    tables: dict[TypeName, _Exchange] = {}
    for one in given:
        for kind, exchange in zip(_TYPES, one, strict=True):
            if exchange:
                tables.setdefault(kind, {}).update(exchange)
    replaced: dict[str, tuple[Resource, ...]] = {}
    for kind, exchange in tables.items():
        resources = list(getattr(snapshot, kind))
        left = len(exchange)
        for place, resource in enumerate(resources):
            pair = exchange.get(resource.name)
            if pair is not None:
                if resource.value != pair[0].value:
                    return None
                resources[place] = pair[1]
                left -= 1
        if left:
            return None
        replaced[kind] = tuple(resources)
    names = {kind: tuple(sorted(exchange)) for kind, exchange in tables.items()}
    return msgspec.structs.replace(snapshot, **replaced), names
