"""How people write a mesh down, read into specs.

    reading = read("./mesh")          every resource and every problem, never raises for bad content
    mesh = load("./mesh")             a Mesh, or SpecErrors with all problems at once

Files and folders, in any dialect, mixed: each document is recognised by its content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .. import spec
from ..errors import Problem, UsageError
from ..mesh import Mesh
from .cache import FileCache
from .dialects import DIALECTS, Dialect
from .found import Context
from .reading import FileReport, Reading
from .work import Work

__all__ = ["DIALECTS", "Dialect", "FileReport", "Reader", "Reading", "load", "loads", "read"]

_TARGET: Final = re.compile(rf"(?P<kind>{'|'.join(spec.BY_KIND)})/(?P<name>[^=]+)=(?P<path>.+)\Z", re.DOTALL)


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
    Never raises for what the files hold; `UsageError` for a `kind` that is none, or a `name` without one.
    """
    context = _context(
        mesh=mesh,
        kind=kind,
        name=name,
        strict=strict,
        parameters=parameters or {},
        imports=imports or {},
        externals=externals or {},
    )
    work = Work()
    for path, about in _targets(paths, context):
        work.read_path(path, about)
    return work.finish()


class Reader:
    """`read` of the same paths again and again.

    Files that did not change are not read again. Resources that did not change are the same objects as
    before, whatever became of the file they stand in. For one thread at a time.
    """

    def __init__(
        self,
        *paths: str | os.PathLike[str],
        mesh: str | None = None,
        parameters: Mapping[str, str] | None = None,
        imports: Mapping[str, str] | None = None,
        externals: Mapping[str, str] | None = None,
    ) -> None:
        """Arguments as of `read`."""
        context = _context(
            mesh=mesh,
            kind=None,
            name=None,
            parameters=parameters or {},
            imports=imports or {},
            externals=externals or {},
        )
        self._targets = _targets(paths, context)
        self._cache: FileCache[Work] = FileCache()
        self._last = Reading()
        self._beside: tuple[Problem, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders, without what is said of them."""
        return tuple(path for path, _ in self._targets)

    def read(self) -> Reading:
        """What stands there now: the last reading itself when nothing changed."""
        work = Work(self._cache)
        with self._cache.round():
            for path, about in self._targets:
                work.read_path(path, about)
        # Problems of folders are of no file.
        beside = tuple(work.problems)
        if self._cache.changed or beside != self._beside:
            self._last, self._beside = work.finish(self._last.found), beside
        return self._last


def _targets(paths: Sequence[str | os.PathLike[str]], context: Context) -> list[tuple[str, Context]]:
    """Paths, and what is said of each; `KIND/NAME=PATH` taken apart."""
    targets = []
    for given in paths:
        path = os.fspath(given)
        target = _TARGET.match(path)
        if target is not None and not os.path.exists(path):
            about = msgspec.structs.replace(context, kind=target["kind"], name=target["name"])
            targets.append((target["path"], about))
        else:
            targets.append((path, context))
    return targets


def _context(**said: Any) -> Context:
    kind, name = said["kind"], said["name"]
    if kind is not None and kind not in spec.BY_KIND:
        raise UsageError(f"{kind!r} is no kind of resource: {', '.join(spec.BY_KIND)}")
    if name is not None and kind is None:
        raise UsageError(f"the name {name!r} needs a kind: {', '.join(spec.BY_KIND)}")
    return Context(**said)


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
    context = _context(mesh=mesh, kind=kind, name=name, strict=strict)
    work = Work()
    if isinstance(content, str):
        # A lone surrogate has no UTF-8; the reader refuses what becomes of it.
        content = content.encode("utf-8", "surrogatepass")
    if isinstance(content, bytes):
        work.read_content(content, "<text>", context, by_name=True)
    else:
        work.read_data(dict(content) if isinstance(content, Mapping) else list(content), context)
    return work.finish().mesh(mesh)
