"""Mesh: an immutable, indexed set of App Mesh resources and of the facts that belong to them.

A change makes a new mesh that shares everything else with the old one:

    mesh = Mesh.of(node, service)
    mesh2 = mesh.replace(changed_node)          # add or change
    mesh3 = mesh2.without("virtualNode/old")    # remove
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from . import spec
from .errors import Problem, SpecErrors, UsageError, errors_in
from .facts import Authority, Certificate, Endpoint
from .spec.convert import validate

_T = TypeVar("_T")

#: How many edits a mesh remembers; beyond, a translator compares instead.
_LINEAGE_LIMIT: Final = 4096

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


class Lineage:
    """What was changed between one mesh and its parent: keys only, so that old meshes can be freed."""

    __slots__ = ("changed", "depth", "parent")

    def __init__(self, parent: Lineage | None, changed: frozenset[str]) -> None:
        cut = parent is not None and parent.depth >= _LINEAGE_LIMIT
        self.parent: Lineage | None = None if cut else parent
        self.changed = changed
        self.depth: int = 0 if parent is None or cut else parent.depth + 1

    def since(self, ancestor: Lineage) -> frozenset[str] | None:
        """Every key changed since `ancestor`; None when it is not an ancestor (or too long ago)."""
        changed: set[str] = set()
        here: Lineage | None = self
        while here is not None:
            if here is ancestor:
                return frozenset(changed)
            changed |= here.changed
            here = here.parent
        return None


class Mesh:
    """One mesh. Every mapping is by name and must not be written to.

    Routes and gateway routes stand under their router and gateway, sorted by name.
    """

    __slots__ = (
        "__weakref__",
        "authorities",
        "certificates",
        "data",
        "endpoints",
        "gateway_routes",
        "lineage",
        "locate",
        "routes",
        "virtual_gateways",
        "virtual_nodes",
        "virtual_routers",
        "virtual_services",
    )

    data: spec.MeshData
    virtual_nodes: Mapping[str, spec.VirtualNodeData]
    virtual_gateways: Mapping[str, spec.VirtualGatewayData]
    virtual_services: Mapping[str, spec.VirtualServiceData]
    virtual_routers: Mapping[str, spec.VirtualRouterData]
    routes: Mapping[str, tuple[spec.RouteData, ...]]
    gateway_routes: Mapping[str, tuple[spec.GatewayRouteData, ...]]
    certificates: Mapping[str, Certificate]
    authorities: Mapping[str, Authority]
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    lineage: Lineage
    #: Adds file, line and column to a problem, where the resources were read from files.
    locate: Callable[[Problem], Problem]

    @classmethod
    def of(cls, *resources: spec.Data, name: str | None = None) -> Mesh:
        """A mesh of resources made in memory, all of one mesh.

        Without a `MeshData` among them the mesh is implied, with a default spec. Raises `SpecErrors` for
        values out of range, broken cross-field rules, two resources of one name and several meshes.
        """
        problems = [problem for resource in resources for problem in validate(resource)]
        names = sorted({resource.mesh_name for resource in resources})
        if name is None and len(names) != 1:
            text = f"resources of {len(names)} meshes: {', '.join(names)}" if names else "no resources"
            raise SpecErrors([*problems, Problem(message=text, hint="give the resources of one mesh")])
        seen: set[str] = set()
        for resource in resources:
            if resource.key in seen:
                problems.append(Problem(resource=resource.key, message="two resources of this name"))
            seen.add(resource.key)
        if errors_in(problems):
            raise SpecErrors(problems)
        return cls.trusted(resources, name=name or names[0])

    @classmethod
    def trusted(
        cls,
        resources: Iterable[spec.Data],
        *,
        name: str,
        locate: Callable[[Problem], Problem] = lambda problem: problem,
    ) -> Mesh:
        """Like `of`, for resources that a reader has validated already. Nothing is checked."""
        mesh = cls.__new__(cls)
        mesh.data = spec.MeshData(mesh_name=name)
        mesh.virtual_nodes = mesh.virtual_gateways = mesh.virtual_services = _EMPTY
        mesh.virtual_routers = mesh.routes = mesh.gateway_routes = _EMPTY
        mesh.certificates = mesh.authorities = mesh.endpoints = _EMPTY
        mesh.lineage = Lineage(None, frozenset())
        mesh.locate = locate
        mesh._put(resources)
        return mesh

    @property
    def name(self) -> str:
        return self.data.mesh_name

    @property
    def owner(self) -> str | None:
        """The owning account, for shared meshes."""
        return self.data.mesh_owner

    def resources(self) -> Iterable[spec.Data]:
        """All of them: the mesh, then by kind and name."""
        yield self.data
        for kind in (
            self.virtual_nodes,
            self.virtual_gateways,
            self.virtual_services,
            self.virtual_routers,
        ):
            yield from (kind[name] for name in sorted(kind))
        for children in (self.routes, self.gateway_routes):
            for name in sorted(children):
                yield from children[name]

    def proxies(self) -> tuple[str, ...]:
        """Every proxy of the mesh, `virtualGateway/...` and `virtualNode/...`, sorted."""
        gateways = (f"virtualGateway/{name}" for name in sorted(self.virtual_gateways))
        nodes = (f"virtualNode/{name}" for name in sorted(self.virtual_nodes))
        return (*gateways, *nodes)

    def proxy(self, text: str) -> spec.VirtualNodeData | spec.VirtualGatewayData:
        """The proxy named by `virtualNode/N`, `mesh/M[@owner]/virtualNode/N` or an ARN that ends so.

        Raises `UsageError` when the text has no such form, names another mesh or nothing in this one.
        """
        kind, name = self._parse_proxy(text)
        table: Mapping[str, spec.VirtualNodeData | spec.VirtualGatewayData] = (
            self.virtual_nodes if kind == "virtualNode" else self.virtual_gateways
        )
        if name not in table:
            known = ", ".join(self.proxies()[:5]) or "none"
            raise UsageError(f"{kind}/{name} is not in mesh {self.name} (there: {known})")
        return table[name]

    def _parse_proxy(self, text: str) -> tuple[str, str]:
        """(kind, name). Names may hold slashes and colons, so the text is not just split."""
        rest = text.split(":", 5)[-1] if text.startswith("arn:") else text
        if rest.startswith("mesh/"):
            rest = self._in_this_mesh(rest, text)
        kind, _, name = rest.partition("/")
        if kind not in ("virtualNode", "virtualGateway") or not name:
            raise UsageError(f"{text!r} does not name a proxy: virtualNode/NAME or virtualGateway/NAME")
        return kind, name

    def _in_this_mesh(self, rest: str, text: str) -> str:
        """What follows `mesh/M[@owner]/`, when that is this mesh."""
        found = re.fullmatch(rf"mesh/{re.escape(self.name)}(?:@([^/]*))?/(.*)", rest, re.DOTALL)
        if found is None or (found[1] and self.owner and found[1] != self.owner):
            named = re.split("/(?:virtualNode|virtualGateway)/", rest, maxsplit=1)[0].removeprefix("mesh/")
            raise UsageError(f"{text} is of mesh {named}, this is mesh {self.name}")
        return found[2]

    # --- changes --------------------------------------------------------------------------------

    def replace(
        self,
        *resources: spec.Data,
        certificates: Mapping[str, Certificate | None] = _EMPTY,
        authorities: Mapping[str, Authority | None] = _EMPTY,
        endpoints: Mapping[str, Iterable[Endpoint] | None] = _EMPTY,
    ) -> Mesh:
        """A mesh in which these resources and facts are added or changed; a fact of None is removed.

        `certificates` is by certificate ARN; `authorities` by the ARN of an authority, or by that of a
        certificate for the authorities that signed it; `endpoints` by virtual node. Raises `SpecErrors`
        like `of`, and for resources of another mesh.
        """
        before = [self.get(resource.key) for resource in resources]
        resources = tuple(map(_sharing, resources, before))
        problems = [
            problem
            for resource, old in zip(resources, before, strict=True)
            for problem in validate(resource, old)
        ]
        problems.extend(
            Problem(resource=resource.key, message=f"is of mesh {resource.mesh_name}, this is {self.name}")
            for resource in resources
            if resource.mesh_name != self.name
        )
        if errors_in(problems):
            raise SpecErrors(problems)
        # What is equal to what is there keeps its identity, and is no change.
        new = [resource for resource, old in zip(resources, before, strict=True) if old != resource]
        changed = {resource.key for resource in new}
        mesh = self._copy()
        mesh._put(new)
        if certificates:
            mesh.certificates = _merged(self.certificates, certificates)
            changed.update(f"certificate/{arn}" for arn in certificates)
        if authorities:
            mesh.authorities = _merged(self.authorities, authorities)
            changed.update(f"authority/{arn}" for arn in authorities)
        if endpoints:
            frozen = {name: None if given is None else tuple(given) for name, given in endpoints.items()}
            mesh.endpoints = _merged(self.endpoints, frozen)
            changed.update(f"endpoints/{name}" for name in endpoints)
        mesh.lineage = Lineage(self.lineage, frozenset(changed))
        return mesh

    def without(self, *keys: str) -> Mesh:
        """A mesh without the resources of these keys (`virtualNode/n`, `virtualRouter/r/route/a`).

        Raises KeyError for a key that is not there. Routes stay when their router goes.
        """
        mesh = self._copy()
        for key in keys:
            mesh._remove(key)
        mesh.lineage = Lineage(self.lineage, frozenset(keys))
        return mesh

    def get(self, key: str) -> spec.Data | None:
        """The resource of a key, or None."""
        if key == self.data.key:
            return self.data
        attribute, parent, name = _split_key(key)
        table = getattr(self, attribute, _EMPTY)
        if parent is None:
            found: spec.Data | None = table.get(name)
            return found
        return next((child for child in table.get(parent, ()) if child.name == name), None)

    def _copy(self) -> Mesh:
        mesh = Mesh.__new__(Mesh)
        for slot in Mesh.__slots__[1:]:
            setattr(mesh, slot, getattr(self, slot))
        return mesh

    def _put(self, resources: Iterable[spec.Data]) -> None:
        """Only for a mesh under construction."""
        fresh: dict[str, dict[str, Any]] = {}

        def table(attribute: str) -> dict[str, Any]:
            if attribute not in fresh:
                fresh[attribute] = dict(getattr(self, attribute))
                setattr(self, attribute, fresh[attribute])
            return fresh[attribute]

        children: dict[tuple[str, str], dict[str, spec.Data]] = {}
        for resource in resources:
            if isinstance(resource, spec.MeshData):
                self.data = resource
            elif isinstance(resource, spec.RouteData):
                children.setdefault(("routes", resource.virtual_router_name), {})[resource.name] = resource
            elif isinstance(resource, spec.GatewayRouteData):
                parent = ("gateway_routes", resource.virtual_gateway_name)
                children.setdefault(parent, {})[resource.name] = resource
            else:
                table(_TABLES[resource.kind])[resource.name] = resource
        for (attribute, parent_name), new in children.items():
            old = {child.name: child for child in getattr(self, attribute).get(parent_name, ())}
            merged = {**old, **new}
            table(attribute)[parent_name] = tuple(merged[name] for name in sorted(merged))

    def _remove(self, key: str) -> None:
        if self.get(key) is None or key == self.data.key:
            raise KeyError(key)
        attribute, parent, name = _split_key(key)
        table = dict(getattr(self, attribute))
        if parent is None:
            del table[name]
        else:
            table[parent] = tuple(child for child in table[parent] if child.name != name)
            if not table[parent]:
                del table[parent]
        setattr(self, attribute, table)


def _sharing(new: spec.Data, old: spec.Data | None) -> spec.Data:
    """The resource with those members of its spec that did not change: whatever was found out about them
    (that they are valid, what they hash to) need not be found out again."""
    if old is None or type(old) is not type(new) or type(old.spec) is not type(new.spec):
        return new
    same = {}
    for member in new.spec.__struct_fields__:
        value, before = getattr(new.spec, member), getattr(old.spec, member)
        if value is not before and value == before:
            same[member] = before
    if not same:
        return new
    return msgspec.structs.replace(new, spec=msgspec.structs.replace(new.spec, **same))


_TABLES: Final = {
    "virtualNode": "virtual_nodes",
    "virtualGateway": "virtual_gateways",
    "virtualService": "virtual_services",
    "virtualRouter": "virtual_routers",
}


#: Key prefix and separator of what stands under a parent -> attribute.
_CHILDREN: Final = (
    ("virtualRouter", "/route/", "routes"),
    ("virtualGateway", "/gatewayRoute/", "gateway_routes"),
)


def _split_key(key: str) -> tuple[str, str | None, str]:
    """(attribute of Mesh, parent's name, name). Names may hold slashes, so a key is not just split."""
    kind, _, rest = key.partition("/")
    for parent_kind, separator, attribute in _CHILDREN:
        if kind == parent_kind and separator in rest:
            parent, _, name = rest.partition(separator)
            return attribute, parent, name
    return _TABLES.get(kind, ""), None, rest


def _merged(old: Mapping[str, _T], new: Mapping[str, _T | None]) -> dict[str, _T]:
    merged = {**old, **new}
    return {key: value for key, value in merged.items() if value is not None}
