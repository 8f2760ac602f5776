"""Rules for names: of virtual services and hosts, which become domains, and for text in general."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import Final

from ._finding import Finding, error, warning
from .common import HeaderMatch
from .data import VirtualServiceData
from .gateway import GatewayRouteHostnameMatch, GatewayRouteVirtualService
from .node import AwsCloudMapServiceDiscovery, DnsServiceDiscovery, VirtualServiceBackend

# NUL, CR and LF make Envoy refuse domains, header names and rewrites; the others it takes, and no request
# can ever carry them. A tab is legal in header values.
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

#: What cannot be in a name that becomes a domain of a virtual host, and why.
_NOT_IN_DOMAINS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # Envoy would read it as a wildcard.
    (re.compile(r"\*"), "wildcards are not possible here"),
    # Envoy takes it, and no Host header ever equals it.
    (re.compile(r"[\s/?#@]"), "no Host header can hold that"),
    # Gateways hand the name on in a header, where Envoy reads `%` as the start of a command operator.
    (re.compile("%"), "Envoy would read it as a command operator"),
)
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+")
#: RFC 9110 token; in front, the colon of HTTP/2's pseudo-headers, which Envoy matches like headers.
_HEADER_NAME: Final = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PSEUDO_HEADERS: Final = (":authority", ":method", ":path", ":scheme")
_RESERVED_SERVICES: Final = ("aws.app-mesh", "aws.appmesh")


def text_findings(text: str, at: str) -> Iterator[Finding]:
    """Characters that no spec text can have. Call it for text that is not printable."""
    if _CONTROL.search(text):
        character = _CONTROL.search(text)
        assert character is not None
        yield error(at, f"holds a control character (U+{ord(character[0]):04X})", "remove it")
    elif _SURROGATE.search(text):
        yield error(at, "holds half of a surrogate pair, which is not text", "write the character itself")


def _domain(name: str, at: str) -> Iterator[Finding]:
    if _HOST.fullmatch(name):
        return
    for pattern, hint in _NOT_IN_DOMAINS:
        if found := pattern.search(name):
            yield error(at, f"a host name cannot hold {found[0]!r}", hint)


def _service_name(name: str, at: str) -> Iterable[Finding]:
    if _HOST.fullmatch(name) and not name.lower().startswith(_RESERVED_SERVICES):
        return ()
    return _service_name_findings(name, at)


def _service_name_findings(name: str, at: str) -> Iterator[Finding]:
    yield from _domain(name, at)
    if name.lower().startswith(_RESERVED_SERVICES):
        yield error(
            at, "service names that begin with `aws.app-mesh` or `aws.appmesh` are reserved for App Mesh"
        )


def virtual_service(data: VirtualServiceData) -> Iterable[Finding]:
    return _service_name(data.virtual_service_name, ".virtualServiceName")


def backend_service(backend: VirtualServiceBackend) -> Iterable[Finding]:
    return _service_name(backend.virtual_service_name, ".virtualServiceName")


def target_service(target: GatewayRouteVirtualService) -> Iterable[Finding]:
    return _service_name(target.virtual_service_name, ".virtualServiceName")


def hostname_match(match: GatewayRouteHostnameMatch) -> Iterator[Finding]:
    if match.exact is not None:
        yield from _domain(match.exact, ".exact")
    if match.suffix is not None:
        yield from _domain(match.suffix, ".suffix")
        if not match.suffix.startswith((".", "*")):
            # Envoy's wildcards `*h` and `*-h` would do; App Mesh served whole labels only (RM#384).
            yield warning(".suffix", "a suffix is matched at a dot only", f"say so: `.{match.suffix[:60]}`")


def dns(discovery: DnsServiceDiscovery) -> Iterator[Finding]:
    yield from _address(discovery.hostname, ".hostname")


def cloud_map(discovery: AwsCloudMapServiceDiscovery) -> Iterator[Finding]:
    yield from _domain(discovery.namespace_name, ".namespaceName")
    yield from _domain(discovery.service_name, ".serviceName")


def _address(host: str, at: str) -> Iterator[Finding]:
    # Envoy takes any address that is not empty and fails when it resolves it.
    if re.search(r"[\s*]", host):
        yield from _domain(host, at)
    elif not _HOST.fullmatch(host) and not _is_ipv6(host):
        yield warning(at, "this does not look like a host name", "a name or an address, without a port")


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def header(match: HeaderMatch) -> Iterator[Finding]:
    if not _HEADER_NAME.fullmatch(match.name):
        yield error(".name", f"{match.name!r} is not a header's name", "letters, digits and !#$%&'*+-.^_`|~")
    elif match.name.startswith(":") and match.name.lower() not in _PSEUDO_HEADERS:
        yield warning(".name", "no request has this header", "one of " + ", ".join(_PSEUDO_HEADERS))
