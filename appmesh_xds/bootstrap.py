"""Envoy bootstraps: `static_bootstrap` holds everything, `ads_bootstrap` asks a control plane for it.

    made = static_bootstrap(mesh, "virtualNode/colorgateway", Options(interception="none"))
    Path("envoy.yaml").write_text(made.to_yaml())           # envoy -c envoy.yaml

Both start without a warning: nothing deprecated stands in them, and a limit of connections is set.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from . import names, proto
from .envoy import base, tls
from .errors import Problem, UsageError
from .facts import FileCertificate, FileTrust
from .folders import File, file_name
from .options import Options
from .resource import CLUSTER, LISTENER, Resource
from .snapshot import Snapshot, translate

if TYPE_CHECKING:
    from .mesh import Mesh

_DEFAULTS = Options()
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

#: Envoy's own limit of a regular expression's program is 100; the images of App Mesh set this (§6.2).
RE2_PROGRAM_SIZE: Final = 1000
#: App Mesh set no limit and Envoy warns without one: a number that file descriptors run out before.
_MAX_CONNECTIONS: Final = 1_000_000
#: A node's listeners in tags of their own, from the stat prefix `ingress.http.8080` (§6.3). The first group
#: is what leaves the stat's name, the second the tag's value.
_STATS_TAGS: Final = (
    ("appmesh.listener_protocol", r".*?\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$"),
    ("appmesh.listener_port", r".*?\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$"),
)

#: Enumerations of Envoy's.
_V3: Final = 2
_GRPC: Final = 2
_DELTA_GRPC: Final = 3
_STATIC: Final = 0
_STRICT_DNS: Final = 1


class Bootstrap(Struct, frozen=True, kw_only=True):
    """A bootstrap, and the files that must lie where it says."""

    #: `virtualNode/NAME` or `virtualGateway/NAME`.
    proxy: str
    message: Any
    #: What was translated into it; None when a server has the resources.
    snapshot: Snapshot | None = None
    #: Path -> content: certificates and private keys, which never stand in the bootstrap itself.
    files: dict[str, File] = {}
    problems: tuple[Problem, ...] = ()

    def __repr__(self) -> str:
        return f"Bootstrap(proxy={self.proxy!r}, files={sorted(self.files)!r}, ...)"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as Envoy reads it."""
        from .render import to_dict

        return to_dict(self.message)

    def to_yaml(self) -> str:
        """Canonical YAML, for `envoy -c`."""
        from .render import to_yaml

        return to_yaml(self.to_dict())

    def to_json(self) -> str:
        """JSON, for `envoy -c`."""
        from .render import to_json

        return to_json(self.to_dict())


class ServerTls(Struct, frozen=True, kw_only=True):
    """TLS from Envoy to the control plane. Paths are those of the proxy's machine."""

    #: File of the authorities that may have signed the server's certificate.
    ca: str
    #: The proxy's own certificate, where the server asks for one; None presents none.
    certificate: FileCertificate | None = None
    #: Name that the server's certificate must hold; None is the server's host.
    server_name: str | None = None


def static_bootstrap(
    mesh: Mesh, proxy: str, options: Options = _DEFAULTS, *, material_folder: str | None = None
) -> Bootstrap:
    """Everything one proxy needs, in one bootstrap that runs with no server.

    Certificates given as `Pem` facts are to be written below `material_folder`, an absolute path on the
    proxy's machine, and become `files` of the result. What cannot be translated is left out and among the
    `problems`. Raises UsageError for a proxy that is not there, for options that Envoy cannot have, and for
    `Pem` facts without a folder: a bootstrap is no place for a private key.
    """
    snapshot = translate(mesh, proxy, msgspec.structs.replace(options, delivery="inline"))
    kind, _, name = snapshot.proxy.partition("/")
    result = _bootstrap(names.node_id(mesh.name, mesh.owner, kind, name), options)
    static = result.static_resources
    static.listeners.extend(r.message() for r in snapshot.resources(LISTENER))
    static.clusters.extend(r.message() for r in snapshot.resources(CLUSTER))
    if options.sds_socket is not None:
        static.clusters.append(sds_cluster(options.sds_socket))
    files: dict[str, File] = {}
    for resource in snapshot.secrets:
        static.secrets.append(_secret(resource, material_folder, files))
    return Bootstrap(
        proxy=snapshot.proxy, message=result, snapshot=snapshot, files=files, problems=snapshot.problems
    )


def ads_bootstrap(
    proxy: str,
    mesh: str,
    server: str,
    options: Options = _DEFAULTS,
    *,
    mesh_owner: str | None = None,
    tls: ServerTls | None = None,
    delta: bool = False,
    initial_fetch_timeout: float = 0,
) -> Bootstrap:
    """A bootstrap that takes everything from the control plane at `server`: `HOST:PORT` or `unix:PATH`.

    Without `tls` the connection is plain HTTP/2, for loopback and unix sockets. `delta` asks for incremental
    xDS. `initial_fetch_timeout` (seconds) is how long Envoy waits for the first answer before it says that
    it is ready with nothing; 0, as in App Mesh's images, waits for ever. Raises UsageError for a proxy or a
    server of another form, a negative time, and options that Envoy cannot have.
    """
    kind, _, name = proxy.partition("/")
    if kind not in ("virtualNode", "virtualGateway") or not name:
        raise UsageError(f"{proxy!r} does not name a proxy: virtualNode/NAME or virtualGateway/NAME")
    if not 0 <= initial_fetch_timeout <= 86400:
        raise UsageError(
            f"{initial_fetch_timeout} seconds to wait for the server: 0 (for ever) to 86400 can be"
        )
    result = _bootstrap(names.node_id(mesh, mesh_owner, kind, name), options)
    result.static_resources.clusters.append(_xds_cluster(server, tls))
    if options.sds_socket is not None:
        result.static_resources.clusters.append(sds_cluster(options.sds_socket))
    dynamic = result.dynamic_resources
    stream = dynamic.ads_config
    stream.api_type = _DELTA_GRPC if delta else _GRPC
    stream.transport_api_version = _V3
    # Envoy's node message is 61 kB of extension names; once per stream is enough.
    stream.set_node_on_first_message_only = True
    stream.grpc_services.add().envoy_grpc.cluster_name = names.XDS_CLUSTER
    for source in (dynamic.cds_config, dynamic.lds_config):
        source.ads.SetInParent()
        source.resource_api_version = _V3
        base.set_duration(source.initial_fetch_timeout, round(initial_fetch_timeout * 1000))
    return Bootstrap(proxy=proxy, message=result)


def sds_cluster(socket: str) -> proto.Cluster:
    """The local SDS service that `sds` certificates come from, behind a unix socket (§6.2)."""
    cluster = _grpc_cluster(names.SDS_CLUSTER)
    base.set_duration(cluster.connect_timeout, 1000)
    _endpoint(cluster).pipe.path = socket
    return cluster


# --- parts ------------------------------------------------------------------------------------------------


def _bootstrap(node_id: str, options: Options) -> proto.Bootstrap:
    """What every bootstrap holds."""
    result = proto.Bootstrap()
    result.node.id = result.node.cluster = node_id  # the cluster as App Mesh's images, by default (§6.2)
    _check_ip(options.admin_address)
    result.admin.address.CopyFrom(base.address(options.admin_address, options.admin_port))
    layer = result.layered_runtime.layers.add(name="static_layer_0")
    layer.static_layer.fields["re2.max_program_size.error_level"].number_value = RE2_PROGRAM_SIZE
    result.layered_runtime.layers.add(name="admin_layer").admin_layer.SetInParent()
    for tag, regex in _STATS_TAGS:
        result.stats_config.stats_tags.add(tag_name=tag, regex=regex)
    monitor = result.overload_manager.resource_monitors.add(
        name="envoy.resource_monitors.global_downstream_max_connections"
    )
    limit = proto.DownstreamConnectionsConfig(max_active_downstream_connections=_MAX_CONNECTIONS)
    monitor.typed_config.CopyFrom(proto.pack(limit))
    return result


def _check_ip(address: str) -> None:
    if not base.is_ip(address):
        raise UsageError(f"the admin address {address!r} is not an IP address (127.0.0.1, ::1)")


def _secret(resource: Resource, folder: str | None, files: dict[str, File]) -> proto.Secret:
    """A secret whose certificate and key lie in files; authorities are public and stay as they are."""
    secret: Any = resource.message()
    if not secret.HasField("tls_certificate"):
        return secret  # type: ignore[no-any-return]
    if folder is None:
        raise UsageError(
            f"the private key of {resource.name} would have to stand in the bootstrap: write it to files "
            "beside it with --out DIR (material_folder=), or name files in the facts"
        )
    stem = os.path.join(folder, file_name(resource.name))
    material = secret.tls_certificate
    for field, suffix, mode in (
        (material.certificate_chain, ".crt", 0o644),
        (material.private_key, ".key", 0o600),
    ):
        files[stem + suffix] = File(field.inline_bytes, mode)
        field.filename = stem + suffix
    return secret  # type: ignore[no-any-return]


def _xds_cluster(server: str, given: ServerTls | None) -> proto.Cluster:
    cluster = _grpc_cluster(names.XDS_CLUSTER)
    base.set_duration(cluster.connect_timeout, 5000)
    host, port = _server(server)
    if port is None:
        _endpoint(cluster).pipe.path = host
    else:
        _endpoint(cluster).CopyFrom(base.address(host, port))
        if not base.is_ip(host):
            cluster.type = _STRICT_DNS
        keepalive = cluster.upstream_connection_options.tcp_keepalive
        keepalive.keepalive_time.value = 30
    if given is not None:
        name = given.server_name or (host if port is not None else None)
        if name is None:
            raise UsageError("TLS over a unix socket needs the name that the server's certificate holds")
        context = tls.upstream_tls_context(
            certificate=given.certificate,
            trust=FileTrust(certificate_chain=given.ca),
            subject_alternative_names=[name],
            alpn=["h2"],
            sni="" if base.is_ip(name) or "://" in name else name,
        )
        cluster.transport_socket.CopyFrom(tls.transport_socket(context))
    return cluster


def _server(text: str) -> tuple[str, int | None]:
    """Host and port, or the path of a unix socket and None."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path:
            return path, None
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if colon and bare and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535:
        v6 = _is_ipv6(bare)
        if v6 == (bare != host) or not (v6 or ":" in bare):
            return bare, int(port)
    raise UsageError(f"{text!r} is no server: HOST:PORT, [IPV6]:PORT or unix:PATH")


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _grpc_cluster(name: str) -> proto.Cluster:
    """A cluster of one gRPC service: HTTP/2, with pings that find out when it is gone."""
    cluster = proto.Cluster(name=name, type=_STATIC)
    cluster.load_assignment.cluster_name = name
    options = proto.HttpProtocolOptions()
    keepalive = options.explicit_http_config.http2_protocol_options.connection_keepalive
    base.set_duration(keepalive.interval, 30_000)
    base.set_duration(keepalive.timeout, 5_000)
    cluster.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(proto.pack(options))
    return cluster


def _endpoint(cluster: proto.Cluster) -> proto.Address:
    """The address of the cluster's only endpoint, made on first use."""
    localities = cluster.load_assignment.endpoints
    locality = localities[0] if localities else localities.add()
    endpoint = locality.lb_endpoints[0] if locality.lb_endpoints else locality.lb_endpoints.add()
    return endpoint.endpoint.address
