"""Reach: which proxies a change concerns. The reverse index of a translator.

It is filled as proxies are translated, with what each of them used: an index over what nobody asked for would
cost the size of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .mesh import Mesh
from .resolve import Service, resolve_service, route_action

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
_CHILDREN: Final = (("virtualRouter/", "/route/"), ("virtualGateway/", "/gatewayRoute/"))


class Reach:
    """What the proxies of one mesh used when they were last translated."""

    __slots__ = ("_arn_users", "_behind", "_dependents", "_services", "_used", "_users")

    def __init__(self) -> None:
        #: Services as resolved, None for one that is not in the mesh. Valid for the current mesh.
        self._services: dict[str, Service | None] = {}
        #: Service -> keys of what stands behind it, and the way back.
        self._behind: dict[str, tuple[str, ...]] = {}
        self._dependents: dict[str, set[str]] = {}
        #: Service -> proxies that use it; ARN -> proxies that name it; proxy -> both of these.
        self._users: dict[str, set[str]] = {}
        self._arn_users: dict[str, set[str]] = {}
        self._used: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def service(self, mesh: Mesh, name: str) -> Service | None:
        """The service as resolved, remembered until something behind it changes."""
        try:
            return self._services[name]
        except KeyError:
            service = self._services[name] = resolve_service(mesh, name)
            self._behind[name] = behind = _behind(mesh, name)
            for key in behind:
                self._dependents.setdefault(key, set()).add(name)
            return service

    def record(self, proxy: str, services: Iterable[str], arns: Iterable[str]) -> None:
        """What a proxy used this time, in place of what it used before."""
        now = frozenset(services), frozenset(arns)
        before = self._used.get(proxy, _NOTHING)
        if now == before:
            return
        for table, old, new in zip((self._users, self._arn_users), before, now, strict=True):
            for name in old - new:
                _discard(table, name, proxy)
            for name in new - old:
                table.setdefault(name, set()).add(proxy)
        if now == _NOTHING:
            self._used.pop(proxy, None)
        else:
            self._used[proxy] = now
        for name in before[0] - now[0]:
            if name not in self._users:
                self._forget(name)

    def advance(self, changed: Iterable[str], proxies: Iterable[str]) -> set[str]:
        """Forgets what the changed keys make invalid. The proxies they may concern, some of them new.

        `proxies` are all that were translated: a change of the mesh itself concerns each.
        """
        reached: set[str] = set()
        services: set[str] = set()
        for key in changed:
            if key.startswith("mesh/"):
                reached.update(proxies)
            elif key.startswith(_ARNS):
                reached |= self._arn_users.get(key.partition("/")[2], set())
            else:
                owner = _owner(key)
                if owner.startswith(("virtualNode/", "virtualGateway/")):
                    reached.add(owner)
                services |= self._dependents.get(owner, set())
        for name in services:
            reached |= self._users.get(name, set())
            self._forget(name)
        return reached

    def _forget(self, name: str) -> None:
        self._services.pop(name, None)
        for key in self._behind.pop(name, ()):
            _discard(self._dependents, key, name)


_NOTHING: Final[tuple[frozenset[str], frozenset[str]]] = (frozenset(), frozenset())


def _discard(table: dict[str, set[str]], key: str, item: str) -> None:
    entries = table.get(key)
    if entries is not None:
        entries.discard(item)
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
