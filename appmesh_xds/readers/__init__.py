"""How people write a mesh down, read into specs.

    reading = read("./mesh")          every resource and every problem, never raises for bad content
    mesh = load("./mesh")             a Mesh, or SpecErrors with all problems at once

Files and folders, in any dialect, mixed: each document is recognised by its content.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from .. import spec
from ..errors import Problem, SpecErrors, errors_in
from ..mesh import Mesh
from . import api
from .found import Context, Found
from .text import Document, documents, read_bytes

__all__ = ["DIALECTS", "Dialect", "FileReport", "Reading", "load", "loads", "read"]

_SUFFIXES: Final = frozenset({".json", ".yaml", ".yml", ".template"})
_TARGET: Final = re.compile(rf"(?P<kind>{'|'.join(spec.BY_KIND)})/(?P<name>[^=]+)=(?P<path>.+)\Z", re.DOTALL)


class Dialect(NamedTuple):
    """One way to write specs. `read` gets every document of it at once: they may refer to one another."""

    name: str
    recognise: Callable[[Any], bool]
    read: Callable[[Sequence[Document], Context], Iterable[Found | Problem]]


def _read_api(found: Sequence[Document], context: Context) -> Iterator[Found | Problem]:
    for document in found:
        yield from api.read(document, context)


#: In the order in which they are asked whether a document is theirs.
DIALECTS: tuple[Dialect, ...] = (Dialect("api", api.recognise, _read_api),)


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


def read(
    *paths: str | os.PathLike[str],
    mesh: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    strict: bool = True,
    parameters: Mapping[str, str] | None = None,
    imports: Mapping[str, str] | None = None,
    externals: Mapping[str, str] | None = None,
) -> Reading:
    """Reads files and folders (with all below them: .json, .yaml, .yml, .template).

    `mesh` names the mesh of resources that state none. A spec without names needs its kind and name: as
    arguments, or in the path: `virtualNode/NAME=PATH`, `route/ROUTER/NAME=PATH`. `strict=False` takes
    numbers and booleans written as strings. `parameters`, `imports` and `externals` are CloudFormation's.
    Never raises for what the files hold.
    """
    context = Context(
        mesh=mesh,
        kind=kind,
        name=name,
        strict=strict,
        parameters=parameters or {},
        imports=imports or {},
        externals=externals or {},
    )
    work = _Work(context)
    for path in paths:
        target = _TARGET.match(os.fspath(path))
        if target is not None and not Path(path).exists():
            named = msgspec.structs.replace(context, kind=target["kind"], name=target["name"])
            work.read_path(Path(target["path"]), named)
        else:
            work.read_path(Path(path), context)
    return work.finish()


def load(
    *paths: str | os.PathLike[str],
    mesh: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    strict: bool = True,
    parameters: Mapping[str, str] | None = None,
    imports: Mapping[str, str] | None = None,
    externals: Mapping[str, str] | None = None,
) -> Mesh:
    """`read`, and a mesh made of it. Raises `SpecErrors` with every problem when any is an error, when
    nothing was read, and for several meshes unless `mesh` picks one."""
    reading = read(
        *paths,
        mesh=mesh,
        kind=kind,
        name=name,
        strict=strict,
        parameters=parameters,
        imports=imports,
        externals=externals,
    )
    return reading.mesh(mesh)


def loads(
    content: str | bytes | Mapping[str, Any] | Sequence[Any],
    *,
    mesh: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    strict: bool = True,
) -> Mesh:
    """A mesh from a text, or from plain data: requests, responses as boto3 gives them, lists of either.

    Raises `SpecErrors` like `load`.
    """
    work = _Work(Context(mesh=mesh, kind=kind, name=name, strict=strict))
    if isinstance(content, str):
        # A lone surrogate has no UTF-8; the reader refuses what becomes of it.
        content = content.encode("utf-8", "surrogatepass")
    if isinstance(content, bytes):
        work.read_content(content, "<text>", work.context, by_name=True)
    else:
        plain = dict(content) if isinstance(content, Mapping) else list(content)
        work.read_documents([Document("<data>", plain, dict)], "<data>", work.context, by_name=True)
    return work.finish().mesh(mesh)


class _Work:
    """One call of `read`: what was found so far."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.problems: list[Problem] = []
        self.resources: list[Found] = []
        self.fast: list[Found] = []
        self.reports: dict[str, list[Any]] = {}
        self.pending: list[tuple[Dialect, Document, Context]] = []
        self.folders: set[str] = set()

    def read_path(self, path: Path, context: Context) -> None:
        if not path.is_dir():
            self.read_file(path, context, by_name=True)
            return
        files = list(_files(path, self.folders))
        if not files:
            self.problems.append(
                Problem(
                    file=str(path),
                    message="the folder holds nothing to read",
                    hint=f"files that end in {', '.join(sorted(_SUFFIXES))}",
                )
            )
        before = len(self.pending) + len(self.fast) + len(self.problems)
        for file in files:
            self.read_file(file, context, by_name=False)
        if files and len(self.pending) + len(self.fast) + len(self.problems) == before:
            self.problems.append(
                Problem(file=str(path), message=f"none of {len(files)} files holds an App Mesh resource")
            )

    def read_file(self, path: Path, context: Context, *, by_name: bool) -> None:
        content = read_bytes(path)
        if isinstance(content, Problem):
            self.problems.append(content)
        else:
            self.read_content(content, str(path), context, by_name=by_name)

    def read_content(self, content: bytes, file: str, context: Context, *, by_name: bool) -> None:
        if context.kind is None and context.mesh is None:
            fast = api.read_fast(content)
            if fast is not None:
                self._add_fast(fast, content, file)
                return
        found, problems = documents(content, file, yaml=False if file.endswith(".json") else None)
        self.problems.extend(problems)
        if problems:
            return
        if not found:
            self.reports[file] = [Counter(), Counter(), ["empty"]]
            if by_name:
                self.problems.append(Problem(file=file, message="is empty"))
            return
        self.read_documents(found, file, context, by_name=by_name)

    def _add_fast(self, fast: Sequence[spec.Data], content: bytes, file: str) -> None:
        document = Document(file, None, lambda: documents(content, file)[0][0].positions)
        several = content.lstrip()[:1] == b"["
        for index, data in enumerate(fast):
            place = f"$[{index}]" if several else "$"
            self.fast.append(Found(data, document, f"{place}.spec", place))
        report = self.reports.setdefault(file, [Counter(), Counter(), []])
        report[0]["api"] += 1

    def read_documents(
        self, found: Sequence[Document], file: str, context: Context, *, by_name: bool
    ) -> None:
        report = self.reports.setdefault(file, [Counter(), Counter(), []])
        for document in found:
            dialect = DIALECTS[-1] if context.kind is not None else _dialect(document.value)
            if dialect is None:
                report[2].append(_describe(document.value))
            else:
                report[0][dialect.name] += 1
                self.pending.append((dialect, document, context))
        if by_name and not report[0]:
            self.problems.append(
                Problem(
                    file=file,
                    message=f"holds no App Mesh resource ({'; '.join(sorted(set(report[2])))})",
                    hint="for a spec without names give its kind and name: virtualNode/NAME=PATH",
                )
            )

    def finish(self) -> Reading:
        groups: dict[tuple[str, int], tuple[Dialect, Context, list[Document]]] = {}
        for dialect, document, context in self.pending:
            group = groups.setdefault((dialect.name, id(context)), (dialect, context, []))
            group[2].append(document)
        found = list(self.fast)
        for dialect, context, group_documents in groups.values():
            for item in dialect.read(group_documents, context):
                if isinstance(item, Problem):
                    self.problems.append(item)
                else:
                    found.append(item)
        unique = self._unique(found)
        for item in unique.values():
            assert item.data is not None
            self.reports.setdefault(item.document.file, [Counter(), Counter(), []])[1][item.data.kind] += 1
        return Reading(
            resources=tuple(item.data for item in unique.values() if item.data is not None),
            problems=tuple(sorted(set(self.problems))),
            files=tuple(_report(path, *parts) for path, parts in self.reports.items()),
            found=unique,
        )

    def _unique(self, found: Iterable[Found]) -> dict[tuple[str, str], Found]:
        unique: dict[tuple[str, str], Found] = {}
        for item in found:
            assert item.data is not None
            key = (item.data.mesh_name, item.data.key)
            first = unique.setdefault(key, item)
            if first is not item:
                here = item.locate(Problem(resource=item.data.key, message=""))
                there = first.locate(Problem(resource=item.data.key, message=""))
                place = f"{there.file}:{there.line}" if there.line else there.file or "the same text"
                text = f"mesh {item.data.mesh_name!r} has a resource of this name already, in {place}"
                self.problems.append(
                    msgspec.structs.replace(here, message=text, hint="remove or rename one of the two")
                )
        return unique


def _dialect(value: Any) -> Dialect | None:
    return next((dialect for dialect in DIALECTS if dialect.recognise(value)), None)


def _describe(value: Any) -> str:
    """What a document is that was passed over."""
    if isinstance(value, dict):
        kind, version = value.get("kind"), value.get("apiVersion")
        if isinstance(kind, str) and isinstance(version, str):
            return f"{version} {kind}"[:200]
        return "no App Mesh names in it"
    return f"a {type(value).__name__}, not a mapping"


def _report(path: str, dialects: Counter[str], kinds: Counter[str], skipped: list[str]) -> FileReport:
    return FileReport(
        path=path, dialects=tuple(sorted(dialects)), kinds=dict(sorted(kinds.items())), skipped=tuple(skipped)
    )


def _files(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Files below a folder, sorted; each real folder once, so that links cannot run in circles."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            if not entry.name.startswith("."):
                yield from _files(entry, seen)
        elif entry.suffix in _SUFFIXES:
            yield entry
