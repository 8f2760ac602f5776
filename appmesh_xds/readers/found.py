"""What the readers of all dialects give: resources, each with the place it was read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from .. import spec
from ..errors import Problem
from .text import Document


class Context(Struct, frozen=True, kw_only=True):
    """What is said from outside about the text that is read."""

    #: Mesh of resources that state none; the one to pick where there are several.
    mesh: str | None = None
    #: Kind and name of a single spec that states none; routes are named `PARENT/NAME`.
    kind: str | None = None
    name: str | None = None
    #: False: numbers and booleans may be written as strings.
    strict: bool = True
    #: CloudFormation: parameters, imported values, attributes of resources that are not App Mesh's.
    parameters: Mapping[str, str] = {}
    imports: Mapping[str, str] = {}
    externals: Mapping[str, str] = {}


class Found(Struct, frozen=True, eq=False, gc=False):
    """One resource (None when it could not be converted) and where it stands."""

    data: spec.Data | None
    document: Document
    #: The document's path of what the API calls `$.spec`, and that of the whole resource.
    spec_path: str
    place: str
    #: Turns the rest of an API path into the dialect's, where they differ.
    translate: Callable[[str], str] = str

    def locate(self, problem: Problem) -> Problem:
        """The problem with file, line and column."""
        path = problem.path
        if path == "$.spec" or path.startswith(("$.spec.", "$.spec[")):
            path = self.spec_path + self.translate(path[len("$.spec") :])
        else:
            path = self.place + path[1:]
        changes: dict[str, Any] = {"file": self.document.file}
        mark = self.document.locate(path)
        if mark is not None:
            changes.update(line=mark.line, column=mark.column)
        note = self.document.note(path)
        if note is not None and problem.message.startswith(note.expected):
            changes["hint"] = note.hint
        return msgspec.structs.replace(problem, **changes)
