"""Listener filters, network filters and access logs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

from .. import proto
from .base import ads, set_duration

if TYPE_CHECKING:
    from ..spec import Logging

#: Port ranges in Envoy's predicates end before their end.
_NEXT = 1


def access_logs(logging: Logging | None) -> tuple[proto.AccessLog, ...]:
    """The access log of a node or gateway: none or one, the same for every filter (reference §6.1).

    No newline is added to a text format: the spec's author writes it (§10.35).
    """
    if logging is None or logging.access_log is None or logging.access_log.file is None:
        return ()
    spec = logging.access_log.file
    log = proto.FileAccessLog()
    log.path = spec.path
    if spec.format is not None:
        if spec.format.text is not None:
            log.log_format.text_format_source.inline_string = spec.format.text
        elif spec.format.json is not None:
            for entry in spec.format.json:
                log.log_format.json_format.fields[entry.key].string_value = entry.value
    result = proto.AccessLog()
    result.name = "envoy.access_loggers.file"
    result.typed_config.CopyFrom(proto.pack(log))
    return (result,)


@cache
def original_dst() -> proto.ListenerFilter:
    """Restores the address that iptables redirected from. Shared: do not change."""
    result = proto.ListenerFilter(name="envoy.filters.listener.original_dst")
    result.typed_config.CopyFrom(proto.pack(proto.OriginalDst()))
    return result


def tls_inspector(only_ports: Collection[int] = ()) -> proto.ListenerFilter:
    """Tells TLS from plaintext and reads SNI, on `only_ports` or (none given) on every port.

    It waits for the client's first bytes, so a server-first protocol behind it would stall: every port
    that needs no inspection is exempt (reference §10.8; the predicate is by destination port).
    """
    result = proto.ListenerFilter(name="envoy.filters.listener.tls_inspector")
    result.typed_config.CopyFrom(proto.pack(proto.TlsInspector()))
    if only_ports:
        inspected = result.filter_disabled.not_match
        rules = [_destination_port(port) for port in sorted(only_ports)]
        if len(rules) == 1:
            inspected.CopyFrom(rules[0])
        else:
            inspected.or_match.rules.extend(rules)
    return result


def _destination_port(port: int) -> proto.ListenerFilterChainMatchPredicate:
    predicate = proto.ListenerFilterChainMatchPredicate()
    predicate.destination_port_range.start = port
    predicate.destination_port_range.end = port + _NEXT
    return predicate


@cache
def _router() -> proto.HttpFilter:
    result = proto.HttpFilter(name="envoy.filters.http.router")
    result.typed_config.CopyFrom(proto.pack(proto.Router()))
    return result


def http_connection_manager(
    *,
    stat_prefix: str,
    routes: str | proto.RouteConfiguration,
    logs: Sequence[proto.AccessLog] = (),
) -> proto.HttpConnectionManager:
    """The same on ingress and egress (reference §1.3); codec AUTO serves HTTP/1.1 and HTTP/2.

    `routes` is the name of a route configuration delivered over ADS, or the configuration itself.
    """
    result = proto.HttpConnectionManager()
    result.stat_prefix = stat_prefix
    if isinstance(routes, str):
        result.rds.route_config_name = routes
        result.rds.config_source.CopyFrom(ads())
    else:
        result.route_config.CopyFrom(routes)
    result.http_filters.append(_router())
    result.tracing.SetInParent()
    result.access_log.extend(logs)
    upgrade = result.upgrade_configs.add()
    upgrade.upgrade_type = "websocket"
    upgrade.enabled.value = True
    # WebSocket over HTTP/2 is an extended CONNECT, which App Mesh never offered (RM#465).
    result.http2_protocol_options.allow_connect = True
    result.normalize_path.value = True
    result.merge_slashes = True
    result.path_with_escaped_slashes_action = 1  # KEEP_UNCHANGED
    return result


def tcp_proxy(
    *,
    stat_prefix: str,
    clusters: Sequence[tuple[str, int]],
    idle_timeout: int | None = None,
    logs: Sequence[proto.AccessLog] = (),
) -> proto.TcpProxy:
    """Bytes to one cluster, or to several by weight. `idle_timeout` in milliseconds, 0 for never."""
    result = proto.TcpProxy()
    result.stat_prefix = stat_prefix
    if len(clusters) == 1:
        result.cluster = clusters[0][0]
    else:
        for name, weight in clusters:
            result.weighted_clusters.clusters.add(name=name, weight=weight)
    if idle_timeout is not None:
        set_duration(result.idle_timeout, idle_timeout)
    result.access_log.extend(logs)
    return result


def http_filter(manager: proto.HttpConnectionManager) -> proto.Filter:
    """The connection manager as a network filter."""
    result = proto.Filter(name="envoy.filters.network.http_connection_manager")
    result.typed_config.CopyFrom(proto.pack(manager))
    return result


def tcp_filter(tcp: proto.TcpProxy) -> proto.Filter:
    """The TCP proxy as a network filter."""
    result = proto.Filter(name="envoy.filters.network.tcp_proxy")
    result.typed_config.CopyFrom(proto.pack(tcp))
    return result
