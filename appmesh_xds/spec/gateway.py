"""Virtual gateways and their routes."""

from __future__ import annotations

from ._base import Spec
from .common import BackendDefaults, Logging
from .node import HttpConnectionPool, ListenerTls, RequestConnectionPool
from .route import HeaderMatches, HttpPathMatch, HttpQueryParameters
from .types import (
    DefaultGatewayRouteRewrite,
    GatewayHostname,
    GatewayPrefix,
    HealthCheckIntervalMillis,
    HealthCheckThreshold,
    HealthCheckTimeoutMillis,
    HttpMethod,
    HttpPathValue,
    Port,
    Priority,
    RequestText,
    ResourceName,
    ServiceName,
    VirtualGatewayPortProtocol,
)


class VirtualGatewayPortMapping(Spec, frozen=True, kw_only=True):
    port: Port
    protocol: VirtualGatewayPortProtocol


class VirtualGatewayConnectionPool(Spec, frozen=True, kw_only=True):
    """Union: exactly one member, that of the listener's protocol."""

    grpc: RequestConnectionPool | None = None
    http: HttpConnectionPool | None = None
    http2: RequestConnectionPool | None = None


class VirtualGatewayHealthCheckPolicy(Spec, frozen=True, kw_only=True):
    """For what stands before the gateway; no Envoy of the mesh runs it (reference §4.5)."""

    protocol: VirtualGatewayPortProtocol
    healthy_threshold: HealthCheckThreshold
    unhealthy_threshold: HealthCheckThreshold
    interval_millis: HealthCheckIntervalMillis
    timeout_millis: HealthCheckTimeoutMillis
    path: RequestText | None = None
    port: Port | None = None


class VirtualGatewayListener(Spec, frozen=True, kw_only=True):
    port_mapping: VirtualGatewayPortMapping
    connection_pool: VirtualGatewayConnectionPool | None = None
    health_check: VirtualGatewayHealthCheckPolicy | None = None
    tls: ListenerTls | None = None


class VirtualGatewaySpec(Spec, frozen=True, kw_only=True):
    listeners: tuple[VirtualGatewayListener, ...]
    backend_defaults: BackendDefaults | None = None
    logging: Logging | None = None


# --- gateway routes -------------------------------------------------------------------------------


class GatewayRouteHostnameMatch(Spec, frozen=True, kw_only=True):
    """`exact` or `suffix`."""

    exact: GatewayHostname | None = None
    suffix: GatewayHostname | None = None


class GatewayRouteHostnameRewrite(Spec, frozen=True, kw_only=True):
    """ENABLED (the default) sends the virtual service's name as host, DISABLED keeps the client's."""

    default_target_hostname: DefaultGatewayRouteRewrite | None = None


class GatewayRouteVirtualService(Spec, frozen=True, kw_only=True):
    virtual_service_name: ResourceName


class GatewayRouteTarget(Spec, frozen=True, kw_only=True):
    virtual_service: GatewayRouteVirtualService
    port: Port | None = None


class GrpcGatewayRouteMatch(Spec, frozen=True, kw_only=True):
    hostname: GatewayRouteHostnameMatch | None = None
    metadata: HeaderMatches | None = None
    port: Port | None = None
    service_name: ServiceName | None = None


class GrpcGatewayRouteRewrite(Spec, frozen=True, kw_only=True):
    hostname: GatewayRouteHostnameRewrite | None = None


class GrpcGatewayRouteAction(Spec, frozen=True, kw_only=True):
    target: GatewayRouteTarget
    rewrite: GrpcGatewayRouteRewrite | None = None


class GrpcGatewayRoute(Spec, frozen=True, kw_only=True):
    action: GrpcGatewayRouteAction
    match: GrpcGatewayRouteMatch


class HttpGatewayRouteMatch(Spec, frozen=True, kw_only=True):
    headers: HeaderMatches | None = None
    hostname: GatewayRouteHostnameMatch | None = None
    method: HttpMethod | None = None
    path: HttpPathMatch | None = None
    port: Port | None = None
    prefix: RequestText | None = None
    query_parameters: HttpQueryParameters | None = None


class HttpGatewayRoutePathRewrite(Spec, frozen=True, kw_only=True):
    exact: HttpPathValue | None = None


class HttpGatewayRoutePrefixRewrite(Spec, frozen=True, kw_only=True):
    """`defaultPrefix` ENABLED (the default) replaces the matched prefix by `/`, DISABLED keeps it."""

    default_prefix: DefaultGatewayRouteRewrite | None = None
    value: GatewayPrefix | None = None


class HttpGatewayRouteRewrite(Spec, frozen=True, kw_only=True):
    hostname: GatewayRouteHostnameRewrite | None = None
    path: HttpGatewayRoutePathRewrite | None = None
    prefix: HttpGatewayRoutePrefixRewrite | None = None


class HttpGatewayRouteAction(Spec, frozen=True, kw_only=True):
    target: GatewayRouteTarget
    rewrite: HttpGatewayRouteRewrite | None = None


class HttpGatewayRoute(Spec, frozen=True, kw_only=True):
    action: HttpGatewayRouteAction
    match: HttpGatewayRouteMatch


class GatewayRouteSpec(Spec, frozen=True, kw_only=True):
    """Exactly one of the three route types."""

    grpc_route: GrpcGatewayRoute | None = None
    http2_route: HttpGatewayRoute | None = None
    http_route: HttpGatewayRoute | None = None
    priority: Priority | None = None
