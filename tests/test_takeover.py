"""A bootstrap like that of App Mesh's images, before `appmesh-xds serve` on a unix socket (reference §6.2).

They speak plain state-of-the-world ADS through Envoy's `google_grpc` client, not through a cluster.
"""

from __future__ import annotations

import json
from pathlib import Path

from apps import HttpApp
from clients import get
from real_envoy import Envoy, free_port
from served import Served

import appmesh_xds as am
from appmesh_xds import render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap


def test_the_google_grpc_client_over_a_unix_socket(tmp_path: Path, http_app: HttpApp) -> None:
    spec = {
        "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "front.shop.local"}},
    }
    specs = tmp_path / "front.json"
    specs.write_text(json.dumps({"meshName": "shop", "virtualNodeName": "front", "spec": spec}))
    socket, port = tmp_path / "xds.sock", free_port()
    made = ads_bootstrap("shop", "virtualNode/front", XdsServer(f"unix:{socket}"), am.Options())
    # The server's address stands in the client's own terms, and there is no cluster for it.
    del made.static_resources.clusters[:]
    bootstrap = render.to_dict(made)
    bootstrap["dynamic_resources"]["ads_config"]["grpc_services"] = [
        {"google_grpc": {"target_uri": f"unix://{socket}", "stat_prefix": "ads"}}
    ]
    where = ["--interception", "none", "--ingress-port", str(port), "--app-port", str(http_app.port)]
    with (
        Served(specs, *where, "--listen", f"unix:{socket}", log=tmp_path / "serve.log"),
        Envoy(bootstrap, tmp_path / "envoy") as envoy,
    ):
        reply = get(port, "/", host="front.shop.local")
        assert (reply.status, reply.text) == (200, "http-app")
        rejected = envoy.stats(r"\.update_rejected$")
        assert rejected and not any(rejected.values())
        assert envoy.log_text() == ""
