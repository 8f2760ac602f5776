"""Gateway routes: how a request that enters the mesh is matched and rewritten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import proto, spec
from ..resolve import LAST_PRIORITY, Service, ServicePort, path_rank, route_body
from .routes import grpc_route_match, http_route_match, set_timeouts, timeouts_of

if TYPE_CHECKING:
    from ..spec import GatewayRouteData, GatewayRouteHostnameMatch, GrpcGatewayRoute, HttpGatewayRoute

#: What Envoy does when a route states no timeout (milliseconds).
_DEFAULT_TIMEOUT: Final = 15_000
_DEFAULT_IDLE: Final = 300_000


class Rewrite(NamedTuple):
    """One match of a gateway route with what becomes of the path: `prefix` replaces the matched part,
    `path` the whole path. Neither: it stays."""

    match: proto.RouteMatch
    prefix: str | None = None
    path: str | None = None


def gateway_route_body(route: GatewayRouteData) -> HttpGatewayRoute | GrpcGatewayRoute:
    """The one member that a gateway route has."""
    body = route.spec.http_route or route.spec.http2_route or route.spec.grpc_route
    assert body is not None  # the checks see to it
    return body


def gateway_route_member(route: GatewayRouteData) -> str:
    """Its JSON name, for paths."""
    if route.spec.http_route is not None:
        return "httpRoute"
    return "http2Route" if route.spec.http2_route is not None else "grpcRoute"


def match_order(route: GatewayRouteData) -> tuple[int, int, int, str, str]:
    """Priority, then exact paths before prefixes before expressions, longest first (reference §10.19)."""
    priority = LAST_PRIORITY if route.spec.priority is None else route.spec.priority
    match = gateway_route_body(route).match
    if isinstance(match, spec.HttpGatewayRouteMatch):
        rank, literal = path_rank(match.path, match.prefix)
    else:
        rank, literal = 1, "/" if match.service_name is None else f"/{match.service_name}/"
    return priority, rank, -len(literal), literal, route.name


def host_domains(hostname: GatewayRouteHostnameMatch | None, port: int) -> tuple[str | None, list[str]]:
    """(name, domains) of the virtual host a route belongs to; (None, any) without a host name.

    A suffix matches whole labels only, which is all that Envoy can do (RM#384). Clients that write the port
    into the host are served too (RM#365).
    """
    if hostname is None or (hostname.exact is None and hostname.suffix is None):
        return None, ["*"]
    if hostname.exact is not None:
        host = hostname.exact.lower()
    else:
        host = "*." + (hostname.suffix or "").lower().lstrip("*").lstrip(".")
    return host, [host, f"{host}:{port}"]


def keeps_host(route: GatewayRouteData) -> bool:
    """Whether the client's host name reaches the service (`defaultTargetHostname: DISABLED`)."""
    rewrite = gateway_route_body(route).action.rewrite
    hostname = None if rewrite is None else rewrite.hostname
    return hostname is not None and hostname.default_target_hostname == "DISABLED"


def rewrites(route: GatewayRouteData) -> list[Rewrite]:
    """The matches of a gateway route (reference §4.9, §10.27)."""
    body = gateway_route_body(route)
    if isinstance(body, spec.GrpcGatewayRoute):
        match = body.match
        return [Rewrite(grpc_route_match(match.service_name, None, match.metadata or ()))]
    rewrite = body.action.rewrite
    base = http_route_match(body.match)
    if body.match.path is not None:
        path = None if rewrite is None or rewrite.path is None else rewrite.path.exact
        return [Rewrite(base, path=path)]
    prefix = body.match.prefix or "/"
    to = _prefix_rewrite(prefix, None if rewrite is None else rewrite.prefix)
    if prefix.endswith("/") or not to.endswith("/"):
        return [Rewrite(base, prefix=to)]
    # `/cars` to `/`: first `/cars/`, so that `/cars/1` becomes `/1` and not `//1`.
    with_slash = proto.RouteMatch()
    with_slash.CopyFrom(base)
    with_slash.prefix = prefix + "/"
    return [Rewrite(with_slash, prefix=to), Rewrite(base, prefix=to)]


def _prefix_rewrite(prefix: str, rewrite: spec.HttpGatewayRoutePrefixRewrite | None) -> str:
    if rewrite is not None and rewrite.value is not None:
        return rewrite.value
    if rewrite is not None and rewrite.default_prefix == "DISABLED":
        return prefix
    return "/"


def set_path_rewrite(action: proto.RouteAction, rewrite: Rewrite) -> None:
    """Writes a rewrite into a route's action. The query string always stays."""
    if rewrite.prefix is not None:
        action.prefix_rewrite = rewrite.prefix
    elif rewrite.path is not None and rewrite.match.WhichOneof("path_specifier") == "safe_regex":
        action.regex_rewrite.pattern.regex = "^/.*$"
        # A backslash would start a group reference.
        action.regex_rewrite.substitution = rewrite.path.replace("\\", "\\\\")
    elif rewrite.path is not None:
        # On an exact match the matched prefix is the whole path.
        action.prefix_rewrite = rewrite.path


def slowest_timeouts(service: Service | None, port: int | None) -> tuple[int | None, int | None]:
    """(per request, idle) that a first hop must allow: the longest behind the service (reference §4.1).

    In milliseconds; 0 is none at all, None leaves Envoy's default. It holds for a kept host name too, which
    App Mesh once forgot (RM#376).
    """
    ports: Iterable[ServicePort] = service.ports if service is not None else ()
    bodies = [
        None if resolved.data is None else route_body(resolved.data)
        for one in ports
        if port in (None, one.port)
        for resolved in one.routes
    ]
    if not bodies:
        return None, None
    pairs = [timeouts_of(getattr(body, "timeout", None)) for body in bodies]
    requests = [_DEFAULT_TIMEOUT if request is None else request for request, _ in pairs]
    idles = [_DEFAULT_IDLE if idle is None else idle for _, idle in pairs]
    any_idle = any(idle is not None for _, idle in pairs)
    return _longest(requests), _longest(idles) if any_idle else None


def _longest(times: list[int]) -> int:
    return 0 if 0 in times else max(times)


def redirect_route(
    *,
    rewrite: Rewrite,
    cluster: str,
    host: str | None,
    headers: Iterable[tuple[str, str]] = (),
    timeout: int | None = None,
    idle_timeout: int | None = None,
) -> proto.Route:
    """A gateway's first hop: to its own second listener. `host` replaces the client's host name; `headers`
    tell the second hop what the host cannot."""
    result = proto.Route()
    result.match.CopyFrom(rewrite.match)
    result.route.cluster = cluster
    set_path_rewrite(result.route, rewrite)
    if host is not None:
        result.route.host_rewrite_literal = host
    for name, value in headers:
        # Instead of what the client says: Envoy removes first. Before 1.24 it minds no append_action.
        result.request_headers_to_remove.append(name)
        option = result.request_headers_to_add.add()
        option.header.key = name
        option.header.value = value
    set_timeouts(result.route, timeout, idle_timeout)
    return result
