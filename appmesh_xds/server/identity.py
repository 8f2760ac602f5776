"""Which proxies a client may ask for, by the names on its verified certificate.

Nobody may have anything unless a rule says so. A rule is a row of a table, or the form of SPIFFE ids in one
trust domain: `spiffe://DOMAIN/mesh/MESH/virtualNode/NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from ..errors import UsageError
from ..readers.text import values_of
from .session import Access, Peer

if TYPE_CHECKING:
    from ..snapshot import Snapshot

#: What a segment of a SPIFFE id may hold. Names that hold more, a slash above all, need the table.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
_PROXY: Final = re.compile(r"(mesh/[^/]+/)?virtual(Node|Gateway)/.+", re.DOTALL)


class Identities(Struct, frozen=True, kw_only=True):
    """The rules of one server."""

    trust_domain: str | None = None
    #: A URI or a DNS name -> the proxies it may ask for, `KIND/NAME` or `mesh/M/KIND/NAME`.
    table: Mapping[str, tuple[str, ...]] = {}

    def access(self, peer: Peer, snapshot: Snapshot) -> Access:
        """Everything, keys included, or nothing: for streams of mutual TLS."""
        return Access.FULL if self._allows(peer, snapshot) else Access.NONE

    def _allows(self, peer: Peer, snapshot: Snapshot) -> bool:
        names = (snapshot.proxy, f"mesh/{snapshot.mesh}/{snapshot.proxy}")
        # The kinds stay apart: nothing that is a DNS name holds "://".
        said = [uri for uri in peer.uris if "://" in uri] + [dns for dns in peer.dns if "://" not in dns]
        if any(proxy in names for name in said for proxy in self.table.get(name, ())):
            return True
        return self.trust_domain is not None and _spiffe_id(self.trust_domain, snapshot) in peer.uris


def _spiffe_id(domain: str, snapshot: Snapshot) -> str | None:
    kind, _, name = snapshot.proxy.partition("/")
    if not all(map(_SEGMENT.fullmatch, (snapshot.mesh, name))):
        return None
    return f"spiffe://{domain}/mesh/{snapshot.mesh}/{kind}/{name}"


def identities(trust_domain: str | None, file: str | None) -> Identities:
    """The rules as they are given on a command line. Raises `UsageError`."""
    if trust_domain is not None and not _DOMAIN.fullmatch(trust_domain):
        raise UsageError(f"--trust-domain {trust_domain}: letters of a trust domain are a-z 0-9 . - _")
    return Identities(trust_domain=trust_domain, table={} if file is None else _table(file))


def _table(file: str) -> dict[str, tuple[str, ...]]:
    value: Any = next(iter(values_of(file, "--identities")), {})
    if not isinstance(value, dict) or not all(isinstance(proxies, list) for proxies in value.values()):
        raise UsageError(f"--identities {file}: expected `NAME: [KIND/NAME, ...]` for each name")
    wrong = [
        f"--identities {file}: {name}: {proxy!r} is no proxy: virtualNode/NAME or mesh/MESH/virtualNode/NAME"
        for name, proxies in value.items()
        for proxy in proxies
        if not isinstance(proxy, str) or not _PROXY.fullmatch(proxy)
    ]
    if wrong:
        raise UsageError("\n".join(wrong))
    return {str(name): tuple(proxies) for name, proxies in value.items()}
