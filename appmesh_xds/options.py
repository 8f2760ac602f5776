"""How one and the same spec may be rendered. Defaults are App Mesh's own behaviour."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Delivery = Literal["ads", "inline"]
Interception = Literal["redirect", "none"]
FileCertificates = Literal["inline", "sds"]

_Port = Annotated[int, Meta(ge=1, le=65535)]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False, cache_hash=True):
    """Last argument of `translate`, `Translator` and the bootstraps, and part of every memo key.

    The same names, with `-` for `_`, are what `--options FILE` (YAML) holds.
    """

    #: `ads`: resources refer to one another by name over ADS. `inline`: routes stand in the connection
    #: manager and endpoints in the cluster, so that one static file holds all.
    delivery: Delivery = "ads"
    #: `redirect`: behind iptables, as App Mesh: one ingress socket on 15000, one egress socket on 15001.
    #: `none`: no iptables; listeners are bound where an application or a test can reach them.
    interception: Interception = "redirect"
    #: Address that listeners bind; None leaves it to the mesh's ipPreference (redirect) or 127.0.0.1 (none).
    bind: str | None = None
    #: With `none`: the port to bind for a node's only listener (default 15000).
    ingress_port: _Port | None = None
    #: With `none`: listener port -> port to bind, for nodes with several listeners and for gateways.
    ingress_ports: tuple[tuple[_Port, _Port], ...] = ()
    #: Port of the egress listener (redirect: what iptables redirects to).
    egress_port: _Port = 15001
    #: With `none`: service port -> port to bind, one for each TCP backend.
    tcp_egress: tuple[tuple[_Port, _Port], ...] = ()
    #: Where the application listens; None is loopback of the node's address family.
    app_address: str | None = None
    #: Port of the application for every listener; None is the listener's own port.
    app_port: _Port | None = None
    #: Listener port -> port of the application.
    app_ports: tuple[tuple[_Port, _Port], ...] = ()
    #: Envoy's admin endpoint, in bootstraps. It must never be reachable from outside.
    admin_address: str = "127.0.0.1"
    admin_port: _Port = 9901
    #: Unix socket of the local SDS service that `sds` certificates and trusts come from (SPIRE and others).
    sds_socket: str | None = None
    #: Certificates and authorities in files of the proxy's. `inline`: listeners and clusters name the files,
    #: as App Mesh's did, and Envoy reads them once. `sds`: they name secrets which name the files, and Envoy
    #: reads them again whenever one is renamed into place.
    file_certificates: FileCertificates = "inline"
    #: Nodes in Cloud Map. `endpoints`: facts say where their instances are. `dns`: where no fact does, the
    #: proxy looks up `<service>.<namespace>`, as far as Cloud Map puts it into DNS.
    cloud_map: Literal["endpoints", "dns"] = "endpoints"
    #: Gateways route in one step instead of App Mesh's loop through a second listener.
    single_hop: bool = False
    #: Send the discovery name as SNI to TLS backends. App Mesh never did (reference §10.10).
    send_sni: bool = False
    #: Accounts whose first mesh is older than 2020-07-29: Envoy's own limits, no default retry (§10.21).
    legacy_defaults: bool = False
    #: `aws.appmesh.aggregate_stats` metadata, which the metrics extension of the AWS images reads (§10.33).
    app_mesh_metadata: bool = True
    #: The chain that always lets TLS to *.amazonaws.com out (§5.1).
    aws_egress: bool = True
