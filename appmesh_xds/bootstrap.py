"""Bootstraps: the file that Envoy is started with.

`static_bootstrap` holds every resource of a proxy and needs no server. `ads_bootstrap` says where the server
is. Both start on Envoy without a warning (envoy-notes §6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from . import names, proto
from .envoy.base import address, ads, set_duration
from .envoy.clusters import set_http_protocol
from .envoy.tls import transport_socket, upstream_tls_context
from .errors import UsageError
from .facts import FileCertificate, FileTrust, Pem, PemTrust
from .options import Options
from .snapshot import Snapshot, translate

if TYPE_CHECKING:
    from .mesh import Mesh

#: App Mesh's images raised it, because routes may hold long expressions (reference §6.2).
_RE2_PROGRAM_SIZE: Final = 1000
#: Connections a proxy takes at most; Envoy warns when nothing is said.
_MAX_CONNECTIONS: Final = 50_000
_FETCH_TIMEOUT: Final = 15_000
_XDS_CLUSTER: Final = "appmesh_xds"


class StaticBootstrap(NamedTuple):
    """A bootstrap and the snapshot it holds."""

    bootstrap: proto.Bootstrap
    snapshot: Snapshot


class KeyFile(NamedTuple):
    """A file that a bootstrap refers to: what `--out` writes beside it. The content never prints."""

    name: str
    content: bytes
    private: bool

    def __repr__(self) -> str:
        return f"KeyFile(name={self.name!r}, content=[redacted], private={self.private})"


_DEFAULTS: Final = Options()


def static_bootstrap(mesh: Mesh, proxy: str, options: Options = _DEFAULTS) -> StaticBootstrap:
    """One file with every resource of a proxy; the problems are the snapshot's.

    Raises `UsageError` for a proxy that is not there, and where a certificate is known as PEM: a private
    key does not belong into a configuration file. `with_key_files` puts it into a file of its own.
    """
    inline = msgspec.structs.replace(options, delivery="inline")
    snapshot = translate(mesh, proxy, inline)
    if snapshot.secrets:
        secret = snapshot.secrets[0].name
        raise UsageError(
            f"{secret} is known as PEM, and a private key is never written into a bootstrap: give --out DIR, "
            "which writes it into a file beside the bootstrap"
        )
    result = _bootstrap(snapshot.mesh, snapshot.node_id, options)
    for resource in snapshot.listeners:
        result.static_resources.listeners.add().ParseFromString(resource.value)
    for resource in snapshot.clusters:
        result.static_resources.clusters.add().ParseFromString(resource.value)
    return StaticBootstrap(result, snapshot)


def with_key_files(mesh: Mesh, folder: str) -> tuple[Mesh, tuple[KeyFile, ...]]:
    """The mesh with every PEM fact replaced by files in `folder`, and what those files must hold."""
    files: list[KeyFile] = []
    certificates: dict[str, FileCertificate] = {}
    authorities: dict[str, FileTrust] = {}
    for number, (arn, fact) in enumerate(sorted(mesh.certificates.items())):
        if isinstance(fact, Pem):
            chain, key = f"certificate-{number}.crt", f"certificate-{number}.key"
            files.append(KeyFile(chain, fact.certificate_chain, False))
            files.append(KeyFile(key, fact.private_key, True))
            certificates[arn] = FileCertificate(
                certificate_chain=f"{folder}/{chain}", private_key=f"{folder}/{key}"
            )
    for number, (arn, authority) in enumerate(sorted(mesh.authorities.items())):
        if isinstance(authority, PemTrust):
            name = f"authority-{number}.crt"
            files.append(KeyFile(name, authority.certificate_chain, False))
            authorities[arn] = FileTrust(certificate_chain=f"{folder}/{name}")
    if not files:
        return mesh, ()
    return mesh.replace(certificates=certificates, authorities=authorities), tuple(files)


class XdsServer(NamedTuple):
    """Where the control plane is: `HOST:PORT` or `unix:PATH`, and the files of TLS towards it."""

    target: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


def ads_bootstrap(
    mesh: str,
    proxy: str,
    server: XdsServer,
    options: Options = _DEFAULTS,
    *,
    owner: str | None = None,
    delta: bool = False,
) -> proto.Bootstrap:
    """A bootstrap that gets everything from a control plane over ADS. `proxy` is `KIND/NAME`.

    Raises `UsageError` for a server address or a proxy that cannot be read.
    """
    kind, _, name = proxy.partition("/")
    if kind not in ("virtualNode", "virtualGateway") or not name:
        raise UsageError(f"{proxy!r} does not name a proxy: virtualNode/NAME or virtualGateway/NAME")
    result = _bootstrap(mesh, names.node_id(mesh, owner, kind, name), options)
    dynamic = result.dynamic_resources
    dynamic.ads_config.api_type = 4 if delta else 2  # DELTA_GRPC, GRPC
    dynamic.ads_config.transport_api_version = 2
    dynamic.ads_config.set_node_on_first_message_only = True
    dynamic.ads_config.grpc_services.add().envoy_grpc.cluster_name = _XDS_CLUSTER
    for source in (dynamic.lds_config, dynamic.cds_config):
        source.CopyFrom(ads())
        set_duration(source.initial_fetch_timeout, _FETCH_TIMEOUT)
    result.static_resources.clusters.append(_xds_cluster(server))
    return result


def _xds_cluster(server: XdsServer) -> proto.Cluster:
    cluster = proto.Cluster()
    cluster.name = cluster.load_assignment.cluster_name = _XDS_CLUSTER
    set_duration(cluster.connect_timeout, 1000)
    target = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
    if server.target.startswith("unix:"):
        cluster.type = 0  # STATIC
        target.pipe.path = server.target.removeprefix("unix:").removeprefix("//")
    else:
        host, _, port = server.target.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"{server.target!r} is not a server address: HOST:PORT or unix:PATH")
        cluster.type = 1  # STRICT_DNS
        target.CopyFrom(address(host.strip("[]"), int(port)))
    options = proto.HttpProtocolOptions()
    keepalive = options.explicit_http_config.http2_protocol_options.connection_keepalive
    set_duration(keepalive.interval, 30_000)
    set_duration(keepalive.timeout, 5_000)
    key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster.typed_extension_protocol_options[key].CopyFrom(proto.pack(options))
    if server.ca is not None:
        certificate = None
        if server.certificate is not None and server.key is not None:
            certificate = FileCertificate(certificate_chain=server.certificate, private_key=server.key)
        host = server.target.rpartition(":")[0]
        context = upstream_tls_context(
            certificate=certificate,
            trust=FileTrust(certificate_chain=server.ca),
            subject_alternative_names=[server.server_name or host],
            alpn=["h2"],
            sni=server.server_name or "",
        )
        cluster.transport_socket.CopyFrom(transport_socket(context))
    return cluster


def _bootstrap(mesh: str, node_id: str, options: Options) -> proto.Bootstrap:
    """What both kinds share: who the proxy is, its admin endpoint, limits and tags."""
    result = proto.Bootstrap()
    result.node.id = node_id
    result.node.cluster = node_id  # as App Mesh's images set it (reference §6.2)
    result.admin.address.CopyFrom(address(options.admin_address, options.admin_port))
    static = result.layered_runtime.layers.add()
    static.name = "static_layer_0"
    static.static_layer.fields["re2.max_program_size.error_level"].number_value = _RE2_PROGRAM_SIZE
    admin = result.layered_runtime.layers.add()
    admin.name = "admin_layer"
    admin.admin_layer.SetInParent()
    _limit_connections(result.overload_manager)
    for tag, expression in _TAGS.items():
        specifier = result.stats_config.stats_tags.add()
        specifier.tag_name = tag
        specifier.regex = expression
    if options.sds_socket is not None:
        result.static_resources.clusters.append(_sds_cluster(options.sds_socket))
    return result


#: Tags that App Mesh's images took out of stat names (reference §6.3).
_TAGS: Final[Mapping[str, str]] = {
    "appmesh.listener_protocol": r".*?\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$",
    "appmesh.listener_port": r".*?\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$",
}


def _limit_connections(manager: proto.OverloadManager) -> None:
    config = proto.DownstreamConnectionsConfig(max_active_downstream_connections=_MAX_CONNECTIONS)
    monitor = manager.resource_monitors.add()
    monitor.name = "envoy.resource_monitors.global_downstream_max_connections"
    monitor.typed_config.CopyFrom(proto.pack(config))


def _sds_cluster(socket: str) -> proto.Cluster:
    """The proxy's local SDS service (reference §1.1)."""
    cluster = proto.Cluster()
    cluster.name = cluster.load_assignment.cluster_name = names.SDS_CLUSTER
    cluster.type = 0  # STATIC
    set_duration(cluster.connect_timeout, 1000)
    target = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
    target.pipe.path = socket
    set_http_protocol(cluster, "http2")
    return cluster
