"""Build step: makes the descriptor set and the type stub of Envoy's messages from `envoy.txt`.

Hatchling runs it for wheels and editable installs (`[tool.hatch.build.hooks.custom]`); by hand:
`python protos/build.py`, in an environment that has xds-protos. It writes two files beside the package's
sources, both ignored by git:

- `appmesh_xds/_envoy.bin`: a header of JSON (names, what it was made from) and a compressed
  FileDescriptorSet, loaded by `appmesh_xds/proto.py` into a descriptor pool of its own;
- `appmesh_xds/proto.pyi`: the types of the same messages, for editors and type checkers.

Same inputs, same bytes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import keyword
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "protos" / "envoy.txt"
BLOB = ROOT / "appmesh_xds" / "_envoy.bin"
STUB = ROOT / "appmesh_xds" / "proto.pyi"
MAGIC = b"AMX1"

LINE = re.compile(r"^(?P<full>[a-zA-Z_][\w.]*\.(?P<short>[A-Z]\w*))(?:\s+as\s+(?P<alias>[A-Z]\w*))?$")


class Message(NamedTuple):
    name: str
    full_name: str


def read_list(text: str) -> list[Message]:
    """The messages that `envoy.txt` names, in its order. Two with one short name are an error."""
    messages: list[Message] = []
    seen: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        match = LINE.match(line)
        if match is None:
            raise SystemExit(f"{LIST.name}:{number}: expected 'full.Name [as Alias]', got {line!r}")
        name, full = match["alias"] or match["short"], match["full"]
        if name in seen:
            raise SystemExit(
                f"{LIST.name}:{number}: {full} and {seen[name]} are both called {name}; add 'as Alias'"
            )
        seen[name] = full
        messages.append(Message(name, full))
    return messages


def find_message(full_name: str) -> Descriptor:
    """The descriptor of a message, after importing the generated module that holds it."""
    pool = descriptor_pool.Default()
    try:
        return pool.FindMessageTypeByName(full_name)
    except KeyError:
        pass
    package = full_name.rpartition(".")[0]
    folder = importlib.import_module(package)
    for path in sorted(Path(entry) for entry in folder.__path__):
        for module in sorted(path.glob("*_pb2.py")):
            importlib.import_module(f"{package}.{module.stem}")
    try:
        return pool.FindMessageTypeByName(full_name)
    except KeyError:
        raise SystemExit(f"{LIST.name}: xds-protos has no message {full_name}") from None


def closure(descriptors: list[Descriptor]) -> list[FileDescriptor]:
    """The files of these messages and all they import, dependencies first, in a stable order."""
    done: dict[str, FileDescriptor] = {}

    def visit(file: FileDescriptor) -> None:
        if file.name in done:
            return
        for dependency in sorted(file.dependencies, key=lambda f: f.name):
            visit(dependency)
        done[file.name] = file

    for file in sorted({d.file.name: d.file for d in descriptors}.values(), key=lambda f: f.name):
        visit(file)
    return list(done.values())


def descriptor_set(files: list[FileDescriptor]) -> bytes:
    result = descriptor_pb2.FileDescriptorSet()
    for file in files:
        copied = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
        # Services would drag google.api.http along; nobody calls them through this pool.
        del copied.service[:]
        result.file.append(copied)
    return result.SerializeToString(deterministic=True)


def source_version() -> str:
    from importlib.metadata import version

    return version("xds-protos")


def header(messages: list[Message], text: str) -> dict[str, Any]:
    return {
        "list": list_hash(text),
        "xds-protos": source_version(),
        "messages": {message.name: message.full_name for message in messages},
    }


def list_hash(text: str) -> str:
    """Names the content of `envoy.txt`; `appmesh_xds.proto` computes the same to notice a stale blob."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()[:16]


# --- the stub -------------------------------------------------------------------------------------

SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: "int",
    FieldDescriptor.CPPTYPE_INT64: "int",
    FieldDescriptor.CPPTYPE_UINT32: "int",
    FieldDescriptor.CPPTYPE_UINT64: "int",
    FieldDescriptor.CPPTYPE_DOUBLE: "float",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_ENUM: "int",
}

STUB_HEAD = '''\
"""Envoy's messages, as types. Made by protos/build.py from protos/envoy.txt; not edited by hand."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any as _Any, ClassVar as _ClassVar, Literal as _Literal, TypeVar as _TypeVar
from typing import overload as _overload

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.containers import (
    MessageMap,
    RepeatedCompositeFieldContainer,
    RepeatedScalarFieldContainer,
    ScalarMap,
)
from google.protobuf.message import Message

_M = _TypeVar("_M", bound=Message)

POOL: DescriptorPool
XDS_PROTOS_VERSION: str

def message_names() -> dict[str, str]: ...
def message_class(full_name: str) -> type[Message]: ...
def pack(message: Message) -> Any: ...
def unpack(message: Any) -> Message: ...
def into(message: Message, cls: type[_M]) -> _M: ...
def type_url(cls: type[Message]) -> str: ...
'''


class Stub:
    """Writes one class for each listed message, and one for each message reachable from them."""

    def __init__(self, messages: list[Message], descriptors: list[Descriptor]) -> None:
        self.names: dict[str, str] = {m.full_name: m.name for m in messages}
        self.queue = list(descriptors)
        self.lines: list[str] = []

    def write(self) -> str:
        written: set[str] = set()
        index = 0
        while index < len(self.queue):
            descriptor = self.queue[index]
            index += 1
            while descriptor.containing_type is not None and descriptor.full_name not in self.names:
                descriptor = descriptor.containing_type
            if descriptor.full_name in written:
                continue
            written.add(descriptor.full_name)
            self.message(
                descriptor, self.names.get(descriptor.full_name) or self.private(descriptor), "", written
            )
        return STUB_HEAD + "\n".join(self.lines) + "\n"

    def private(self, descriptor: Descriptor) -> str:
        name = "_" + descriptor.full_name.replace(".", "_")
        self.names[descriptor.full_name] = name
        return name

    def reference(self, descriptor: Descriptor) -> str:
        """The stub's name of a message type; nested types are spelt through their parent."""
        if descriptor.full_name not in self.names and descriptor.containing_type is not None:
            return f"{self.reference(descriptor.containing_type)}.{descriptor.name}"
        self.queue.append(descriptor)
        return self.names.get(descriptor.full_name) or self.private(descriptor)

    def message(self, descriptor: Descriptor, name: str, indent: str, written: set[str]) -> None:
        out = self.lines
        out.append("")
        out.append(f"{indent}class {name}(Message):")
        inner = indent + "    "
        for enum in descriptor.enum_types:
            self.enum(enum, inner)
        for nested in descriptor.nested_types:
            if nested.GetOptions().map_entry or nested.full_name in self.names:
                continue
            written.add(nested.full_name)
            self.message(nested, nested.name, inner, written)
        parameters: list[str] = []
        for field in descriptor.fields:
            if keyword.iskeyword(field.name):
                continue
            read, write, settable = self.field(field)
            if settable:
                out.append(f"{inner}{field.name}: {read}")
            else:
                out.append(f"{inner}@property")
                out.append(f"{inner}def {field.name}(self) -> {read}: ...")
            if field.name != "self":
                parameters.append(f"{inner}    {field.name}: {write} | None = ...,")
        if parameters:
            out.append(f"{inner}def __init__(")
            out.append(f"{inner}    self,")
            out.append(f"{inner}    *,")
            out.extend(parameters)
            out.append(f"{inner}) -> None: ...")
        if descriptor.oneofs:
            real = [o for o in descriptor.oneofs if len(o.fields) > 1 or not o.name.startswith("_")]
            for oneof in real:
                members = ", ".join(f'"{f.name}"' for f in oneof.fields)
                decorator = f"{inner}@_overload\n" if len(real) > 1 else ""
                out.append(
                    f'{decorator}{inner}def WhichOneof(self, oneof_group: _Literal["{oneof.name}"])'
                    f" -> _Literal[{members}] | None: ..."
                )
        if descriptor.full_name == "google.protobuf.Duration":
            out.append(f"{inner}def FromTimedelta(self, td: timedelta) -> None: ...")
            out.append(f"{inner}def ToTimedelta(self) -> timedelta: ...")
            out.append(f"{inner}def FromMilliseconds(self, millis: int) -> None: ...")
            out.append(f"{inner}def ToMilliseconds(self) -> int: ...")
        if descriptor.full_name == "google.protobuf.Struct":
            out.append(f"{inner}def update(self, value: Mapping[str, _Any]) -> None: ...")
            out.append(f"{inner}def __getitem__(self, key: str) -> _Any: ...")
            out.append(f"{inner}def __setitem__(self, key: str, value: _Any) -> None: ...")
        if not descriptor.fields and not descriptor.enum_types:
            out.append(f"{inner}...")

    def enum(self, enum: EnumDescriptor, indent: str) -> None:
        for value in enum.values:
            self.lines.append(f"{indent}{value.name}: _ClassVar[int]")

    def field(self, field: FieldDescriptor) -> tuple[str, str, bool]:
        """(type when read, type as a keyword, whether it may be assigned)."""
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            key = self.scalar(message.fields_by_name["key"])
            value_field = message.fields_by_name["value"]
            if value_field.message_type is not None:
                value = self.reference(value_field.message_type)
                return f"MessageMap[{key}, {value}]", f"Mapping[{key}, {value}]", False
            value = self.scalar(value_field)
            return f"ScalarMap[{key}, {value}]", f"Mapping[{key}, {value}]", False
        if message is not None:
            name = self.reference(message)
            if field.is_repeated:
                return f"RepeatedCompositeFieldContainer[{name}]", f"Iterable[{name}]", False
            accepts = {"google.protobuf.Duration": f"{name} | timedelta"}.get(message.full_name, name)
            return name, accepts, False
        scalar = self.scalar(field)
        if field.is_repeated:
            return f"RepeatedScalarFieldContainer[{scalar}]", f"Sequence[{scalar}]", False
        return scalar, scalar, True

    @staticmethod
    def scalar(field: FieldDescriptor) -> str:
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "str"
        return SCALARS[field.cpp_type]


def build() -> tuple[bytes, str]:
    """The blob and the stub, from `envoy.txt` and the installed xds-protos."""
    text = LIST.read_text(encoding="utf-8")
    messages = read_list(text)
    descriptors = [find_message(message.full_name) for message in messages]
    head = json.dumps(header(messages, text), sort_keys=True, separators=(",", ":")).encode()
    body = zlib.compress(descriptor_set(closure(descriptors)), 9)
    return MAGIC + struct.pack(">I", len(head)) + head + body, Stub(messages, descriptors).write()


def main() -> None:
    blob, stub = build()
    for path, content in ((BLOB, blob), (STUB, stub.encode())):
        if not path.exists() or path.read_bytes() != content:
            # A new file, renamed into place: a process that is importing sees the old or the new one.
            temporary = path.with_suffix(path.suffix + ".new")
            temporary.write_bytes(content)
            temporary.replace(path)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, without hatchling
    pass
else:

    class EnvoyDescriptors(BuildHookInterface):  # type: ignore[type-arg]
        """Hatchling's entry point."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            if self.target_name != "wheel":
                return
            main()


if __name__ == "__main__":
    sys.exit(main())
