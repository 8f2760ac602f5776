"""Every name that Envoy, its stats or a dashboard can see, in one place.

App Mesh's own grammar (reference §1.1, §1.2): people's dashboards and alarms depend on it. Mesh and node
names stand in it verbatim, so names cannot be taken apart again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

INGRESS_PORT: Final = 15000
EGRESS_PORT: Final = 15001

#: The cluster of the local SDS service; it stands in the bootstrap (reference §1.1).
SDS_CLUSTER: Final = "static_cluster_sds_unix_socket"
#: The cluster of the control plane in bootstraps of ours; App Mesh's images used none, but Google's gRPC.
XDS_CLUSTER: Final = "static_cluster_xds"
#: The catch-all virtual host under ALLOW_ALL, and the domain-less one of gateways (§1.2, §4.9).
ALLOW_ALL_VIRTUAL_HOST: Final = "mesh_allow_all"
DEFAULT_BACKEND_VIRTUAL_HOST: Final = "default_backend"
#: Carries a kept host name's service from a gateway's first hop to its second (§4.9, §10.29).
VIRTUAL_SERVICE_HEADER: Final = "x-app-mesh-virtual-service"
#: Carries a gateway route's target port from the first hop to the second (§10.30).
TARGET_PORT_HEADER: Final = "x-app-mesh-target-port"
#: Metadata that the metrics extension of the AWS images reads (§1.4, §1.6).
AGGREGATE_STATS: Final = "aws.appmesh.aggregate_stats"


def ingress_listener(address: str, port: int) -> str:
    return f"lds_ingress_{address}_{port}"


def egress_listener(address: str, port: int) -> str:
    return f"lds_egress_{address}_{port}"


def egress_cluster(mesh: str, node: str, protocol: str, port: int) -> str:
    """A backend. `protocol` and `port` are those of the target node's listener."""
    return f"cds_egress_{mesh}_{node}_{protocol}_{port}"


def policy_cluster(cluster: str, policy_hash: str) -> str:
    """The same backend under a second client policy in one proxy (App Mesh had no such case)."""
    return f"{cluster}_policy_{policy_hash}"


def ingress_cluster(mesh: str, node: str, protocol: str, port: int) -> str:
    """The local application behind a listener."""
    return f"cds_ingress_{mesh}_{node}_{protocol}_{port}"


def self_redirect_cluster(
    mesh: str, gateway: str, protocol: str, port: int, ingress_port: int | None = None
) -> str:
    """A gateway's loop to its own egress listener; `ingress_port` only when it has several listeners."""
    middle = "" if ingress_port is None else f"{ingress_port}_"
    return f"cds_ingress_{mesh}_{gateway}_self_redirect_{middle}{protocol}_{port}"


def amazonaws_cluster(mesh: str) -> str:
    return f"cds_egress_{mesh}_amazonaws"


def allow_all_cluster(mesh: str) -> str:
    return f"cds_egress_{mesh}_mesh-allow-all"


def ingress_routes(port: int) -> str:
    """`http` for every protocol of the HTTP family: one connection manager serves them all (§10.2)."""
    return f"rds_ingress_http_{port}"


def egress_routes(port: int) -> str:
    return f"rds_egress_http_{port}"


def self_redirect_virtual_host(host: str | None) -> str:
    """A gateway's virtual host for requests of any host (None), or of one (§10.32)."""
    return "self_redirect" if host is None else f"self_redirect_{host}"


def ingress_stat_prefix(protocol: str, port: int, several: bool) -> str:
    return f"ingress.{protocol}.{port}" if several else "ingress"


EGRESS_STAT_PREFIX: Final = "egress"


def trust_secret(arns: Iterable[str]) -> str:
    """Certificate authorities by their ARNs, or by that of a certificate they signed. Not the ARN alone: the
    certificate has that name, and one proxy may present it and trust its authority."""
    return f"trust:{','.join(arns)}"


def file_certificate_secret(certificate_chain: str, private_key: str) -> str:
    """A certificate and its key in files of the proxy's. `|` within a path is escaped: no two pairs share a
    name, and equal ones are one secret. No ARN begins so."""
    return f"file:{_escaped(certificate_chain)}|{_escaped(private_key)}"


def file_trust_secret(certificate_chain: str) -> str:
    """Certificate authorities in a file of the proxy's."""
    return f"trust:file:{certificate_chain}"


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("|", "%7C")


def proxy(kind: str, name: str) -> str:
    """How commands and `translate` name a proxy: `virtualNode/N`."""
    return f"{kind}/{name}"


def node_id(mesh: str, owner: str | None, kind: str, name: str) -> str:
    """Envoy's node id, as App Mesh's images send it (§6.2); the owner only for shared meshes (§10.38)."""
    at = f"@{owner}" if owner else ""
    return f"mesh/{mesh}{at}/{kind}/{name}"
