"""Meshes as a source of snapshots: translated as they change, the last good of each proxy kept.

    meshes = Meshes(options, proxies={"virtualNode/laptop": Options(interception="none")})
    meshes.update(mesh)                                   # every mesh that there is now
    meshes.know(endpoints={"colorteller": endpoints})     # what others say of them, from now on
    meshes.know(instances={CloudMapService("shop.internal", "colorteller"): endpoints})
    async with serve(meshes): ...

A snapshot with errors is never offered where there is one without: that proxy stays as it is, the others go
on. A proxy that left its mesh is forgotten; its streams keep what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final, NamedTuple

from .. import names
from ..cloud_map import CloudMapService, Instances, services_of
from ..errors import Problem
from ..facts import Authority, Certificate, Endpoint, of_mesh
from ..mesh import Mesh
from ..options import Options
from ..snapshot import Snapshot
from ..translator import Change, Translator, differences
from .source import Changed, Snapshots

_DEFAULTS: Final = Options()


class _Services(NamedTuple):
    """The Cloud Map services of one mesh."""

    made_from: object
    nodes: Mapping[CloudMapService, Sequence[str]]
    of: Mapping[str, CloudMapService]


class Meshes:
    """A `SnapshotSource` over whole meshes. May be used from any thread."""

    def __init__(self, options: Options = _DEFAULTS, *, proxies: Mapping[str, Options] | None = None) -> None:
        """`proxies` has the options of single proxies, by `KIND/NAME` or `mesh/M/KIND/NAME`."""
        #: The newest meshes, by name.
        self.meshes: Mapping[str, Mesh] = {}
        self._own = dict(proxies or {})
        self._translator = Translator(options)
        self._others = {own: Translator(own) for own in self._own.values()}
        self._served = Snapshots()
        #: What the newest translation of each proxy made, by node id: also where an older one is served.
        self._newest: dict[str, Snapshot] = {}
        #: The meshes as they were given, if they were, and what was said of them since.
        self._given: tuple[Mesh, ...] | None = None
        self._facts: dict[str, dict[str, Any]] = {"certificates": {}, "authorities": {}, "endpoints": {}}
        #: Of the services that nodes are found by. Never written to: others look at it.
        self._instances: Instances = {}
        #: By mesh. Nor this.
        self._services: Mapping[str, _Services] = {}
        #: Nodes whose snapshots changed since `unsaved`.
        self._untold: set[str] = set()
        #: An update failed half way, or what is served is not of this mesh: both must be compared.
        self._lost = False
        self._changing = Lock()

    # --- a source -----------------------------------------------------------------------------------------

    def snapshot(self, node_id: str) -> Snapshot | None:
        return self._served.snapshot(node_id)

    def subscribe(self, changed: Changed) -> Callable[[], None]:
        return self._served.subscribe(changed)

    # --- what feeds it ------------------------------------------------------------------------------------

    def update(self, *meshes: Mesh) -> list[Change]:
        """Takes the meshes that there are from now on, and says what changed."""
        with self._changing:
            self._services = {mesh.name: self._services_of(mesh) for mesh in meshes}
            changes = self._advance({mesh.name: self._with_facts(mesh) for mesh in meshes})
            self._given = meshes
            wanted = self.services()
            self._instances = {one: there for one, there in self._instances.items() if one in wanted}
            return changes

    def know(
        self,
        *,
        certificates: Mapping[str, Certificate | None] | None = None,
        authorities: Mapping[str, Authority | None] | None = None,
        endpoints: Mapping[str, tuple[Endpoint, ...] | None] | None = None,
        instances: Instances | None = None,
    ) -> list[Change]:
        """Facts as of `Mesh.replace`, of these meshes and of those to come; they win over the meshes' own.

        `endpoints` of the virtual node NODE of any mesh, or of `mesh/MESH/virtualNode/NODE` alone. Nodes of
        whom neither these nor the mesh say any have those of their Cloud Map service, out of `instances`.
        """
        with self._changing:
            said = {"certificates": certificates, "authorities": authorities, "endpoints": endpoints}
            for kind, facts in said.items():
                self._facts[kind].update(facts or {})
            before, self._instances = self._instances, {**self._instances, **(instances or {})}
            if self._given is None:
                return []
            try:
                return self._advance(self._knowing(**said, instances=instances))
            except BaseException:
                self._instances = before  # who asks what is new will be told again
                raise

    def remember(self, snapshots: Iterable[Snapshot]) -> None:
        """Snapshots that were good in an earlier life, to be served until newer ones are. Before `update`."""
        for snapshot in snapshots:
            self._newest[snapshot.node_id] = snapshot
            self._lost = True
        self._served.put(*self._newest.values())

    # --- what there is ------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """How many proxies each mesh has."""
        return {m.name: len(m.virtual_nodes) + len(m.virtual_gateways) for m in self.meshes.values()}

    def newest(self) -> list[Snapshot]:
        """The newest translation of each proxy, with errors or not."""
        return list(self._newest.values())

    def services(self) -> frozenset[CloudMapService]:
        """The Cloud Map services that nodes are found by."""
        return frozenset(service for one in self._services.values() for service in one.nodes)

    def instances(self) -> Instances:
        """What is known of these."""
        return self._instances

    def problems(self) -> list[Problem]:
        """What the newest translations complain about, sorted."""
        return sorted({problem for made in self.newest() for problem in made.problems})

    def unsaved(self) -> tuple[list[Snapshot], list[str]]:
        """What is served and was not told here yet, without errors; and nodes that left since."""
        with self._changing:
            told, self._untold = self._untold, set()
            held = {node_id: self._served.snapshot(node_id) for node_id in sorted(told)}
        good = [snapshot for snapshot in held.values() if snapshot is not None and not snapshot.errors]
        return good, [node_id for node_id, snapshot in held.items() if snapshot is None]

    # --- inside -------------------------------------------------------------------------------------------

    def _advance(self, newest: dict[str, Mesh]) -> list[Change]:
        gone: list[str] = []
        for name, mesh in self.meshes.items():
            if name not in newest or newest[name].owner != mesh.owner:
                # With its owner a mesh changes the ids of its nodes.
                gone += (_node_id(mesh, proxy) for proxy in mesh.proxies())
                self._forget(name)
        if self._lost:
            gone += self._newest.keys() - {
                _node_id(m, proxy) for m in newest.values() for proxy in m.proxies()
            }
        changes = []
        with self._all_or_nothing(newest):
            for mesh in newest.values():
                for change in self._changes(mesh):
                    changes.append(change)
                    if change.snapshot is None:
                        gone.append(_node_id(mesh, change.proxy))
        made = [change.snapshot for change in changes if change.snapshot is not None]
        newest_snapshots = dict(self._newest)
        for node_id in gone:
            newest_snapshots.pop(node_id, None)
        newest_snapshots.update((snapshot.node_id, snapshot) for snapshot in made)
        self.meshes, self._newest = newest, newest_snapshots
        self._untold.update(gone, (snapshot.node_id for snapshot in made))
        if gone:
            self._served.remove(*gone)
        if made:
            self._served.put(*made)
        return changes

    def _knowing(self, *, endpoints: Any, instances: Any, **materials: Any) -> dict[str, Mesh]:
        """The meshes as they are, with these facts."""
        given = self._given or ()
        if self._lost:
            return {mesh.name: self._with_facts(mesh) for mesh in given}
        facts = {kind: said or {} for kind, said in materials.items()}
        return {
            mesh.name: self.meshes[mesh.name].replace(
                endpoints=self._endpoints(mesh, endpoints or {}, instances or {}), **facts
            )
            for mesh in given
        }

    def _with_facts(self, mesh: Mesh) -> Mesh:
        facts = self._facts
        if not self._instances and not any(facts.values()):
            return mesh
        return mesh.replace(
            certificates=facts["certificates"],
            authorities=facts["authorities"],
            endpoints=self._endpoints(mesh, facts["endpoints"], self._instances),
        )

    def _endpoints(
        self, given: Mesh, said: Mapping[str, Any], instances: Iterable[CloudMapService]
    ) -> dict[str, tuple[Endpoint, ...] | None]:
        """What is known of the nodes that these facts and services concern, for `Mesh.replace`."""
        concerned = set(of_mesh(given.name, said))
        if instances:
            nodes = self._services_of(given).nodes
            concerned.update(node for service in instances for node in nodes.get(service, ()))
        facts = of_mesh(given.name, self._facts["endpoints"]) if concerned else {}
        return {node: self._known(given, node, facts) for node in sorted(concerned)}

    def _known(
        self, given: Mesh, node: str, facts: Mapping[str, tuple[Endpoint, ...] | None]
    ) -> tuple[Endpoint, ...] | None:
        found = facts[node] if node in facts else given.endpoints.get(node)
        service = self._services_of(given).of.get(node) if found is None else None
        return found if service is None else self._instances.get(service)

    def _services_of(self, mesh: Mesh) -> _Services:
        """Made once for a set of nodes: most changes are of endpoints."""
        found = self._services.get(mesh.name)
        if found is not None and found.made_from is mesh.virtual_nodes:
            return found
        nodes = services_of(mesh)
        of = {node: service for service, names in nodes.items() for node in names}
        return _Services(mesh.virtual_nodes, nodes, of)

    @contextmanager
    def _all_or_nothing(self, meshes: Iterable[str]) -> Iterator[None]:
        self._lost = True
        try:
            yield
        except BaseException:
            # Some translators are ahead of what is served. They start anew with the next mesh.
            for name in meshes:
                self._forget(name)
            raise
        self._lost = False

    def _forget(self, mesh: str) -> None:
        for translator in (self._translator, *self._others.values()):
            translator.forget(mesh)

    def _changes(self, mesh: Mesh) -> Iterator[Change]:
        own = {name.removeprefix(f"mesh/{mesh.name}/"): options for name, options in self._own.items()}
        for change in self._translator.update(mesh):
            if change.proxy not in own:
                yield change
        for proxy, options in own.items():
            before = self._newest.get(_node_id(mesh, proxy))
            after = self._others[options].snapshot(proxy, mesh) if _is_in(mesh, proxy) else None
            if after is not before:
                yield Change(proxy, after, differences(before, after))


def _is_in(mesh: Mesh, proxy: str) -> bool:
    kind, _, name = proxy.partition("/")
    return name in (mesh.virtual_nodes if kind == "virtualNode" else mesh.virtual_gateways)


def _node_id(mesh: Mesh, proxy: str) -> str:
    kind, _, name = proxy.partition("/")
    return names.node_id(mesh.name, mesh.owner, kind, name)
