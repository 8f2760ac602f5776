"""Resources: a spec with its names. `VirtualNodeData` is what the API's describe call returns, less the
metadata that no proxy ever sees (createdAt, uid, version, tags)."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from ._base import Spec
from .gateway import GatewayRouteSpec, VirtualGatewaySpec
from .mesh import MeshSpec
from .node import VirtualNodeSpec
from .route import RouteSpec, VirtualRouterSpec, VirtualServiceSpec
from .types import AccountId, ResourceName, ServiceName

Kind = Literal[
    "mesh", "virtualNode", "virtualGateway", "virtualService", "virtualRouter", "route", "gatewayRoute"
]


class _Data(Spec, frozen=True, kw_only=True):
    mesh_name: ResourceName
    #: The account that owns the mesh, for shared meshes.
    mesh_owner: AccountId | None = None


class MeshData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "mesh"
    spec: MeshSpec = MeshSpec()

    @property
    def name(self) -> str:
        return self.mesh_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"mesh/{self.mesh_name}"


class VirtualNodeData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "virtualNode"
    virtual_node_name: ResourceName
    spec: VirtualNodeSpec

    @property
    def name(self) -> str:
        return self.virtual_node_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"virtualNode/{self.virtual_node_name}"


class VirtualGatewayData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "virtualGateway"
    virtual_gateway_name: ResourceName
    spec: VirtualGatewaySpec

    @property
    def name(self) -> str:
        return self.virtual_gateway_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"virtualGateway/{self.virtual_gateway_name}"


class VirtualServiceData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "virtualService"
    virtual_service_name: ServiceName
    spec: VirtualServiceSpec

    @property
    def name(self) -> str:
        return self.virtual_service_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"virtualService/{self.virtual_service_name}"


class VirtualRouterData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "virtualRouter"
    virtual_router_name: ResourceName
    spec: VirtualRouterSpec

    @property
    def name(self) -> str:
        return self.virtual_router_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"virtualRouter/{self.virtual_router_name}"


class RouteData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "route"
    virtual_router_name: ResourceName
    route_name: ResourceName
    spec: RouteSpec

    @property
    def name(self) -> str:
        return self.route_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"virtualRouter/{self.virtual_router_name}/route/{self.route_name}"


class GatewayRouteData(_Data, frozen=True, kw_only=True):
    kind: ClassVar[Kind] = "gatewayRoute"
    virtual_gateway_name: ResourceName
    gateway_route_name: ResourceName
    spec: GatewayRouteSpec

    @property
    def name(self) -> str:
        return self.gateway_route_name

    @property
    def key(self) -> str:
        """The resource's place in its mesh; unique there."""
        return f"virtualGateway/{self.virtual_gateway_name}/gatewayRoute/{self.gateway_route_name}"


Data: TypeAlias = (
    MeshData
    | VirtualNodeData
    | VirtualGatewayData
    | VirtualServiceData
    | VirtualRouterData
    | RouteData
    | GatewayRouteData
)

DATA_TYPES: tuple[type[Data], ...] = (
    MeshData,
    VirtualNodeData,
    VirtualGatewayData,
    VirtualServiceData,
    VirtualRouterData,
    RouteData,
    GatewayRouteData,
)
BY_KIND: dict[str, type[Data]] = {data.kind: data for data in DATA_TYPES}
