"""Small pieces that most messages need."""

from __future__ import annotations

import ipaddress
import re
from functools import cache, lru_cache
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING, Final

from .. import proto
from ..names import AGGREGATE_STATS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..spec import Duration

#: The HTTP family: protocols that a connection manager serves. The others are bytes.
HTTP_FAMILY: Final = frozenset({"http", "http2", "grpc"})
_IP_V4: Final = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)
#: Protocols that speak HTTP/2 to the upstream.
HTTP2_FAMILY: Final = frozenset({"http2", "grpc"})


def set_duration(field: proto.Duration, milliseconds: int) -> None:
    """Writes a length of time into a Duration field, and marks it as set even when it is 0."""
    field.SetInParent()
    field.seconds = milliseconds // 1000
    field.nanos = milliseconds % 1000 * 1_000_000


def milliseconds(duration: Duration | None) -> int | None:
    """A spec's duration; None when there is none."""
    return None if duration is None else duration.milliseconds


def address(ip: str, port: int) -> proto.Address:
    """A TCP address. `::` also accepts IPv4, as App Mesh bound it (reference §2.3)."""
    result = proto.Address()
    socket = result.socket_address
    socket.address = ip
    socket.port_value = port
    if ip == "::":
        socket.ipv4_compat = True
    return result


@lru_cache(maxsize=65536)
def ip_address(text: str) -> tuple[int, bytes] | None:
    """(version, bytes in network order) of an IPv4 or IPv6 address; None for any other text."""
    if ":" not in text:
        # As strict as the standard library, and much faster.
        return (4, bytes(map(int, text.split(".")))) if _IP_V4.fullmatch(text) else None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return found.version, found.packed


def is_ip(text: str) -> bool:
    """Whether a host is written as an IPv4 or IPv6 address."""
    return ip_address(text) is not None


@cache
def ads() -> proto.ConfigSource:
    """The stream of the aggregated discovery service. Shared: copy it into a message, never change it."""
    source = proto.ConfigSource()
    source.ads.SetInParent()
    source.resource_api_version = 2
    return source


def set_stats_tags(metadata: proto.Metadata, tags: Mapping[str, str]) -> None:
    """The metadata that the metrics extension of the AWS images reads: a JSON text (reference §1.4, §1.6)."""
    entries = ",".join([f'{{"key":{_quoted(key)},"value":{_quoted(value)}}}' for key, value in tags.items()])
    metadata.filter_metadata[AGGREGATE_STATS].fields["config"].string_value = f'{{"tags":[{entries}]}}'
