"""What one virtual service adds to a proxy that may call it: clusters, endpoints, virtual hosts.

It depends on the service, the client policy, facts and options, not on who calls: proxies that agree in
those share one `Backend`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from .. import names, proto
from ..errors import Problem
from ..facts import NO_MATERIAL, Endpoint
from ..resolve import Destination, Service, route_body, route_member
from ..resource import CLUSTER, ENDPOINTS, Resource, content_version
from ..spec import ClientPolicyTls, GrpcRoute, GrpcRouteMatch, HttpRoute, TcpRoute
from ..wire import field
from .base import HTTP_FAMILY, milliseconds
from .binding import ip_preference
from .client_tls import client_tls
from .cloud_map import cloud_map_endpoints, discovery_name, report_lost_attributes
from .clusters import DNS_LOOKUP_FAMILY, Discovery, backend_cluster, cluster_load_assignment
from .output import virtual_host_entry
from .report import Report
from .routes import (
    default_retry_policy,
    grpc_route_match,
    http_route_match,
    retry_policy,
    route,
    timeouts_of,
    virtual_host,
)
from .shared import shared
from .sources import Material, Secrets, material_facts, policy_arns
from .templates import serialized, serialized_around

if TYPE_CHECKING:
    from ..facts import MaterialFacts
    from ..mesh import Mesh
    from ..options import Options
    from ..spec import (
        GrpcRetryPolicy,
        HealthCheckPolicy,
        HttpRetryPolicy,
        HttpRouteMatch,
        HttpTimeout,
        Listener,
        MeshData,
        OutlierDetection,
        PortMapping,
        RouteData,
        ServiceDiscovery,
        VirtualServiceData,
    )


class BackendCluster(Struct, frozen=True, gc=False):
    """A cluster; `tls` is its transport socket's bytes, which tell two client policies apart."""

    resource: Resource
    assignment: Resource | None
    tls: bytes
    #: What it shares with other clients' clusters, held so that it stays.
    body: _Body


class BackendPort(Struct, frozen=True, gc=False):
    """One port of the service: a virtual host for the HTTP family, weighted clusters for TCP."""

    port: int
    protocol: str
    #: The service's virtual host on this port, as an entry of a route configuration, and its domains in
    #: lower case.
    host_entry: bytes = b""
    domains: tuple[str, ...] = ()
    clusters: tuple[tuple[str, int], ...] = ()
    idle_timeout: int | None = None
    origin: tuple[str, ...] = ()

    def routes(self) -> Sequence[proto.Route]:
        """The routes of the virtual host, for proxies that give it other domains."""
        return proto.RouteConfiguration.FromString(self.host_entry).virtual_hosts[0].routes


class Backend(Struct, frozen=True, gc=False):
    """Problems and origins of the client's own policy name `client_tls.CLIENT`."""

    service: str
    ports: tuple[BackendPort, ...]
    clusters: tuple[BackendCluster, ...]
    secrets: tuple[Resource, ...]
    problems: tuple[Problem, ...]
    #: What it shares with other policies' backends, held so that it stays.
    held: _Ports | None = None


class _Body(Struct, frozen=True, weakref=True):
    """A cluster less its transport socket: the serialised fields before it and those after it."""

    before: bytes
    after: bytes
    assignment: Resource | None
    origin: tuple[str, ...]
    problems: tuple[Problem, ...]


class _Ports(Struct, frozen=True, weakref=True):
    """A service's ports: nothing of the client's policy."""

    ports: tuple[BackendPort, ...]
    problems: tuple[Problem, ...]


class _Route(Struct, frozen=True, gc=False):
    """A route (None: the one that a node as provider implies) to clusters by weight."""

    data: RouteData | None
    shares: tuple[tuple[str, int], ...]


#: Cluster.transport_socket
_TRANSPORT_SOCKET: Final = 24


def backend(
    service: Service,
    policy: ClientPolicyTls | None,
    facts: MaterialFacts,
    mesh: MeshData,
    options: Options,
    renames: tuple[tuple[str, str], ...] = (),
) -> Backend:
    """Builds the parts. `renames` gives clusters other names, where two policies meet in one proxy.

    Every argument is an immutable value, and there is no other input: the arguments are a memo's key.
    """
    report, secrets = Report(), Secrets()
    report.problems.extend(service.problems)
    material = Material(facts, options, report, secrets)
    renamed = dict(renames)
    clusters: dict[str, BackendCluster | None] = {}
    served = []
    for port in service.ports:
        routes = []
        for resolved in port.routes:
            shares = []
            for destination in resolved.destinations:
                name = cluster_name(mesh.mesh_name, destination, renamed)
                if name not in clusters:
                    clusters[name] = _cluster(name, destination, policy, mesh, options, material)
                if clusters[name] is not None:
                    shares.append((name, destination.weight))
            routes.append(_Route(resolved.data, tuple(shares)))
        served.append((port.port, port.protocol, tuple(routes)))
    ports = _ports(service.data, tuple(served), options)
    report.problems.extend(ports.problems)
    return Backend(
        service.data.name,
        ports.ports,
        tuple(cluster for cluster in clusters.values() if cluster is not None),
        secrets.resources(),
        tuple(dict.fromkeys(report.problems)),
        ports,
    )


def backend_facts(service: Service, policy: ClientPolicyTls | None, mesh: Mesh) -> MaterialFacts:
    """The facts that `backend` needs."""
    arns = (*policy_arns(policy), *service.arns)
    return material_facts(mesh, arns) if arns else NO_MATERIAL


def cluster_name(mesh: str, destination: Destination, renamed: Mapping[str, str]) -> str:
    mapping = destination.listener.port_mapping
    name = names.egress_cluster(mesh, destination.node, mapping.protocol, mapping.port)
    return renamed.get(name, name) if renamed else name


def policy_hash(tls: bytes) -> str:
    """Eight hex digits that tell client policies apart in cluster names."""
    return hashlib.blake2b(tls, digest_size=4).hexdigest()


# --- clusters -------------------------------------------------------------------------------------


def _cluster(
    name: str,
    destination: Destination,
    policy: ClientPolicyTls | None,
    mesh: MeshData,
    options: Options,
    material: Material,
) -> BackendCluster | None:
    """One listener of a node as this client sees it. None when it cannot be reached as the specs demand."""
    found_by = discovery_name(destination.discovery)
    key = f"virtualNode/{destination.node}"
    if destination.discovery is None or not found_by:
        material.report.error(key, "$.spec.serviceDiscovery", "is missing, so nobody can reach the node")
        return None
    tls = client_tls(
        policy=policy,
        listener=destination.listener,
        discovery_name=found_by,
        target=key,
        material=material,
    )
    if not tls.usable:
        return None
    body = _body(
        name,
        destination.node,
        destination.discovery,
        destination.listener,
        destination.endpoints,
        ip_preference(mesh, destination.discovery),
        options,
    )
    material.report.problems.extend(body.problems)
    socket = field(_TRANSPORT_SOCKET, tls.socket) if tls.socket else b""
    value = body.before + socket + body.after
    resource = Resource(
        type_url=CLUSTER, name=name, value=value, version=content_version(value), origin=body.origin
    )
    return BackendCluster(resource, body.assignment, tls.socket, body)


@shared
def _body(
    name: str,
    node: str,
    discovery: ServiceDiscovery,
    listener: Listener,
    facts: tuple[Endpoint, ...] | None,
    preference: str | None,
    options: Options,
) -> _Body:
    """What every client of a node's listener agrees in."""
    report = Report()
    key, port = f"virtualNode/{node}", listener.port_mapping.port
    endpoints: tuple[Endpoint, ...] = ()
    assignment = None
    host = discovery_name(discovery)
    if discovery.dns is not None:
        kind: Discovery = "STRICT_DNS" if discovery.dns.response_type == "ENDPOINTS" else "LOGICAL_DNS"
        host = discovery.dns.hostname
    elif options.cloud_map == "dns" and facts is None:
        report_lost_attributes(node, discovery, report)
        kind = "STRICT_DNS"
    else:
        endpoints = cloud_map_endpoints(node, discovery, facts, preference, report)
        kind = "STATIC" if options.delivery == "inline" else "EDS"
        if kind == "EDS":
            assignment = _assignment(name, endpoints, port, f"{key} $.spec.serviceDiscovery.awsCloudMap")
    before, after = serialized_around(
        _TRANSPORT_SOCKET,
        _cluster_message,
        (name, node, host),
        kind,
        listener.port_mapping,
        DNS_LOOKUP_FAMILY[preference],
        endpoints if kind == "STATIC" else (),
        listener.health_check,
        listener.outlier_detection,
        options.app_mesh_metadata,
        options.legacy_defaults,
    )
    origin = (f"{key} $.spec.listeners[port={port}]",)
    return _Body(before, after, assignment, origin, tuple(report.problems))


def _cluster_message(
    texts: tuple[str, str, str],
    kind: Discovery,
    port_mapping: PortMapping,
    dns_lookup_family: int,
    endpoints: tuple[Endpoint, ...],
    health_check: HealthCheckPolicy | None,
    outlier_detection: OutlierDetection | None,
    stats_tags: bool,
    legacy_defaults: bool,
) -> proto.Cluster:
    name, node, host = texts
    return backend_cluster(
        name=name,
        node=node,
        port_mapping=port_mapping,
        discovery=kind,
        host=host,
        dns_lookup_family=dns_lookup_family,
        endpoints=endpoints,
        health_check=health_check,
        outlier_detection=outlier_detection,
        stats_tags=stats_tags,
        legacy_defaults=legacy_defaults,
    )


def _assignment(name: str, endpoints: tuple[Endpoint, ...], port: int, origin: str) -> Resource:
    value = serialized(
        _assignment_message,
        (name, *[endpoint.address for endpoint in endpoints]),
        tuple([(endpoint.port or port, endpoint.health) for endpoint in endpoints]),
    )
    return Resource(
        type_url=ENDPOINTS, name=name, value=value, version=content_version(value), origin=(origin,)
    )


def _assignment_message(
    texts: tuple[str, ...], endpoints: tuple[tuple[int, Literal["HEALTHY", "UNHEALTHY"]], ...]
) -> proto.ClusterLoadAssignment:
    name, *addresses = texts
    given = [
        Endpoint(address=address, port=port, health=health)
        for address, (port, health) in zip(addresses, endpoints, strict=True)
    ]
    return cluster_load_assignment(name, given, 0)


# --- routes ---------------------------------------------------------------------------------------


@shared
def _ports(
    service: VirtualServiceData, ports: tuple[tuple[int, str, tuple[_Route, ...]], ...], options: Options
) -> _Ports:
    """The ports of a service, each with its protocol and its routes to those clusters that can be had."""
    report = Report()
    made = [_port(service, port, protocol, routes, options, report) for port, protocol, routes in ports]
    return _Ports(tuple(made), tuple(report.problems))


def _port(
    service: VirtualServiceData,
    port: int,
    protocol: str,
    routes: tuple[_Route, ...],
    options: Options,
    report: Report,
) -> BackendPort:
    keys = [service.key, *[route.data.key for route in routes if route.data is not None]]
    origin = tuple([f"{key} $.spec" for key in dict.fromkeys(keys)])
    for one in routes:
        _report_nothing_left(service, one, report)
    if protocol in HTTP_FAMILY:
        name = service.name
        content = serialized(
            _host_message,
            (name, *[cluster for one in routes for cluster, _ in one.shares]),
            port,
            tuple([_route_shape(one) for one in routes]),
            options.app_mesh_metadata,
            options.legacy_defaults,
        )
        domains = (name.lower(), f"{name}:{port}".lower())
        return BackendPort(port, protocol, virtual_host_entry(content), domains, origin=origin)
    idle = None
    for one in routes:
        body = route_body(one.data) if one.data is not None else None
        if isinstance(body, TcpRoute) and body.timeout is not None:
            idle = milliseconds(body.timeout.idle)
    shares = routes[0].shares if routes else ()
    live = tuple(share for share in shares if share[1] > 0)
    return BackendPort(port, protocol, clusters=live, idle_timeout=idle, origin=origin)


def _report_nothing_left(service: VirtualServiceData, one: _Route, report: Report) -> None:
    if any(weight for _, weight in one.shares):
        return
    if one.data is None:
        report.warning(service.key, "$.spec.provider", "cannot be reached: every request gets 503")
        return
    report.warning(
        one.data.key,
        f"$.spec.{route_member(one.data)}.action.weightedTargets",
        "no target with a weight above zero is left: every request gets 503",
    )


class _RouteShape(Struct, frozen=True, gc=False):
    """A route of the HTTP family, all but the names of its clusters."""

    match: HttpRouteMatch | GrpcRouteMatch | None
    timeout: HttpTimeout | None
    retry_policy: HttpRetryPolicy | GrpcRetryPolicy | None
    weights: tuple[int, ...]


def _route_shape(one: _Route) -> _RouteShape:
    weights = tuple([weight for _, weight in one.shares])
    body = route_body(one.data) if one.data is not None else None
    if not isinstance(body, HttpRoute | GrpcRoute):
        return _RouteShape(None, None, None, weights)
    return _RouteShape(body.match, body.timeout, body.retry_policy, weights)


def _host_message(
    texts: tuple[str, ...],
    port: int,
    routes: tuple[_RouteShape, ...],
    stats_tags: bool,
    legacy_defaults: bool,
) -> proto.VirtualHost:
    """A service's virtual host on one port. `texts` are its name and the clusters of its routes."""
    name, *rest = texts
    clusters = iter(rest)
    return virtual_host(
        name=name,
        domains=[name, f"{name}:{port}"],
        routes=[
            _http_route(
                shape,
                [(next(clusters), weight) for weight in shape.weights],
                name if stats_tags else None,
                None if legacy_defaults else default_retry_policy(),
            )
            for shape in routes
        ],
    )


def _http_route(
    shape: _RouteShape,
    clusters: Sequence[tuple[str, int]],
    virtual_service: str | None,
    default_retry: proto.RetryPolicy | None,
) -> proto.Route:
    if shape.match is None:
        match = proto.RouteMatch(prefix="/")
    elif isinstance(shape.match, GrpcRouteMatch):
        match = grpc_route_match(
            shape.match.service_name, shape.match.method_name, shape.match.metadata or ()
        )
    else:
        match = http_route_match(shape.match)
    timeout, idle = timeouts_of(shape.timeout)
    return route(
        match=match,
        clusters=clusters,
        timeout=timeout,
        idle_timeout=idle,
        retry=default_retry if shape.retry_policy is None else retry_policy(shape.retry_policy),
        virtual_service=virtual_service,
    )
