"""What was read: resources, problems, and what became of each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from .. import spec
from ..errors import Problem, SpecErrors, errors_in
from ..mesh import Mesh
from .found import Found


class FileReport(Struct, frozen=True, kw_only=True):
    """What became of one file."""

    path: str
    #: Dialects of its documents, usually one.
    dialects: tuple[str, ...] = ()
    #: Kind -> number of resources read.
    kinds: Mapping[str, int] = {}
    #: Why documents were passed over, one line each.
    skipped: tuple[str, ...] = ()


class Reading(Struct, frozen=True, kw_only=True):
    """Everything that was read."""

    resources: tuple[spec.Data, ...] = ()
    problems: tuple[Problem, ...] = ()
    files: tuple[FileReport, ...] = ()
    #: (mesh, resource key) -> where it stands.
    found: Mapping[tuple[str, str], Found] = {}

    @property
    def meshes(self) -> tuple[str, ...]:
        """Names of the meshes that the resources belong to, sorted."""
        return tuple(sorted({resource.mesh_name for resource in self.resources}))

    def mesh(self, name: str | None = None) -> Mesh:
        """The one mesh, or the one of this name.

        Raises `SpecErrors` when there is none or several to choose from, or any error-level problem.
        """
        problems = list(self.problems)
        if name is None and len(self.meshes) == 1:
            name = self.meshes[0]
        if (name is None or name not in self.meshes) and not errors_in(problems):
            problems.append(_no_mesh(self.meshes, name))
        if errors_in(problems) or name is None or name not in self.meshes:
            raise SpecErrors(problems)
        resources = [resource for resource in self.resources if resource.mesh_name == name]
        return Mesh.trusted(resources, name=name, locate=_Locator(name, self.found))


class _Locator:
    """Gives problems of a translation the place where their resource was read."""

    def __init__(self, mesh: str, found: Mapping[tuple[str, str], Found]) -> None:
        self.mesh = mesh
        self.found = found

    def __call__(self, problem: Problem) -> Problem:
        found = self.found.get((self.mesh, problem.resource))
        return problem if found is None or problem.file else found.locate(problem)


def _no_mesh(meshes: Sequence[str], wanted: str | None) -> Problem:
    listed = ", ".join(meshes)
    if wanted is not None:
        there = f"there: {listed}" if listed else "nothing was read"
        return Problem(message=f"mesh {wanted!r} is not in the input ({there})")
    if not meshes:
        return Problem(message="no App Mesh resource was read", hint="give files or folders that hold some")
    return Problem(
        message=f"the input holds {len(meshes)} meshes: {listed}", hint="pick one: --mesh NAME (mesh=NAME)"
    )
