"""What a text gives: documents, whose parts each know their line and column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from ..spec._wording import join

#: Larger files are refused, in bytes.
MAX_SIZE: Final = 16 * 1024 * 1024
#: Deeper nesting is refused.
MAX_DEPTH: Final = 100
#: The nodes of a text, each alias counted as all that it stands for.
MAX_NODES: Final = 2_000_000
#: How many paths of a document are looked up one by one. After these the positions of all are made.
_ONE_BY_ONE: Final = 32


class Tagged(NamedTuple):
    """A YAML node with a tag of its own, `!Ref x`: the tag and the plain value under it."""

    tag: str
    value: Any


class Mark(NamedTuple):
    """A position; both count from 1."""

    line: int
    column: int


class Note(NamedTuple):
    """A YAML text that older parsers take for something else."""

    #: What the field would have to expect, in the words of its problem, for the hint to help.
    expected: str
    hint: str


class Refused(Exception):
    """A text that is not read: why, where, and what to do."""

    def __init__(self, message: str, mark: Mark | None = None, hint: str = "", path: str = "$") -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark or Mark(0, 0)
        self.hint = hint
        self.path = path


class Places(NamedTuple):
    """Where the parts of one document stand, by path (`$.spec.listeners[0]`). A member stands at its key."""

    marks: dict[str, Mark]
    notes: dict[str, Note]


class Document:
    """One document of a file: its value, and where in the text each part of it stands."""

    def __init__(
        self,
        file: str,
        value: Any,
        places: Callable[[], Places | dict[str, Mark]],
        find: Callable[[str], Mark] | None = None,
    ) -> None:
        """`find` looks one path up, or the nearest that is there, in a text without notes: until there are
        many, that is less work than `places`."""
        self.file = file
        self.value = value
        self._all = places
        self._one = find
        self._asked = 0

    @cached_property
    def _places(self) -> Places:
        found = self._all()
        return found if isinstance(found, Places) else Places(found, {})

    @property
    def positions(self) -> Mapping[str, Mark]:
        """Path to position. Made on first use: only problems need it."""
        return self._places.marks

    def locate(self, path: str) -> Mark | None:
        """Where a path stands; for one that is not there, where the nearest that is."""
        if self._one is not None and self._asked < _ONE_BY_ONE:
            self._asked += 1
            return self._one(path)
        while path:
            mark = self.positions.get(path)
            if mark is not None:
                return mark
            path = _parent(path)
        return None

    def note(self, path: str) -> Note | None:
        """What is to be known about the text of a value, when its type turns out to be wrong."""
        return None if self._one is not None else self._places.notes.get(path)


def _parent(path: str) -> str:
    if path.endswith('"]'):
        return path[: path.rfind('["')]
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def member(path: str, key: object) -> str:
    """The path of a mapping's member, in the spelling of all problems."""
    return join(path, key if isinstance(key, str) else str(key))


def mark_at(text: str, offset: int) -> Mark:
    return Mark(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)
