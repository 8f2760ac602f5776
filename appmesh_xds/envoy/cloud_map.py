"""Which instances of a Cloud Map service the clients of a node use: the one place where they are chosen.

Sources of instances give all there are; what the node's `attributes` and `ipPreference` leave out is left out
here (reference §2.3, §2.4, §10.25).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from ..facts import Endpoint
from .base import ip_address
from .report import Report

if TYPE_CHECKING:
    from ..spec import ServiceDiscovery

_PATH: Final = "$.spec.serviceDiscovery.awsCloudMap"
#: IP version -> rank among an instance's addresses; versions that are missing are not used (reference §2.3).
_RANKS: Final[Mapping[str | None, Mapping[int, int]]] = {
    None: {4: 0, 6: 1},
    "IPv4_PREFERRED": {4: 0, 6: 1},
    "IPv6_PREFERRED": {6: 0, 4: 1},
    "IPv4_ONLY": {4: 0},
    "IPv6_ONLY": {6: 0},
}


def discovery_name(discovery: ServiceDiscovery | None) -> str:
    """What a node is found by: its host name, or `<service>.<namespace>` in Cloud Map (reference §3.2)."""
    if discovery is None:
        return ""
    if discovery.dns is not None:
        return discovery.dns.hostname.removesuffix(".")
    if discovery.aws_cloud_map is not None:
        return f"{discovery.aws_cloud_map.service_name}.{discovery.aws_cloud_map.namespace_name}"
    return ""


def cloud_map_endpoints(
    node: str,
    discovery: ServiceDiscovery,
    known: Sequence[Endpoint] | None,
    preference: str | None,
    report: Report,
) -> tuple[Endpoint, ...]:
    """The instances that clients may use, each at one address, sorted by it.

    All of the node's attributes match; healthy ones, or all when none is; at the address of the version that
    the node prefers. That nothing is left is a warning: instances come and go. None is nothing known, which
    is an error.
    """
    key = f"virtualNode/{node}"
    if known is None:
        report.error(
            key,
            _PATH,
            f"no endpoints are known for {discovery_name(discovery)}",
            f"say them in the facts: endpoints: {{{node}: [{{address: 10.0.0.1}}]}}; or what knows them: "
            "--cloud-map file, dns or aws",
        )
        return ()
    cloud_map = discovery.aws_cloud_map
    wanted = {(one.key, one.value) for one in (cloud_map.attributes if cloud_map else None) or ()}
    chosen = [endpoint for endpoint in known if wanted <= set(endpoint.attributes)] if wanted else known
    healthy = [endpoint for endpoint in chosen if endpoint.health == "HEALTHY"]
    ranks = _RANKS[preference]
    found: dict[tuple[int, bytes, int], Endpoint] = {}
    for endpoint in healthy or chosen:
        best = _best_address(endpoint, ranks, key, report)
        if best is None:
            continue
        _, version, packed, address = best
        if address != endpoint.address:
            endpoint = Endpoint(address=address, port=endpoint.port, health=endpoint.health)
        found[version, packed, endpoint.port or 0] = endpoint
    if not found:
        report.warning(key, _PATH, _why_none(discovery, len(known), len(chosen)), "every request gets 503")
    return tuple([endpoint for _, endpoint in sorted(found.items(), key=_by_place)])


_by_place = itemgetter(0)


def _best_address(
    endpoint: Endpoint, ranks: Mapping[int, int], key: str, report: Report
) -> tuple[int, int, bytes, str] | None:
    """Its rank, version, bytes and text; None when the endpoint has none that may be used."""
    best = None
    for text in (endpoint.address, endpoint.other_address):
        if text is None:
            continue
        address = ip_address(text)
        if address is None:
            report.error(key, _PATH, f"the endpoint address {text!r} of the facts is not an IP address")
        elif address[0] in ranks:
            one = (ranks[address[0]], *address, text)
            best = one if best is None else min(best, one)
    return best


def _why_none(discovery: ServiceDiscovery, known: int, chosen: int) -> str:
    name = discovery_name(discovery)
    if not known:
        return f"{name} has no instance now"
    if not chosen:
        return f"none of the instances of {name} ({known}) has all of the node's attributes"
    return f"none of the instances of {name} ({chosen}) has an address that the ipPreference allows"


def report_lost_attributes(node: str, discovery: ServiceDiscovery, report: Report) -> None:
    """DNS answers with every instance of a service, so that attributes would choose nothing."""
    if discovery.aws_cloud_map is not None and discovery.aws_cloud_map.attributes:
        report.error(
            f"virtualNode/{node}",
            f"{_PATH}.attributes",
            f"cannot choose among what DNS answers for {discovery_name(discovery)}",
            "say its endpoints in the facts, or take --cloud-map file or aws",
        )
