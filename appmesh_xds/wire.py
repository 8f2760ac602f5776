"""Protobuf's wire format, as far as joining serialised messages needs it.

A message is the concatenation of its fields, and a serialised sub-message is a tag, a length and its bytes.
So a route configuration is its name followed by virtual hosts that were serialised long ago.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final


def varint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte, least first."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class _Varints(dict[int, bytes]):
    def __missing__(self, value: int) -> bytes:
        made = varint(value)
        if value < 16_384:
            self[value] = made
        return made


#: `varint`, small ones remembered: `varints[300]`.
varints: Final = _Varints()


def field(number: int, payload: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varints[number << 3 | 2] + varints[len(payload)] + payload


def fields(message: bytes) -> Iterator[tuple[int, int, int | None, int]]:
    """(number, start, start of the payload, end) of each field; only one with a length has a payload.

    Raises ValueError for what is not a message.
    """
    at = 0
    while at < len(message):
        start, payload = at, None
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read_varint(message, at)
        elif kind == 2:
            length, payload = _read_varint(message, at)
            at = payload + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        yield tag >> 3, start, payload, at


def split(message: bytes, number: int) -> tuple[bytes, bytes]:
    """A serialised message cut where field `number` stands, or would stand: fields below it, fields above.

    The message must have its fields in order, as protobuf's own serialisers write them, and not that one.
    Raises ValueError for what is not a message.
    """
    for found, start, _, _ in fields(message):
        if found > number:
            return message[:start], message[start:]
    return message, b""


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number that does not end")
