"""The synthetic mesh of the benchmarks.

N virtual nodes, each behind a virtual service with a router, one route and two weighted targets; B backends a
node. Listeners are http: a third STRICT with mutual TLS, a third PERMISSIVE, a third DISABLED. Half of the
nodes are found by DNS, half in Cloud Map with three endpoints each. Client policies check a trust and a name
and present a certificate: the same files everywhere (`shared`), or files that name the client (`unique`).
The `mixed` mesh has all protocols, 1 to 10 routes a router, and virtual gateways.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

import appmesh_xds as am
from appmesh_xds import Mesh, spec
from appmesh_xds.facts import Endpoint

MESH = "bench"
Sharing = Literal["shared", "unique", "mixed"]
_MODES = ("STRICT", "PERMISSIVE", "DISABLED")


def node_name(index: int) -> str:
    return f"node-{index:05}"


def service_name(index: int) -> str:
    return f"svc-{index:05}.bench.local"


def _listener(index: int, pool: int, interval: int) -> dict[str, Any]:
    mode = _MODES[index % 3]
    tls: dict[str, Any] = {
        "mode": mode,
        "certificate": {"file": {"certificateChain": "/certs/cert.pem", "privateKey": "/certs/key.pem"}},
    }
    if mode == "STRICT":
        tls["validation"] = {"trust": {"file": {"certificateChain": "/certs/ca.pem"}}}
    return {
        "portMapping": {"port": 8080, "protocol": "http"},
        "tls": tls,
        "healthCheck": {
            "protocol": "http",
            "path": "/ping",
            "healthyThreshold": 2,
            "unhealthyThreshold": 3,
            "intervalMillis": interval,
            "timeoutMillis": 2000,
        },
        "outlierDetection": {
            "maxServerErrors": 5,
            "interval": {"unit": "s", "value": 10},
            "baseEjectionDuration": {"unit": "s", "value": 30},
            "maxEjectionPercent": 50,
        },
        "connectionPool": {"http": {"maxConnections": pool, "maxPendingRequests": 50}},
        "timeout": {"http": {"perRequest": {"unit": "s", "value": 30}}},
    }


def _discovery(index: int) -> dict[str, Any]:
    if index % 2:
        return {"awsCloudMap": {"namespaceName": "bench.local", "serviceName": f"node-{index:05}"}}
    return {"dns": {"hostname": f"node-{index:05}.bench.local"}}


def _policy(client: int, backend: int, sharing: Sharing) -> dict[str, Any]:
    folder = f"/certs/{node_name(client)}" if sharing == "unique" else "/certs"
    return {
        "tls": {
            "certificate": {
                "file": {"certificateChain": f"{folder}/client.pem", "privateKey": f"{folder}/client.key"}
            },
            "validation": {
                "trust": {"file": {"certificateChain": "/certs/ca.pem"}},
                "subjectAlternativeNames": {"match": {"exact": [service_name(backend)]}},
            },
        }
    }


def backends_of(index: int, nodes: int, backends: int) -> list[int]:
    """Which services a node calls: spread over the mesh, so that each is called by about B nodes."""
    return [(index * 7 + step * 3 + 1) % nodes for step in range(min(backends, nodes))]


def node_request(
    index: int,
    nodes: int,
    backends: int,
    sharing: Sharing = "shared",
    pool: int = 100,
    interval: int = 5000,
) -> dict[str, Any]:
    """One virtual node as the API's create request has it."""
    return {
        "meshName": MESH,
        "virtualNodeName": node_name(index),
        "spec": {
            "backends": [
                {
                    "virtualService": {
                        "virtualServiceName": service_name(backend),
                        "clientPolicy": _policy(index, backend, sharing),
                    }
                }
                for backend in dict.fromkeys(backends_of(index, nodes, backends))
            ],
            "listeners": [_listener(index, pool, interval)],
            "serviceDiscovery": _discovery(index),
        },
    }


def route_request(index: int, nodes: int, retries: int = 2) -> dict[str, Any]:
    """The one route of a service: most requests to its own node, some to the next."""
    return {
        "meshName": MESH,
        "virtualRouterName": f"router-{index:05}",
        "routeName": "all",
        "spec": {
            "httpRoute": {
                "match": {"prefix": "/"},
                "action": {
                    "weightedTargets": [
                        {"virtualNode": node_name(index), "weight": 90},
                        {"virtualNode": node_name((index + 1) % nodes), "weight": 10},
                    ]
                },
                "timeout": {"perRequest": {"unit": "s", "value": 20}},
                "retryPolicy": {
                    "maxRetries": retries,
                    "perRetryTimeout": {"unit": "s", "value": 5},
                    "httpRetryEvents": ["gateway-error", "client-error"],
                    "tcpRetryEvents": ["connection-error"],
                },
            }
        },
    }


def requests(nodes: int, backends: int, sharing: Sharing = "shared") -> list[dict[str, Any]]:
    """The whole mesh as create requests."""
    found: list[dict[str, Any]] = [{"meshName": MESH, "spec": {}}]
    for index in range(nodes):
        router = f"router-{index:05}"
        found.append(node_request(index, nodes, backends, sharing))
        found.append(
            {
                "meshName": MESH,
                "virtualServiceName": service_name(index),
                "spec": {"provider": {"virtualRouter": {"virtualRouterName": router}}},
            }
        )
        found.append(
            {
                "meshName": MESH,
                "virtualRouterName": router,
                "spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]},
            }
        )
        found.append(route_request(index, nodes))
    return found


def endpoints(nodes: int) -> dict[str, tuple[Endpoint, ...]]:
    """Three endpoints for every node in Cloud Map."""
    return {
        node_name(index): tuple(
            Endpoint(address=f"10.{index // 250}.{index % 250}.{last}") for last in (1, 2, 3)
        )
        for index in range(1, nodes, 2)
    }


def text(nodes: int, backends: int, sharing: Sharing = "shared") -> bytes:
    """The whole mesh as JSON."""
    if sharing == "mixed":
        return msgspec.json.encode(mixed_requests(nodes, backends))
    return msgspec.json.encode(requests(nodes, backends, sharing))


def mesh(nodes: int, backends: int, sharing: Sharing = "shared") -> Mesh:
    """The whole mesh with its endpoints, read as users read theirs."""
    read = am.loads(text(nodes, backends, sharing))
    return read.replace(endpoints=endpoints(nodes))


def _data(request: dict[str, Any]) -> spec.Data:
    return msgspec.convert(request, _type(request))


def _type(request: dict[str, Any]) -> type[spec.Data]:
    if "routeName" in request:
        return spec.RouteData
    for name, kind in (
        ("virtualNodeName", spec.VirtualNodeData),
        ("virtualServiceName", spec.VirtualServiceData),
        ("virtualRouterName", spec.VirtualRouterData),
    ):
        if name in request:
            return kind
    return spec.MeshData


def changed_node(
    index: int, nodes: int, backends: int, sharing: Sharing = "shared", number: int = 101
) -> spec.Data:
    """A node whose connection pool and health check differ: its own proxy changes, and that of every node
    that calls it."""
    return _data(node_request(index, nodes, backends, sharing, number, 5000 + number))


def changed_route(index: int, nodes: int, retries: int = 3) -> spec.Data:
    """A route whose retries differ."""
    return _data(route_request(index, nodes, retries))


def changed_policy(index: int, nodes: int, backends: int, sharing: Sharing, number: int) -> spec.Data:
    """A node that presents other certificates to every backend: its own clusters change."""
    request = node_request(index, nodes, backends, sharing)
    for entry in request["spec"]["backends"]:
        files = entry["virtualService"]["clientPolicy"]["tls"]["certificate"]["file"]
        files["certificateChain"] = f"/certs/{number}/client.pem"
    return _data(request)


# --- the mixed mesh -----------------------------------------------------------------------------------

_PROTOCOLS = ("http", "http2", "grpc", "tcp")
#: Nodes behind each virtual gateway, in the mixed mesh.
_PER_GATEWAY = 50


def mixed_requests(nodes: int, backends: int) -> list[dict[str, Any]]:
    """A mesh of all protocols: 1 to 10 routes a router, told apart by header, path, method or metadata; a
    virtual gateway for every 50 nodes, with a gateway route for each of its HTTP services."""
    found: list[dict[str, Any]] = [{"meshName": MESH, "spec": {}}]
    for index in range(nodes):
        protocol, router = _PROTOCOLS[index % 4], f"router-{index:05}"
        # TCP services need a port each; the others share one.
        port = 2000 + index if protocol == "tcp" else 80
        node = node_request(index, nodes, backends)
        listener = node["spec"]["listeners"][0]
        listener["portMapping"]["protocol"] = protocol
        for member in ("timeout", "connectionPool"):
            del listener[member]
        listener["healthCheck"]["protocol"] = protocol
        if protocol not in ("http", "http2"):
            del listener["healthCheck"]["path"]
        found.append(node)
        provider = {"virtualRouter": {"virtualRouterName": router}}
        found.append(
            {"meshName": MESH, "virtualServiceName": service_name(index), "spec": {"provider": provider}}
        )
        listeners = [{"portMapping": {"port": port, "protocol": protocol}}]
        found.append({"meshName": MESH, "virtualRouterName": router, "spec": {"listeners": listeners}})
        found.extend(_mixed_routes(index, nodes, protocol))
    for number in range((nodes + _PER_GATEWAY - 1) // _PER_GATEWAY):
        found.extend(_gateway(number, nodes))
    return found


def _mixed_routes(index: int, nodes: int, protocol: str) -> list[dict[str, Any]]:
    member = f"{protocol}Route"
    action = {
        "weightedTargets": [
            {"virtualNode": node_name(index), "weight": 90},
            {"virtualNode": node_name((index + 4) % nodes), "weight": 10},
        ]
        if nodes > 4
        else [{"virtualNode": node_name(index), "weight": 1}]
    }
    found = []
    for number in range(1 if protocol == "tcp" else 1 + index % 10):
        body: dict[str, Any] = {"action": action}
        if protocol == "grpc":
            metadata = [{"name": "tier", "match": {"exact": f"{number}"}}]
            body["match"] = {"serviceName": "shop.Cart", "metadata": metadata} if number else {}
        elif protocol != "tcp":
            version = {"name": "x-version", "match": {"prefix": f"v{number}."}}
            body["match"] = {"prefix": f"/api/{number}/", "headers": [version]} if number else {"prefix": "/"}
        found.append(
            {
                "meshName": MESH,
                "virtualRouterName": f"router-{index:05}",
                "routeName": f"route-{number}",
                "spec": {member: body},
            }
        )
    return found


def _gateway(number: int, nodes: int) -> list[dict[str, Any]]:
    name = f"gateway-{number:05}"
    listeners = [{"portMapping": {"port": 9080, "protocol": "http"}}]
    validation = {"trust": {"file": {"certificateChain": "/certs/ca.pem"}}}
    spec = {
        "listeners": listeners,
        "backendDefaults": {"clientPolicy": {"tls": {"validation": validation}}},
    }
    found: list[dict[str, Any]] = [{"meshName": MESH, "virtualGatewayName": name, "spec": spec}]
    for index in range(number * _PER_GATEWAY, min(nodes, (number + 1) * _PER_GATEWAY)):
        if _PROTOCOLS[index % 4] not in ("http", "http2"):
            continue
        target = {"virtualService": {"virtualServiceName": service_name(index)}}
        body = {"match": {"prefix": f"/{index}/"}, "action": {"target": target}}
        found.append(
            {
                "meshName": MESH,
                "virtualGatewayName": name,
                "gatewayRouteName": f"to-{index:05}",
                "spec": {"httpRoute": body},
            }
        )
    return found
