"""A virtual node's own side: its listeners, the application behind them, the routes between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from .. import names, proto
from ..facts import MaterialFacts
from ..resource import CLUSTER, ROUTES, Resource
from ..spec import Listener, Logging
from .base import HTTP_FAMILY, milliseconds
from .binding import (
    application_address,
    application_port,
    bind_address,
    ingress_ports,
)
from .clusters import local_cluster
from .filters import (
    access_logs,
    http_connection_manager,
    http_filter,
    original_dst,
    tcp_filter,
    tcp_proxy,
    tls_inspector,
)
from .listeners import filter_chains, listener
from .output import Output, Part
from .report import Report
from .routes import ingress_route_configuration
from .shared import shared
from .sources import Material, Secrets
from .templates import serialized
from .tls import LISTENER_ALPN, CertificateSource, TrustSource, downstream_tls_context, transport_socket

if TYPE_CHECKING:
    from ..options import Options
    from ..spec import ConnectionPool, ListenerTls
    from ..spec.types import ListenerTlsMode


class Ingress(Struct, frozen=True, gc=False):
    """What a node's own side is made from: nothing of whom it calls."""

    mesh: str
    node: str
    listeners: tuple[Listener, ...]
    logging: Logging | None
    preference: str | None

    @property
    def key(self) -> str:
        return f"virtualNode/{self.node}"


class ServerTls(Struct, frozen=True, gc=False):
    """What a listener's TLS comes down to, its certificate and trust found."""

    certificate: CertificateSource
    trust: TrustSource | None
    names: tuple[str, ...]

    def transport_socket(self, protocol: str) -> proto.TransportSocket:
        context = downstream_tls_context(
            certificate=self.certificate,
            trust=self.trust,
            subject_alternative_names=self.names,
            alpn=LISTENER_ALPN[protocol],
        )
        return transport_socket(context)


class _Port(Struct, frozen=True, gc=False):
    """What one App Mesh listener is to Envoy's: nothing of the node behind it, unless it must say so."""

    port: int
    protocol: str
    mode: ListenerTlsMode | None
    tls: ServerTls | None
    #: Of tcp: the application's cluster and the idle timeout. Otherwise the connection manager refers to
    #: routes by name, or holds them, serialised.
    cluster: str = ""
    idle_timeout: int | None = None
    routes: bytes = b""


def ingress(node: Ingress, facts: MaterialFacts, options: Options) -> Part:
    """Ingress listeners, local clusters and ingress routes of a node.

    A node without listeners has none (App Mesh user guide, "Virtual nodes"). A listener whose TLS cannot
    be had gets no chain, so that nothing is served in the clear that was meant to be encrypted. Every
    argument is an immutable value, and there is no other input: the arguments are a memo's key.
    """
    report, secrets, out = Report(), Secrets(), Output(options.delivery)
    material = Material(facts, options, report, secrets)
    served: dict[int, _Port] = {}
    for index, spec in enumerate(node.listeners):
        port = _add_listener(spec, index, node, options, material, out)
        if port is not None:
            served[index] = port
    host = bind_address(options, node.preference)
    several = len(node.listeners) > 1
    made: dict[Part, tuple[str, ...]] = {}
    if options.interception == "none":
        bound = ingress_ports(options, [spec.port_mapping.port for spec in node.listeners])
        for index, port in served.items():
            part = _listener((port,), several, node.logging, host, bound[port.port], options)
            made[part] = (f"{node.key} $.spec.listeners[{index}]",)
    elif served:
        at = options.ingress_port or names.INGRESS_PORT
        part = _listener(tuple(served.values()), several, node.logging, host, at, options)
        made[part] = tuple(f"{node.key} $.spec.listeners[{index}]" for index in served)
    for part, origin in made.items():
        for resource in part.resources:
            out.add(resource.at(*origin))
    return Part((*out.resources(), *secrets.resources()), tuple(report.problems), tuple(made))


def _add_listener(
    spec: Listener,
    index: int,
    node: Ingress,
    options: Options,
    material: Material,
    out: Output,
) -> _Port | None:
    """One App Mesh listener: its cluster and routes go to `out`."""
    path = f"$.spec.listeners[{index}]"
    origin = f"{node.key} {path}"
    port, protocol = spec.port_mapping.port, spec.port_mapping.protocol
    tls = None
    if spec.tls is not None and spec.tls.mode != "DISABLED":
        tls = server_tls(spec.tls, material, node.key, f"{path}.tls")
        if tls is None:
            return None
    mode = None if spec.tls is None else spec.tls.mode
    cluster = names.ingress_cluster(node.mesh, node.node, protocol, port)
    value = serialized(
        _cluster_message,
        (cluster,),
        protocol,
        application_address(options, node.preference),
        application_port(options, port),
        spec.connection_pool,
        options.legacy_defaults,
    )
    out.value(CLUSTER, cluster, value, origin)
    if protocol not in HTTP_FAMILY:
        tcp_timeout = spec.timeout and spec.timeout.tcp
        return _Port(
            port, protocol, mode, tls, cluster, milliseconds(tcp_timeout.idle) if tcp_timeout else None
        )
    timeout = spec.timeout and (spec.timeout.http or spec.timeout.http2 or spec.timeout.grpc)
    routes = serialized(
        _routes_message,
        (node.node, cluster),
        port,
        milliseconds(timeout.per_request) if timeout else None,
        milliseconds(timeout.idle) if timeout else None,
    )
    if options.delivery == "inline":
        return _Port(port, protocol, mode, tls, routes=routes)
    out.value(ROUTES, names.ingress_routes(port), routes, origin)
    return _Port(port, protocol, mode, tls)


def _cluster_message(
    texts: tuple[str], protocol: str, host: str, port: int, pool: ConnectionPool | None, legacy: bool
) -> proto.Cluster:
    (name,) = texts
    return local_cluster(
        name=name, protocol=protocol, host=host, port=port, pool=pool, legacy_defaults=legacy
    )


def _routes_message(
    texts: tuple[str, str], port: int, timeout: int | None, idle_timeout: int | None
) -> proto.RouteConfiguration:
    virtual_host, cluster = texts
    return ingress_route_configuration(
        name=names.ingress_routes(port),
        virtual_host=virtual_host,
        cluster=cluster,
        timeout=timeout,
        idle_timeout=idle_timeout,
    )


@shared
def _listener(
    ports: tuple[_Port, ...],
    several: bool,
    logging: Logging | None,
    host: str,
    bound: int,
    options: Options,
) -> Part:
    """One socket and what is served on it. Behind iptables that is every listener, told apart by the port
    that the client meant. Nodes that agree in all of this have the same listener."""
    redirect = options.interception == "redirect"
    permissive = [port for port in ports if port.mode == "PERMISSIVE"]
    filters = [original_dst()] if redirect else []
    if permissive:
        filters.append(tls_inspector([port.port for port in permissive] if redirect else ()))
    message = listener(
        name=names.ingress_listener(host, bound),
        host=host,
        port=bound,
        inbound=True,
        chains=[chain for port in ports for chain in _chains(port, several, logging, redirect)],
        listener_filters=filters,
        go_on_without_first_bytes=any(port.protocol == "tcp" for port in permissive),
        reuse_port=redirect,
        stats_tags=options.app_mesh_metadata,
    )
    return Part((Resource.of(message),))


def _chains(
    port: _Port, several: bool, logging: Logging | None, redirect: bool
) -> Sequence[proto.FilterChain]:
    stat_prefix = names.ingress_stat_prefix(port.protocol, port.port, several)
    logs = access_logs(logging)
    if port.protocol in HTTP_FAMILY:
        routes = (
            proto.RouteConfiguration.FromString(port.routes)
            if port.routes
            else names.ingress_routes(port.port)
        )
        made = http_filter(http_connection_manager(stat_prefix=stat_prefix, routes=routes, logs=logs))
    else:
        made = tcp_filter(
            tcp_proxy(
                stat_prefix=stat_prefix,
                clusters=[(port.cluster, 1)],
                idle_timeout=port.idle_timeout,
                logs=logs,
            )
        )
    return filter_chains(
        name=f"ingress_{port.port}",
        filters=[made],
        mode=port.mode,
        tls=None if port.tls is None else port.tls.transport_socket(port.protocol),
        destination_port=port.port if redirect else None,
    )


def server_tls(tls: ListenerTls, material: Material, resource: str, path: str) -> ServerTls | None:
    """A listener's TLS, for nodes and gateways. None when its certificate or trust cannot be had."""
    certificate = material.certificate(tls.certificate, resource, f"{path}.certificate")
    trust = None
    san: tuple[str, ...] = ()
    if tls.validation is not None:
        trust = material.trust(tls.validation.trust, resource, f"{path}.validation.trust")
        if trust is None:
            return None
        if tls.validation.subject_alternative_names is not None:
            san = tls.validation.subject_alternative_names.match.exact
    if certificate is None:
        return None
    material.use(certificate, trust)
    return ServerTls(certificate, trust, san)
