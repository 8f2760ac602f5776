"""Messages as canonical YAML or JSON, with private keys redacted.

Same message, same text, in every process. Envoy reads the YAML as it stands.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

REDACTED: Final = "[redacted]"

#: Fields that hold secrets: everything below them is redacted, file names excepted.
_SECRET_FIELDS: Final = frozenset(
    {
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.private_key",
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.password",
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.pkcs12",
        "envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys.keys",
        "envoy.extensions.transport_sockets.tls.v3.GenericSecret.secret",
    }
)
_INLINE: Final = ("inline_bytes", "inline_string")

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*\Z")
#: Plain words that some YAML reader takes for something else than a string.
_RESERVED: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})


def to_dict(message: Message, *, redact: bool = True) -> dict[str, Any]:
    """A message as plain data: protobuf's JSON mapping with the proto's own field names.

    `@type` comes first in an `Any`, keys of maps and of Structs are sorted, other fields stand in field
    order. An `Any` of a type that `proto` does not know shows its bytes in base64. Never fails.
    """
    return dict(_fields(message, redact))


def to_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML in one fixed style: block style, two spaces, strings quoted whenever in doubt."""
    lines: list[str] = []
    _write_mapping(lines, data, "")
    return "\n".join(lines) + "\n"


def to_json(data: Mapping[str, Any]) -> str:
    """Plain data as JSON; not ASCII only, because Envoy's reader refuses escaped surrogate pairs."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


# --- messages to data -----------------------------------------------------------------------------


def _fields(message: Message, redact: bool) -> Iterator[tuple[str, Any]]:
    for field, value in message.ListFields():
        if redact and field.full_name in _SECRET_FIELDS:
            yield field.name, _redacted(field, value)
        else:
            yield field.name, _field(field, value, redact)


def _redacted(field: FieldDescriptor, value: Any) -> Any:
    """A data source keeps where it comes from, which is no secret; what it holds does not show."""
    items = value if field.is_repeated else [value]
    shown = [_redacted_source(item) for item in items]
    return shown if field.is_repeated else shown[0]


def _redacted_source(source: Message) -> Any:
    data = dict(_fields(source, True))
    return {key: REDACTED if key in _INLINE else value for key, value in data.items()}


def _field(field: FieldDescriptor, value: Any, redact: bool) -> Any:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        value_field = message.fields_by_name["value"]
        return {str(key): _single(value_field, value[key], redact) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, item, redact) for item in value]
    return _single(field, value, redact)


def _single(field: FieldDescriptor, value: Any, redact: bool) -> Any:
    if field.message_type is not None:
        return _message(field.message_type, value, redact)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if field.type == field.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
        return str(value)
    return value


def _message(descriptor: Descriptor, value: Any, redact: bool) -> Any:
    name = descriptor.full_name
    if not name.startswith("google.protobuf."):
        return to_dict(value, redact=redact)
    if name == "google.protobuf.Any":
        return _any(value, redact)
    if name in ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"):
        return _struct(value)
    if name.endswith("Value"):
        return _single(descriptor.fields_by_name["value"], value.value, redact)
    if name in ("google.protobuf.Duration", "google.protobuf.Timestamp"):
        return value.ToJsonString()
    return to_dict(value, redact=redact)


def _any(value: Any, redact: bool) -> dict[str, Any]:
    from google.protobuf.message import DecodeError

    from . import proto

    try:
        inner = proto.unpack(value)
    except (KeyError, DecodeError):
        return {"@type": value.type_url, "value": base64.b64encode(value.value).decode()}
    return {"@type": value.type_url, **to_dict(inner, redact=redact)}


def _struct(value: Any) -> Any:
    name = value.DESCRIPTOR.name
    if name == "Struct":
        return {key: _struct(value.fields[key]) for key in sorted(value.fields)}
    if name == "ListValue":
        return [_struct(item) for item in value.values]
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    inner = getattr(value, kind)
    return _struct(inner) if kind in ("struct_value", "list_value") else inner


# --- data to YAML ---------------------------------------------------------------------------------


def _write_mapping(lines: list[str], data: Mapping[str, Any], indent: str) -> None:
    for key, value in data.items():
        _write(lines, f"{indent}{_scalar(key)}:", value, indent)


def _write(lines: list[str], start: str, value: Any, indent: str) -> None:
    if isinstance(value, Mapping) and value:
        lines.append(start)
        _write_mapping(lines, value, indent + "  ")
    elif isinstance(value, list) and value:
        lines.append(start)
        _write_list(lines, value, indent)
    else:
        lines.append(f"{start} {_scalar(value)}")


def _write_list(lines: list[str], items: list[Any], indent: str) -> None:
    for item in items:
        at = len(lines)
        if isinstance(item, Mapping) and item:
            _write_mapping(lines, item, indent + "  ")
            # The first key stands behind the dash.
            lines[at] = f"{indent}- {lines[at][len(indent) + 2 :]}"
        elif isinstance(item, list) and item:
            lines.append(f"{indent}-")
            _write_list(lines, item, indent + "  ")
        else:
            lines.append(f"{indent}- {_scalar(item)}")


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return json.dumps(value)
    if isinstance(value, str):
        plain = _PLAIN.match(value) and value.lower() not in _RESERVED
        return value if plain else _quoted(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _quoted(text: str) -> str:
    """Double quotes, and escapes for what a YAML reader would fold or refuse."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(char) for char in quoted)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
