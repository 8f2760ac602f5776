"""Files and folders to a `Reading`: finds the files, asks whose dialect each document is, gathers."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from .. import spec
from ..errors import Problem
from . import api, terraform
from .cache import FileCache
from .dialects import API, DIALECTS, Dialect
from .found import Context, Found
from .json_text import locate
from .marks import MAX_DEPTH, MAX_NODES
from .reading import FileReport, Reading
from .text import Document, decode, documents, read_bytes

_HCL: Final = (".tf", ".tfvars")
_SUFFIXES: Final = (".json", ".template", *_HCL, ".tfstate", ".yaml", ".yml")
#: A text without any of these words is none of App Mesh's, in no dialect.
_MENTIONS: Final = re.compile(rb"mesh|virtual|route|listener", re.IGNORECASE)
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class _Report:
    """What became of one file, so far."""

    def __init__(self) -> None:
        self.dialects: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.skipped: list[str] = []


class Work:
    """One call of `read`: what was found so far.

    With a cache, files that did not change are not read again, and what is found in them is the same objects
    as before.
    """

    def __init__(self, cache: FileCache[Work] | None = None) -> None:
        self.cache = cache
        self.problems: list[Problem] = []
        self.found: list[Found] = []
        self.reports: dict[str, _Report] = {}
        self.pending: list[tuple[Dialect, Document, Context]] = []

    # --- where the text comes from ----------------------------------------------------------------

    def read_path(self, path: str, context: Context) -> None:
        if not os.path.isdir(path):
            self._read_file(path, context, by_name=True)
            return
        files, problems = _files(path)
        self.problems.extend(problems)
        before = self._progress()
        for file in files:
            self._read_file(file, context, by_name=False)
        if not files and not problems:
            hint = f"files that end in {', '.join(_SUFFIXES)}"
            self.problems.append(Problem(file=path, message="the folder holds nothing to read", hint=hint))
        elif files and self._progress() == before:
            text = f"no App Mesh resource in the {len(files)} files of this folder"
            self.problems.append(Problem(file=path, message=text))

    def _progress(self) -> int:
        return len(self.pending) + len(self.found) + len(self.problems)

    def _read_file(self, path: str, context: Context, *, by_name: bool) -> None:
        if self.cache is None:
            self._take(read_bytes(path), path, context, by_name=by_name)
            return

        def alone(content: bytes | Problem) -> Work:
            work = Work()
            work._take(content, path, context, by_name=by_name)
            work._read_pending(API)
            return work

        self._merge(self.cache.get(path, (path, id(context), by_name), alone))

    def _merge(self, other: Work) -> None:
        """What was found in one file. `other` stays as it is."""
        self.problems.extend(other.problems)
        self.found.extend(other.found)
        self.pending.extend(other.pending)
        for file, report in other.reports.items():
            mine = self._report(file)
            mine.dialects |= report.dialects
            mine.skipped += report.skipped

    def _take(self, content: bytes | Problem, path: str, context: Context, *, by_name: bool) -> None:
        if isinstance(content, Problem):
            self.problems.append(content)
            self._report(path).skipped.append("not read")
        else:
            self.read_content(content, path, context, by_name=by_name)

    def read_content(self, content: bytes, file: str, context: Context, *, by_name: bool) -> None:
        fast = api.read_fast(content) if context.kind is None else None
        if fast is not None:
            self._add_fast(fast, content, file)
            return
        if file.endswith(_HCL):
            found, problems = terraform.parse(content.decode("utf-8-sig", "replace"), file)
        else:
            found, problems = documents(content, file, yaml=False if file.endswith(".json") else None)
        if problems and not by_name and not _MENTIONS.search(content.replace(b"\0", b"")):
            # Somebody else's file beside the mesh, in a format that is almost JSON or YAML.
            self._report(file).skipped.append(f"{problems[0].message}; App Mesh is not mentioned")
        elif problems:
            self.problems.extend(problems)
            self._report(file).skipped.append("not read")
        elif found:
            self.read_documents(found, file, context, by_name=by_name)
        else:
            self._report(file).skipped.append("empty")
            if by_name:
                self.problems.append(Problem(file=file, message="is empty"))

    def read_data(self, value: Any, context: Context) -> None:
        """Plain data in memory, which may be of any shape, circles included."""
        refused = _too_much(value)
        if refused:
            self.problems.append(Problem(file="<data>", message=refused))
        else:
            self.read_documents([Document("<data>", value, dict)], "<data>", context, by_name=True)

    # --- what it is ---------------------------------------------------------------------------------

    def _add_fast(self, fast: Sequence[spec.Data], content: bytes, file: str) -> None:
        # It is JSON, in UTF-8.
        document = Document(
            file,
            None,
            lambda: dict(documents(content, file)[0][0].positions),
            lambda path: locate(decode(content), path),
        )
        several = content.lstrip()[:1] == b"["
        for index, data in enumerate(fast):
            place = f"$[{index}]" if several else "$"
            self.found.append(Found(data, document, f"{place}.spec", place))
        self._report(file).dialects.add(API.name)

    def read_documents(
        self, found: Sequence[Document], file: str, context: Context, *, by_name: bool
    ) -> None:
        report = self._report(file)
        for document in found:
            dialect = API if context.kind is not None else _dialect(document.value)
            if dialect is None:
                report.skipped.append(_describe(document.value))
            else:
                report.dialects.add(dialect.name)
                self.pending.append((dialect, document, context))
        if by_name and not report.dialects:
            seen = "; ".join(sorted(set(report.skipped)))
            text = f"no App Mesh resource in it ({seen})"
            hint = "a spec without names needs its kind and name: virtualNode/NAME=PATH"
            self.problems.append(Problem(file=file, message=text, hint=hint))

    # --- all of it ----------------------------------------------------------------------------------

    def _read_pending(self, *dialects: Dialect) -> None:
        """Reads the documents of these dialects; of each, all documents together."""
        groups: dict[tuple[str, int], tuple[Dialect, Context, list[Document]]] = {}
        for dialect, document, context in self.pending:
            if dialect in dialects:
                group = groups.setdefault((dialect.name, id(context)), (dialect, context, []))
                group[2].append(document)
        self.pending = [pending for pending in self.pending if pending[0] not in dialects]
        for dialect, context, group_documents in groups.values():
            for item in dialect.read(group_documents, context):
                if isinstance(item, Problem):
                    self.problems.append(item)
                else:
                    self.found.append(item)

    def finish(self, before: Mapping[tuple[str, str], Found] = _NOTHING) -> Reading:
        """All of it. Resources equal to those found before are the same objects."""
        self._read_pending(*DIALECTS)
        unique = self._unique()
        for key, item in unique.items():
            last = before.get(key)
            if last is not None and last.data is not item.data and last.data == item.data:
                unique[key] = msgspec.structs.replace(item, data=last.data)
        return Reading(
            resources=tuple(item.data for item in unique.values() if item.data is not None),
            problems=tuple(sorted(set(self.problems))),
            files=tuple(
                FileReport(
                    path=path,
                    dialects=tuple(sorted(report.dialects)),
                    kinds=dict(sorted(report.kinds.items())),
                    skipped=tuple(report.skipped),
                )
                for path, report in self.reports.items()
            ),
            found=unique,
        )

    def _unique(self) -> dict[tuple[str, str], Found]:
        """By mesh and key. What stands there twice is a problem that names both places."""
        unique: dict[tuple[str, str], Found] = {}
        for item in self.found:
            if item.data is None:
                continue
            first = unique.setdefault((item.data.mesh_name, item.data.key), item)
            if first is item:
                self._report(item.document.file).kinds[item.data.kind] += 1
            else:
                here = item.locate(Problem(resource=item.data.key, message=""))
                there = first.locate(here)
                place = f"{there.file}:{there.line}" if there.line else there.file
                text = f"mesh {item.data.mesh_name!r} has a resource of this name already, in {place}"
                self.problems.append(
                    msgspec.structs.replace(here, message=text, hint="remove or rename one of the two")
                )
        return unique

    def _report(self, file: str) -> _Report:
        report = self.reports.get(file)
        if report is None:
            report = self.reports[file] = _Report()
        return report


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


def _too_much(value: Any) -> str:
    """Why data in memory is not read; empty for what is fine."""
    stack, nodes = [(value, 1)], 0
    while stack:
        item, depth = stack.pop()
        nodes += 1
        if isinstance(item, dict | list | tuple):
            if depth > MAX_DEPTH:
                return f"is nested deeper than {MAX_DEPTH} levels"
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, depth + 1) for child in children)
        if nodes > MAX_NODES:
            return f"has more than {MAX_NODES} nodes"
    return ""


def _files(folder: str) -> tuple[list[str], list[Problem]]:
    """Files to read below a folder, sorted, and folders that cannot be read.

    Each real folder counts once, so that links cannot run in circles. Hidden folders are left out, and so is
    what is no regular file: a pipe might never end.
    """
    files: list[str] = []
    problems: list[Problem] = []
    seen: set[tuple[int, int]] = set()
    waiting = deque([folder])
    while waiting:
        path = waiting.popleft()
        try:
            here = os.stat(path)
            names = sorted(os.listdir(path)) if (here.st_dev, here.st_ino) not in seen else []
        except OSError as error:
            problems.append(Problem(file=path, message=f"cannot be read: {error.strerror or error}"))
            continue
        seen.add((here.st_dev, here.st_ino))
        for name in names:
            inner = os.path.join(path, name)
            if os.path.isdir(inner):
                if not name.startswith("."):
                    waiting.append(inner)
            elif name.endswith(_SUFFIXES) and (os.path.isfile(inner) or not os.path.exists(inner)):
                files.append(inner)  # a broken link among them: reading it says so
    return sorted(files), problems
