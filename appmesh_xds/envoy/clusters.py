"""Clusters, health checks and endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

from .. import proto
from .base import HTTP2_FAMILY, HTTP_FAMILY, address, ads, set_duration, set_stats_tags

if TYPE_CHECKING:
    from ..facts import Endpoint
    from ..spec import (
        ConnectionPool,
        HealthCheckPolicy,
        OutlierDetection,
        PortMapping,
        VirtualGatewayConnectionPool,
    )

#: App Mesh's "no limit" (reference §1.5).
UNLIMITED: Final = 2147483647

Discovery = Literal["STATIC", "LOGICAL_DNS", "STRICT_DNS", "EDS", "ORIGINAL_DST"]
_DISCOVERY: Final[dict[str, int]] = {
    "STATIC": 0,
    "STRICT_DNS": 1,
    "LOGICAL_DNS": 2,
    "EDS": 3,
    "ORIGINAL_DST": 4,
}
#: Cluster.DnsLookupFamily by ipPreference (reference §2.3); Envoy's AUTO is IPv6 first.
DNS_LOOKUP_FAMILY: Final[dict[str | None, int]] = {
    None: 0,
    "IPv6_PREFERRED": 0,
    "IPv4_ONLY": 1,
    "IPv6_ONLY": 2,
    "IPv4_PREFERRED": 3,
}
_CLUSTER_PROVIDED: Final = 6
_UNHEALTHY: Final = 2


def _cluster(name: str, discovery: Discovery, connect_timeout: int) -> proto.Cluster:
    result = proto.Cluster()
    result.name = name
    result.type = _DISCOVERY[discovery]
    set_duration(result.connect_timeout, connect_timeout)
    return result


def local_cluster(
    *,
    name: str,
    protocol: str,
    host: str,
    port: int,
    pool: ConnectionPool | VirtualGatewayConnectionPool | None = None,
    legacy_defaults: bool = False,
) -> proto.Cluster:
    """The application beside the proxy, or a gateway's loop to itself. Connection pools limit it and
    never a client's cluster (reference §4.6)."""
    result = _cluster(name, "STATIC", 250)
    result.load_assignment.cluster_name = name
    _add_endpoint(result.load_assignment.endpoints.add(), host, port)
    limits = _limits(pool)
    if limits or not legacy_defaults:
        threshold = result.circuit_breakers.thresholds.add()
        for field in ("max_connections", "max_pending_requests", "max_requests", "max_retries"):
            if field in limits or not legacy_defaults:
                getattr(threshold, field).value = limits.get(field, UNLIMITED)
    set_http_protocol(result, protocol)
    return result


def _limits(pool: ConnectionPool | VirtualGatewayConnectionPool | None) -> dict[str, int]:
    """Thresholds that a connection pool sets; the rest stays unlimited (reference §4.6)."""
    if pool is None:
        return {}
    if pool.http is not None:
        pending = pool.http.max_pending_requests
        return {
            "max_connections": pool.http.max_connections,
            "max_pending_requests": UNLIMITED if pending is None else pending,
        }
    requests = pool.http2 or pool.grpc
    if requests is not None:
        return {"max_requests": requests.max_requests}
    tcp = getattr(pool, "tcp", None)  # gateways have none
    return {} if tcp is None else {"max_connections": tcp.max_connections}


def set_unlimited(cluster: proto.Cluster) -> None:
    """Circuit breakers as App Mesh wrote them on every client cluster (reference §1.5)."""
    threshold = cluster.circuit_breakers.thresholds.add()
    threshold.max_connections.value = UNLIMITED
    threshold.max_pending_requests.value = UNLIMITED
    threshold.max_requests.value = UNLIMITED
    threshold.max_retries.value = UNLIMITED


@cache
def _http2_options() -> proto.Any:
    options = proto.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.SetInParent()
    return proto.pack(options)


def set_http_protocol(cluster: proto.Cluster, protocol: str) -> None:
    """HTTP/2 to http2 and grpc; HTTP/1.1 is Envoy's default."""
    if protocol in HTTP2_FAMILY:
        key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster.typed_extension_protocol_options[key].CopyFrom(_http2_options())


def backend_cluster(
    *,
    name: str,
    node: str,
    port_mapping: PortMapping,
    discovery: Discovery,
    host: str,
    dns_lookup_family: int = 0,
    endpoints: Sequence[Endpoint] | None = None,
    health_check: HealthCheckPolicy | None = None,
    outlier_detection: OutlierDetection | None = None,
    transport_socket: proto.TransportSocket | None = None,
    stats_tags: bool = True,
    legacy_defaults: bool = False,
) -> proto.Cluster:
    """One listener of another node, as its clients see it (reference §1.5).

    `host` is the node's discovery name. For `EDS` the endpoints come over ADS; with `STATIC` they stand in
    the cluster, from `endpoints`.
    """
    result = _cluster(name, discovery, 1000)
    port = port_mapping.port
    if discovery == "EDS":
        result.eds_cluster_config.eds_config.CopyFrom(ads())
    elif discovery == "STATIC":
        result.load_assignment.CopyFrom(cluster_load_assignment(name, endpoints or (), port))
    else:
        result.load_assignment.cluster_name = name
        _add_endpoint(result.load_assignment.endpoints.add(), host, port)
        result.dns_lookup_family = dns_lookup_family
    if not legacy_defaults:
        set_unlimited(result)
    if health_check is not None:
        result.health_checks.append(envoy_health_check(health_check, host, port))
        # Otherwise endpoints that Cloud Map dropped stay while their check passes (RM#213).
        result.ignore_health_on_host_removal = discovery == "EDS"
    if outlier_detection is not None:
        result.outlier_detection.CopyFrom(envoy_outlier_detection(outlier_detection))
    set_http_protocol(result, port_mapping.protocol)
    if transport_socket is not None:
        result.transport_socket.CopyFrom(transport_socket)
    if stats_tags:
        set_stats_tags(result.metadata, {"TargetVirtualNode": node})
    return result


def passthrough_cluster(name: str) -> proto.Cluster:
    """To wherever the application meant to go (reference §10.3)."""
    result = _cluster(name, "ORIGINAL_DST", 1000)
    result.lb_policy = _CLUSTER_PROVIDED
    set_unlimited(result)
    return result


def envoy_health_check(policy: HealthCheckPolicy, host: str, port: int) -> proto.HealthCheck:
    """An active health check (reference §4.5, §10.25). `host` and `port` are the node's own."""
    result = proto.HealthCheck()
    set_duration(result.timeout, policy.timeout_millis)
    set_duration(result.interval, policy.interval_millis)
    result.unhealthy_threshold.value = policy.unhealthy_threshold
    result.healthy_threshold.value = policy.healthy_threshold
    result.alt_port.value = policy.port or port
    if policy.protocol == "grpc":
        result.grpc_health_check.SetInParent()
    elif policy.protocol in HTTP_FAMILY:
        result.http_health_check.host = f"{host}:{port}"
        result.http_health_check.path = policy.path or "/"
        if policy.protocol == "http2":
            result.http_health_check.codec_client_type = 1  # HTTP2
    else:
        result.tcp_health_check.SetInParent()
    return result


def envoy_outlier_detection(spec: OutlierDetection) -> proto.OutlierDetection:
    """Passive health checks: the four values of the spec, the rest as Envoy has it (reference §10.26)."""
    result = proto.OutlierDetection()
    result.consecutive_5xx.value = spec.max_server_errors
    set_duration(result.interval, spec.interval.milliseconds)
    set_duration(result.base_ejection_time, spec.base_ejection_duration.milliseconds)
    result.max_ejection_percent.value = spec.max_ejection_percent
    return result


def cluster_load_assignment(
    name: str, endpoints: Sequence[Endpoint], port: int
) -> proto.ClusterLoadAssignment:
    """The endpoints of a cluster, in the order given; `port` where an endpoint states none."""
    result = proto.ClusterLoadAssignment()
    result.cluster_name = name
    if endpoints:
        locality = result.endpoints.add()
        for endpoint in endpoints:
            _add_endpoint(locality, endpoint.address, endpoint.port or port)
            if endpoint.health == "UNHEALTHY":
                locality.lb_endpoints[-1].health_status = _UNHEALTHY
    return result


def _add_endpoint(locality: proto.LocalityLbEndpoints, host: str, port: int) -> None:
    locality.lb_endpoints.add().endpoint.address.CopyFrom(address(host, port))
