"""Virtual services, virtual routers and their routes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ._base import Spec
from .common import Duration, HeaderMatch
from .node import HttpTimeout, PortMapping, TcpTimeout
from .types import (
    GrpcRetryPolicyEvent,
    HttpMethod,
    HttpPathValue,
    HttpRetryPolicyEvent,
    HttpScheme,
    MaxRetries,
    MethodName,
    Port,
    Priority,
    QueryParameterName,
    RequestText,
    ResourceName,
    ServiceName,
    TcpRetryPolicyEvent,
    Weight,
)

HeaderMatches = Annotated[tuple[HeaderMatch, ...], Meta(min_length=1, max_length=10)]
HttpRetryPolicyEvents = Annotated[tuple[HttpRetryPolicyEvent, ...], Meta(min_length=1, max_length=25)]
GrpcRetryPolicyEvents = Annotated[tuple[GrpcRetryPolicyEvent, ...], Meta(min_length=1, max_length=5)]
TcpRetryPolicyEvents = Annotated[tuple[TcpRetryPolicyEvent, ...], Meta(min_length=1, max_length=1)]


class VirtualNodeServiceProvider(Spec, frozen=True, kw_only=True):
    virtual_node_name: ResourceName


class VirtualRouterServiceProvider(Spec, frozen=True, kw_only=True):
    virtual_router_name: ResourceName


class VirtualServiceProvider(Spec, frozen=True, kw_only=True):
    """Union: exactly one member."""

    virtual_node: VirtualNodeServiceProvider | None = None
    virtual_router: VirtualRouterServiceProvider | None = None


class VirtualServiceSpec(Spec, frozen=True, kw_only=True):
    provider: VirtualServiceProvider | None = None


class VirtualRouterListener(Spec, frozen=True, kw_only=True):
    port_mapping: PortMapping


class VirtualRouterSpec(Spec, frozen=True, kw_only=True):
    listeners: tuple[VirtualRouterListener, ...] | None = None


# --- routes ---------------------------------------------------------------------------------------


class WeightedTarget(Spec, frozen=True, kw_only=True):
    """A share of a route's requests: `weight` over the sum of the weights."""

    virtual_node: ResourceName
    weight: Weight
    port: Port | None = None


WeightedTargets = Annotated[tuple[WeightedTarget, ...], Meta(min_length=1, max_length=10)]


class RouteAction(Spec, frozen=True, kw_only=True):
    weighted_targets: WeightedTargets


class HttpPathMatch(Spec, frozen=True, kw_only=True):
    """`exact` or `regex`. The regular expression must match the whole path (RE2 syntax)."""

    exact: HttpPathValue | None = None
    regex: HttpPathValue | None = None


class QueryParameterMatch(Spec, frozen=True, kw_only=True):
    exact: RequestText | None = None


class HttpQueryParameter(Spec, frozen=True, kw_only=True):
    """A query parameter to match; without `match` it must be present."""

    name: QueryParameterName
    match: QueryParameterMatch | None = None


HttpQueryParameters = Annotated[tuple[HttpQueryParameter, ...], Meta(min_length=1, max_length=10)]


class HttpRouteMatch(Spec, frozen=True, kw_only=True):
    headers: HeaderMatches | None = None
    method: HttpMethod | None = None
    path: HttpPathMatch | None = None
    port: Port | None = None
    prefix: RequestText | None = None
    query_parameters: HttpQueryParameters | None = None
    scheme: HttpScheme | None = None


class GrpcRouteMatch(Spec, frozen=True, kw_only=True):
    metadata: HeaderMatches | None = None
    method_name: MethodName | None = None
    port: Port | None = None
    service_name: ServiceName | None = None


class TcpRouteMatch(Spec, frozen=True, kw_only=True):
    port: Port | None = None


class HttpRetryPolicy(Spec, frozen=True, kw_only=True):
    """`maxRetries` further attempts, each within `perRetryTimeout`, on any of the events."""

    max_retries: MaxRetries
    per_retry_timeout: Duration
    http_retry_events: HttpRetryPolicyEvents | None = None
    tcp_retry_events: TcpRetryPolicyEvents | None = None


class GrpcRetryPolicy(Spec, frozen=True, kw_only=True):
    max_retries: MaxRetries
    per_retry_timeout: Duration
    grpc_retry_events: GrpcRetryPolicyEvents | None = None
    http_retry_events: HttpRetryPolicyEvents | None = None
    tcp_retry_events: TcpRetryPolicyEvents | None = None


class HttpRoute(Spec, frozen=True, kw_only=True):
    action: RouteAction
    match: HttpRouteMatch
    retry_policy: HttpRetryPolicy | None = None
    timeout: HttpTimeout | None = None


class GrpcRoute(Spec, frozen=True, kw_only=True):
    action: RouteAction
    match: GrpcRouteMatch
    retry_policy: GrpcRetryPolicy | None = None
    timeout: HttpTimeout | None = None


class TcpRoute(Spec, frozen=True, kw_only=True):
    action: RouteAction
    match: TcpRouteMatch | None = None
    timeout: TcpTimeout | None = None


class RouteSpec(Spec, frozen=True, kw_only=True):
    """Exactly one of the four route types. Lower `priority` is tried first; none comes last."""

    grpc_route: GrpcRoute | None = None
    http2_route: HttpRoute | None = None
    http_route: HttpRoute | None = None
    priority: Priority | None = None
    tcp_route: TcpRoute | None = None
