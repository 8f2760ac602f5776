"""Bootstraps: the file that Envoy is started with.

`static_bootstrap` holds every resource of a proxy and needs no server. `ads_bootstrap` says where the server
is. Both start on Envoy without a warning (envoy-notes §6).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from . import names, proto
from .envoy.base import address, ads, is_ip, set_duration
from .envoy.clusters import set_http_protocol
from .envoy.tls import (
    CertificateSource,
    SecretRef,
    TrustSource,
    certificate_secret,
    transport_socket,
    trust_secret,
    upstream_tls_context,
)
from .errors import UsageError
from .facts import FileCertificate, FileTrust
from .options import Options
from .secret_files import KeyFile, move_key, names_files, read_from_files, secret_file
from .snapshot import Snapshot, translate

if TYPE_CHECKING:
    from .mesh import Mesh

#: App Mesh's images raised it, because routes may hold long expressions (reference §6.2).
_RE2_PROGRAM_SIZE: Final = 1000
#: Envoy warns when nothing is said, and App Mesh set no limit: a number that memory runs out before.
_MAX_CONNECTIONS: Final = 1_000_000
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#: ApiConfigSource.ApiType
_GRPC: Final = 2
_DELTA_GRPC: Final = 3
#: Cluster.DiscoveryType
_STATIC: Final = 0
_STRICT_DNS: Final = 1
#: How soon an Envoy comes back to a control plane that was gone: at first, and at most (milliseconds). Left
#: to itself it waits up to half a minute.
_BACK_OFF: Final = (500, 5_000)
#: Tags that App Mesh's images took out of stat names (reference §6.3).
_TAGS: Final[Mapping[str, str]] = {
    "appmesh.listener_protocol": r".*?\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$",
    "appmesh.listener_port": r".*?\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$",
    # Envoy's own does not see the name behind a prefix of three parts.
    "envoy_rds_route_config": r".*?\.ingress\.\w+?\.[0-9]+?\.rds\.((.*?)\.)(.+?)$",
}
_DEFAULTS: Final = Options()


class StaticBootstrap(NamedTuple):
    """A bootstrap, the snapshot it holds, and the files that must lie in its key folder."""

    bootstrap: proto.Bootstrap
    snapshot: Snapshot
    files: tuple[KeyFile, ...] = ()


def static_bootstrap(
    mesh: Mesh, proxy: str, options: Options = _DEFAULTS, *, key_folder: str | None = None
) -> StaticBootstrap:
    """One file with every resource of a proxy; the problems are the snapshot's.

    Certificates that the facts know as PEM become `files`, which the bootstrap expects in `key_folder`, a
    path as Envoy sees it. So do secrets that name files (`Options.file_certificates`), or they would be read
    once. Raises `UsageError` for a proxy that is not there, for an admin address that is none, and for either
    without a folder: a private key does not belong into a configuration file.
    """
    snapshot = translate(mesh, proxy, msgspec.structs.replace(options, delivery="inline"))
    result = _bootstrap(snapshot.node_id, options)
    static = result.static_resources
    for resource in snapshot.listeners:
        static.listeners.add().ParseFromString(resource.value)
    for resource in snapshot.clusters:
        static.clusters.add().ParseFromString(resource.value)
    files: list[KeyFile] = []
    in_files = set()
    for resource in snapshot.secrets:
        secret: Any = resource.message()
        if names_files(secret):
            files.append(secret_file(secret))
            in_files.add(secret.name)
            continue
        if secret.HasField("tls_certificate"):
            if key_folder is None:
                raise UsageError(
                    f"{secret.name} is known as PEM, and a private key is never written into a bootstrap: "
                    "give --out DIR (key_folder=), which puts it into a file beside the bootstrap"
                )
            files.extend(move_key(secret, key_folder))
        # Authorities are public, and stay as they are.
        static.secrets.append(secret)
    if in_files:
        folder = _folder_for(in_files, key_folder)
        for holder in (*static.clusters, *(chain for one in static.listeners for chain in one.filter_chains)):
            read_from_files(holder, in_files, folder)
    return StaticBootstrap(result, snapshot, tuple(files))


def _folder_for(secrets: Collection[str], folder: str | None) -> str:
    """Where the files of secrets lie, as Envoy sees it."""
    if folder is None:
        raise UsageError(
            f"Envoy reads {min(secrets)} again only from a file of its own (--file-certificates sds): "
            "give --out DIR (key_folder=), which writes it beside the bootstrap"
        )
    return folder


class XdsServer(NamedTuple):
    """Where the control plane is: `HOST:PORT` or `unix:PATH`, and the files of TLS towards it.

    With `ca` the connection is TLS, and the server's certificate must hold `server_name` (default: the
    host). Without, it is plain, as suits loopback and unix sockets.
    """

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
    initial_fetch_timeout: float = 0,
    key_folder: str | None = None,
) -> proto.Bootstrap:
    """A bootstrap that gets everything from a control plane over ADS. `proxy` is `KIND/NAME`.

    `initial_fetch_timeout`: after so many seconds without an answer Envoy says that it is ready, with
    nothing to serve. 0 waits for ever, as App Mesh's images did (reference §6.3).
    `key_folder`: a path as Envoy sees it, where it expects `server_files(server, options)`.

    Raises `UsageError` for a server address or a proxy that cannot be read, for parts of TLS without the
    others, for `server_files` without a folder, and for a time outside 0 to 86400.
    """
    kind, _, name = proxy.partition("/")
    if kind not in ("virtualNode", "virtualGateway") or not name:
        raise UsageError(f"{proxy!r} does not name a proxy: virtualNode/NAME or virtualGateway/NAME")
    if not 0 <= initial_fetch_timeout <= 86400:
        raise UsageError(f"{initial_fetch_timeout} seconds for the first answer: 0 (no end) to 86400 can be")
    result = _bootstrap(names.node_id(mesh, owner, kind, name), options)
    dynamic = result.dynamic_resources
    dynamic.ads_config.api_type = _DELTA_GRPC if delta else _GRPC
    dynamic.ads_config.transport_api_version = 2
    dynamic.ads_config.set_node_on_first_message_only = True
    client = dynamic.ads_config.grpc_services.add().envoy_grpc
    client.cluster_name = names.XDS_CLUSTER
    back_off = client.retry_policy.retry_back_off
    set_duration(back_off.base_interval, _BACK_OFF[0])
    set_duration(back_off.max_interval, _BACK_OFF[1])
    for source in (dynamic.lds_config, dynamic.cds_config):
        source.CopyFrom(ads())
        set_duration(source.initial_fetch_timeout, round(initial_fetch_timeout * 1000))
    in_files = {secret.name for secret in _server_secrets(server, options)}
    cluster = _xds_cluster(server, as_secrets=bool(in_files))
    if in_files:
        read_from_files(cluster, in_files, _folder_for(in_files, key_folder))
    result.static_resources.clusters.append(cluster)
    return result


def server_files(server: XdsServer, options: Options = _DEFAULTS) -> tuple[KeyFile, ...]:
    """What an ADS bootstrap expects in its `key_folder`: with `Options.file_certificates` `sds` the secrets
    of TLS towards the server, so that the proxy's own certificate may be replaced while it runs."""
    return tuple(map(secret_file, _server_secrets(server, options)))


def _server_secrets(server: XdsServer, options: Options) -> tuple[proto.Secret, ...]:
    """The files of TLS towards the server as secrets, if they are to be read again."""
    if options.file_certificates == "inline" or server.ca is None:
        return ()
    trust = trust_secret(names.file_trust_secret(server.ca), FileTrust(certificate_chain=server.ca))
    if server.certificate is None or server.key is None:
        return (trust,)
    files = FileCertificate(certificate_chain=server.certificate, private_key=server.key)
    name = names.file_certificate_secret(server.certificate, server.key)
    return (certificate_secret(name, files), trust)


def _xds_cluster(server: XdsServer, *, as_secrets: bool) -> proto.Cluster:
    host, port = _server_address(server.target)
    cluster = proto.Cluster()
    cluster.name = cluster.load_assignment.cluster_name = names.XDS_CLUSTER
    cluster.type = _STATIC if port is None or is_ip(host) else _STRICT_DNS
    set_duration(cluster.connect_timeout, 5000)
    target = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
    if port is None:
        target.pipe.path = host
    else:
        target.CopyFrom(address(host, port))
        # Without it a connection that a NAT forgot would look alive.
        cluster.upstream_connection_options.tcp_keepalive.keepalive_time.value = 30
    options = proto.HttpProtocolOptions()
    keepalive = options.explicit_http_config.http2_protocol_options.connection_keepalive
    set_duration(keepalive.interval, 30_000)
    set_duration(keepalive.timeout, 5_000)
    cluster.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(proto.pack(options))
    _set_server_tls(cluster, server, host if port is not None else None, as_secrets)
    return cluster


def _set_server_tls(cluster: proto.Cluster, server: XdsServer, host: str | None, as_secrets: bool) -> None:
    if (server.certificate is None) != (server.key is None):
        raise UsageError("a certificate for the control plane and its key belong together")
    if server.ca is None:
        if server.certificate is not None or server.server_name is not None:
            raise UsageError("TLS to the control plane needs the authority that signed its certificate")
        return
    name = server.server_name or host
    if name is None:
        raise UsageError("TLS over a unix socket needs the name that the server's certificate holds")
    certificate: CertificateSource | None = None
    trust: TrustSource = FileTrust(certificate_chain=server.ca)
    if server.certificate is not None and server.key is not None:
        if as_secrets:
            certificate = SecretRef(names.file_certificate_secret(server.certificate, server.key), "static")
        else:
            certificate = FileCertificate(certificate_chain=server.certificate, private_key=server.key)
    if as_secrets:
        trust = SecretRef(names.file_trust_secret(server.ca), "static")
    context = upstream_tls_context(
        certificate=certificate,
        trust=trust,
        subject_alternative_names=[name],
        alpn=["h2"],
        sni="" if is_ip(name) or "://" in name else name,
    )
    cluster.transport_socket.CopyFrom(transport_socket(context))


def _server_address(text: str) -> tuple[str, int | None]:
    """Host and port, or the path of a unix socket and None."""
    path = text.removeprefix("unix:")
    if path != text and path:
        return path.removeprefix("//"), None
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    well_formed = _is_ipv6(host) if bracketed else host and ":" not in host
    if well_formed and port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536:
        return host, int(port)
    raise UsageError(f"{text!r} is not a server address: HOST:PORT, [IPV6]:PORT or unix:PATH")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _bootstrap(node_id: str, options: Options) -> proto.Bootstrap:
    """What both kinds share: who the proxy is, its admin endpoint, limits and tags."""
    if not is_ip(options.admin_address):
        raise UsageError(f"the admin address {options.admin_address!r} is not an IP address")
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


def _limit_connections(manager: proto.OverloadManager) -> None:
    config = proto.DownstreamConnectionsConfig(max_active_downstream_connections=_MAX_CONNECTIONS)
    monitor = manager.resource_monitors.add()
    monitor.name = "envoy.resource_monitors.global_downstream_max_connections"
    monitor.typed_config.CopyFrom(proto.pack(config))


def _sds_cluster(socket: str) -> proto.Cluster:
    """The proxy's local SDS service (reference §1.1)."""
    cluster = proto.Cluster()
    cluster.name = cluster.load_assignment.cluster_name = names.SDS_CLUSTER
    cluster.type = _STATIC
    set_duration(cluster.connect_timeout, 1000)
    target = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
    target.pipe.path = socket
    set_http_protocol(cluster, "http2")
    return cluster
