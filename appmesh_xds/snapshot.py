"""Snapshot: everything one Envoy is given. `translate` makes one from a mesh."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from . import names
from .envoy.gateway import virtual_gateway
from .envoy.maker import Fresh, Maker
from .envoy.node import virtual_node
from .envoy.output import Output
from .envoy.report import Report
from .errors import Problem, TranslationErrors, errors_in
from .options import Options
from .resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TYPE_NAMES, Resource
from .spec import VirtualNodeData

if TYPE_CHECKING:
    from .mesh import Mesh

_DEFAULTS = Options()


class Snapshot(Struct, frozen=True, kw_only=True, gc=False):
    """Every resource of one proxy, sorted by name within its type. Immutable; may be shared freely."""

    #: Name of the mesh, and its owner when the mesh is shared.
    mesh: str
    mesh_owner: str | None = None
    #: `virtualNode/NAME` or `virtualGateway/NAME`.
    proxy: str
    listeners: tuple[Resource, ...] = ()
    clusters: tuple[Resource, ...] = ()
    routes: tuple[Resource, ...] = ()
    endpoints: tuple[Resource, ...] = ()
    #: Secrets that are delivered over ADS. They may hold private keys: rendering redacts them.
    secrets: tuple[Resource, ...] = ()
    #: What could not be translated, or likely is not what was meant. Sorted.
    problems: tuple[Problem, ...] = ()

    @property
    def node_id(self) -> str:
        """The id with which the proxy's Envoy introduces itself: `mesh/M/virtualNode/N`."""
        kind, _, name = self.proxy.partition("/")
        return names.node_id(self.mesh, self.mesh_owner, kind, name)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The error-level problems: a server must not send such a snapshot."""
        return errors_in(self.problems)

    def resources(self, type_url: str) -> tuple[Resource, ...]:
        """The resources of one type, by type URL. Empty for a type that a snapshot does not hold."""
        attribute = _ATTRIBUTES.get(type_url)
        found: tuple[Resource, ...] = getattr(self, attribute) if attribute else ()
        return found

    def version(self, type_url: str) -> str:
        """One version for a type: 16 hex digits of the hash of every name and version in it."""
        return set_version(self.resources(type_url))

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """`{listeners, clusters, routes, endpoints, secrets}` as plain data; private keys redacted."""
        from .render import to_dict

        return {name: [to_dict(r.message()) for r in self.resources(url)] for name, url in TYPE_NAMES.items()}

    def to_yaml(self) -> str:
        """`to_dict` as canonical YAML: same snapshot, same bytes. This is what a golden file holds."""
        from .render import to_yaml

        return to_yaml(self.to_dict())


_ATTRIBUTES = {
    LISTENER: "listeners",
    CLUSTER: "clusters",
    ROUTES: "routes",
    ENDPOINTS: "endpoints",
    SECRET: "secrets",
}


def set_version(resources: Iterable[Resource]) -> str:
    """A version for a set of resources, in any order: a hash of their names and versions."""
    entries = sorted([f"{resource.name}\0{resource.version}" for resource in resources])
    return hashlib.blake2b("\n".join(entries).encode(), digest_size=8).hexdigest()


def translate(mesh: Mesh, proxy: str, options: Options = _DEFAULTS, *, strict: bool = False) -> Snapshot:
    """Translates one proxy: `virtualNode/N`, `virtualGateway/N`, `mesh/M[@owner]/...` or an ARN.

    What cannot be translated spoils only what depends on it and is a problem of the snapshot. With `strict`
    problems of either level raise `TranslationErrors`. Raises `UsageError` for a proxy that is not there.
    """
    snapshot = assemble(mesh, proxy, options, Fresh())
    if strict and snapshot.problems:
        raise TranslationErrors(snapshot.problems)
    return snapshot


def assemble(mesh: Mesh, proxy: str, options: Options, maker: Maker) -> Snapshot:
    """`translate` with a given way to make its parts."""
    data = mesh.proxy(proxy)
    report, out = Report(), Output(options.delivery)
    if isinstance(data, VirtualNodeData):
        virtual_node(data, mesh, options, maker, report, out)
    else:
        virtual_gateway(data, mesh, options, maker, report, out)
    problems = {mesh.locate(problem) for problem in report.problems}
    return Snapshot(
        mesh=mesh.name,
        mesh_owner=mesh.owner,
        proxy=names.proxy(data.kind, data.name),
        listeners=out.sorted(LISTENER),
        clusters=out.sorted(CLUSTER),
        routes=out.sorted(ROUTES),
        endpoints=out.sorted(ENDPOINTS),
        secrets=out.sorted(SECRET),
        problems=tuple(sorted(problems)),
    )
