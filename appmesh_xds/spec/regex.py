"""Regular expressions, as Envoy compiles them: RE2, bounded, matching the whole value."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from ._finding import Finding, error, warning

#: Envoy refuses larger programs. Its own default is 100; every bootstrap of ours, like App Mesh's, sets the
#: runtime key `re2.max_program_size.error_level` to this (reference §4.4, §6.2).
MAX_PROGRAM_SIZE: Final = 1000

#: Pieces of what RE2 says -> what to do. RE2 has neither look-around nor back-references, on purpose.
_HINTS: Final[dict[str, str]] = {
    "(?=": "RE2 has no look-ahead",
    "(?!": "RE2 has no look-ahead; with `invert` a header match can say what must not match",
    "(?<": "RE2 has no look-behind",
    "(?P": "RE2 has no back-references",
    "(?>": "RE2 has no atomic groups",
    "invalid escape sequence: \\1": "RE2 has no back-references",
    "bad repetition operator": "RE2 has no possessive quantifiers; one of the repetitions must go",
    "invalid repetition size": "RE2 repeats at most 1000 times",
}


class _Compiled(NamedTuple):
    size: int
    error: str


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> _Compiled:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return _Compiled(re2.compile(pattern, options).programsize, "")
    except re2.error as problem:
        reason = problem.args[0] if problem.args else b""
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        return _Compiled(0, text or "not a regular expression")
    except UnicodeEncodeError:
        return _Compiled(0, "not text")


def regex_findings(pattern: str, at: str, *, path: bool = False) -> Iterator[Finding]:
    """What Envoy would refuse about a regular expression, and what it would read otherwise than meant.

    `path`: it is matched against a path, which always starts with `/`.
    """
    compiled = _compile(pattern)
    if compiled.error:
        hint = next((hint for piece, hint in _HINTS.items() if piece in compiled.error), "")
        yield error(at, f"not a regular expression that RE2 can read: {compiled.error}", hint)
    elif compiled.size > MAX_PROGRAM_SIZE:
        yield error(
            at,
            f"too large a regular expression: {compiled.size} instructions, Envoy takes {MAX_PROGRAM_SIZE}",
            "repeat fewer times, or use smaller character classes",
        )
    else:
        yield from _partial(pattern, at, path)


def _partial(pattern: str, at: str, path: bool) -> Iterator[Finding]:
    # Envoy matches the whole value (reference §10.20); the user guide's examples read as if it searched.
    starts, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    if starts and not ends and not pattern.endswith((".*", ".+")):
        yield warning(
            at, "the regular expression must match the whole value, not its beginning", "end it in `.*`"
        )
    elif ends and not starts and not pattern.startswith((".*", ".+")):
        yield warning(
            at, "the regular expression must match the whole value, not its end", "begin it with `.*`"
        )
    elif path and pattern.lstrip("^")[:1].isalnum():
        yield warning(at, "the regular expression can never match: a path starts with `/`")
