"""Listeners and filter chains; the three TLS modes as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import proto
from .base import address, set_duration, set_stats_tags

if TYPE_CHECKING:
    from ..spec.types import ListenerTlsMode

#: A client that connects and says nothing must not hold a handshake for ever (milliseconds).
HANDSHAKE_TIMEOUT: Final = 15_000
#: How long PERMISSIVE TCP waits for the client to speak first, before it takes it for plaintext.
INSPECTION_TIMEOUT: Final = 1_000

_INBOUND: Final = 1
_OUTBOUND: Final = 2


class Chain(NamedTuple):
    """One filter chain of a mode: what it is called, what it matches, whether it has a TLS socket."""

    suffix: str
    transport_protocol: str
    tls: bool


#: Which chains serve a port, by mode (App Mesh user guide, "Transport Layer Security"; reference §3.1).
TLS_MODES: Final[dict[ListenerTlsMode | None, tuple[Chain, ...]]] = {
    # Only TLS: one chain, every byte goes to the handshake. A plaintext client fails it, and is counted in
    # ssl.connection_error.
    "STRICT": (Chain("", "", True),),
    # TLS or plaintext: tls_inspector tells them apart. Both chains say what they match; a chain without a
    # transport protocol would take whatever the other left, and mean something else behind an inspector.
    "PERMISSIVE": (Chain("_tls", "tls", True), Chain("_plaintext", "raw_buffer", False)),
    # Only plaintext.
    "DISABLED": (Chain("", "", False),),
    # A listener without `tls` is the same.
    None: (Chain("", "", False),),
}


def filter_chains(
    *,
    name: str,
    filters: Sequence[proto.Filter],
    mode: ListenerTlsMode | None = None,
    tls: proto.TransportSocket | None = None,
    destination_port: int | None = None,
) -> list[proto.FilterChain]:
    """The chains of one App Mesh listener, by its TLS mode.

    `destination_port` tells listeners apart that share a socket behind iptables. Raises ValueError when the
    mode needs TLS and there is no TLS socket.
    """
    chains = []
    for row in TLS_MODES[mode]:
        chain = proto.FilterChain()
        chain.name = name + row.suffix
        if destination_port is not None:
            chain.filter_chain_match.destination_port.value = destination_port
        if row.transport_protocol:
            chain.filter_chain_match.transport_protocol = row.transport_protocol
        chain.filters.extend(filters)
        if row.tls:
            if tls is None:
                raise ValueError(f"{mode} needs a TLS transport socket")
            chain.transport_socket.CopyFrom(tls)
            set_duration(chain.transport_socket_connect_timeout, HANDSHAKE_TIMEOUT)
        chains.append(chain)
    return chains


def listener(
    *,
    name: str,
    host: str,
    port: int,
    inbound: bool,
    chains: Sequence[proto.FilterChain],
    listener_filters: Sequence[proto.ListenerFilter] = (),
    go_on_without_first_bytes: bool = False,
    reuse_port: bool = True,
    stats_tags: bool = True,
) -> proto.Listener:
    """A socket with its chains (reference §1.4).

    `go_on_without_first_bytes`: when a listener filter waits in vain for `INSPECTION_TIMEOUT`, go on and
    treat the client as plaintext instead of closing after 15 s. PERMISSIVE TCP needs it for server-first
    protocols, which pay that second. `reuse_port=False` makes a second process on the same port fail
    instead of taking half of the connections.
    """
    result = proto.Listener()
    result.name = name
    result.address.CopyFrom(address(host, port))
    result.filter_chains.extend(chains)
    result.listener_filters.extend(listener_filters)
    result.traffic_direction = _INBOUND if inbound else _OUTBOUND
    if go_on_without_first_bytes:
        set_duration(result.listener_filters_timeout, INSPECTION_TIMEOUT)
        result.continue_on_listener_filters_timeout = True
    if not reuse_port:
        result.enable_reuse_port.value = False
    if stats_tags:
        set_stats_tags(result.metadata, {})
    return result
