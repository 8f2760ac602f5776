"""Route configurations, virtual hosts, routes and retry policies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from .. import proto, spec
from .base import milliseconds, set_duration, set_stats_tags

if TYPE_CHECKING:
    from ..spec import GrpcRetryPolicy, HeaderMatch, HttpRetryPolicy, HttpRouteMatch

#: Status codes behind the events of a retry policy (reference §4.2; they are not Envoy's own classes).
_EVENT_CODES: Final[dict[str, tuple[int, ...]]] = {
    "server-error": (500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511),
    "gateway-error": (502, 503, 504),
    "client-error": (409,),
    "stream-error": (),
}
#: Events that also retry a connection reset before the response began (MODEL, HttpRetryPolicy).
_RESET_EVENTS: Final = frozenset({"server-error", "gateway-error"})
#: Envoy's tokens in the order in which App Mesh wrote them (reference §4.2).
_TOKENS: Final = (
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "reset",
    "connect-failure",
    "refused-stream",
    "retriable-status-codes",
)
_HOST_SELECTION_ATTEMPTS: Final = 5


def ingress_route_configuration(
    *,
    name: str,
    virtual_host: str,
    cluster: str,
    timeout: int | None = None,
    idle_timeout: int | None = None,
) -> proto.RouteConfiguration:
    """Everything to one cluster: the application behind a listener. Timeouts in milliseconds, 0 for none.

    Without a timeout Envoy's own 15 s hold, as they did under App Mesh (reference §4.1).
    """
    result = proto.RouteConfiguration()
    result.name = name
    host = result.virtual_hosts.add()
    host.name = virtual_host
    host.domains.append("*")
    route = host.routes.add()
    route.match.prefix = "/"
    route.route.cluster = cluster
    set_timeouts(route.route, timeout, idle_timeout)
    return result


def set_timeouts(action: proto.RouteAction, timeout: int | None, idle_timeout: int | None) -> None:
    """Timeouts in milliseconds; 0 switches one off, None leaves Envoy's default."""
    if timeout is not None:
        set_duration(action.timeout, timeout)
    if idle_timeout is not None:
        set_duration(action.idle_timeout, idle_timeout)


def passthrough_route(cluster: str) -> proto.Route:
    """Every request, as it is."""
    route = proto.Route()
    route.match.prefix = "/"
    route.route.cluster = cluster
    return route


def virtual_host(*, name: str, domains: Sequence[str], routes: Sequence[proto.Route]) -> proto.VirtualHost:
    """A virtual host. Without routes it answers 404 (reference §1.2)."""
    result = proto.VirtualHost()
    result.name = name
    result.domains.extend(domains)
    result.routes.extend(routes)
    return result


# --- matches --------------------------------------------------------------------------------------


def http_route_match(match: HttpRouteMatch | spec.HttpGatewayRouteMatch) -> proto.RouteMatch:
    """A route's match, less its port (which selects the filter chain) and host name (reference §4.4)."""
    result = proto.RouteMatch()
    if match.path is not None and match.path.exact is not None:
        result.path = match.path.exact
    elif match.path is not None and match.path.regex is not None:
        result.safe_regex.regex = match.path.regex
    else:
        result.prefix = match.prefix or "/"
    if match.method is not None:
        _add_exact(result, ":method", match.method)
    scheme = getattr(match, "scheme", None)  # gateway routes have none
    if scheme is not None:
        _add_exact(result, ":scheme", scheme)
    result.headers.extend(map(header_matcher, match.headers or ()))
    for parameter in match.query_parameters or ():
        matcher = result.query_parameters.add()
        matcher.name = parameter.name
        if parameter.match is not None and parameter.match.exact is not None:
            matcher.string_match.exact = parameter.match.exact
        else:
            matcher.present_match = True
    return result


def grpc_route_match(
    service: str | None, method: str | None, metadata: Sequence[HeaderMatch]
) -> proto.RouteMatch:
    """A gRPC call is a POST to `/<service>/<method>` (reference §4.4)."""
    result = proto.RouteMatch()
    if service is not None and method is not None:
        result.path = f"/{service}/{method}"
    else:
        result.prefix = "/" if service is None else f"/{service}/"
    result.headers.extend(map(header_matcher, metadata))
    return result


def _add_exact(match: proto.RouteMatch, header: str, value: str) -> None:
    matcher = match.headers.add()
    matcher.name = header
    matcher.string_match.exact = value


def header_matcher(header: HeaderMatch) -> proto.HeaderMatcher:
    """One header. Without a method it must be present; `invert` turns the answer round.

    A header that is absent matches no value, inverted or not: that is Envoy's rule, seen on 1.40.
    """
    result = proto.HeaderMatcher()
    result.name = header.name
    method = header.match
    if method is None:
        result.present_match = True
    elif method.exact is not None:
        result.string_match.exact = method.exact
    elif method.prefix is not None:
        result.string_match.prefix = method.prefix
    elif method.suffix is not None:
        result.string_match.suffix = method.suffix
    elif method.regex is not None:
        result.string_match.safe_regex.regex = method.regex
    elif method.range is not None:
        result.range_match.start = method.range.start
        result.range_match.end = method.range.end
    result.invert_match = bool(header.invert)
    return result


# --- actions --------------------------------------------------------------------------------------


@cache
def _previous_hosts() -> proto.RetryPolicy.RetryHostPredicate:
    predicate = proto.RetryPolicy.RetryHostPredicate()
    predicate.name = "envoy.retry_host_predicates.previous_hosts"
    predicate.typed_config.CopyFrom(proto.pack(proto.PreviousHostsPredicate()))
    return predicate


def _retry(tokens: set[str], codes: Sequence[int], retries: int) -> proto.RetryPolicy:
    result = proto.RetryPolicy()
    result.retry_on = ",".join(token for token in _TOKENS if token in tokens)
    result.num_retries.value = retries
    result.retriable_status_codes.extend(codes)
    result.retry_host_predicate.append(_previous_hosts())
    result.host_selection_retry_max_attempts = _HOST_SELECTION_ATTEMPTS
    return result


@cache
def default_retry_policy() -> proto.RetryPolicy:
    """What App Mesh gave routes without a policy since 2020-07-29 (reference §4.2). Shared: do not change."""
    tokens = {"unavailable", "reset", "connect-failure", "refused-stream", "retriable-status-codes"}
    return _retry(tokens, (503,), 2)


def retry_policy(policy: HttpRetryPolicy | GrpcRetryPolicy) -> proto.RetryPolicy:
    """A route's own policy. Status codes are those of the events, in the events' order, once each."""
    tokens: set[str] = set(getattr(policy, "grpc_retry_events", None) or ())
    codes: dict[int, None] = {}
    for event in policy.http_retry_events or ():
        codes.update(dict.fromkeys(_EVENT_CODES.get(event, ())))
        if event in _RESET_EVENTS:
            tokens.add("reset")
        if event == "stream-error":
            tokens.add("refused-stream")
    if codes:
        tokens.add("retriable-status-codes")
    if policy.tcp_retry_events:
        tokens.add("connect-failure")
    result = _retry(tokens, tuple(codes), policy.max_retries)
    per_try = policy.per_retry_timeout.milliseconds
    set_duration(result.per_try_timeout, per_try)
    return result


def route(
    *,
    match: proto.RouteMatch,
    clusters: Sequence[tuple[str, int]],
    timeout: int | None = None,
    idle_timeout: int | None = None,
    retry: proto.RetryPolicy | None = None,
    virtual_service: str | None = None,
) -> proto.Route:
    """A route to clusters by weight. Timeouts in milliseconds, 0 for none, None for Envoy's default.

    When no weight is above zero it answers 503: Envoy would refuse a total of zero (reference §10.17).
    """
    result = proto.Route()
    result.match.CopyFrom(match)
    if sum(weight for _, weight in clusters) == 0:
        result.direct_response.status = 503
    else:
        weighted = result.route.weighted_clusters
        for name, weight in clusters:
            entry = weighted.clusters.add()
            entry.name = name
            entry.weight.value = weight
        set_timeouts(result.route, timeout, idle_timeout)
        if retry is not None:
            result.route.retry_policy.CopyFrom(retry)
    if virtual_service is not None:
        set_stats_tags(result.metadata, {"TargetVirtualService": virtual_service})
    return result


def timeouts_of(timeout: spec.HttpTimeout | None) -> tuple[int | None, int | None]:
    """(per request, idle) in milliseconds."""
    if timeout is None:
        return None, None
    return milliseconds(timeout.per_request), milliseconds(timeout.idle)
