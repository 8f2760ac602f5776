"""References resolved: what stands behind a virtual service, as values.

backend -> virtual service -> node, or router -> routes -> target nodes' listeners. What does not resolve is
a `Problem` of the resource that refers, and is left out (reference §10.36).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from . import spec
from .errors import Problem, Severity
from .facts import Endpoint

if TYPE_CHECKING:
    from .mesh import Mesh

#: Priority of a route that states none: after 1000, the last that can be stated (reference §4.3).
LAST_PRIORITY: Final = 1001

#: Route member -> protocol of the router listener it is written for.
_ROUTE_TYPES: Final = (
    ("http_route", "http"),
    ("http2_route", "http2"),
    ("grpc_route", "grpc"),
    ("tcp_route", "tcp"),
)


class Destination(Struct, frozen=True, gc=False, cache_hash=True):
    """One listener of a node, and its share of a route's requests. Nothing else of the node."""

    node: str
    discovery: spec.ServiceDiscovery | None
    listener: spec.Listener
    weight: int
    #: Facts about a node in Cloud Map; None when there are none.
    endpoints: tuple[Endpoint, ...] | None = None


class ResolvedRoute(Struct, frozen=True, gc=False, cache_hash=True):
    """A route with its destinations. `data` is None for the route that a node as provider implies."""

    data: spec.RouteData | None
    destinations: tuple[Destination, ...]


class ServicePort(Struct, frozen=True, gc=False, cache_hash=True):
    """One port of a virtual service: what clients connect to, and the routes in the order they are tried."""

    port: int
    protocol: str
    routes: tuple[ResolvedRoute, ...]


class Service(Struct, frozen=True, gc=False, cache_hash=True):
    """A virtual service with everything behind it."""

    data: spec.VirtualServiceData
    ports: tuple[ServicePort, ...]
    problems: tuple[Problem, ...] = ()
    #: Certificates that the listeners behind it name by ARN.
    arns: tuple[str, ...] = ()


def resolve_service(mesh: Mesh, name: str) -> Service | None:
    """What stands behind a virtual service; None when the mesh has no such service."""
    data = mesh.virtual_services.get(name)
    if data is None:
        return None
    problems: list[Problem] = []
    provider = data.spec.provider
    if provider is None:
        problems.append(_problem(data, "$.spec", "has no provider, so nothing answers for it", "", "warning"))
        return Service(data, (), tuple(problems))
    if provider.virtual_node is not None:
        ports = _node_ports(mesh, data, provider.virtual_node.virtual_node_name, problems)
    elif provider.virtual_router is not None:
        ports = _router_ports(mesh, data, provider.virtual_router.virtual_router_name, problems)
    else:
        ports = ()
    return Service(data, ports, tuple(problems), _arns(ports))


def _arns(ports: Iterable[ServicePort]) -> tuple[str, ...]:
    named = [
        destination.listener.tls.certificate.acm.certificate_arn
        for port in ports
        for resolved in port.routes
        for destination in resolved.destinations
        if destination.listener.tls is not None and destination.listener.tls.certificate.acm is not None
    ]
    return tuple(dict.fromkeys(named))


def _problem(
    data: spec.Data, path: str, message: str, hint: str = "", severity: Severity = "error"
) -> Problem:
    return Problem(resource=data.key, path=path, message=message, hint=hint, severity=severity)


def _node_ports(
    mesh: Mesh, service: spec.VirtualServiceData, name: str, problems: list[Problem]
) -> tuple[ServicePort, ...]:
    path = "$.spec.provider.virtualNode.virtualNodeName"
    node = mesh.virtual_nodes.get(name)
    if node is None:
        problems.append(
            _problem(service, path, f"there is no virtual node {name!r} in the mesh", "", "warning")
        )
        return ()
    if not node.spec.listeners:
        problems.append(
            _problem(service, path, f"virtual node {name!r} has no listener, so nothing can be sent to it")
        )
    return tuple(
        ServicePort(
            listener.port_mapping.port,
            listener.port_mapping.protocol,
            (
                ResolvedRoute(
                    None,
                    (Destination(name, node.spec.service_discovery, listener, 1, mesh.endpoints.get(name)),),
                ),
            ),
        )
        for listener in sorted(node.spec.listeners or (), key=lambda one: one.port_mapping.port)
    )


def _router_ports(
    mesh: Mesh, service: spec.VirtualServiceData, name: str, problems: list[Problem]
) -> tuple[ServicePort, ...]:
    router = mesh.virtual_routers.get(name)
    if router is None:
        path = "$.spec.provider.virtualRouter.virtualRouterName"
        problems.append(
            _problem(service, path, f"there is no virtual router {name!r} in the mesh", "", "warning")
        )
        return ()
    routes = mesh.routes.get(name, ())
    listeners = [listener.port_mapping for listener in router.spec.listeners or ()]
    if not listeners:
        listeners = _implied_listeners(mesh, routes)
        problems.append(
            _problem(
                router,
                "$.spec.listeners",
                "has no listener; the ports of its routes' targets are used",
                "state the port and protocol that clients connect to",
                "warning",
            )
        )
    by_port: dict[int, list[spec.RouteData]] = {mapping.port: [] for mapping in listeners}
    for route in routes:
        port = _port_of(route, listeners, problems)
        if port is not None:
            by_port[port].append(route)
    return tuple(
        _service_port(mesh, mapping, by_port[mapping.port], problems)
        for mapping in sorted(listeners, key=lambda one: one.port)
    )


def _implied_listeners(mesh: Mesh, routes: Iterable[spec.RouteData]) -> list[spec.PortMapping]:
    """Before routers had listeners (March 2019) a service's port was that of its targets."""
    found: dict[int, spec.PortMapping] = {}
    for route in routes:
        for target in route_action(route).weighted_targets:
            node = mesh.virtual_nodes.get(target.virtual_node)
            for listener in (node.spec.listeners or ()) if node else ():
                if target.port in (None, listener.port_mapping.port):
                    found.setdefault(listener.port_mapping.port, listener.port_mapping)
    return list(found.values())


def route_type(route: spec.RouteData) -> str:
    """The protocol that a route is written for."""
    for member, protocol in _ROUTE_TYPES:
        if getattr(route.spec, member) is not None:
            return protocol
    raise AssertionError("the checks see to it that a route has one member")


def route_member(route: spec.RouteData) -> str:
    """The JSON name of a route's type, for paths: `httpRoute`."""
    return f"{route_type(route)}Route"


def route_body(route: spec.RouteData) -> spec.HttpRoute | spec.GrpcRoute | spec.TcpRoute:
    """The one member that a route has."""
    one = route.spec
    body = one.http_route or one.http2_route or one.grpc_route or one.tcp_route
    assert body is not None  # the checks see to it
    return body


def route_action(route: spec.RouteData) -> spec.RouteAction:
    return route_body(route).action


def _port_of(route: spec.RouteData, listeners: list[spec.PortMapping], problems: list[Problem]) -> int | None:
    """Which of the router's ports a route belongs to."""
    match = route_body(route).match
    stated = match.port if match is not None else None
    ports = [mapping.port for mapping in listeners]
    if stated is None and len(ports) == 1:
        return ports[0]
    path = f"$.spec.{route_member(route)}.match.port"
    if stated is None and ports:
        problems.append(
            _problem(
                route,
                path,
                "must be given, because the virtual router has several listeners",
                f"one of {', '.join(map(str, sorted(ports)))}",
            )
        )
        return None
    if stated is not None and stated not in ports:
        problems.append(
            _problem(
                route,
                path,
                f"the virtual router has no listener on port {stated}",
                f"it listens on {', '.join(map(str, sorted(ports)))}" if ports else "",
            )
        )
        return None
    return stated if stated is not None else next(iter(ports), None)


def _service_port(
    mesh: Mesh, mapping: spec.PortMapping, routes: list[spec.RouteData], problems: list[Problem]
) -> ServicePort:
    tcp = mapping.protocol == "tcp"
    usable = []
    for route in routes:
        kind = route_type(route)
        if (kind == "tcp") != tcp:
            problems.append(
                _problem(
                    route,
                    f"$.spec.{route_member(route)}",
                    f"a {kind} route under a {mapping.protocol} listener is never used",
                    f"write it as {mapping.protocol}Route, or change the router's listener",
                    "warning",
                )
            )
            continue
        usable.append(route)
    if len(usable) > 1:
        usable.sort(key=_match_order)
    if tcp and len(usable) > 1:
        problems.extend(
            _problem(
                route,
                "$.spec.tcpRoute",
                f"is never reached: route {usable[0].name!r} takes every connection of port {mapping.port}",
                "put all targets into one tcpRoute",
                "warning",
            )
            for route in usable[1:]
        )
        del usable[1:]
    resolved = tuple(ResolvedRoute(route, _destinations(mesh, route, problems)) for route in usable)
    return ServicePort(mapping.port, mapping.protocol, resolved)


def _match_order(route: spec.RouteData) -> tuple[int, int, int, str, str]:
    """Priority, then exact paths before prefixes before expressions, longest first (reference §10.19)."""
    priority = LAST_PRIORITY if route.spec.priority is None else route.spec.priority
    rank, literal = _literal(route_body(route))
    return priority, rank, -len(literal), literal, route.name


def _literal(body: spec.HttpRoute | spec.GrpcRoute | spec.TcpRoute) -> tuple[int, str]:
    match = body.match
    if isinstance(match, spec.HttpRouteMatch):
        return path_rank(match.path, match.prefix)
    if isinstance(match, spec.GrpcRouteMatch) and match.service_name is not None:
        if match.method_name is not None:
            return 0, f"/{match.service_name}/{match.method_name}"
        return 1, f"/{match.service_name}/"
    return 1, "/"


def path_rank(path: spec.HttpPathMatch | None, prefix: str | None) -> tuple[int, str]:
    """How specific a path match is: 0 exact, 1 prefix, 2 regular expression; and its text."""
    if path is not None and path.exact is not None:
        return 0, path.exact
    if path is not None and path.regex is not None:
        return 2, path.regex
    return 1, prefix or "/"


def _destinations(mesh: Mesh, route: spec.RouteData, problems: list[Problem]) -> tuple[Destination, ...]:
    member = route_member(route)
    tcp = member == "tcpRoute"
    found: dict[tuple[str, int], Destination] = {}
    for index, target in enumerate(route_action(route).weighted_targets):
        node = mesh.virtual_nodes.get(target.virtual_node)
        if node is None:
            problems.append(
                _problem(
                    route,
                    f"$.spec.{member}.action.weightedTargets[{index}].virtualNode",
                    f"there is no virtual node {target.virtual_node!r} in the mesh; the target is left out",
                    "",
                    "warning",
                )
            )
            continue
        listener = _target_listener(route, node, target, index, problems)
        if listener is None:
            continue
        if (listener.port_mapping.protocol == "tcp") != tcp:
            problems.append(
                _problem(
                    route,
                    f"$.spec.{member}.action.weightedTargets[{index}].virtualNode",
                    f"a {member} sends to a {listener.port_mapping.protocol} listener of {node.name!r}",
                    "the protocols of route and target should agree",
                    "warning",
                )
            )
        key = (node.name, listener.port_mapping.port)
        weight = target.weight + (found[key].weight if key in found else 0)
        found[key] = Destination(
            node.name, node.spec.service_discovery, listener, weight, mesh.endpoints.get(node.name)
        )
    return tuple(found.values())


def _target_listener(
    route: spec.RouteData,
    node: spec.VirtualNodeData,
    target: spec.WeightedTarget,
    index: int,
    problems: list[Problem],
) -> spec.Listener | None:
    listeners = node.spec.listeners or ()
    if len(listeners) == 1 and target.port in (None, listeners[0].port_mapping.port):
        return listeners[0]
    ports = ", ".join(str(listener.port_mapping.port) for listener in listeners)
    path = f"$.spec.{route_member(route)}.action.weightedTargets[{index}]"
    if not listeners:
        problems.append(_problem(route, f"{path}.virtualNode", f"virtual node {node.name!r} has no listener"))
        return None
    if target.port is None:
        problems.append(
            _problem(
                route,
                f"{path}.port",
                f"must be given, because virtual node {node.name!r} has several listeners",
                f"one of {ports}",
            )
        )
        return None
    for listener in listeners:
        if listener.port_mapping.port == target.port:
            return listener
    problems.append(
        _problem(
            route,
            f"{path}.port",
            f"virtual node {node.name!r} has no listener on port {target.port}",
            f"it listens on {ports}",
        )
    )
    return None
