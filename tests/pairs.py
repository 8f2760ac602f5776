"""Meshes on loopback: a client's Envoy, a server's Envoy, applications behind it.

Nodes are in Cloud Map, so that facts say on which ports they are found.
"""

from __future__ import annotations

from typing import Any

import msgspec

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.facts import Endpoint

Json = dict[str, Any]


def data(kind: str, name: str, body: Json, **names: str) -> spec.Data:
    value = {"meshName": "pair", f"{kind}Name": name, **names, "spec": body}
    return msgspec.convert(value, spec.BY_KIND[kind])


def node(name: str, listeners: list[Json], **body: Any) -> spec.Data:
    """A node that is found in Cloud Map as `server.mesh.local`, the name on the server's certificate."""
    found = {"awsCloudMap": {"namespaceName": "mesh.local", "serviceName": "server"}}
    return data("virtualNode", name, {"listeners": listeners, "serviceDiscovery": found, **body})


def listener(port: int, protocol: str = "http", **more: Any) -> Json:
    return {"portMapping": {"port": port, "protocol": protocol}, **more}


def service(name: str, *, to_node: str = "", to_router: str = "") -> spec.Data:
    provider: Json = {"virtualNode": {"virtualNodeName": to_node}}
    if to_router:
        provider = {"virtualRouter": {"virtualRouterName": to_router}}
    return data("virtualService", name, {"provider": provider})


def router(name: str, protocol: str = "http") -> spec.Data:
    return data("virtualRouter", name, {"listeners": [listener(80, protocol)]})


def route(of: str, name: str, **body: Any) -> spec.Data:
    return data("route", name, body, virtualRouterName=of)


def targets(**weights: int) -> Json:
    return {"weightedTargets": [{"virtualNode": name, "weight": weight} for name, weight in weights.items()]}


def backend(name: str, tls: Json | None = None) -> Json:
    made: Json = {"virtualServiceName": name}
    if tls is not None:
        made["clientPolicy"] = {"tls": tls}
    return {"virtualService": made}


def at(port: int) -> tuple[Endpoint, ...]:
    """Where a node is found."""
    return (Endpoint(address="127.0.0.1", port=port),)


def mesh(resources: list[spec.Data], ports: dict[str, int]) -> am.Mesh:
    return am.Mesh.of(*resources).replace(endpoints={name: at(port) for name, port in ports.items()})
