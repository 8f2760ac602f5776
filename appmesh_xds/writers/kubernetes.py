"""Kubernetes: manifests of the App Mesh controller, `appmesh.k8s.aws/v1beta2`.

Every object states its `awsName`, so that names stay what they are; objects are named after it as far as
Kubernetes allows. All stand in one namespace, whose label the mesh selects, and each gateway selects its
routes by a label.
"""

from __future__ import annotations

import re
from typing import Any, Final

from .. import spec
from ..folders import file_name
from ..mesh import Mesh
from .losses import REFERENCES, losses
from .plain import Written, body

_VERSION: Final = "appmesh.k8s.aws/v1beta2"
#: The label by which a mesh selects its namespace, and a gateway its routes.
_MESH_LABEL: Final = "mesh"
_GATEWAY_LABEL: Final = "gateway"
#: API -> CRD. The rest is spelt alike (dialects §4).
_SPELT: Final[dict[str, str]] = {
    "certificateArn": "certificateARN",
    "certificateAuthorityArns": "certificateAuthorityARNs",
}
#: For ARNs of what is not in the mesh. The controller reads their last part alone.
_NOWHERE: Final = "arn:aws:appmesh:us-east-1:{account}:mesh/{mesh}/{key}"
_NO_ACCOUNT: Final = "0" * 12
_NOT_IN_NAMES: Final = re.compile("[^a-z0-9]+")
#: A label's value may have 63 characters.
_NAME_MAX: Final = 56


def write(mesh: Mesh) -> Written:
    objects = _object_names(mesh)
    namespace = objects[mesh.data.key]
    documents = [
        _namespace(namespace),
        _object("Mesh", objects[mesh.data.key], mesh.name, None, _mesh(mesh.data, namespace)),
    ]
    documents += [_one(data, mesh, objects, namespace) for data in mesh.resources() if _is_object(data, mesh)]
    return Written({file_name(mesh.name): tuple(documents)}, tuple(losses(mesh, "kubernetes")))


def _is_object(data: spec.Data, mesh: Mesh) -> bool:
    if isinstance(data, spec.GatewayRouteData):
        return data.virtual_gateway_name in mesh.virtual_gateways
    return not isinstance(data, spec.MeshData | spec.RouteData)


def _object_names(mesh: Mesh) -> dict[str, str]:
    """Key -> `metadata.name`: what Kubernetes takes of a name, and a number where two are alike."""
    found: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for data in mesh.resources():
        base = _NOT_IN_NAMES.sub("-", data.name.lower()).strip("-")[:_NAME_MAX].strip("-") or "x"
        name, number = base, 2
        while (data.kind, name) in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add((data.kind, name))
        found[data.key] = name
    return found


def _namespace(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {_MESH_LABEL: name}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _object(
    kind: str,
    name: str,
    aws_name: str,
    namespace: str | None,
    described: dict[str, Any],
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": _VERSION,
        "kind": kind,
        "metadata": metadata,
        "spec": {"awsName": aws_name, **described},
    }


def _selector(label: str, value: str) -> dict[str, Any]:
    return {"matchLabels": {label: value}}


def _mesh(data: spec.MeshData, namespace: str) -> dict[str, Any]:
    described: dict[str, Any] = {"namespaceSelector": _selector(_MESH_LABEL, namespace)}
    if data.mesh_owner is not None:
        described["meshOwner"] = data.mesh_owner
    for key, value in body(data).items():
        if key != "serviceDiscovery":
            described[key] = value
        elif value.get("ipPreference") in ("IPv4_ONLY", "IPv6_ONLY"):
            described["meshServiceDiscovery"] = value
    return described


def _one(data: spec.Data, mesh: Mesh, objects: dict[str, str], namespace: str) -> dict[str, Any]:
    name = objects[data.key]
    described: dict[str, Any] = _spelt(body(data), mesh, objects)
    labels: dict[str, str] | None = None
    match data:
        case spec.VirtualNodeData():
            for found in described.get("serviceDiscovery", {}).values():
                found.pop("ipPreference", None)
        case spec.VirtualRouterData():
            routes = [
                {"name": route.name, **_spelt(body(route), mesh, objects)}
                for route in mesh.routes.get(data.name, ())
            ]
            if routes:
                described["routes"] = routes
        case spec.VirtualGatewayData():
            described["namespaceSelector"] = _selector(_MESH_LABEL, namespace)
            described["gatewayRouteSelector"] = _selector(_GATEWAY_LABEL, name)
        case spec.GatewayRouteData():
            labels = {_GATEWAY_LABEL: objects[f"virtualGateway/{data.virtual_gateway_name}"]}
    kind = f"{data.kind[:1].upper()}{data.kind[1:]}"
    return _object(kind, name, data.name, namespace, described, labels)


def _spelt(value: Any, mesh: Mesh, objects: dict[str, str]) -> Any:
    """A part of a spec as the CRD spells it: objects by reference."""
    if isinstance(value, list):
        return [_spelt(item, mesh, objects) for item in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, item in value.items():
        if key in REFERENCES and isinstance(item, str):
            prefix, member = REFERENCES[key], key.removesuffix("Name")
            if prefix + item in objects:
                made[f"{member}Ref"] = {"name": objects[prefix + item]}
            else:
                account = mesh.owner or _NO_ACCOUNT
                made[f"{member}ARN"] = _NOWHERE.format(account=account, mesh=mesh.name, key=prefix + item)
        elif item != []:
            made[str(_SPELT.get(key, key))] = _spelt(item, mesh, objects)
    return made
