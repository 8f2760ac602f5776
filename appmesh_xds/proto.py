"""Envoy's message classes, from a descriptor pool of our own.

A process that embeds this library often has generated Envoy modules already, and two copies of one
`.proto` file in protobuf's global pool collide. So the messages named in `protos/envoy.txt` are loaded here
from a descriptor set (`_envoy.bin`, made by the build) into a private `DescriptorPool`, on first use:

    from appmesh_xds import proto
    listener = proto.Listener(name="lds_ingress_0.0.0.0_15000")

`proto.<Name>` is the class of each line in `envoy.txt`; `message_class("envoy....")` reaches any other
message of the set. Messages of other pools do not mix with these: cross by bytes, with `into`.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from typing import Any as _Any  # `Any` is a message here

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

_HERE = Path(__file__).resolve().parent
_BLOB = _HERE / "_envoy.bin"
_MAGIC = b"AMX1"
_REBUILD = "run 'pip install -e .' (or 'python protos/build.py' where xds-protos is installed)"
_PREFIX = "type.googleapis.com/"


class _Set(NamedTuple):
    pool: DescriptorPool
    names: dict[str, str]
    xds_protos: str


@cache
def _load() -> _Set:
    from google.protobuf import descriptor_pb2, descriptor_pool

    try:
        content = _BLOB.read_bytes()
    except FileNotFoundError:
        raise ImportError(f"{_BLOB.name} is missing: {_REBUILD}") from None
    if content[:4] != _MAGIC:
        raise ImportError(f"{_BLOB.name} is not a descriptor set of this version: {_REBUILD}")
    (size,) = struct.unpack(">I", content[4:8])
    header = json.loads(content[8 : 8 + size])
    _refuse_stale(header["list"])
    files = descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(content[8 + size :]))
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return _Set(pool, header["messages"], header["xds-protos"])


def _refuse_stale(built_from: str) -> None:
    """In a checkout, the blob must be the one of the `envoy.txt` beside it."""
    source = _HERE.parent / "protos" / "envoy.txt"
    if not source.exists():
        return
    text = source.read_text(encoding="utf-8").replace("\r\n", "\n")
    if hashlib.sha256(text.encode()).hexdigest()[:16] != built_from:
        raise ImportError(f"{_BLOB.name} was built from another protos/envoy.txt: {_REBUILD}")


@cache
def message_class(full_name: str) -> type[Message]:
    """The class of a message of the set, by its full protobuf name.

    Raises KeyError for a name that the set does not hold.
    """
    from google.protobuf import message_factory

    descriptor = _load().pool.FindMessageTypeByName(full_name)
    cls = message_factory.GetMessageClass(descriptor)
    short = next((n for n, full in _load().names.items() if full == full_name), None)
    if short is not None:
        # Pickle finds a class by module and name; these are reachable as attributes of this module.
        cls.__module__ = __name__
        cls.__qualname__ = short
    return cls


def message_names() -> dict[str, str]:
    """Short name to full protobuf name of every message this module offers as an attribute."""
    return dict(_load().names)


def type_url(cls: type[Message]) -> str:
    """`type.googleapis.com/<full name>` of a message class."""
    return _PREFIX + cls.DESCRIPTOR.full_name


def pack(message: Message) -> _Any:
    """The message in an `Any`, serialised deterministically (protobuf orders maps by hash otherwise)."""
    result = __getattr__("Any")()
    result.type_url = _PREFIX + message.DESCRIPTOR.full_name
    result.value = message.SerializeToString(deterministic=True)
    return result


def unpack(message: _Any) -> Message:
    """The message inside an `Any`. Raises KeyError when the set does not hold its type."""
    return message_class(message.type_url.rpartition("/")[2]).FromString(message.value)


def into(message: Message, cls: type[Message]) -> Message:
    """The same message as an instance of `cls`, a class of another descriptor pool (or back).

    Raises TypeError when `cls` is another kind of message.
    """
    if cls.DESCRIPTOR.full_name != message.DESCRIPTOR.full_name:
        raise TypeError(f"{message.DESCRIPTOR.full_name} is not a {cls.DESCRIPTOR.full_name}")
    return cls.FromString(message.SerializeToString(deterministic=True))


def __getattr__(name: str) -> _Any:
    if name == "POOL":
        return _load().pool
    if name == "XDS_PROTOS_VERSION":
        return _load().xds_protos
    full_name = None if name.startswith("_") else _load().names.get(name)
    if full_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    cls = message_class(full_name)
    globals()[name] = cls
    return cls


def __dir__() -> list[str]:
    return sorted([*globals(), *_load().names, "POOL", "XDS_PROTOS_VERSION"])
