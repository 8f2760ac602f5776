"""What can go wrong, as data.

    AppMeshXdsError
    ├── SpecErrors         specs that cannot be used: .problems holds every one
    ├── TranslationErrors  a translation with error-level problems, asked to be strict
    └── UsageError         arguments that do not fit together (the command line exits with 2)

Bad input never shows as a traceback: readers, `Mesh` and the translation collect `Problem`s, and the
callers that cannot go on raise them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Severity = Literal["error", "warning"]


class Problem(msgspec.Struct, frozen=True, kw_only=True, order=True, omit_defaults=True):
    """One thing that is wrong: where, what, and what to do about it."""

    #: The file it was read from, as the caller named it; empty for resources made in memory.
    file: str = ""
    #: 1-based position in `file`, where the parser knows it; 0 otherwise.
    line: int = 0
    column: int = 0
    #: The resource, as `virtualNode/colorgateway` or `virtualRouter/r/route/a`; empty before it has a name.
    resource: str = ""
    #: Path inside the resource as it is written in the API: `$.spec.listeners[0].tls.mode`.
    path: str = "$"
    #: What is wrong.
    message: str
    #: What to do; may be empty where the message says it all.
    hint: str = ""
    #: `error`: it cannot be translated faithfully. `warning`: it can, but is likely not what was meant.
    severity: Severity = "error"

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}"
        where = " ".join(part for part in (place, self.resource, self.path) if part)
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.severity}: {where}{': ' if where else ''}{self.message}{hint}"


class AppMeshXdsError(Exception):
    """Base of everything this library raises on purpose."""


class UsageError(AppMeshXdsError):
    """Arguments that do not fit together, or name something that is not there."""


class _ProblemsError(AppMeshXdsError):
    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class SpecErrors(_ProblemsError):
    """Specs that cannot be used. `.problems` holds all of them, warnings included."""


class TranslationErrors(_ProblemsError):
    """A translation has error-level problems and was asked to be strict. `.problems` holds all of them."""


def errors_in(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The error-level ones."""
    return tuple(p for p in problems if p.severity == "error")
