"""What commands read: specs, facts, and which proxies are meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Problem, SpecErrors, UsageError
from ..mesh import Mesh
from ..readers import Reading, read
from .cloud_map import with_instances

if TYPE_CHECKING:
    from ..readers.facts import Facts


def add_reading(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Paths and what is said about them from outside."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*" if optional else "+",
        help="file or folder with specs; KIND/NAME=PATH for a spec that does not say what it is",
    )
    group = parser.add_argument_group("reading")
    group.add_argument("--mesh", metavar="NAME", help="the mesh to take; also of specs that name none")
    group.add_argument("--facts", metavar="FILE", help="YAML with certificates, authorities and endpoints")
    group.add_argument(
        "--parameter", metavar="KEY=VALUE", action="append", default=[], help="CloudFormation parameter"
    )
    group.add_argument(
        "--import",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="imports",
        help="CloudFormation export of another stack",
    )
    group.add_argument(
        "--external",
        metavar="LOGICAL.ATTR=VALUE",
        action="append",
        default=[],
        help="attribute of a resource that is not App Mesh's",
    )


def read_paths(arguments: argparse.Namespace) -> Reading:
    return read(*arguments.paths, **outside(arguments))


def outside(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is said about the paths from outside, as `read` and `Reader` take it."""
    return {
        "mesh": arguments.mesh,
        "parameters": _pairs(arguments.parameter, "--parameter"),
        "imports": _pairs(arguments.imports, "--import"),
        "externals": _pairs(arguments.external, "--external"),
    }


def read_mesh(arguments: argparse.Namespace) -> tuple[Mesh, tuple[Problem, ...]]:
    """The mesh with its facts and instances; and the problems of all, warnings unless --keep-going is given.

    Raises SpecErrors, with the problems of all.
    """
    return mesh_of(read_paths(arguments), arguments)


def mesh_of(reading: Reading, arguments: argparse.Namespace) -> tuple[Mesh, tuple[Problem, ...]]:
    """`read_mesh` for what is read already."""
    facts, problems = _facts_of(arguments)
    problems = (*reading.problems, *problems)
    if getattr(arguments, "keep_going", False) and reading.resources:
        reading = msgspec.structs.replace(reading, problems=())
    try:
        mesh = reading.mesh(arguments.mesh)
    except SpecErrors as error:
        raise SpecErrors(dict.fromkeys([*error.problems, *problems])) from None
    if facts is None and arguments.facts is not None:
        raise SpecErrors(problems)
    if facts is not None:
        mesh, problems = facts.apply(mesh), (*problems, *facts.strangers(mesh))
    if hasattr(arguments, "cloud_map"):
        try:
            mesh, more = with_instances(mesh, arguments)
        except SpecErrors as error:
            raise SpecErrors([*problems, *error.problems]) from None
        problems += more
    return mesh, problems


def _facts_of(arguments: argparse.Namespace) -> tuple[Facts | None, tuple[Problem, ...]]:
    if arguments.facts is None:
        return None, ()
    from ..readers.facts import load_facts

    try:
        return load_facts(arguments.facts), ()
    except SpecErrors as error:
        return None, error.problems


def _pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {text}: expected KEY=VALUE")
        found[key] = value
    return found


def chosen(mesh: Mesh, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The proxies asked for, or all. Raises UsageError for one that is not there, SpecErrors for none."""
    if wanted:
        return tuple(dict.fromkeys(f"{data.kind}/{data.name}" for data in map(mesh.proxy, wanted)))
    if not mesh.proxies():
        raise SpecErrors([Problem(message=f"mesh {mesh.name} has no virtual node and no virtual gateway")])
    return mesh.proxies()
