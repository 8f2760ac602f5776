"""A virtual node's way out: the egress listener, its chains and routes, and the clusters behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from .. import names, proto
from ..errors import Problem
from ..resource import CLUSTER, ENDPOINTS, Resource
from ..spec import ClientPolicyTls, Logging, MeshData, VirtualNodeData
from .backend import Backend, BackendPort, backend, backend_facts, policy_hash
from .base import HTTP_FAMILY
from .binding import bind_address, ip_preference
from .client_tls import CLIENT, effective_policy
from .clusters import passthrough_cluster
from .filters import (
    access_logs,
    http_connection_manager,
    http_filter,
    original_dst,
    tcp_filter,
    tcp_proxy,
    tls_inspector,
)
from .listeners import listener
from .maker import Maker
from .output import Output, Part, virtual_host_entry
from .report import Report
from .routes import passthrough_route, virtual_host

if TYPE_CHECKING:
    from ..mesh import Mesh
    from ..options import Options

#: TLS to AWS's own services is always let out (reference §5.1).
_AWS_PORT = 443
_AWS_SERVER_NAMES = ("*.amazonaws.com",)


class Use(Struct, frozen=True, gc=False):
    """One backend of a proxy: the service, the policy that holds, and where each is said."""

    service: str
    policy: ClientPolicyTls | None
    #: Whether the policy is the backend's own, and not that of `backendDefaults`.
    own: bool = False
    #: Place among the backends; None for what a gateway's routes lead to.
    place: int | None = None

    @property
    def path(self) -> str:
        return "$.spec" if self.place is None else f"$.spec.backends[{self.place}].virtualService"

    @property
    def policy_path(self) -> str:
        return f"{self.path if self.own else '$.spec.backendDefaults'}.clientPolicy.tls"


def add_egress(
    node: VirtualNodeData, mesh: Mesh, options: Options, maker: Maker, report: Report, out: Output
) -> None:
    """Adds a node's egress listeners, routes, clusters and endpoints to `out`."""
    parts = backends(node.key, backend_uses(node), mesh, options, maker, report)
    add_backends(parts, out)
    host = bind_address(options, ip_preference(mesh.data, node.spec.service_discovery))
    http, tcp = _by_port(parts, options, report)
    origin = f"{node.key} $.spec.backends"
    if options.interception == "none":
        _add_bound(node.spec.logging, origin, http, tcp, host, options, report, out)
        return
    allow_all = allows_all(mesh.data)
    passthrough = names.allow_all_cluster(mesh.name) if allow_all else None
    inline = []
    for port, served in http.items():
        hosts = _virtual_hosts(served, passthrough, report)
        inline.append((port, out.joined_routes(names.egress_routes(port), hosts, _origins(served))))
    bytes_only = tuple((port, part.clusters, part.idle_timeout) for port, (_, part) in tcp.items())
    part: Part = maker.part(
        redirected, tuple(inline), bytes_only, mesh.data, node.spec.logging, host, options
    )
    for resource in part.resources:
        out.add(resource.at(origin))


def backend_uses(node: VirtualNodeData) -> list[Use]:
    """A node's backends by service, sorted. A service named twice is used once (RM#170)."""
    uses: dict[str, Use] = {}
    defaults = node.spec.backend_defaults
    for index, entry in enumerate(node.spec.backends or ()):
        service = entry.virtual_service
        if service is not None and service.virtual_service_name not in uses:
            policy, own = effective_policy(service.client_policy, defaults)
            name = service.virtual_service_name
            uses[name] = Use(name, policy, own, index)
    return [uses[name] for name in sorted(uses)]


def backends(
    resource: str,
    uses: Sequence[Use],
    mesh: Mesh,
    options: Options,
    maker: Maker,
    report: Report,
) -> list[Backend]:
    """The parts of every backend that resolves, with the problems of those that do not."""
    found = []
    for use in uses:
        part = maker.backend(mesh, options, use.service, use.policy)
        if part is not None:
            found.append((use, part))
            continue
        report.warning(
            resource,
            f"{use.path}.virtualServiceName",
            f"there is no virtual service {use.service!r} in the mesh; the backend is left out",
        )
    renames = _policy_renames(resource, found, report)
    parts = []
    secrets: set[str] = set()
    for use, part in found:
        if renames and (renamed := renames.get(use.service)):
            service = maker.service(mesh, use.service)
            assert service is not None  # it has a part
            facts = backend_facts(service, use.policy, mesh)
            names_instead = tuple(sorted(renamed.items()))
            part = backend(service, use.policy, facts, mesh.data, options, names_instead)
        if part.problems:
            report.problems.extend(
                _for_client(problem, resource, use.policy_path) for problem in part.problems
            )
        if part.secrets:
            # Most name those of the backends before.
            new = [secret for secret in part.secrets if secret.name not in secrets]
            secrets.update([secret.name for secret in new])
            own = tuple([_of_client(secret, resource, use.policy_path) for secret in new])
            part = msgspec.structs.replace(part, secrets=own)
        parts.append(part)
    return parts


def _for_client(problem: Problem, resource: str, policy_path: str) -> Problem:
    if problem.resource != CLIENT:
        return problem
    return msgspec.structs.replace(problem, resource=resource, path=policy_path + problem.path)


def _of_client(secret: Resource, resource: str, policy_path: str) -> Resource:
    """The secret with the client's own policy as its origin, where it comes from there."""
    parts = [origin.partition(" ") for origin in secret.origin]
    return secret.at(
        *[f"{resource} {policy_path}{path}" if of == CLIENT else f"{of} {path}" for of, _, path in parts]
    )


def _policy_renames(
    resource: str, parts: Sequence[tuple[Use, Backend]], report: Report
) -> dict[str, dict[str, str]]:
    """Clusters that several client policies reach differently: service -> name -> name of its own.

    Envoy refuses two clusters of one name. The policy under `backendDefaults` keeps App Mesh's name.
    """
    reached_names = [cluster.resource.name for _, part in parts for cluster in part.clusters]
    if len(set(reached_names)) == len(reached_names):
        return {}
    reached: dict[str, dict[bytes, list[Use]]] = {}
    for use, part in parts:
        for cluster in part.clusters:
            reached.setdefault(cluster.resource.name, {}).setdefault(cluster.tls, []).append(use)
    renames: dict[str, dict[str, str]] = {}
    for name, by_tls in reached.items():
        if len(by_tls) < 2:
            continue
        users = sorted(use.service for uses in by_tls.values() for use in uses)
        report.warning(
            resource,
            "$.spec.backends",
            f"backends {', '.join(map(repr, users))} reach one target under different client policies",
            f"the clusters that deviate from backendDefaults are named {name}_policy_...",
        )
        for tls, uses in by_tls.items():
            if not all(use.own for use in uses):
                continue
            for use in uses:
                renames.setdefault(use.service, {})[name] = names.policy_cluster(name, policy_hash(tls))
    return renames


def add_backends(parts: Iterable[Backend], out: Output) -> None:
    """Adds the backends' clusters, endpoints and secrets to `out`."""
    clusters, endpoints = (out.by_type[kind] for kind in (CLUSTER, ENDPOINTS))
    for part in parts:
        for cluster in part.clusters:
            clusters[cluster.resource.name] = cluster.resource
            if cluster.assignment is not None:
                endpoints[cluster.assignment.name] = cluster.assignment
        for secret in part.secrets:
            out.secret(secret)


# --- ports ----------------------------------------------------------------------------------------

#: (service, its port)
Served = tuple[str, BackendPort]


def _by_port(
    parts: Sequence[Backend], options: Options, report: Report
) -> tuple[dict[int, list[Served]], dict[int, Served]]:
    """HTTP services share a port as virtual hosts; a TCP service owns its port (reference §4.8, §10.37).

    Where two cannot share, the first by name stays and the other is reported.
    """
    http: dict[int, list[Served]] = {}
    tcp: dict[int, Served] = {}
    egress_port = options.egress_port if options.interception == "redirect" else None
    for part in parts:
        for port in part.ports:
            number = port.port
            if number == egress_port:
                report.error(
                    f"virtualService/{part.service}",
                    "$.spec.provider",
                    f"port {number} is the egress listener's own",
                    "use another port for the service, or another --egress-port",
                )
            elif port.protocol in HTTP_FAMILY and number not in tcp:
                if number in http:
                    http[number].append((part.service, port))
                else:
                    http[number] = [(part.service, port)]
            elif number not in tcp and number not in http:
                tcp[number] = (part.service, port)
            else:
                owner = tcp.get(number) or http[number][0]
                report.error(
                    f"virtualService/{part.service}",
                    "$.spec.provider",
                    f"{port.protocol} port {number} is taken by {owner[1].protocol} service {owner[0]!r}; "
                    "a TCP service cannot share its port",
                    "give one of them another port on its virtual router",
                )
    return dict(sorted(http.items())), dict(sorted(tcp.items()))


def host_name_taken(domains: Sequence[str], service: str, taken: dict[str, str], report: Report) -> bool:
    """Whether another service has one of these domains already (Envoy compares without case)."""
    for domain in domains:
        owner = taken.get(domain.lower())
        if owner is not None:
            report.error(
                f"virtualService/{service}",
                "$.virtualServiceName",
                f"the host {domain!r} is that of virtual service {owner!r} too",
                "host names are compared without case; rename one of them",
            )
            return True
    taken.update((domain.lower(), service) for domain in domains)
    return False


def _virtual_hosts(served: Sequence[Served], allow_all: str | None, report: Report) -> list[bytes]:
    """The virtual hosts of a port by name, each as an entry of a route configuration."""
    domains = [domain for _, part in served for domain in part.domains]
    if len(set(domains)) < len(domains):
        taken: dict[str, str] = {}
        served = [one for one in served if not host_name_taken(one[1].domains, one[0], taken, report)]
    hosts = {service: part.host_entry for service, part in served}
    if allow_all is not None:
        hosts[names.ALLOW_ALL_VIRTUAL_HOST] = _allow_all_host(allow_all)
    return [hosts[name] for name in sorted(hosts)]


@lru_cache(maxsize=64)
def _allow_all_host(cluster: str) -> bytes:
    host = virtual_host(name=names.ALLOW_ALL_VIRTUAL_HOST, domains=["*"], routes=[passthrough_route(cluster)])
    return virtual_host_entry(host.SerializeToString(deterministic=True))


def _origins(served: Sequence[Served]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([origin for _, part in served for origin in part.origin]))


# --- behind iptables --------------------------------------------------------------------------------

#: (clusters by weight, idle timeout)
TcpPort = tuple[int, tuple[tuple[str, int], ...], int | None]


def allows_all(mesh: MeshData) -> bool:
    return mesh.spec.egress_filter is not None and mesh.spec.egress_filter.type == "ALLOW_ALL"


def redirected(
    http: tuple[tuple[int, bytes], ...],
    tcp: tuple[TcpPort, ...],
    mesh: MeshData,
    logging: Logging | None,
    host: str,
    options: Options,
) -> Part:
    """The egress listener that iptables redirects to, and the clusters it passes unknown traffic to.

    `http` holds ports, each with its serialised route configuration when that is delivered inline. Every
    argument is an immutable value, and there is no other input: the arguments are a memo's key.
    """
    passthrough = names.allow_all_cluster(mesh.mesh_name) if allows_all(mesh) else None
    amazonaws = names.amazonaws_cluster(mesh.mesh_name) if options.aws_egress else None
    logs = access_logs(logging)
    out = Output(options.delivery)
    filters: dict[int, proto.Filter | None] = {
        port: _http_filter(port, inline, logs) for port, inline in http
    }
    filters.update({port: _tcp_filter(clusters, idle, logs) for port, clusters, idle in tcp})
    everywhere = ("0.0.0.0/0", "::/0") if ":" in host else ("0.0.0.0/0",)
    chains = []
    for port in sorted(filters):
        # Envoy chooses by address range before it looks at server names and never turns back: a backend on
        # 443 must stand in the same range as the AWS chain, or that chain would close its connections.
        ranges = everywhere if port == _AWS_PORT and amazonaws is not None else ()
        chains.append(_chain(f"egress_{port}", filters[port], port=port, ranges=ranges))
    if amazonaws is not None:
        out.message(passthrough_cluster(amazonaws))
        through = _passthrough(amazonaws, logs)
        chains.append(
            _chain("amazonaws", through, port=_AWS_PORT, ranges=everywhere, server_names=_AWS_SERVER_NAMES)
        )
    if passthrough is not None:
        out.message(passthrough_cluster(passthrough))
        through = _passthrough(passthrough, logs)
        if amazonaws is not None and _AWS_PORT not in filters:
            chains.append(_chain("mesh_allow_all_443", through, port=_AWS_PORT, ranges=everywhere))
        chains.append(_chain("mesh_allow_all", through, ranges=everywhere))
        # Somebody who connects to the egress port itself would be sent back to it, for ever.
        chains.append(_chain("no_loop", None, port=options.egress_port))
    if chains:
        listener_filters = [original_dst()]
        if amazonaws is not None:
            listener_filters.append(tls_inspector([_AWS_PORT]))
        message = listener(
            name=names.egress_listener(host, options.egress_port),
            host=host,
            port=options.egress_port,
            inbound=False,
            chains=chains,
            listener_filters=listener_filters,
            stats_tags=options.app_mesh_metadata,
        )
        out.message(message)
    return Part(out.resources())


def _http_filter(port: int, inline: bytes, logs: Sequence[proto.AccessLog]) -> proto.Filter:
    routes = proto.RouteConfiguration.FromString(inline) if inline else names.egress_routes(port)
    return http_filter(
        http_connection_manager(stat_prefix=names.EGRESS_STAT_PREFIX, routes=routes, logs=logs)
    )


def _tcp_filter(
    clusters: Sequence[tuple[str, int]], idle_timeout: int | None, logs: Sequence[proto.AccessLog]
) -> proto.Filter | None:
    """None, a chain without filters, closes every connection: there is no target to send them to."""
    if not clusters:
        return None
    return tcp_filter(
        tcp_proxy(
            stat_prefix=names.EGRESS_STAT_PREFIX, clusters=clusters, idle_timeout=idle_timeout, logs=logs
        )
    )


def _passthrough(cluster: str, logs: Sequence[proto.AccessLog]) -> proto.Filter:
    return tcp_filter(tcp_proxy(stat_prefix=names.EGRESS_STAT_PREFIX, clusters=[(cluster, 1)], logs=logs))


def _chain(
    name: str,
    network_filter: proto.Filter | None,
    *,
    port: int | None = None,
    ranges: Sequence[str] = (),
    server_names: Sequence[str] = (),
) -> proto.FilterChain:
    chain = proto.FilterChain()
    chain.name = name
    if port is not None:
        chain.filter_chain_match.destination_port.value = port
    for text in ranges:
        prefix, _, length = text.partition("/")
        entry = chain.filter_chain_match.prefix_ranges.add()
        entry.address_prefix = prefix
        entry.prefix_len.value = int(length)
    chain.filter_chain_match.server_names.extend(server_names)
    if network_filter is not None:
        chain.filters.append(network_filter)
    return chain


# --- without interception -----------------------------------------------------------------------------


def _add_bound(
    logging: Logging | None,
    origin: str,
    http: dict[int, list[Served]],
    tcp: dict[int, Served],
    host: str,
    options: Options,
    report: Report,
    out: Output,
) -> None:
    """One listener for all HTTP services, which also works as an http_proxy, and one for each TCP service."""
    logs = access_logs(logging)
    if http:
        port = options.egress_port
        served = [one for ones in http.values() for one in ones]
        hosts = _bound_hosts(http, port, report)
        inline = out.joined_routes(names.egress_routes(port), hosts, _origins(served))
        out.message(_bound_listener("egress", _http_filter(port, inline, logs), host, port, options), origin)
    bound = dict(options.tcp_egress)
    for port, (service, part) in tcp.items():
        if port not in bound:
            report.error(
                f"virtualService/{service}",
                "$.spec.provider",
                f"TCP port {port} needs a port of its own to listen on",
                f"give --tcp-egress {port}=PORT",
            )
            continue
        network_filter = _tcp_filter(part.clusters, part.idle_timeout, logs)
        out.message(_bound_listener(f"egress_{port}", network_filter, host, bound[port], options), origin)


def _bound_listener(
    chain: str, network_filter: proto.Filter | None, host: str, port: int, options: Options
) -> proto.Listener:
    return listener(
        name=names.egress_listener(host, port),
        host=host,
        port=port,
        inbound=False,
        chains=[_chain(chain, network_filter)],
        reuse_port=False,
        stats_tags=options.app_mesh_metadata,
    )


def _bound_hosts(http: dict[int, list[Served]], egress_port: int, report: Report) -> list[bytes]:
    """A service answers to its name, with its own port or with the listener's. One with several ports
    answers to the bare name on its lowest."""
    taken: dict[str, str] = {}
    hosts = {}
    seen: set[str] = set()
    for port, served in http.items():
        for service, part in served:
            domains = [f"{service}:{port}"]
            name = f"{service}:{port}"
            if service not in seen:
                name = service
                domains = list(dict.fromkeys([service, *domains, f"{service}:{egress_port}"]))
            seen.add(service)
            if not host_name_taken(domains, service, taken, report):
                host = virtual_host(name=name, domains=domains, routes=part.routes())
                hosts[name] = virtual_host_entry(host.SerializeToString(deterministic=True))
    return [hosts[name] for name in sorted(hosts)]
