"""Losses: what a dialect cannot say, as a table. Each is a problem of the resource that has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from .. import spec
from ..errors import Problem
from ..mesh import Mesh
from .plain import body

Needs = Literal["left out", "refused", "made up"]


class Loss(NamedTuple):
    """`path` is below the resource's `$`; dots lead to members."""

    dialect: str
    kind: str
    path: str
    #: What becomes of it: it is left out; the dialect's own reader (CloudFormation, the controller) refuses
    #: what is written; or something has to be made up.
    becomes: Needs
    why: str


LOSSES: Final = (
    Loss(
        "kubernetes",
        "virtualNode",
        ".spec.serviceDiscovery.dns.ipPreference",
        "left out",
        "the CRD has no ipPreference for a node",
    ),
    Loss(
        "kubernetes",
        "virtualNode",
        ".spec.serviceDiscovery.awsCloudMap.ipPreference",
        "left out",
        "the CRD has no ipPreference for a node",
    ),
    Loss(
        "kubernetes",
        "mesh",
        ".spec.serviceDiscovery.ipPreference",
        "left out",
        "the CRD knows IPv4_ONLY and IPv6_ONLY alone",
    ),
    Loss(
        "kubernetes",
        "virtualRouter",
        ".spec.listeners",
        "refused",
        "the CRD wants a virtual router to have listeners",
    ),
    Loss(
        "kubernetes",
        "virtualGateway",
        ".spec.listeners",
        "refused",
        "the controller takes an empty list for none, and the API wants one",
    ),
    *(
        Loss(
            "kubernetes",
            kind,
            ".spec.logging.accessLog.file.format.json",
            "refused",
            "the controller takes an empty list for none, and a format needs one member",
        )
        for kind in ("virtualNode", "virtualGateway")
    ),
    Loss(
        "kubernetes",
        "route",
        ".virtualRouterName",
        "left out",
        "routes stand in their virtual router, which is not in the mesh",
    ),
    Loss(
        "kubernetes",
        "gatewayRoute",
        ".virtualGatewayName",
        "left out",
        "its virtual gateway, which would select it, is not in the mesh",
    ),
    Loss(
        "kubernetes",
        "any",
        ".spec...Name",
        "made up",
        "what is not in the mesh is referred to by an ARN, whose region and account are not known; a name "
        "with a slash is refused there",
    ),
    Loss(
        "cloudformation",
        "virtualRouter",
        ".spec.listeners",
        "refused",
        "CloudFormation wants a virtual router to have listeners",
    ),
    Loss(
        "cloudformation",
        "mesh",
        ".meshOwner",
        "left out",
        "a template creates meshes of its own account; this one is another's",
    ),
)

_PREFERRED: Final = ("IPv4_PREFERRED", "IPv6_PREFERRED")


#: Members of a spec that name another resource -> prefix of that resource's key.
REFERENCES: Final = {
    "virtualNode": "virtualNode/",
    "virtualNodeName": "virtualNode/",
    "virtualRouterName": "virtualRouter/",
    "virtualServiceName": "virtualService/",
    "virtualGatewayName": "virtualGateway/",
}


def losses(mesh: Mesh, dialect: str) -> Iterator[Problem]:
    """What this mesh loses in a dialect."""
    for data in mesh.resources():
        for loss in LOSSES:
            if loss.dialect != dialect:
                continue
            if loss.kind == "any":
                for path in _dangling(body(data), "$.spec", mesh):
                    yield _problem(data, path, loss)
            elif loss.kind == data.kind and _has(mesh, data, loss):
                yield _problem(data, f"${loss.path}", loss)


def _problem(data: spec.Data, path: str, loss: Loss) -> Problem:
    return Problem(
        resource=data.key,
        path=path,
        message=f"is {loss.becomes} in {loss.dialect}: {loss.why}",
        hint="give --lossy to go on all the same",
    )


def _dangling(value: Any, path: str, mesh: Mesh) -> Iterator[str]:
    """Paths of the names of what is not in the mesh."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _dangling(item, f"{path}[{index}]", mesh)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in REFERENCES and isinstance(item, str):
                if mesh.get(REFERENCES[key] + item) is None:
                    yield f"{path}.{key}"
            else:
                yield from _dangling(item, f"{path}.{key}", mesh)


def _has(mesh: Mesh, data: Any, loss: Loss) -> bool:
    match data:
        case spec.RouteData():
            return data.virtual_router_name not in mesh.virtual_routers
        case spec.GatewayRouteData():
            return data.virtual_gateway_name not in mesh.virtual_gateways
        case _ if loss.path == ".spec.listeners":
            return not data.spec.listeners
        case _ if loss.path.endswith(".json"):
            return bool(_value(data, loss.path) == ())
        case spec.MeshData() if loss.path == ".meshOwner":
            return data.mesh_owner is not None
    value = _value(data, loss.path)
    return value in _PREFERRED if data.kind == "mesh" else value is not None


def _value(data: Any, path: str) -> Any:
    for name in path.split(".")[1:]:
        data = None if data is None else getattr(data, _attribute(name))
    return data


def _attribute(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
