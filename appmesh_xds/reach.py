"""Reach: which proxies a change concerns. The reverse index of a translator.

It is filled as proxies are translated, with what each of them used: an index over what nobody asked for would
cost the size of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from .envoy.backend import Backend, backend, backend_facts
from .mesh import Mesh
from .resolve import Service, resolve_service, route_action
from .spec import ClientPolicyTls

if TYPE_CHECKING:
    from .options import Options

#: Attributes of a mesh whose entries are resources, by the prefix of their keys.
_TABLES: Final = {
    "virtual_nodes": "virtualNode/",
    "virtual_gateways": "virtualGateway/",
    "virtual_services": "virtualService/",
    "virtual_routers": "virtualRouter/",
    "routes": "virtualRouter/",
    "gateway_routes": "virtualGateway/",
    "certificates": "certificate/",
    "authorities": "authority/",
    "endpoints": "endpoints/",
}
_ARNS: Final = ("certificate/", "authority/")
_PROXIES: Final = ("virtualNode/", "virtualGateway/")
_NOBODY: Final[frozenset[str]] = frozenset()
_CHILDREN: Final = (("virtualRouter/", "/route/"), ("virtualGateway/", "/gatewayRoute/"))


#: A set of names, in a form that the garbage collector does not have to visit: it leaves alone a dict that
#: holds nothing but text.
Names = dict[str, None]


class Group(Struct, eq=False, gc=False):
    """The proxies that call one service under one client policy. They share what is made for it."""

    service: str
    policy: ClientPolicyTls | None
    users: Names = msgspec.field(default_factory=dict)
    #: None until it is made, and again when something that it is made from changed.
    backend: Backend | None = None
    #: What it was before the last change, for those users that have that still.
    before: Backend | None = None
    #: What the facts were asked for.
    arns: tuple[str, ...] = ()


class _Entry(Struct, eq=False, gc=False):
    """A virtual service that somebody uses."""

    name: str
    resolved: bool = False
    #: None for one that is not in the mesh. Valid when `resolved`.
    service: Service | None = None
    #: Keys of everything that was looked at to resolve it, there or not.
    behind: tuple[str, ...] = ()
    groups: dict[ClientPolicyTls | None, Group] = msgspec.field(default_factory=dict)
    #: Proxies that look at the service itself.
    users: frozenset[str] = _NOBODY


class Used(Struct, frozen=True, eq=False, gc=False):
    """What one proxy used when it was translated last."""

    groups: tuple[Group, ...] = ()
    services: tuple[str, ...] = ()
    arns: tuple[str, ...] = ()


#: Proxies that a change may concern: by the groups alone through which it does, or (None) in any way.
Reached = dict[str, list[Group] | None]


class Reach:
    """What the proxies of one mesh used when they were last translated."""

    __slots__ = ("_arn_users", "_dependents", "_entries", "_renewed", "_used")

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        #: Key -> services behind which it stands.
        self._dependents: dict[str, Names | str] = {}
        self._arn_users: dict[str, Names] = {}
        self._used: dict[str, Used] = {}
        #: Groups that still know what they were.
        self._renewed: list[Group] = []

    def service(self, mesh: Mesh, name: str) -> Service | None:
        """The service as resolved, remembered until something behind it changes."""
        return self._resolved(mesh, name).service

    def group(self, mesh: Mesh, options: Options, name: str, policy: ClientPolicyTls | None) -> Group | None:
        """The group of a service and a policy, its backend made; None when there is no such service."""
        entry = self._entries.get(name)
        if entry is None or not entry.resolved:
            entry = self._resolved(mesh, name)
        group = entry.groups.get(policy)
        if group is not None and group.backend is not None:
            return group  # as nearly always
        service = entry.service
        if service is None:
            return None
        if group is None:
            group = entry.groups[policy] = Group(name, policy)
        facts = backend_facts(service, policy, mesh)
        group.arns = facts.arns
        group.backend = backend(service, policy, facts, mesh.data, options)
        return group

    def _resolved(self, mesh: Mesh, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(name)
        if not entry.resolved:
            entry.service, entry.resolved = resolve_service(mesh, name), True
            behind = _behind(mesh, name)
            if behind != entry.behind:
                self._depend(entry, behind)
        return entry

    def _depend(self, entry: _Entry, behind: tuple[str, ...]) -> None:
        dependents = self._dependents
        for key in entry.behind:
            found = dependents[key]
            if isinstance(found, dict):
                found.pop(entry.name, None)
            if not found or found == entry.name:
                del dependents[key]
        entry.behind = behind
        for key in behind:
            others = dependents.get(key)
            # Most stand behind one service only, and a dict is large.
            if others is None:
                dependents[key] = entry.name
            elif isinstance(others, dict):
                others[entry.name] = None
            else:
                dependents[key] = {others: None, entry.name: None}

    def record(self, proxy: str, now: Used) -> None:
        """What a proxy used this time, in place of what it used before."""
        before = self._used.get(proxy)
        for group in now.groups:
            group.users[proxy] = None
        for name in now.services:
            self._entries[name].users |= {proxy}
        for arn in now.arns:
            self._arn_users.setdefault(arn, {})[proxy] = None
        if now.groups or now.services or now.arns:
            self._used[proxy] = now
        else:
            self._used.pop(proxy, None)
        if before is not None:
            self._leave(proxy, before, now)

    def _leave(self, proxy: str, before: Used, now: Used) -> None:
        if before.groups != now.groups:
            for group in set(before.groups).difference(now.groups):
                group.users.pop(proxy, None)
                entry = self._entries.get(group.service)
                if not group.users and entry is not None and entry.groups.get(group.policy) is group:
                    del entry.groups[group.policy]
                    self._drop_unused(entry)
        for name in set(before.services).difference(now.services):
            entry = self._entries[name]
            entry.users -= {proxy}
            self._drop_unused(entry)
        for arn in set(before.arns).difference(now.arns):
            _discard(self._arn_users, arn, proxy)

    def _drop_unused(self, entry: _Entry) -> None:
        if not entry.groups and not entry.users and self._entries.get(entry.name) is entry:
            del self._entries[entry.name]
            self._depend(entry, ())

    def advance(self, changed: Iterable[str], proxies: Iterable[str]) -> Reached:
        """Forgets what the changed keys make invalid. The proxies they may concern, some of them new.

        `proxies` are all that were translated: a change of the mesh itself concerns each.
        """
        reached: Reached = {}
        services: set[str] = set()
        for key in changed:
            if key.startswith("mesh/"):
                for entry in self._entries.values():
                    for group in entry.groups.values():
                        self._renew(group)
                reached.update(dict.fromkeys(proxies))
            elif key.startswith(_ARNS):
                self._renew_facts(key.partition("/")[2], reached)
            else:
                owner = _owner(key)
                if owner.startswith(_PROXIES):
                    reached[owner] = None
                found = self._dependents.get(owner)
                services.update((found,) if isinstance(found, str) else found or ())
        for name in services:
            entry = self._entries[name]
            entry.resolved = False
            reached.update(dict.fromkeys(entry.users))
            for group in entry.groups.values():
                self._renew(group)
                for proxy in group.users:
                    through = reached.setdefault(proxy, [])
                    if through is not None:
                        through.append(group)
        return reached

    def settle(self) -> None:
        """All that `advance` named are brought to the new mesh."""
        for group in self._renewed:
            group.before = None
        self._renewed.clear()

    def _renew(self, group: Group) -> None:
        """Has it made again."""
        if group.backend is not None:
            group.before, group.backend = group.backend, None
            self._renewed.append(group)

    def _renew_facts(self, arn: str, reached: Reached) -> None:
        for proxy in self._arn_users.get(arn, _NOBODY):
            reached[proxy] = None
            for group in self._used[proxy].groups:
                if arn in group.arns:
                    self._renew(group)


def _discard(table: dict[str, Names], key: str, item: str) -> None:
    entries = table.get(key)
    if entries is not None:
        entries.pop(item, None)
        if not entries:
            del table[key]


def _owner(key: str) -> str:
    """Routes are their router's, gateway routes their gateway's, endpoints their node's."""
    if key.startswith("endpoints/"):
        return "virtualNode/" + key.partition("/")[2]
    for prefix, separator in _CHILDREN:
        if key.startswith(prefix) and separator in key:
            return key.partition(separator)[0]
    return key


def _behind(mesh: Mesh, name: str) -> tuple[str, ...]:
    """Keys of everything that `resolve_service` looks at, there or not."""
    keys = [f"virtualService/{name}"]
    data = mesh.virtual_services.get(name)
    provider = data.spec.provider if data is not None else None
    if provider is not None and provider.virtual_node is not None:
        keys.append(f"virtualNode/{provider.virtual_node.virtual_node_name}")
    if provider is not None and provider.virtual_router is not None:
        router = provider.virtual_router.virtual_router_name
        keys.append(f"virtualRouter/{router}")
        for route in mesh.routes.get(router, ()):
            keys.extend(
                f"virtualNode/{target.virtual_node}" for target in route_action(route).weighted_targets
            )
    return tuple(dict.fromkeys(keys))


def changed_keys(old: Mesh, new: Mesh) -> frozenset[str]:
    """What differs between two meshes: told by the newer one's lineage, or else found by comparing."""
    told = new.lineage.since(old.lineage)
    if told is not None:
        return told
    changed: set[str] = set()
    if old.data != new.data:
        changed.add(new.data.key)
    for attribute, prefix in _TABLES.items():
        before: Mapping[str, Any] = getattr(old, attribute)
        after: Mapping[str, Any] = getattr(new, attribute)
        if before is after:
            continue
        for name in before.keys() | after.keys():
            one, other = before.get(name), after.get(name)
            if one is not other and one != other:
                changed.add(prefix + name)
    return frozenset(changed)
