"""YAML to plain values, with the position of every part.

YAML is read by the 1.2 core schema: `yes`, `012`, `12:30` and dates stay strings, and so does a row of digits
that begins with 0 (an account number). PyYAML supplies the parser (libyaml, where it is there: a tenth of the
time of any parser written in Python); what a scalar means is decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

from .marks import MAX_DEPTH, MAX_NODES, Mark, Note, Places, Refused, Tagged, mark_at, member

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+\Z")
#: Longer rows of digits stay strings: Python takes quadratic time for them.
_MAX_DIGITS: Final = 400
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

_STANDARD: Final = "tag:yaml.org,2002:"


def read_yaml(text: str) -> list[tuple[Any, Callable[[], Places]]]:
    """The value of each document (None for an empty one), and where its parts stand. Raises `Refused`."""
    import yaml

    @cache
    def places() -> list[Places]:
        # One more pass over the whole text finds the places of all its documents.
        return [found for _, found in _Builder(text, recording=True).documents()]

    def places_of(index: int) -> Callable[[], Places]:
        return lambda: places()[index]

    try:
        values = [value for value, _ in _Builder(text).documents()]
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode("utf-8", "ignore")
        raise Refused(f"is not valid YAML: {error.reason}", mark_at(text, len(before))) from None
    except Refused:
        places()  # comes to the same end, with the path
        raise
    return [(value, places_of(index)) for index, value in enumerate(values)]


def _syntax_error(error: Any, text: str) -> Refused:
    at = error.problem_mark or error.context_mark
    mark = Mark(at.line + 1, at.column + 1) if at is not None else Mark(0, 0)
    message = str(error.problem or error.context or "unreadable")
    lines = text.split("\n")
    line = lines[mark.line - 1] if 0 < mark.line <= len(lines) else ""
    hint = ""
    if "\t" in line[: mark.column]:
        hint = "YAML is indented with spaces, never with tabs"
    elif any(word in f"{error.context} {message}" for word in ("alias", "anchor")):
        hint = "a text that begins with * or & needs quotes"
    return Refused(f"is not valid YAML: {message}", mark, hint)


class _Frame:
    """A collection under construction."""

    __slots__ = ("anchor", "items", "key", "mark", "path", "seen", "size", "tag")

    def __init__(
        self, items: dict[Any, Any] | list[Any], path: str, mark: Mark, tag: str | None, anchor: str | None
    ) -> None:
        self.items = items
        self.path = path
        self.mark = mark
        self.tag = tag
        self.anchor = anchor
        self.key: Any = _NO_KEY
        self.size = 1
        self.seen: set[Any] = set()


_NO_KEY: Final = object()
_BUILDING: Final = object()
_MERGE: Final = "<<"


def _at(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _own_tag(event: Any) -> str | None:
    return event.tag if event.tag not in (None, "!") else None


class _Builder:
    """Builds values from YAML's events, with a stack of its own: deep nesting cannot exhaust Python's."""

    def __init__(self, text: str, *, recording: bool = False) -> None:
        self.text = text
        self.recording = recording
        self.nodes = 0
        self._begin()

    def _begin(self) -> None:
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.result: Any = None
        self.places = Places({}, {})

    def documents(self) -> Iterator[tuple[Any, Places]]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for event in yaml.parse(self.text, Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                self._open(event, {})
            elif isinstance(event, yaml.SequenceStartEvent):
                self._open(event, [])
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._begin()
            elif isinstance(event, yaml.DocumentEndEvent):
                yield self.result, self.places

    def _scalar(self, event: Any) -> None:
        tag = _own_tag(event)
        plain = event.implicit[0] and event.tag is None
        value = _meaning(event.value, tag) if plain or tag else event.value
        note = _note(value) if self.recording and plain and isinstance(value, str) else None
        if note is not None:
            self.places.notes[self._path()] = note
        self._add(value, 1, _at(event), event.anchor)

    def _open(self, event: Any, items: dict[Any, Any] | list[Any]) -> None:
        mark = _at(event)
        if len(self.stack) >= MAX_DEPTH:
            raise Refused(f"is nested deeper than {MAX_DEPTH} levels", mark)
        path = self._path()
        self._record(path, mark)
        if event.anchor is not None:
            self.anchors[event.anchor] = (_BUILDING, 0)
        self.stack.append(_Frame(items, path, mark, _own_tag(event), event.anchor))

    def _close(self) -> None:
        frame = self.stack.pop()
        value: Any = frame.items
        if frame.tag is not None and not frame.tag.startswith(_STANDARD):
            value = Tagged(frame.tag, value)
        self._add(value, frame.size, frame.mark, frame.anchor)

    def _alias(self, event: Any) -> None:
        mark = _at(event)
        value, size = self.anchors.get(event.anchor, (None, 0))
        if not size and value is None:
            raise Refused(
                f"is not valid YAML: there is no anchor &{event.anchor} for *{event.anchor}",
                mark,
                "a text that begins with * needs quotes",
            )
        if value is _BUILDING:
            raise Refused(f"the alias *{event.anchor} stands inside its own anchor", mark)
        self._add(value, size, mark, None)

    def _path(self) -> str:
        """Of the node that comes next; only looked at while places are recorded."""
        if not self.stack or not self.recording:
            return "$"
        frame = self.stack[-1]
        if isinstance(frame.items, list):
            return f"{frame.path}[{len(frame.items)}]"
        return frame.path if frame.key is _NO_KEY else member(frame.path, frame.key)

    def _record(self, path: str, mark: Mark) -> None:
        if self.recording:
            self.places.marks.setdefault(path, mark)

    def _add(self, value: Any, size: int, mark: Mark, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, size)
        self.nodes += size
        if self.nodes > MAX_NODES:
            raise Refused(f"has more than {MAX_NODES} nodes once its aliases are expanded", mark)
        if not self.stack:
            self.result = value
            self._record("$", mark)
            return
        frame = self.stack[-1]
        frame.size += size
        if isinstance(frame.items, list):
            self._record(self._path(), mark)
            frame.items.append(value)
        elif frame.key is _NO_KEY:
            frame.key = self._key(frame, value, mark)
            self._record(self._path(), mark)
        else:
            self._put(frame, frame.items, value, mark)

    def _key(self, frame: _Frame, value: Any, mark: Mark) -> Any:
        if isinstance(value, dict | list | Tagged):
            raise Refused("a key must be a plain text", mark, "quote it, if it begins with { or [")
        key = value if isinstance(value, str) else json.dumps(value)
        if key in frame.seen:
            path = member(frame.path, key)
            raise Refused("the key stands twice in one mapping", mark, "remove one of the two", path)
        frame.seen.add(key)
        return key

    @staticmethod
    def _put(frame: _Frame, items: dict[Any, Any], value: Any, mark: Mark) -> None:
        if frame.key != _MERGE:
            items[frame.key] = value
        else:
            for merged in value if isinstance(value, list) else [value]:
                if not isinstance(merged, dict):
                    raise Refused("<< merges a mapping, or a list of mappings", mark)
                for key, inner in merged.items():
                    items.setdefault(key, inner)
        frame.key = _NO_KEY


def _meaning(text: str, tag: str | None) -> Any:
    """What a plain scalar means in YAML 1.2's core schema, less octal and hexadecimal numbers."""
    if tag is not None:
        if tag in (f"{_STANDARD}str", f"{_STANDARD}binary"):
            return text
        if not tag.startswith(_STANDARD):
            return Tagged(tag, text)
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS or _LEADING_ZERO.match(text):
        return text
    if _INT.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


#: What other parsers take for numbers: the text, and how to read the number out of it.
_NUMBERS: Final[tuple[tuple[re.Pattern[str], Callable[[str], int]], ...]] = (
    # Octal in YAML 1.1; who writes a port or a weight so means the decimal number.
    (_LEADING_ZERO, int),
    (re.compile(r"[-+]?[1-9][0-9_]*\Z"), lambda text: int(text.replace("_", ""))),
    (re.compile(r"0x[0-9a-fA-F]{1,16}\Z"), lambda text: int(text, 16)),
    (re.compile(r"0o[0-7]{1,20}\Z"), lambda text: int(text, 8)),
    # To base 60, as times are written.
    (re.compile(r"[1-9][0-9]{0,8}:[0-5]?[0-9]\Z"), lambda text: _base_60(*text.split(":"))),
)
_TRUE: Final = frozenset({"yes", "on", "y"})
_FALSE: Final = frozenset({"no", "off", "n"})


def _base_60(high: str, low: str) -> int:
    return int(high) * 60 + int(low)


def _note(text: str) -> Note | None:
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        write = "true" if word in _TRUE else "false"
        return Note("expected true or false", f"YAML 1.2 reads {text} as a text: write {write}")
    for pattern, number in _NUMBERS:
        if len(text) <= 40 and pattern.match(text):
            return Note("expected a whole number", f"YAML 1.2 reads {text} as a text: write {number(text)}")
    return None
