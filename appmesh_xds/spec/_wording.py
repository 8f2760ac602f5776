"""How messages speak of paths and values, whatever those are: always short, always printable."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import Final

#: Text of the input is quoted in messages up to this many characters.
_MAX_QUOTED: Final = 60
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def join(path: str, key: object) -> str:
    """The path of a member: `.name`, or `["a name"]` where the key is no identifier."""
    if isinstance(key, str):
        if _IDENTIFIER.fullmatch(key) and len(key) <= _MAX_QUOTED:
            return f"{path}.{key}"
        return f"{path}[{json.dumps(_cut(key))}]"
    return f"{path}[{describe(key)}]"


def suggest(name: str, known: tuple[str, ...]) -> str:
    """A hint with the name that was probably meant, or nothing."""
    name = name[:_MAX_QUOTED]
    plain = _plain(name)
    for candidate in known:
        if _plain(candidate) == plain:
            return f"write it `{candidate}`"
    close = get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def describe(value: object) -> str:
    """A value in words, short whatever it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"


def number(value: int) -> str:
    # Python refuses to write out very long integers, and nobody wants to read them.
    return str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"


def quote(text: str) -> str:
    return json.dumps(_cut(text), ensure_ascii=not text.isprintable())


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"
