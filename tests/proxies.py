"""A proxy of a mesh as a bootstrap that runs with no server, for `run_envoy`."""

from __future__ import annotations

from typing import Any

import appmesh_xds as am
from appmesh_xds import names, render
from appmesh_xds.resource import CLUSTER, LISTENER, SECRET

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def static_proxy(mesh: am.Mesh, proxy: str, **options: Any) -> dict[str, Any]:
    """Translates one proxy, which must have no error; `options` are those of `Options`, delivery is inline.

    Keys stand in it as they are, so it must not be printed. Fails with the problems there are.
    """
    chosen = am.Options(delivery="inline", **options)
    snapshot = am.translate(mesh, proxy, chosen)
    assert not snapshot.errors, "\n".join(map(str, snapshot.errors))

    def all_of(type_url: str) -> list[dict[str, Any]]:
        return [render.to_dict(r.message(), redact=False) for r in snapshot.resources(type_url)]

    clusters = all_of(CLUSTER)
    if chosen.sds_socket is not None:
        clusters.append(_sds_cluster(chosen.sds_socket))
    resources = {"listeners": all_of(LISTENER), "clusters": clusters, "secrets": all_of(SECRET)}
    return {"node": {"id": snapshot.node_id, "cluster": "tests"}, "static_resources": resources}


def _sds_cluster(socket: str) -> dict[str, Any]:
    """The service that `sds` certificates come from."""
    http2 = {
        "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    return {
        "name": names.SDS_CLUSTER,
        "load_assignment": {
            "cluster_name": names.SDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {_HTTP_OPTIONS: http2},
    }
