"""The files that a server serves: specs and facts, read together."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..errors import Problem, SpecErrors, errors_in
from ..mesh import Mesh
from ..readers import read
from ..readers.facts import Facts, load_facts


class Loaded(Struct, frozen=True, kw_only=True):
    """What was read without an error, and the warnings."""

    meshes: tuple[Mesh, ...]
    problems: tuple[Problem, ...]


class Files(Struct, frozen=True, kw_only=True):
    """Where specs and facts are, and what is said about them from outside, as of `readers.read`."""

    paths: tuple[str, ...]
    #: The only mesh to take; all, when None.
    mesh: str | None = None
    facts: str | None = None
    parameters: Mapping[str, str] = {}
    imports: Mapping[str, str] = {}
    externals: Mapping[str, str] = {}

    def load(self) -> Loaded:
        """Reads all of it. Raises `SpecErrors` with every problem when one is an error."""
        reading = read(
            *self.paths,
            mesh=self.mesh,
            parameters=self.parameters,
            imports=self.imports,
            externals=self.externals,
        )
        facts, problems = self._facts()
        problems = (*reading.problems, *problems)
        if errors_in(problems):
            raise SpecErrors(problems)
        wanted = reading.meshes if self.mesh is None else (self.mesh,)
        # Without any, `mesh` says so.
        meshes = tuple(reading.mesh(name) for name in wanted) or (reading.mesh(),)
        if facts is not None:
            problems += _strangers(facts, meshes)
            meshes = tuple(facts.apply(mesh) for mesh in meshes)
        return Loaded(meshes=meshes, problems=problems)

    def _facts(self) -> tuple[Facts | None, tuple[Problem, ...]]:
        if self.facts is None:
            return None, ()
        try:
            return load_facts(self.facts), ()
        except SpecErrors as error:
            return None, error.problems


def _strangers(facts: Facts, meshes: tuple[Mesh, ...]) -> tuple[Problem, ...]:
    """Of one mesh that of the facts; of several, nodes may be in any of them."""
    unknown = [set(facts.strangers(mesh)) for mesh in meshes] if len(meshes) == 1 else []
    return tuple(sorted(set().union(*unknown)))
