"""Text to plain values, with positions: one JSON reader, one YAML reader, for every dialect.

Both give dicts, lists, strings, integers, floats, booleans and None. What they refuse, they say with line and
column: duplicate keys, nesting beyond `MAX_DEPTH`, aliases that blow up, broken encodings. Nothing raises.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

from ..errors import Problem, UsageError
from .json_text import locate, read_json
from .marks import MAX_DEPTH, MAX_NODES, MAX_SIZE, Document, Mark, Places, Refused, Tagged, mark_at, member
from .yaml_text import read_yaml

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_SIZE",
    "Document",
    "Mark",
    "Places",
    "Tagged",
    "decode",
    "documents",
    "member",
    "read_bytes",
    "values_of",
]

#: Byte order marks of what is not UTF-8; UTF-32's little-endian one begins with UTF-16's.
_BYTE_ORDER_MARKS: Final = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def read_bytes(path: str | os.PathLike[str]) -> bytes | Problem:
    """A file's content, or why it cannot be read."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        return Problem(file=name, message=f"cannot be read: {error.strerror or error}")
    except ValueError as error:  # a NUL character in the name
        return Problem(file=name, message=f"cannot be read: {error}")
    if len(content) > MAX_SIZE:
        return Problem(
            file=name,
            message=f"is larger than {MAX_SIZE // 1024 // 1024} MiB",
            hint="split it into several files",
        )
    return content


def documents(content: bytes, file: str, *, yaml: bool | None = None) -> tuple[list[Document], list[Problem]]:
    """Every document of a text, empty ones left out; or the one problem that keeps it from being read.

    `yaml=None` takes JSON for what begins like JSON, unless it is YAML in flow style.
    """
    try:
        return _documents(decode(content), file, yaml), []
    except Refused as error:
        line, column = error.mark
        problem = Problem(
            file=file, line=line, column=column, path=error.path, message=error.message, hint=error.hint
        )
        return [], [problem]


def _documents(text: str, file: str, yaml: bool | None) -> list[Document]:
    def of_json() -> list[Document]:
        value, places = read_json(text)
        return [] if value is None else [Document(file, value, places, partial(locate, text))]

    def of_yaml() -> list[Document]:
        return [Document(file, value, places) for value, places in read_yaml(text) if value is not None]

    if yaml is None:
        yaml = text.lstrip()[:1] not in ("{", "[")
        if not yaml:
            try:
                return of_json()
            except Refused as error:
                try:
                    return of_yaml()
                except Refused:
                    # What both refuse is shown as broken JSON.
                    raise error from None
    return of_yaml() if yaml else of_json()


def values_of(path: str, flag: str) -> list[Any]:
    """The values of a file's documents, which a flag names. Raises `UsageError` for what cannot be read."""
    content = read_bytes(path)
    if isinstance(content, Problem):
        raise UsageError(f"{flag} {path}: {content.message}")
    found, problems = documents(content, path)
    if problems:
        raise UsageError("\n".join(f"{flag} {problem}" for problem in problems))
    return [document.value for document in found]


def decode(content: bytes) -> str:
    """UTF-8, with or without a byte order mark. Raises `Refused`."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            raise Refused(f"is {encoding}, not UTF-8", Mark(1, 1), "save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", "replace")
        raise Refused("is not valid UTF-8 here", mark_at(before, len(before)), "save it as UTF-8") from None
    if "\0" in text:
        raise Refused(
            "holds a NUL byte: not a text, or not UTF-8", mark_at(text, text.index("\0")), "save it as UTF-8"
        )
    return text
