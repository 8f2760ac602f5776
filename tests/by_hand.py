"""Small meshes written by hand, for tests: `mesh(node("a", http(8080)), service("a.local", node="a"))`.

Everything is in the API's own words: keyword arguments are members of `spec`.
"""

from __future__ import annotations

from typing import Any

from appmesh_xds import spec
from appmesh_xds.mesh import Mesh
from appmesh_xds.spec.convert import convert

MESH = "m"


def _resource(kind: str, **members: Any) -> Any:
    conversion = convert({"meshName": MESH, **members}, spec.BY_KIND[kind])
    assert conversion.value is not None, [str(problem) for problem in conversion.problems]
    return conversion.value


def mesh(*resources: spec.Data) -> Mesh:
    return Mesh.of(*resources)


def mesh_spec(**members: Any) -> Any:
    return _resource("mesh", spec=members)


def listener(protocol: str, port: int, **parts: Any) -> dict[str, Any]:
    return {"portMapping": {"port": port, "protocol": protocol}, **parts}


def http(port: int, **parts: Any) -> dict[str, Any]:
    return listener("http", port, **parts)


def tcp(port: int, **parts: Any) -> dict[str, Any]:
    return listener("tcp", port, **parts)


def node(name: str, *listeners: dict[str, Any], backends: tuple[str, ...] = (), **members: Any) -> Any:
    """A node found by DNS as `<name>.local`; `serviceDiscovery` among the members is used instead."""
    if listeners:
        members = {"serviceDiscovery": {"dns": {"hostname": f"{name}.local"}}, **members}
    if backends:
        members["backends"] = [{"virtualService": {"virtualServiceName": one}} for one in backends]
    return _resource("virtualNode", virtualNodeName=name, spec={"listeners": list(listeners), **members})


def service(name: str, *, node: str | None = None, router: str | None = None) -> Any:
    provider: dict[str, Any] = {}
    if node is not None:
        provider["virtualNode"] = {"virtualNodeName": node}
    if router is not None:
        provider["virtualRouter"] = {"virtualRouterName": router}
    body = {"provider": provider} if provider else {}
    return _resource("virtualService", virtualServiceName=name, spec=body)


def router(name: str, *listeners: dict[str, Any]) -> Any:
    return _resource("virtualRouter", virtualRouterName=name, spec={"listeners": list(listeners)})


def route(router: str, name: str, *targets: tuple[str, int], protocol: str = "http", **body: Any) -> Any:
    """`targets` are (node, weight); `body` replaces parts of the route, whose match is all."""
    weighted = [{"virtualNode": one, "weight": weight} for one, weight in targets]
    made: dict[str, Any] = {"action": {"weightedTargets": weighted}, **body}
    if protocol != "tcp":
        made.setdefault("match", {"prefix": "/"} if protocol.startswith("http") else {})
    spec_ = {f"{protocol}Route": made}
    return _resource("route", virtualRouterName=router, routeName=name, spec=spec_)


def gateway(name: str, *listeners: dict[str, Any], **members: Any) -> Any:
    return _resource(
        "virtualGateway", virtualGatewayName=name, spec={"listeners": list(listeners), **members}
    )


def gateway_route(
    gateway: str, name: str, service: str, *, match: dict[str, Any] | None = None, **action: Any
) -> Any:
    """An http gateway route; `action` holds `rewrite` and, as `port`, the target's port."""
    target: dict[str, Any] = {"virtualService": {"virtualServiceName": service}}
    if "port" in action:
        target["port"] = action.pop("port")
    body = {"match": match or {"prefix": "/"}, "action": {"target": target, **action}}
    return _resource(
        "gatewayRoute", virtualGatewayName=gateway, gatewayRouteName=name, spec={"httpRoute": body}
    )
