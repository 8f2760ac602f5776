"""envoy-data-plane messages as a function that builds them anew, written out as a literal."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Callable, Sequence
from typing import Any

import betterproto2


def literal(messages: Sequence[betterproto2.Message]) -> Callable[[], list[betterproto2.Message]]:
    """A function that constructs equal messages, with nothing but constructor calls in it."""
    names: dict[str, Any] = {"datetime": datetime}
    body = ",\n        ".join(_expression(message, names) for message in messages)
    code = f"def build():\n    return [\n        {body}\n    ]\n"
    exec(compile(code, "<literal>", "exec"), names)
    build: Callable[[], list[betterproto2.Message]] = names["build"]
    return build


def _expression(value: Any, names: dict[str, Any]) -> str:
    if isinstance(value, betterproto2.Message):
        fields = []
        for field in dataclasses.fields(value):
            if field.name.startswith("_"):
                continue
            item = getattr(value, field.name)
            if item is not None and (item != field_default(field) or isinstance(item, betterproto2.Message)):
                fields.append(f"{field.name}={_expression(item, names)}")
        return f"{_class(type(value), names)}({', '.join(fields)})"
    if isinstance(value, enum.Enum):
        return f"{_class(type(value), names)}({value.value!r})"
    if isinstance(value, datetime.timedelta):
        return f"datetime.timedelta(microseconds={value // datetime.timedelta(microseconds=1)})"
    if isinstance(value, list):
        return f"[{', '.join(_expression(item, names) for item in value)}]"
    if isinstance(value, dict):
        pairs = (f"{key!r}: {_expression(item, names)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return repr(value)


def field_default(field: dataclasses.Field[Any]) -> Any:
    """What a field holds when nobody sets it."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None


def _class(cls: type, names: dict[str, Any]) -> str:
    name = f"{cls.__module__}.{cls.__qualname__}".replace(".", "_")
    names[name] = cls
    return name
