"""Protobuf's wire format, as far as joining serialised messages needs it.

A message is the concatenation of its fields, and a serialised sub-message is a tag, a length and its bytes.
So a route configuration is its name followed by virtual hosts that were serialised long ago.
"""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte, least first."""
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field(number: int, payload: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload
