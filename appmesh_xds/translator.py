"""Translator: the hot path. It keeps what it built and rebuilds what a change reaches.

    translator = Translator()
    for snapshot in translator.translate_all(mesh): ...
    for change in translator.update(mesh.replace(node)): ...       # only proxies that really changed
    translator.snapshot("virtualNode/gateway")                     # one proxy, whatever the mesh's size

Nothing here knows what Envoy is told. `translate` makes a snapshot from parts, and each part from values
alone; a translator remembers the parts by those values, and knows which proxies a resource concerns.
"""

from __future__ import annotations

import gc
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from .envoy.shared import Weakly
from .errors import UsageError
from .facts import MaterialFacts
from .mesh import Mesh
from .options import Options
from .patch import Exchanges, exchanges, merged, patched
from .reach import Group, Reach, Used, changed_keys
from .resolve import Service
from .resource import TYPE_NAMES, Resource, TypeName
from .snapshot import Snapshot, assemble

if TYPE_CHECKING:
    from .envoy.backend import Backend
    from .spec import ClientPolicyTls

_DEFAULTS: Final = Options()


class Difference(NamedTuple):
    """What changed among the resources of one type, by name, sorted."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Change(NamedTuple):
    """A proxy whose resources or problems changed.

    `snapshot` is None for a proxy that left the mesh. `differences` holds the types that changed; it is
    empty when only the problems did.
    """

    proxy: str
    snapshot: Snapshot | None
    differences: dict[TypeName, Difference]


class _State:
    """What is known of one mesh."""

    __slots__ = ("everything", "mesh", "parts", "reach", "snapshots")

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.reach = Reach()
        #: Whether all proxies are wanted, also those that come later.
        self.everything = False
        self.snapshots: dict[str, Snapshot] = {}
        #: The parts of each snapshot, held so that they stay remembered as long as somebody uses them.
        self.parts: dict[str, tuple[Any, ...]] = {}


#: Parts by the function that makes them and by its arguments.
_Memo = defaultdict[Callable[..., Any], Weakly[Any]]


class _Keeper:
    """The maker of one snapshot, which remembers parts and notes what was used."""

    __slots__ = ("arns", "groups", "memo", "parts", "reach", "services")

    def __init__(self, memo: _Memo, reach: Reach) -> None:
        self.memo = memo
        self.reach = reach
        self.parts: list[Any] = []
        self.groups: list[Group] = []
        self.services: list[str] = []
        self.arns: list[str] = []

    def part(self, function: Callable[..., Any], *arguments: Any) -> Any:
        memo = self.memo[function]
        part = memo.get(arguments)
        if part is None:
            part = function(*arguments)
            memo.put(arguments, part)
        self.parts.append(part)
        for argument in arguments:
            if type(argument) is MaterialFacts and argument.arns:
                self.arns.extend(argument.arns)
        return part

    def service(self, mesh: Mesh, name: str) -> Service | None:
        self.services.append(name)
        return self.reach.service(mesh, name)

    def backend(
        self, mesh: Mesh, options: Options, service: str, policy: ClientPolicyTls | None
    ) -> Backend | None:
        group = self.reach.group(mesh, options, service, policy)
        if group is None:
            self.services.append(service)
            return None
        self.groups.append(group)
        if group.arns:
            self.arns.extend(group.arns)
        return group.backend


@contextmanager
def _no_collection() -> Iterator[None]:
    """The garbage collector rests. A whole mesh is made of objects that stay, and none is in a circle: it
    would visit all of them again and again, and find nothing."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Translator:
    """A memo over one or many meshes.

    To be used from one thread at a time (RuntimeError otherwise); the snapshots it gives are immutable and
    may be shared freely. Parts that no proxy uses any more are dropped at once.
    """

    def __init__(self, options: Options = _DEFAULTS) -> None:
        self.options = options
        self._meshes: dict[str, _State] = {}
        # Weak: the states hold the parts that their proxies use.
        self._memo: _Memo = defaultdict(Weakly)
        self._busy = threading.Lock()

    def translate_all(self, mesh: Mesh) -> list[Snapshot]:
        """Every proxy's snapshot, in the order of `mesh.proxies()`.

        The mesh becomes the current one of its name; from now on `update` reports new proxies too.
        """
        with self._alone():
            state = self._state_of(mesh)
            self._move(state, mesh)
            state.everything = True
            with _no_collection():
                return [
                    state.snapshots.get(proxy) or self._assemble(state, proxy) for proxy in mesh.proxies()
                ]

    def update(self, mesh: Mesh) -> list[Change]:
        """Takes the next mesh, and says which proxies changed, and how, sorted by proxy.

        The cost is that of the proxies which the change can reach, when `mesh` was made from the current
        one by `replace` and `without`; other meshes are compared resource by resource. For a mesh that the
        translator does not know every proxy is a change. Where only some proxies were asked for, by
        `snapshot`, only those are updated.
        """
        with self._alone():
            if mesh.name in self._meshes:
                return self._move(self._meshes[mesh.name], mesh)
            state = self._state_of(mesh)
            state.everything = True
            changes = (self._change(state, proxy) for proxy in sorted(mesh.proxies()))
            return [change for change in changes if change is not None]

    def snapshot(self, proxy: str, mesh: Mesh | str | None = None) -> Snapshot:
        """One proxy of the current mesh: of the only one, of the one named, or of a mesh given now.

        Translates it if need be, in time that does not depend on the size of the mesh. Raises `UsageError`
        for a proxy that is not there and for a mesh that is not known.
        """
        with self._alone():
            if isinstance(mesh, Mesh):
                state = self._state_of(mesh)
                self._move(state, mesh)
            else:
                state = self._state(mesh)
            data = state.mesh.proxy(proxy)
            name = f"{data.kind}/{data.name}"
            return state.snapshots.get(name) or self._assemble(state, name)

    def forget(self, mesh: str) -> None:
        """Drops everything known of a mesh."""
        with self._alone():
            self._meshes.pop(mesh, None)

    def __len__(self) -> int:
        """How many parts are remembered."""
        return sum(map(len, self._memo.values()))

    # --- inside ---------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("a Translator is for one thread at a time; share its snapshots instead")
        try:
            yield
        finally:
            self._busy.release()

    def _state(self, mesh: str | None) -> _State:
        if mesh is None and len(self._meshes) == 1:
            return next(iter(self._meshes.values()))
        if mesh is None or mesh not in self._meshes:
            known = ", ".join(sorted(self._meshes)) or "none"
            raise UsageError(f"which mesh? Those known to this translator: {known}")
        return self._meshes[mesh]

    def _state_of(self, mesh: Mesh) -> _State:
        """What is known of the mesh of this name; nothing, when it is new."""
        state = self._meshes.get(mesh.name)
        if state is None:
            state = self._meshes[mesh.name] = _State(mesh)
        return state

    def _move(self, state: _State, mesh: Mesh) -> list[Change]:
        """Makes `mesh` the current one, and brings to it every proxy that is remembered."""
        if state.mesh is mesh:
            return []
        try:
            reached = state.reach.advance(changed_keys(state.mesh, mesh), state.snapshots)
            state.mesh = mesh
            known: dict[Group, Exchanges | None] = {}
            changes = [
                change
                for proxy in sorted(reached)
                if (change := self._update(state, proxy, reached[proxy], known)) is not None
            ]
        except BaseException:
            # Half of the proxies are of the old mesh. Nothing is known any more, rather than something false.
            self._meshes.pop(mesh.name, None)
            raise
        state.reach.settle()
        return changes

    def _update(
        self,
        state: _State,
        proxy: str,
        groups: list[Group] | None,
        known: dict[Group, Exchanges | None],
    ) -> Change | None:
        """Brings one proxy to the current mesh. With `groups` nothing concerns it but what these share."""
        before = state.snapshots.get(proxy)
        if before is None or groups is None:
            return self._change(state, proxy)
        found = []
        for group in groups:
            if group not in known:
                known[group] = self._exchanges(state, group)
            exchange = known[group]
            if exchange is None:
                return self._change(state, proxy)
            if exchange:
                found.append(exchange)
        if not found:
            return None
        given = merged(found)
        snapshot = patched(before, given)
        if snapshot is None:
            return self._change(state, proxy)
        state.snapshots[proxy] = snapshot
        updated = {kind: Difference((), tuple(sorted(exchange))) for kind, exchange in given.items()}
        return Change(proxy, snapshot, updated)

    def _exchanges(self, state: _State, group: Group) -> Exchanges | None:
        before = group.before
        now = state.reach.group(state.mesh, self.options, group.service, group.policy)
        if before is None or now is None or now.backend is None:
            return None
        return exchanges(before, now.backend)

    def _change(self, state: _State, proxy: str) -> Change | None:
        """Makes one proxy's snapshot anew."""
        before = state.snapshots.get(proxy)
        if before is None and not state.everything:
            return None
        kind, _, name = proxy.partition("/")
        table = state.mesh.virtual_nodes if kind == "virtualNode" else state.mesh.virtual_gateways
        if name not in table:
            state.snapshots.pop(proxy, None)
            state.parts.pop(proxy, None)
            state.reach.record(proxy, Used())
            return None if before is None else Change(proxy, None, differences(before, None))
        after = self._assemble(state, proxy)
        if after == before:
            # The old one stays: whoever compares by identity sees that nothing happened.
            state.snapshots[proxy] = before
            return None
        found = differences(before, after)
        if before is not None:
            after = state.snapshots[proxy] = _sharing(before, after, found)
        return Change(proxy, after, found)

    def _assemble(self, state: _State, proxy: str) -> Snapshot:
        keeper = _Keeper(self._memo, state.reach)
        snapshot = assemble(state.mesh, proxy, self.options, keeper)
        state.snapshots[proxy] = snapshot
        state.parts[proxy] = tuple(keeper.parts)
        state.reach.record(proxy, Used(tuple(keeper.groups), tuple(keeper.services), tuple(keeper.arns)))
        return snapshot


def differences(before: Snapshot | None, after: Snapshot | None) -> dict[TypeName, Difference]:
    """What changed between two snapshots, by type. None is a proxy that is not there."""
    found: dict[TypeName, Difference] = {}
    for name in TYPE_NAMES:
        old: tuple[Resource, ...] = getattr(before, name) if before is not None else ()
        new: tuple[Resource, ...] = getattr(after, name) if after is not None else ()
        if old is new or old == new:
            continue
        difference = _difference(old, new)
        if any(difference):
            found[name] = difference
    return found


def _sharing(before: Snapshot, after: Snapshot, changed: Collection[str]) -> Snapshot:
    """`after` with the very tuples of `before` for types that did not change: many hold on to both, and see
    at a glance what is the same."""
    same = {
        name: old
        for name in TYPE_NAMES
        if name not in changed
        and (old := getattr(before, name)) is not (new := getattr(after, name))
        and [one.origin for one in old] == [one.origin for one in new]
    }
    return msgspec.structs.replace(after, **same) if same else after


def _difference(old: Iterable[Resource], new: Iterable[Resource]) -> Difference:
    before = {resource.name: resource for resource in old}
    after = {resource.name: resource for resource in new}
    return Difference(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(n for n in after.keys() & before.keys() if after[n].version != before[n].version)),
        tuple(sorted(before.keys() - after.keys())),
    )
