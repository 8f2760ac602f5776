"""Everything one virtual gateway's Envoy needs: App Mesh's two hops (reference §2.2, §4.9).

A client's request enters on the gateway's own port, where gateway routes rewrite it, goes round through a
second listener of the same Envoy, and is routed there like a virtual node's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import names, proto
from ..resolve import Service
from ..spec import GatewayRouteData, VirtualGatewayData, VirtualGatewayListener
from .backend import Backend, BackendPort
from .base import HTTP_FAMILY
from .binding import Socket, bind_address, ip_preference, report_clashes
from .client_tls import effective_policy
from .clusters import local_cluster
from .egress import Use, add_backends, backends, host_name_taken
from .filters import access_logs, http_connection_manager, http_filter, tls_inspector
from .gateway_routes import (
    gateway_route_body,
    gateway_route_member,
    host_domains,
    keeps_host,
    match_order,
    redirect_route,
    rewrites,
    slowest_timeouts,
)
from .ingress import server_tls
from .listeners import filter_chains, listener
from .maker import Maker
from .output import Output
from .report import Report
from .routes import virtual_host
from .single_hop import direct_routes
from .sources import Material, Secrets, listener_arns, material_facts

if TYPE_CHECKING:
    from ..mesh import Mesh
    from ..options import Options


class Target(NamedTuple):
    """A gateway route with what it leads to. `port` is None where the service has only one."""

    route: GatewayRouteData
    service: str
    resolved: Service | None
    port: int | None
    origin: str


def virtual_gateway(
    gateway: VirtualGatewayData,
    mesh: Mesh,
    options: Options,
    maker: Maker,
    report: Report,
    out: Output,
) -> None:
    """Adds the resources of a virtual gateway's Envoy to `out`."""
    host = bind_address(options, ip_preference(mesh.data))
    ports = dict(options.ingress_ports)
    bound = {
        spec.port_mapping.port: ports.get(spec.port_mapping.port) or spec.port_mapping.port
        for spec in gateway.spec.listeners
    }
    report_clashes(_sockets(gateway, bound, host, options), gateway.key, report)
    targets = _targets(gateway, mesh, maker, report)
    policy, _ = effective_policy(None, gateway.spec.backend_defaults)
    uses = [
        Use(service, policy)
        for service in sorted({target.service for target in targets if target.resolved is not None})
    ]
    parts = {part.service: part for part in backends(gateway.key, uses, mesh, options, maker, report)}
    add_backends(parts.values(), out)
    secrets = Secrets()
    facts = material_facts(mesh, listener_arns(gateway.spec.listeners))
    material = Material(facts, options, report, secrets)
    for index, spec in enumerate(gateway.spec.listeners):
        of_port = [target for target in targets if _enters(target.route, spec, gateway)]
        hosts = _ingress_hosts(gateway, spec, bound, of_port, parts, options, report)
        _add_ingress(gateway, index, hosts, of_port, host, bound, options, material, out)
    if not options.single_hop:
        _add_egress(gateway, targets, parts, host, options, report, out)
    for secret in secrets.resources():
        out.secret(secret)


def _sockets(
    gateway: VirtualGatewayData, bound: Mapping[int, int], host: str, options: Options
) -> list[Socket]:
    sockets = [
        Socket(
            f"listener {spec.port_mapping.port}",
            host,
            bound[spec.port_mapping.port],
            f"$.spec.listeners[{index}].portMapping.port",
            "--ingress-port",
        )
        for index, spec in enumerate(gateway.spec.listeners)
    ]
    if not options.single_hop:
        sockets.append(Socket("the egress listener", host, options.egress_port, flag="--egress-port"))
    sockets.append(
        Socket("the admin endpoint", options.admin_address, options.admin_port, flag="--admin-port")
    )
    return sockets


# --- gateway routes -----------------------------------------------------------------------------------


def _targets(gateway: VirtualGatewayData, mesh: Mesh, maker: Maker, report: Report) -> list[Target]:
    """The gateway's routes in the order in which they are tried, less those that cannot be used."""
    listeners = [spec.port_mapping.port for spec in gateway.spec.listeners]
    found = []
    for route in sorted(mesh.gateway_routes.get(gateway.name, ()), key=match_order):
        member = gateway_route_member(route)
        body = gateway_route_body(route)
        stated = body.match.port
        path = f"$.spec.{member}.match.port"
        ports = ", ".join(map(str, listeners))
        if stated is None and len(listeners) > 1:
            text = "must be given, because the virtual gateway has several listeners"
            report.error(route.key, path, text, f"one of {ports}")
            continue
        if stated is not None and stated not in listeners:
            text = f"the virtual gateway has no listener on port {stated}"
            report.error(route.key, path, text, f"it listens on {ports}")
            continue
        target = _target(route, body.action.target.virtual_service.virtual_service_name, mesh, maker, report)
        if target is not None:
            found.append(target)
    return found


def _target(route: GatewayRouteData, name: str, mesh: Mesh, maker: Maker, report: Report) -> Target | None:
    path = f"$.spec.{gateway_route_member(route)}.action.target"
    stated = gateway_route_body(route).action.target.port
    origin = f"{route.key} $.spec"
    service = maker.service(mesh, name)
    if service is None:
        text = f"there is no virtual service {name!r} in the mesh: requests get 404"
        report.warning(route.key, f"{path}.virtualService.virtualServiceName", text)
        return Target(route, name, None, None, origin)
    # A TCP port beside others is nothing a gateway route could mean.
    usable = [port for port in service.ports if port.protocol in HTTP_FAMILY] or service.ports
    ports = [port.port for port in usable]
    known = ", ".join(map(str, ports))
    if stated is None and len(ports) > 1:
        text = f"must be given, because virtual service {name!r} has several ports"
        report.error(route.key, f"{path}.port", text, f"one of {known}")
        return None
    if stated is not None and ports and stated not in ports:
        report.error(
            route.key, f"{path}.port", f"virtual service {name!r} has no port {stated}", f"it has {known}"
        )
        return None
    chosen = next((port for port in usable if stated in (None, port.port)), None)
    if chosen is not None and chosen.protocol not in HTTP_FAMILY:
        text = f"virtual service {name!r} speaks {chosen.protocol}, which a gateway cannot route"
        report.error(route.key, f"{path}.virtualService.virtualServiceName", text)
        return None
    port = chosen.port if chosen is not None and len(service.ports) > 1 else None
    return Target(route, name, service, port, origin)


def _enters(route: GatewayRouteData, spec: VirtualGatewayListener, gateway: VirtualGatewayData) -> bool:
    return gateway_route_body(route).match.port in (None, spec.port_mapping.port)


# --- the first hop ------------------------------------------------------------------------------------


def _redirect_cluster(gateway: VirtualGatewayData, spec: VirtualGatewayListener, options: Options) -> str:
    several = len(gateway.spec.listeners) > 1
    mapping = spec.port_mapping
    return names.self_redirect_cluster(
        gateway.mesh_name,
        gateway.name,
        mapping.protocol,
        options.egress_port,
        mapping.port if several else None,
    )


def _ingress_hosts(
    gateway: VirtualGatewayData,
    spec: VirtualGatewayListener,
    bound: Mapping[int, int],
    targets: Sequence[Target],
    parts: Mapping[str, Backend],
    options: Options,
    report: Report,
) -> list[proto.VirtualHost]:
    """The virtual hosts of one listener. A host with routes of its own has no others (RM#403)."""
    cluster = _redirect_cluster(gateway, spec, options)
    routes: dict[str | None, list[proto.Route]] = {}
    domains: dict[str | None, list[str]] = {}
    for target in targets:
        hostname = gateway_route_body(target.route).match.hostname
        host, names_of_host = host_domains(hostname, bound[spec.port_mapping.port])
        domains[host] = names_of_host
        made = (
            direct_routes(target.route, target.resolved, _ports(target, parts), options, report)
            if options.single_hop
            else _redirects(target, cluster)
        )
        routes.setdefault(host, []).extend(made)
    return [
        virtual_host(name=names.self_redirect_virtual_host(host), domains=domains[host], routes=routes[host])
        for host in sorted(routes, key=lambda one: one or "")
    ]


def _redirects(target: Target, cluster: str) -> list[proto.Route]:
    timeout, idle = slowest_timeouts(target.resolved, target.port)
    kept = keeps_host(target.route)
    headers = []
    if kept:
        headers.append((names.VIRTUAL_SERVICE_HEADER, target.service))
    if target.port is not None:
        headers.append((names.TARGET_PORT_HEADER, str(target.port)))
    return [
        redirect_route(
            rewrite=rewrite,
            cluster=cluster,
            host=None if kept else target.service,
            headers=headers,
            timeout=timeout,
            idle_timeout=idle,
        )
        for rewrite in rewrites(target.route)
    ]


def _add_ingress(
    gateway: VirtualGatewayData,
    index: int,
    hosts: Sequence[proto.VirtualHost],
    targets: Sequence[Target],
    host: str,
    bound: Mapping[int, int],
    options: Options,
    material: Material,
    out: Output,
) -> None:
    """One listener of the gateway: its chains, its routes, its loop to the second hop."""
    spec = gateway.spec.listeners[index]
    path = f"$.spec.listeners[{index}]"
    origin = f"{gateway.key} {path}"
    port, protocol = spec.port_mapping.port, spec.port_mapping.protocol
    socket = None
    if spec.tls is not None and spec.tls.mode != "DISABLED":
        tls = server_tls(spec.tls, material, gateway.key, f"{path}.tls")
        if tls is None:
            return
        socket = tls.transport_socket(protocol)
    if not options.single_hop:
        # App Mesh bound the second hop where the first is; a wildcard is reached over loopback.
        loop = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)
        cluster = local_cluster(
            name=_redirect_cluster(gateway, spec, options),
            protocol=protocol,
            host=loop,
            port=options.egress_port,
            pool=spec.connection_pool,
            legacy_defaults=options.legacy_defaults,
        )
        out.message(cluster, origin)
    elif spec.connection_pool is not None:
        text = "limits the loop between the two hops, and a single hop has none"
        material.report.warning(gateway.key, f"{path}.connectionPool", text)
    configuration = proto.RouteConfiguration(name=names.ingress_routes(port))
    configuration.virtual_hosts.extend(hosts)
    reference = out.routes(configuration, origin, *(target.origin for target in targets))
    several = len(gateway.spec.listeners) > 1
    manager = http_connection_manager(
        stat_prefix=names.ingress_stat_prefix(protocol, port, several),
        routes=reference,
        logs=access_logs(gateway.spec.logging),
    )
    chains = filter_chains(
        name=f"ingress_{port}",
        filters=[http_filter(manager)],
        mode=None if spec.tls is None else spec.tls.mode,
        tls=socket,
        destination_port=bound[port] if options.interception == "redirect" else None,
    )
    out.message(
        listener(
            name=names.ingress_listener(host, bound[port]),
            host=host,
            port=bound[port],
            inbound=True,
            chains=chains,
            listener_filters=[tls_inspector()],
            reuse_port=options.interception == "redirect",
            stats_tags=options.app_mesh_metadata,
        ),
        origin,
    )


# --- the second hop -----------------------------------------------------------------------------------


def _ports(target: Target, parts: Mapping[str, Backend]) -> list[BackendPort]:
    """The service's ports that a gateway route may lead to: one, or none where nothing resolves."""
    part = parts.get(target.service)
    return [port for port in part.ports if target.port in (None, port.port)] if part else []


def _marked(target: Target, parts: Mapping[str, Backend], *, by_service: bool) -> list[proto.Route]:
    """The service's routes, for requests that carry the headers of the first hop, which end here."""
    marks = []
    if by_service:
        marks.append((names.VIRTUAL_SERVICE_HEADER, target.service))
    if target.port is not None:
        marks.append((names.TARGET_PORT_HEADER, str(target.port)))
    result = []
    for port in _ports(target, parts):
        for original in port.routes():
            route = proto.Route()
            route.CopyFrom(original)
            for name, value in marks:
                matcher = route.match.headers.add()
                matcher.name = name
                matcher.string_match.exact = value
                route.request_headers_to_remove.append(name)
            result.append(route)
    return result


def _add_egress(
    gateway: VirtualGatewayData,
    targets: Sequence[Target],
    parts: Mapping[str, Backend],
    host: str,
    options: Options,
    report: Report,
    out: Output,
) -> None:
    hosts: dict[str, proto.VirtualHost] = {}
    kept: dict[tuple[str, int | None], list[proto.Route]] = {}
    taken: dict[str, str] = {}
    of_service: dict[str, dict[int | None, Target]] = {}
    for target in targets:
        of_service.setdefault(target.service, {}).setdefault(target.port, target)
        if keeps_host(target.route):
            kept.setdefault((target.service, target.port), _marked(target, parts, by_service=True))
    for service in sorted(of_service):
        domains = [service, f"{service}:{options.egress_port}"]
        if host_name_taken(domains, service, taken, report):
            continue
        by_port = of_service[service]
        routes = [
            route
            for port in sorted(by_port, key=lambda one: one or 0)
            for route in _marked(by_port[port], parts, by_service=False)
        ]
        hosts[service] = virtual_host(name=service, domains=domains, routes=routes)
    if kept:
        name = names.DEFAULT_BACKEND_VIRTUAL_HOST
        ordered = [route for key in sorted(kept, key=lambda k: (k[0], k[1] or 0)) for route in kept[key]]
        hosts[name] = virtual_host(name=name, domains=["*"], routes=ordered)
    configuration = proto.RouteConfiguration(name=names.egress_routes(options.egress_port))
    configuration.virtual_hosts.extend(hosts[name] for name in sorted(hosts))
    origins = [origin for part in parts.values() for port in part.ports for origin in port.origin]
    own = f"{gateway.key} $.spec"
    reference = out.routes(configuration, *dict.fromkeys([*(t.origin for t in targets), *origins, own]))
    manager = http_connection_manager(
        stat_prefix=names.EGRESS_STAT_PREFIX, routes=reference, logs=access_logs(gateway.spec.logging)
    )
    redirect = options.interception == "redirect"
    chains = filter_chains(
        name=f"egress_{options.egress_port}",
        filters=[http_filter(manager)],
        destination_port=options.egress_port if redirect else None,
    )
    out.message(
        listener(
            name=names.egress_listener(host, options.egress_port),
            host=host,
            port=options.egress_port,
            inbound=False,
            chains=chains,
            listener_filters=[tls_inspector()],
            reuse_port=redirect,
            stats_tags=options.app_mesh_metadata,
        ),
        own,
    )
