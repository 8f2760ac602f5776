"""JSON to plain values, with the position of every part."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from .marks import MAX_DEPTH, Mark, Places, Refused, mark_at, member

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_VALUE: Final = json.JSONDecoder().raw_decode
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


def read_json(text: str) -> tuple[Any, Callable[[], Places]]:
    """The one value of a text, and where all its parts stand. Raises `Refused`."""
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: {error.msg}"
        raise Refused(message, Mark(error.lineno, error.colno), _hint(error)) from None
    except _Duplicate:
        raise _duplicate(text) from None
    except RecursionError:
        raise _too_deep(text) from None
    except ValueError as error:
        raise Refused(f"is not valid JSON: {error}") from None
    if _depth(value) > MAX_DEPTH:
        raise _too_deep(text)
    if "\\u" in text and _has_surrogate(value):
        raise Refused("holds half of a surrogate pair, which is no character")
    return value, cache(lambda: _places(text))


def locate(text: str, path: str) -> Mark:
    """Where a path stands in a text that is known to be JSON; for one that is not there, where the nearest
    that is. What lies before it is skipped as fast as JSON is read."""
    here, mark, at = "$", _skip(text, 0), _skip(text, 0)
    while here != path and text[at] in "{[":
        found = _member(text, at, here, path)
        if found is None:
            break
        here, mark, at = found
    return mark_at(text, mark)


def _member(text: str, at: int, here: str, path: str) -> tuple[str, int, int] | None:
    """The part of an object or a list that is on the way to a path, or at its end: its own path, where it
    stands, and where its value begins. None when there is no such part."""
    keyed, index = text[at] == "{", 0
    at = _skip(text, at + 1)
    while text[at] not in "}]":
        mark = at
        if keyed:
            key, at = _VALUE(text, at)
            inner, at = member(here, key), _skip(text, _skip(text, at) + 1)
        else:
            inner, index = f"{here}[{index}]", index + 1
        if path.startswith(inner) and path[len(inner) : len(inner) + 1] in ("", ".", "["):
            return inner, mark, at
        _, at = _VALUE(text, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return None


def _skip(text: str, at: int) -> int:
    """The next place that is no white space."""
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _places(text: str) -> Places:
    marks: dict[str, Mark] = {}
    for path, mark, _ in _walk(text):
        marks.setdefault(path, mark)
    return Places(marks, {})


class _Duplicate(Exception):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Duplicate
    return result


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _hint(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return "the text ends too early: a quote or a bracket is not closed"
    if error.msg.startswith(("Expecting property name", "Illegal trailing comma")):
        return "a comma before a closing bracket, or a key without quotes?"
    if error.msg.startswith("Expecting ',' delimiter"):
        return "a comma or a quote is missing before this place"
    return ""


def _duplicate(text: str) -> Refused:
    for path, mark, again in _walk(text):
        if again:
            return Refused("the key stands twice in one object", mark, "remove one of the two", path)
    return Refused("a key stands twice in one object")


def _too_deep(text: str) -> Refused:
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += (match.group() in "{[") - (match.group() in "}]")
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, match.start()) + 1
            mark = Mark(line, match.start() - text.rfind("\n", 0, match.start()))
            return Refused(f"is nested deeper than {MAX_DEPTH} levels", mark)
    return Refused(f"is nested deeper than {MAX_DEPTH} levels")


def _depth(value: Any) -> int:
    """How deep objects and lists are nested; stops counting just beyond the bound."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            break
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        depth += 1
    return depth


def _has_surrogate(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                return True
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


class _Open:
    """An object or a list that the walk is in."""

    __slots__ = ("index", "keys", "path")

    def __init__(self, path: str, is_list: bool) -> None:
        self.path = path
        self.index = 0
        self.keys: set[str] | None = None if is_list else set()


def _walk(text: str) -> Iterator[tuple[str, Mark, bool]]:
    """Path and position of every part of a text that is known to be JSON; a member's is that of its key.

    True with a key that its object had already.
    """
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    stack: list[_Open] = []
    path, at_key = "$", False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in "}]":
            stack.pop()
            at_key = False
        elif token == ",":
            at_key = stack[-1].keys is not None
        elif token != ":":
            line = bisect.bisect_right(lines, match.start())
            mark = Mark(line, match.start() - lines[line - 1] + 1)
            inner = stack[-1] if stack else None
            if at_key and inner is not None and inner.keys is not None:
                key = json.loads(token)
                path, at_key = member(inner.path, key), False
                yield path, mark, key in inner.keys
                inner.keys.add(key)
                continue
            if inner is not None and inner.keys is None:
                path = f"{inner.path}[{inner.index}]"
                inner.index += 1
                yield path, mark, False
            elif inner is None:
                yield path, mark, False
            if token in "{[":
                stack.append(_Open(path, token == "["))
                at_key = token == "{"
