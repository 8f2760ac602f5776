"""A virtual node's own side: its listeners, the application behind them, the routes between."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .. import names, proto
from ..facts import MaterialFacts
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
from .sources import Material, Secrets
from .tls import LISTENER_ALPN, downstream_tls_context, transport_socket

if TYPE_CHECKING:
    from ..options import Options
    from ..spec import ListenerTls


class Ingress(NamedTuple):
    """What a node's own side is made from: nothing of whom it calls."""

    mesh: str
    node: str
    listeners: tuple[Listener, ...]
    logging: Logging | None
    preference: str | None

    @property
    def key(self) -> str:
        return f"virtualNode/{self.node}"


def ingress(node: Ingress, facts: MaterialFacts, options: Options) -> Part:
    """Ingress listeners, local clusters and ingress routes of a node.

    A node without listeners has none (App Mesh user guide, "Virtual nodes"). A listener whose TLS cannot
    be had gets no chain, so that nothing is served in the clear that was meant to be encrypted. Every
    argument is an immutable value, and there is no other input: the arguments are a memo's key.
    """
    report, secrets, out = Report(), Secrets(), Output(options.delivery)
    material = Material(facts, options, report, secrets)
    host = bind_address(options, node.preference)
    chains: dict[int, list[proto.FilterChain]] = {}
    for index, spec in enumerate(node.listeners):
        made = _add_listener(spec, index, node, options, material, out)
        if made is not None:
            chains[index] = made
    if options.interception == "none":
        _add_bound(node, chains, host, options, out)
    elif chains:
        _add_shared(node, chains, host, options, out)
    return Part((*out.resources(), *secrets.resources()), tuple(report.problems))


def _add_bound(
    node: Ingress, chains: dict[int, list[proto.FilterChain]], host: str, options: Options, out: Output
) -> None:
    """One socket for each listener."""
    bound = ingress_ports(options, [spec.port_mapping.port for spec in node.listeners])
    for index, made in chains.items():
        spec = node.listeners[index]
        permissive = _mode(spec) == "PERMISSIVE"
        port = bound[spec.port_mapping.port]
        message = listener(
            name=names.ingress_listener(host, port),
            host=host,
            port=port,
            inbound=True,
            chains=made,
            listener_filters=[tls_inspector()] if permissive else [],
            go_on_without_first_bytes=permissive and spec.port_mapping.protocol == "tcp",
            reuse_port=False,
            stats_tags=options.app_mesh_metadata,
        )
        out.message(message, f"{node.key} $.spec.listeners[{index}]")


def _add_shared(
    node: Ingress, chains: dict[int, list[proto.FilterChain]], host: str, options: Options, out: Output
) -> None:
    """One socket for all listeners, which iptables redirects to; the original port tells them apart."""
    served = [node.listeners[index] for index in chains]
    permissive = [spec for spec in served if _mode(spec) == "PERMISSIVE"]
    filters = [original_dst()]
    if permissive:
        filters.append(tls_inspector([spec.port_mapping.port for spec in permissive]))
    port = options.ingress_port or names.INGRESS_PORT
    message = listener(
        name=names.ingress_listener(host, port),
        host=host,
        port=port,
        inbound=True,
        chains=[chain for index in sorted(chains) for chain in chains[index]],
        listener_filters=filters,
        go_on_without_first_bytes=any(spec.port_mapping.protocol == "tcp" for spec in permissive),
        stats_tags=options.app_mesh_metadata,
    )
    out.message(message, *(f"{node.key} $.spec.listeners[{index}]" for index in sorted(chains)))


def _mode(spec: Listener) -> str | None:
    return None if spec.tls is None else spec.tls.mode


def _add_listener(
    spec: Listener,
    index: int,
    node: Ingress,
    options: Options,
    material: Material,
    out: Output,
) -> list[proto.FilterChain] | None:
    """One App Mesh listener: its cluster and routes go to `out`, its chains are returned."""
    path = f"$.spec.listeners[{index}]"
    origin = f"{node.key} {path}"
    port, protocol = spec.port_mapping.port, spec.port_mapping.protocol
    socket = None
    if spec.tls is not None and spec.tls.mode != "DISABLED":
        socket = listener_transport_socket(spec.tls, protocol, material, node.key, f"{path}.tls")
        if socket is None:
            return None
    cluster = names.ingress_cluster(node.mesh, node.node, protocol, port)
    out.message(
        local_cluster(
            name=cluster,
            protocol=protocol,
            host=application_address(options, node.preference),
            port=application_port(options, port),
            pool=spec.connection_pool,
            legacy_defaults=options.legacy_defaults,
        ),
        origin,
    )
    several = len(node.listeners) > 1
    stat_prefix = names.ingress_stat_prefix(protocol, port, several)
    logs = access_logs(node.logging)
    if protocol in HTTP_FAMILY:
        timeout = spec.timeout and (spec.timeout.http or spec.timeout.http2 or spec.timeout.grpc)
        routes = ingress_route_configuration(
            name=names.ingress_routes(port),
            virtual_host=node.node,
            cluster=cluster,
            timeout=milliseconds(timeout.per_request) if timeout else None,
            idle_timeout=milliseconds(timeout.idle) if timeout else None,
        )
        reference = out.routes(routes, origin)
        filters = [http_filter(http_connection_manager(stat_prefix=stat_prefix, routes=reference, logs=logs))]
    else:
        tcp_timeout = spec.timeout and spec.timeout.tcp
        idle = milliseconds(tcp_timeout.idle) if tcp_timeout else None
        filters = [
            tcp_filter(
                tcp_proxy(stat_prefix=stat_prefix, clusters=[(cluster, 1)], idle_timeout=idle, logs=logs)
            )
        ]
    return filter_chains(
        name=f"ingress_{port}",
        filters=filters,
        mode=None if spec.tls is None else spec.tls.mode,
        tls=socket,
        destination_port=port if options.interception == "redirect" else None,
    )


def listener_transport_socket(
    tls: ListenerTls, protocol: str, material: Material, resource: str, path: str
) -> proto.TransportSocket | None:
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
    return transport_socket(
        downstream_tls_context(
            certificate=certificate,
            trust=trust,
            subject_alternative_names=san,
            alpn=LISTENER_ALPN[protocol],
        )
    )
