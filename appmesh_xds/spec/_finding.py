"""What a rule says about one struct."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Severity


class Finding(NamedTuple):
    """A problem, with its place relative to the struct that the rule looked at."""

    #: `""` for the struct itself, `.timeout.http` or `[2]` for a part.
    at: str
    message: str
    hint: str = ""
    severity: Severity = "error"


def error(at: str, message: str, hint: str = "") -> Finding:
    return Finding(at, message, hint, "error")


def warning(at: str, message: str, hint: str = "") -> Finding:
    return Finding(at, message, hint, "warning")


def camel(attribute: str) -> str:
    """The API's spelling of an attribute's name."""
    head, *rest = attribute.split("_")
    return head + "".join(word.capitalize() for word in rest)


def listed(names: list[str] | tuple[str, ...], last: str = "or") -> str:
    """`a`, `b` or `c`."""
    quoted = [f"`{camel(name)}`" for name in names]
    return f" {last} ".join(([", ".join(quoted[:-1])] if quoted[1:] else []) + quoted[-1:])
