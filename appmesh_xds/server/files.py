"""The files that a server serves: specs and facts, read together, again and again."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..errors import Problem, SpecErrors, errors_in
from ..mesh import Mesh
from ..readers import Reader, Reading
from ..readers.facts import Facts, load_facts


class Loaded(Struct, frozen=True, kw_only=True):
    """What was read without an error, and the warnings."""

    meshes: tuple[Mesh, ...]
    problems: tuple[Problem, ...]


class Files:
    """Specs, and the facts that belong to them. For one thread at a time."""

    def __init__(self, reader: Reader, *, mesh: str | None = None, facts: str | None = None) -> None:
        """`mesh` is the only mesh to take; without it, all are taken."""
        self._reader = reader
        self._mesh = mesh
        self._facts_path = facts
        self._materials: tuple[str, ...] = ()
        #: How many resources each file held when all was good.
        self._held: dict[str, int] = {}
        self._seen: tuple[Reading, Facts | None, tuple[Problem, ...]] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """What to watch: specs, facts, and the files that the facts are read from."""
        facts = () if self._facts_path is None else (self._facts_path,)
        return (*self._reader.paths, *facts, *self._materials)

    def load(self) -> Loaded | None:
        """Reads all of it; None when nothing changed since the last time, whatever came of that.

        Raises `SpecErrors` with every problem when one is an error.
        """
        facts, of_facts = self._facts()
        seen = (self._reader.read(), facts, of_facts)
        if self._seen is not None and seen[0] is self._seen[0] and seen[1:] == self._seen[1:]:
            return None
        self._seen = seen
        reading, facts, of_facts = seen
        problems = (*reading.problems, *of_facts)
        if not errors_in(problems):
            problems += tuple(self._emptied(reading))
        if errors_in(problems):
            raise SpecErrors(problems)
        self._held = {report.path: sum(report.kinds.values()) for report in reading.files}
        # Where there is none, `mesh` says so.
        names = (self._mesh,) if self._mesh is not None else reading.meshes or (None,)
        meshes = tuple(reading.mesh(name) for name in names)
        if facts is not None:
            problems += facts.strangers(*meshes)
            meshes = tuple(facts.apply(mesh) for mesh in meshes)
        return Loaded(meshes=meshes, problems=problems)

    def _emptied(self, reading: Reading) -> Iterator[Problem]:
        """Files that held resources, are still there, and hold none: somebody is about to write them."""
        for report in reading.files:
            if not report.kinds and (held := self._held.get(report.path)):
                reason = "; ".join(sorted(set(report.skipped)))
                yield Problem(
                    file=report.path,
                    message=f"held {held} App Mesh resource{'s' * (held > 1)}, and holds none now ({reason})",
                    hint="when that is to go, remove the file",
                )

    def _facts(self) -> tuple[Facts | None, tuple[Problem, ...]]:
        if self._facts_path is None:
            return None, ()
        try:
            facts = load_facts(self._facts_path)
            self._materials = facts.materials
            return facts, ()
        except SpecErrors as error:
            return None, error.problems
