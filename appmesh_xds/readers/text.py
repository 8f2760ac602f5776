"""Text to plain values, with positions: one JSON reader, one YAML reader, for every dialect.

Both give dicts, lists, strings, integers, floats, booleans and None. What they refuse, they say with line and
column: duplicate keys, nesting beyond `MAX_DEPTH`, aliases that blow up, broken encodings. Nothing raises.

YAML is read by the 1.2 core schema: `yes`, `012`, `12:30` and dates stay strings, and so does a row of digits
that begins with 0 (an account number). PyYAML supplies the parser; what a scalar means is decided here.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import Problem

#: Larger files are refused, in bytes.
MAX_SIZE: Final = 16 * 1024 * 1024
#: Deeper nesting is refused.
MAX_DEPTH: Final = 100
#: A document's nodes, each alias counted as all that it stands for.
MAX_NODES: Final = 2_000_000

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+\Z")
_WORDS: Final[dict[str, Any]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Tagged(NamedTuple):
    """A YAML node with a tag of its own, `!Ref x`: the tag and the plain value under it."""

    tag: str
    value: Any


class Mark(NamedTuple):
    """A position; both count from 1."""

    line: int
    column: int


class Document:
    """One document of a file: its value, and where in the text each part of it stands."""

    def __init__(self, file: str, value: Any, positions: Callable[[], Mapping[str, Mark]]) -> None:
        self.file = file
        self.value = value
        self._positions = positions

    @cached_property
    def positions(self) -> Mapping[str, Mark]:
        """Path (`$.spec.listeners[0]`) to position. Made on first use: only problems need it."""
        return self._positions()

    def locate(self, path: str) -> Mark | None:
        """Where a path stands; for one that is not there, where the nearest that is."""
        while path:
            mark = self.positions.get(path)
            if mark is not None:
                return mark
            path = _parent(path)
        return None


def _parent(path: str) -> str:
    if path.endswith('"]'):
        return path[: path.rfind('["')]
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def member(path: str, key: Any) -> str:
    """The path of a mapping's member, in the spelling of all problems."""
    text = str(key)
    if _IDENTIFIER.match(text):
        return f"{path}.{text}"
    return f"{path}[{json.dumps(text, ensure_ascii=False)}]"


_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


def read_bytes(path: Path) -> bytes | Problem:
    """A file's content, or why it cannot be read."""
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        return Problem(file=name, message=f"cannot be read: {error.strerror or error}")
    if len(content) > MAX_SIZE:
        return Problem(
            file=name,
            message=f"is larger than {MAX_SIZE // 1024 // 1024} MiB",
            hint="split it into several files",
        )
    return content


def documents(content: bytes, file: str, *, yaml: bool | None = None) -> tuple[list[Document], list[Problem]]:
    """Every document of a text. `yaml=None` takes JSON for what begins like JSON and parses as such."""
    text = decode(content, file)
    if isinstance(text, Problem):
        return [], [text]
    if yaml is None:
        start = text.lstrip()[:1]
        yaml = start not in ("{", "[")
        if not yaml:
            found, problems = _json(text, file)
            # YAML in flow style begins the same; what both refuse is shown as broken JSON.
            if problems and not _yaml(text, file)[1]:
                return _yaml(text, file)
            return found, problems
    return _yaml(text, file) if yaml else _json(text, file)


def decode(content: bytes, file: str) -> str | Problem:
    """UTF-8, with or without a byte order mark."""
    for mark, encoding in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if content.startswith(mark):
            return Problem(
                file=file, line=1, column=1, message=f"is {encoding}, not UTF-8", hint="save it as UTF-8"
            )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        return Problem(
            file=file, line=line, column=column, message="is not valid UTF-8 here", hint="save it as UTF-8"
        )
    if "\0" in text:
        at = _mark_at(text, text.index("\0"))
        return Problem(file=file, line=at.line, column=at.column, message="holds a NUL byte: not a text file")
    return text


def _mark_at(text: str, offset: int) -> Mark:
    return Mark(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


# --- JSON -------------------------------------------------------------------------------------------


class _Duplicate(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return result


def _not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _json(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    def problem(message: str, mark: Mark | None, hint: str = "") -> tuple[list[Document], list[Problem]]:
        line, column = mark or (0, 0)
        return [], [Problem(file=file, line=line, column=column, message=message, hint=hint)]

    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        return problem(f"is not valid JSON: {error.msg}", Mark(error.lineno, error.colno), _json_hint(error))
    except _Duplicate as error:
        marks = [mark for key, mark in _json_keys(text) if key == error.key]
        return problem(f"the key {error.key!r} stands twice in one object", marks[-1] if marks else None)
    except RecursionError:
        return problem(f"is nested deeper than {MAX_DEPTH} levels", None)
    except ValueError as error:
        return problem(f"is not valid JSON: {error}", None)
    if _depth(value) > MAX_DEPTH:
        return problem(f"is nested deeper than {MAX_DEPTH} levels", None)
    if "\\u" in text and _has_surrogate(value):
        return problem("holds half of a surrogate pair, which is no character", None)
    return [Document(file, value, lambda: _json_positions(text))], []


def _json_hint(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc.rstrip()):
        return "the text ends too early"
    if error.msg.startswith("Expecting property name"):
        return "a comma before a closing bracket, or a key without quotes?"
    if error.msg.startswith("Expecting ',' delimiter"):
        return "a comma or a quote is missing before this place"
    return ""


def _depth(value: Any) -> int:
    """How deep a value is nested; stops counting just beyond the bound."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
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


_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


def _json_positions(text: str) -> dict[str, Mark]:
    """Path to position, for text that is known to be JSON. A member stands where its key does."""
    found: dict[str, Mark] = {}
    stack: list[tuple[str, int | None]] = []  # (path, next index; None in an object)
    path, key, expect_key = "$", None, False
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in "}]":
            stack.pop()
            expect_key = False
            continue
        if token == ",":
            expect_key = bool(stack) and stack[-1][1] is None
            continue
        if token == ":":
            continue
        line = bisect.bisect_right(lines, match.start())
        mark = Mark(line, match.start() - lines[line - 1] + 1)
        if expect_key and stack and token[0] == '"':
            key = member(stack[-1][0], json.loads(token))
            found.setdefault(key, mark)
            expect_key = False
            continue
        if not stack:
            path = "$"
        elif stack[-1][1] is not None:
            parent, index = stack[-1]
            assert index is not None
            path = f"{parent}[{index}]"
            stack[-1] = (parent, index + 1)
        elif key is not None:
            path = key
        found.setdefault(path, mark)
        if token == "{":
            stack.append((path, None))
            expect_key = True
        elif token == "[":
            stack.append((path, 0))
    return found


def _json_keys(text: str) -> Iterator[tuple[str, Mark]]:
    tokens = list(_TOKEN.finditer(text))
    for match, following in itertools.pairwise(tokens):
        if following.group() == ":" and match.group()[0] == '"':
            yield json.loads(match.group()), _mark_at(text, match.start())


# --- YAML -------------------------------------------------------------------------------------------


class _Refused(Exception):
    def __init__(self, message: str, mark: Mark, hint: str = "") -> None:
        self.problem = (message, mark, hint)


def _yaml(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    import yaml

    found: list[Document] = []
    try:
        for index, value in enumerate(_Builder(text).documents()):
            if value is not None:
                found.append(Document(file, value, _positions_of(text, index)))
    except yaml.MarkedYAMLError as error:
        at: Any = error.problem_mark or error.context_mark
        mark = Mark(at.line + 1, at.column + 1) if at is not None else Mark(0, 0)
        message, hint = _yaml_message(error, text, mark)
        return [], [Problem(file=file, line=mark.line, column=mark.column, message=message, hint=hint)]
    except yaml.YAMLError as error:
        at_offset = getattr(error, "position", None)
        mark = _mark_at(text, at_offset) if isinstance(at_offset, int) else Mark(0, 0)
        reason = getattr(error, "reason", "") or "unreadable"
        return [], [
            Problem(file=file, line=mark.line, column=mark.column, message=f"is not valid YAML: {reason}")
        ]
    except _Refused as error:
        message, mark, hint = error.problem
        return [], [Problem(file=file, line=mark.line, column=mark.column, message=message, hint=hint)]
    return found, []


def _yaml_message(error: Any, text: str, mark: Mark) -> tuple[str, str]:
    message = str(error.problem or error.context or "unreadable")
    lines = text.split("\n")
    line = lines[mark.line - 1] if 0 < mark.line <= len(lines) else ""
    hint = ""
    if "\t" in line[: mark.column]:
        hint = "YAML is indented with spaces, never with tabs"
    elif "alias" in message or "anchor" in message:
        hint = "a text that begins with * or & needs quotes"
    return f"is not valid YAML: {message}", hint


def _positions_of(text: str, index: int) -> Callable[[], Mapping[str, Mark]]:
    def positions() -> Mapping[str, Mark]:
        found: dict[str, Mark] = {}
        for number, _ in enumerate(_Builder(text, found, index).documents()):
            if number == index:
                break
        return found

    return positions


class _Frame:
    """A collection under construction."""

    __slots__ = ("anchor", "index", "items", "key", "path", "seen", "size", "tag")

    def __init__(
        self, items: dict[Any, Any] | list[Any], path: str, tag: str | None, anchor: str | None
    ) -> None:
        self.items = items
        self.path = path
        self.tag = tag
        self.anchor = anchor
        self.key: Any = _NO_KEY
        self.index = 0
        self.size = 1
        self.seen: set[Any] = set()


_NO_KEY: Final = object()
_BUILDING: Final = object()
_MERGE: Final = "<<"


def _at(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


class _Builder:
    """Builds values from YAML's events, with a stack of its own: deep nesting cannot exhaust Python's."""

    def __init__(
        self, text: str, positions: dict[str, Mark] | None = None, document: int | None = None
    ) -> None:
        self.text = text
        self.positions = positions
        self.document = document

    def documents(self) -> Iterator[Any]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        number = -1
        for event in yaml.parse(self.text, Loader=loader):
            if isinstance(event, yaml.DocumentStartEvent):
                number += 1
                self.stack: list[_Frame] = []
                self.anchors: dict[str, tuple[Any, int]] = {}
                self.result: Any = None
                self.nodes = 0
                self.recording = self.positions is not None and number == self.document
            elif isinstance(event, yaml.DocumentEndEvent):
                yield self.result
            elif isinstance(event, yaml.ScalarEvent):
                mark = _at(event)
                tag = event.tag if event.tag not in (None, "!") else None
                plain = event.implicit[0] and tag is None
                value = _scalar(event.value, tag) if plain or tag else event.value
                self._add(value, 1, mark, event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close(event)

    def _open(self, event: Any, items: dict[Any, Any] | list[Any]) -> None:
        mark = _at(event)
        if len(self.stack) >= MAX_DEPTH:
            raise _Refused(f"is nested deeper than {MAX_DEPTH} levels", mark)
        path = self._path()
        self._record(path, mark)
        if event.anchor is not None:
            self.anchors[event.anchor] = (_BUILDING, 0)
        tag = event.tag if event.tag not in (None, "!") else None
        self.stack.append(_Frame(items, path, tag, event.anchor))

    def _close(self, event: Any) -> None:
        frame = self.stack.pop()
        value: Any = frame.items
        if frame.tag is not None and not frame.tag.startswith("tag:yaml.org,2002:"):
            value = Tagged(frame.tag, value)
        mark = _at(event)
        self._add(value, frame.size, mark, frame.anchor, record=False)

    def _alias(self, event: Any) -> None:
        mark = _at(event)
        if event.anchor not in self.anchors:
            raise _Refused(
                f"is not valid YAML: there is no anchor &{event.anchor} for *{event.anchor}",
                mark,
                "a text that begins with * needs quotes",
            )
        value, size = self.anchors[event.anchor]
        if value is _BUILDING:
            raise _Refused(f"the alias *{event.anchor} stands inside its own anchor", mark)
        self._add(value, size, mark, None)

    def _path(self) -> str:
        if not self.stack:
            return "$"
        frame = self.stack[-1]
        if isinstance(frame.items, list):
            return f"{frame.path}[{frame.index}]"
        return frame.path if frame.key is _NO_KEY else member(frame.path, frame.key)

    def _record(self, path: str, mark: Mark) -> None:
        if self.recording and self.positions is not None:
            self.positions.setdefault(path, mark)

    def _add(self, value: Any, size: int, mark: Mark, anchor: str | None, *, record: bool = True) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, size)
        self.nodes += size
        if self.nodes > MAX_NODES:
            raise _Refused("has too many nodes once its aliases are expanded", mark)
        if not self.stack:
            self.result = value
            self._record("$", mark)
            return
        frame = self.stack[-1]
        frame.size += size
        if isinstance(frame.items, list):
            if record:
                self._record(f"{frame.path}[{frame.index}]", mark)
            frame.items.append(value)
            frame.index += 1
        elif frame.key is _NO_KEY:
            frame.key = self._key(frame, value, mark)
            self._record(member(frame.path, frame.key), mark)
        else:
            self._put(frame, value, mark)

    @staticmethod
    def _key(frame: _Frame, value: Any, mark: Mark) -> Any:
        if isinstance(value, dict | list | Tagged):
            raise _Refused("a key must be a plain text", mark, "quote it, if it begins with { or [")
        key = value if isinstance(value, str) else _key_text(value)
        if key in frame.seen:
            raise _Refused(f"the key {key!r} stands twice in one mapping", mark)
        frame.seen.add(key)
        return key

    @staticmethod
    def _put(frame: _Frame, value: Any, mark: Mark) -> None:
        assert isinstance(frame.items, dict)
        if frame.key == _MERGE:
            for merged in value if isinstance(value, list) else [value]:
                if not isinstance(merged, dict):
                    raise _Refused("<< merges a mapping, or a list of mappings", mark)
                for key, inner in merged.items():
                    if key not in frame.seen:
                        frame.items.setdefault(key, inner)
        else:
            frame.items[frame.key] = value
        frame.key = _NO_KEY


def _key_text(value: Any) -> str:
    """Keys are texts: `8080:` and `true:` are the keys "8080" and "true"."""
    return json.dumps(value) if isinstance(value, bool | int | float) or value is None else str(value)


def _scalar(text: str, tag: str | None) -> Any:
    """What a plain scalar means in YAML 1.2's core schema, less octal and hexadecimal numbers."""
    if tag is not None:
        if tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"):
            return text
        if not tag.startswith("tag:yaml.org,2002:"):
            return Tagged(tag, text)
    if text in _WORDS:
        return _WORDS[text]
    if _LEADING_ZERO.match(text):
        return text
    if _INT.match(text) and len(text) < 40:
        return int(text)
    if _FLOAT.match(text) and len(text) < 400:
        return float(text)
    return text
