"""Where a proxy listens and where its application is, for either kind of interception."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ..names import INGRESS_PORT
from .base import is_ip
from .report import Report

if TYPE_CHECKING:
    from ..options import Options
    from ..spec import MeshData, ServiceDiscovery

#: `--interception none`: where listeners of a node with several are bound, from the second on.
_FURTHER_INGRESS: Final = 15100

#: Local application by the node's ipPreference (reference §2.3).
_LOOPBACK: Final[dict[str | None, str]] = {
    None: "127.0.0.1",
    "IPv4_PREFERRED": "127.0.0.1",
    "IPv4_ONLY": "127.0.0.1",
    "IPv6_PREFERRED": "::1",
    "IPv6_ONLY": "::1",
}
_ANY: Final = frozenset({"0.0.0.0", "::"})


class Socket(NamedTuple):
    """One address that somebody binds. `path` is where the spec asks for it; empty for options."""

    role: str
    host: str
    port: int
    path: str = ""
    flag: str = ""


def ip_preference(mesh: MeshData, discovery: ServiceDiscovery | None = None) -> str | None:
    """A node's own preference, else the mesh's (reference §2.3)."""
    if discovery is not None:
        own = discovery.dns or discovery.aws_cloud_map
        if own is not None and own.ip_preference is not None:
            return own.ip_preference
    discovery_of_mesh = mesh.spec.service_discovery
    return None if discovery_of_mesh is None else discovery_of_mesh.ip_preference


def bind_address(options: Options, preference: str | None) -> str:
    """Where listeners bind. Behind iptables: everywhere; `::` takes IPv4 too (reference §2.3)."""
    if options.bind is not None:
        return options.bind
    if options.interception == "none":
        return "127.0.0.1"
    return "0.0.0.0" if preference is None else "::"


def application_address(options: Options, preference: str | None) -> str:
    return options.app_address or _LOOPBACK[preference]


def application_port(options: Options, listener_port: int) -> int:
    own = dict(options.app_ports).get(listener_port) if options.app_ports else None
    return own or options.app_port or listener_port


def ingress_ports(options: Options, listener_ports: Sequence[int]) -> dict[int, int]:
    """Listener port -> port to bind, without interception. (Behind iptables one port serves all.)"""
    given = dict(options.ingress_ports)
    if len(listener_ports) == 1:
        only = listener_ports[0]
        return {only: given.get(only) or options.ingress_port or INGRESS_PORT}
    return {port: given.get(port) or _FURTHER_INGRESS + index for index, port in enumerate(listener_ports)}


def report_clashes(sockets: Sequence[Socket], resource: str, report: Report) -> bool:
    """Reports every two sockets that cannot both be bound. True when there are any."""
    clash = False
    for index, one in enumerate(sockets):
        for other in sockets[:index]:
            if one.port != other.port or not _overlap(one.host, other.host):
                continue
            clash = True
            flags = " or ".join(sorted({socket.flag for socket in (one, other) if socket.flag}))
            report.error(
                resource,
                one.path or other.path or "$.spec",
                f"{other.role} and {one.role} would both be at {one.host} port {one.port}",
                f"change one of them with {flags}" if flags else "use another port",
            )
    return clash


def _overlap(one: str, other: str) -> bool:
    if one == other or one in _ANY or other in _ANY:
        return True
    # Host names may be the same address; only two different IP addresses surely are not.
    return not (is_ip(one) and is_ip(other))
