"""Output: the resources of one proxy, as they are made; Part: a share of them that may be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from .. import proto
from ..errors import Problem
from ..resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, content_version
from ..wire import field
from .report import Report

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from ..options import Delivery


class Part(Struct, frozen=True, weakref=True, eq=False):
    """Resources made from values alone, with the problems that came up."""

    resources: tuple[Resource, ...]
    problems: tuple[Problem, ...] = ()
    #: What it shares with others, held so that it stays.
    parts: tuple[Part, ...] = ()


def virtual_host_entry(host: bytes) -> bytes:
    """A serialised virtual host as it stands in a route configuration."""
    return field(2, host)


class Output:
    """Collects the resources of one translation by type and name. Handed down, read once at the end.

    With `inline` delivery a route configuration does not become a resource: `routes` gives it back, to be
    written into its connection manager.
    """

    __slots__ = ("by_type", "delivery")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.by_type: dict[str, dict[str, Resource]] = {
            LISTENER: {},
            CLUSTER: {},
            ROUTES: {},
            ENDPOINTS: {},
            SECRET: {},
        }

    def add(self, resource: Resource) -> None:
        """A resource that is made already. Several parts may bring the same one."""
        self.by_type[resource.type_url][resource.name] = resource

    def secret(self, secret: Resource) -> None:
        """A secret. Those of one name are equal, and come from wherever each came from."""
        found = self.by_type[SECRET].get(secret.name)
        self.add(secret if found is None else secret.at(*dict.fromkeys((*found.origin, *secret.origin))))

    def message(self, message: Message, *origin: str) -> None:
        """A listener, cluster or assignment."""
        self.add(Resource.of(message, origin))

    def value(self, type_url: str, name: str, value: bytes, *origin: str) -> None:
        """A resource that is serialised already."""
        version = content_version(value)
        self.add(Resource(type_url=type_url, name=name, value=value, version=version, origin=origin))

    def part(self, part: Part, report: Report) -> None:
        for resource in part.resources:
            self.add(resource)
        report.problems.extend(part.problems)

    def routes(self, routes: proto.RouteConfiguration, *origin: str) -> str | proto.RouteConfiguration:
        """What the connection manager refers to: the name, or the configuration itself."""
        if self.delivery == "inline":
            return routes
        self.message(routes, *origin)
        return routes.name

    def joined_routes(self, name: str, hosts: list[bytes], origin: tuple[str, ...]) -> bytes:
        """A route configuration of virtual hosts (see `virtual_host_entry`): empty when it became a
        resource, otherwise the configuration, to be written into its connection manager."""
        value = b"".join((field(1, name.encode()), *hosts))
        if self.delivery == "inline":
            return value
        self.value(ROUTES, name, value, *origin)
        return b""

    def resources(self) -> tuple[Resource, ...]:
        return tuple(resource for table in self.by_type.values() for resource in table.values())

    def sorted(self, type_url: str) -> tuple[Resource, ...]:
        """The resources of one type by name."""
        table = self.by_type[type_url]
        return tuple([table[name] for name in sorted(table)])
