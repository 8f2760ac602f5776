"""Output: the resources of one proxy, as they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import proto
from ..resource import CLUSTER, ENDPOINTS, Resource

if TYPE_CHECKING:
    from ..options import Delivery


class Output:
    """Collects the resources of one translation. Handed down, read once at the end.

    With `inline` delivery a route configuration does not become a resource: `routes` gives it back, to be
    written into its connection manager.
    """

    __slots__ = ("clusters", "delivery", "endpoints", "listeners", "route_configurations")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.listeners: dict[str, Resource] = {}
        self.clusters: dict[str, Resource] = {}
        self.route_configurations: dict[str, Resource] = {}
        self.endpoints: dict[str, Resource] = {}

    def listener(self, listener: proto.Listener, *origin: str) -> None:
        self.listeners[listener.name] = Resource.of(listener, origin)

    def cluster(self, cluster: proto.Cluster, *origin: str) -> None:
        self.clusters[cluster.name] = Resource.of(cluster, origin)

    def resource(self, resource: Resource) -> None:
        """A cluster or an assignment that is made already. Several backends may bring the same one."""
        table = {CLUSTER: self.clusters, ENDPOINTS: self.endpoints}[resource.type_url]
        table[resource.name] = resource

    def routes(self, routes: proto.RouteConfiguration, *origin: str) -> str | proto.RouteConfiguration:
        """What the connection manager refers to: the name, or the configuration itself."""
        if self.delivery == "inline":
            return routes
        self.route_configurations[routes.name] = Resource.of(routes, origin)
        return routes.name
