"""Cloud Map, seen from a mesh: services that nodes are instances of, and sources that know where these are.

    source: EndpointSource = FileSource("instances.yaml")
    found = source.discover(services_of(mesh))
    mesh = mesh.replace(endpoints=endpoints_of(mesh, found.instances))

A source gives every instance it knows, as it is. Which of them the clients of a node use (its `attributes`
and `ipPreference`, the instances' health) is decided by the translation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import msgspec

from ..errors import Problem
from ..facts import Endpoint
from ..mesh import Mesh


class CloudMapService(NamedTuple):
    """A service of Cloud Map."""

    namespace: str
    service: str

    def __str__(self) -> str:
        return f"{self.service}.{self.namespace}"


#: Every instance of some services.
Instances = Mapping[CloudMapService, tuple[Endpoint, ...]]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a source answered. Of services that it says nothing of, what was known stays."""

    instances: Instances
    #: Services that do not exist: those that did have no instances now.
    gone: frozenset[CloudMapService] = frozenset()
    #: Services that could not be asked about, and why.
    failed: Mapping[CloudMapService, str] = {}
    #: What else there is to say.
    problems: tuple[Problem, ...] = ()
    #: Ask less often, please.
    busy: bool = False


class EndpointSource(Protocol):
    """Says where the instances of Cloud Map services are."""

    #: What it is called in metrics and logs.
    name: str

    def discover(self, services: Collection[CloudMapService]) -> Found:
        """All instances of these services, ill ones too. May wait; never called twice at a time.

        Raises `SpecErrors` when nothing can be said of any, for reasons that a person must mend.
        """


def services_of(mesh: Mesh) -> dict[CloudMapService, list[str]]:
    """The services that virtual nodes are found by, and the names of those nodes."""
    found: dict[CloudMapService, list[str]] = {}
    for name, node in mesh.virtual_nodes.items():
        discovery = node.spec.service_discovery
        if discovery is not None and (one := discovery.aws_cloud_map) is not None:
            found.setdefault(CloudMapService(one.namespace_name, one.service_name), []).append(name)
    return found


def endpoints_of(mesh: Mesh, instances: Instances) -> dict[str, tuple[Endpoint, ...]]:
    """Endpoints of the virtual nodes in these services, for `Mesh.replace`. What the mesh knows of a node
    already, from its facts, stays."""
    return {
        node: instances[service]
        for service, nodes in services_of(mesh).items()
        if service in instances
        for node in nodes
        if node not in mesh.endpoints
    }
