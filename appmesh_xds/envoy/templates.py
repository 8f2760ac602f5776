"""Templates: messages of one shape are built once, and from then on only their texts are exchanged.

Most messages of a mesh differ in a few names. `serialized` runs the constructor for the first message of a
shape, as anybody would. For the second it runs the constructor once more with placeholders, finds them in
the serialised message and compiles a function that joins bytes. The constructors stay the only source of
what Envoy is told: a template holds nothing that a constructor did not write, and what it gives is what the
constructor would have given (tests/test_templates.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .. import proto
from ..wire import fields, split, varints

if TYPE_CHECKING:
    from google.protobuf.message import Message

#: Texts that go into a template: those that no quoting changes and that name nothing special, as `::` does.
#: They are looked at together, with spaces between.
_PLAIN_TEXTS: Final = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._:/@-]*(?: [A-Za-z0-9/][A-Za-z0-9._:/@-]*)*")
#: How many shapes are remembered; then all are forgotten and learnt again.
_SHAPES: Final = 4096
#: A shape that was seen once.
_SEEN: Final = None

_Build: TypeAlias = "Callable[..., Message]"
_templates: dict[tuple[Hashable, ...], Callable[..., Any] | None] = {}
_off = False


def serialized(build: _Build, texts: tuple[str, ...], *shape: Hashable) -> bytes:
    """`build(texts, *shape)`, serialised deterministically.

    `build` must write its texts into the message as they stand, alone or within others, and must not ask
    what they are: all that it decides upon belongs into `shape`.
    """
    joined = " ".join(texts)
    template = _template((build, 0, len(texts), *shape), joined)
    if template is None:
        return build(texts, *shape).SerializeToString(deterministic=True)
    made: bytes = template(*joined.encode().split(b" "))
    return made


def serialized_around(
    number: int, build: _Build, texts: tuple[str, ...], *shape: Hashable
) -> tuple[bytes, bytes]:
    """`serialized`, cut where field `number` would stand, which the message does not have."""
    joined = " ".join(texts)
    template = _template((build, number, len(texts), *shape), joined)
    if template is None:
        return split(build(texts, *shape).SerializeToString(deterministic=True), number)
    made: tuple[bytes, bytes] = template(*joined.encode().split(b" "))
    return made


def _template(key: tuple[Any, ...], joined: str) -> Callable[..., Any] | None:
    """The template of a shape, from the second sight on, for texts that it can take."""
    if not joined:
        return None
    try:
        template = _templates[key]
    except KeyError:
        if len(_templates) >= _SHAPES:
            _templates.clear()
        _templates[key] = _SEEN
        return None
    if template is _SEEN:
        build, number, count, *shape = key
        template = _templates[key] = _compile(build, number, count, tuple(shape))
    if _off or joined.count(" ") != key[2] - 1 or not _PLAIN_TEXTS.fullmatch(joined):
        return None
    return template


@contextmanager
def off() -> Iterator[None]:
    """Every message is built, for comparisons."""
    global _off
    _off = True
    try:
        yield
    finally:
        _off = False


# --- compiling ----------------------------------------------------------------------------------------


def _compile(build: _Build, number: int, count: int, shape: tuple[Hashable, ...]) -> Callable[..., Any]:
    """The function from texts to bytes, or to the bytes before and after a field.

    Raises ValueError for a constructor that does not keep its promise, as far as other texts show it.
    """

    def made(texts: Sequence[str]) -> tuple[bytes, ...]:
        data = build(texts, *shape).SerializeToString(deterministic=True)
        return split(data, number) if number else (data,)

    texts = tuple(f"placeholder{index}x" for index in range(count))
    writer = _Writer([text.encode() for text in texts])
    descriptor = build(texts, *shape).DESCRIPTOR
    template = writer.function([writer.message(part, descriptor)[0] for part in made(texts)])
    others = tuple(f"x{index}" * (60 * (index + 1)) for index in range(count))
    found = template(*[text.encode() for text in others])
    if made(others) != (found if number else (found,)):
        raise ValueError(f"{build.__qualname__} does more with its texts than to write them down")
    return template


class _Writer:
    """Turns a serialised message with marks into the source of a function.

    What is written holds numbers, names made here and indexes of constants: nothing of the message's text.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.names = {text: f"t{index}" for index, text in enumerate(texts)}
        self.marks = re.compile(b"|".join(texts))
        self.constants: list[bytes] = []
        #: Assignments of the lengths of what holds a mark, inner before outer.
        self.lengths: list[str] = []

    def message(self, data: bytes, descriptor: Any) -> tuple[list[str | bytes], str]:
        """Pieces of a message (bytes, or expressions of bytes) and the expression of its length."""
        pieces: list[str | bytes] = []
        fixed, varying = 0, []
        for number, start, payload, end in fields(data):
            if payload is None or not self.marks.search(data, payload, end):
                pieces.append(data[start:end])
                fixed += end - start
                continue
            inner = data[payload:end]
            kind = _kind_within(descriptor, number, data)
            made, length = self.text(inner) if kind is None else self.message(inner, kind)
            name = f"{len(self.lengths)}"
            self.lengths.append(f"n{name} = {length}; v{name} = varints[n{name}]")
            tag = varints[number << 3 | 2]
            pieces += [tag, f"v{name}", *made]
            fixed += len(tag)
            varying += [f"len(v{name})", f"n{name}"]
        return pieces, " + ".join([str(fixed), *varying])

    def text(self, data: bytes) -> tuple[list[str | bytes], str]:
        """A text in which marks stand, perhaps with others before and after."""
        pieces: list[str | bytes] = []
        at = 0
        for found in self.marks.finditer(data):
            pieces += [data[at : found.start()], self.names[found[0]]]
            at = found.end()
        pieces.append(data[at:])
        fixed = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        varying = [f"len({piece})" for piece in pieces if isinstance(piece, str)]
        return pieces, " + ".join([str(fixed), *varying])

    def function(self, parts: Sequence[list[str | bytes]]) -> Callable[..., Any]:
        """One result for each part: alone when there is one, otherwise a tuple."""
        results = ", ".join(f'b"".join(({"".join(self.joined(part))}))' for part in parts)
        lines = [f"def template({', '.join(self.names.values())}):", *self.lengths, f"return {results}"]
        scope: dict[str, Any] = {f"c{index}": value for index, value in enumerate(self.constants)}
        scope["varints"] = varints
        exec("\n    ".join(lines), scope)
        made: Callable[..., Any] = scope["template"]
        return made

    def joined(self, pieces: Sequence[str | bytes]) -> Iterator[str]:
        """The pieces as expressions, each with a comma; neighbouring bytes are one constant."""
        for fixed, group in groupby(pieces, lambda piece: isinstance(piece, bytes)):
            if fixed:
                yield f"c{len(self.constants)},"
                self.constants.append(b"".join(piece for piece in group if isinstance(piece, bytes)))
            else:
                yield from (f"{piece}," for piece in group if isinstance(piece, str))


def _kind_within(descriptor: Any, number: int, data: bytes) -> Any:
    """The descriptor of the message in a field; None for text and bytes."""
    if descriptor.full_name == "google.protobuf.Any" and number == 2:
        return proto.message_class(proto.Any.FromString(data).type_url.rpartition("/")[2]).DESCRIPTOR
    return descriptor.fields_by_number[number].message_type
