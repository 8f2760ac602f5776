"""From plain values (what JSON and YAML parsers give) to spec structs, with every problem found.

msgspec's own decoders are faster, stop at the first error and say less. They are the first try; this walk
over value and type together is for what they refuse, for values that are looser than JSON (`strict=False`)
and for structs made in Python, whose constructors check nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import msgspec
from msgspec import inspect

from ..errors import Problem, Severity
from ._wording import describe, join, number, quote, suggest
from .checks import check, parts
from .data import Data

T = TypeVar("T")

#: Suggestions are searched for this many unknown names in one value; looking for more would take time
#: that grows with the input and help nobody.
_MAX_SUGGESTIONS: Final = 100
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_BOOLEANS: Final = {"true": True, "false": False}

#: Fields that people write though the API has none of that name, and what to do instead.
_MISPLACED: Final[dict[tuple[str, str], str]] = {
    # The preview API of 2018 called it so.
    ("DnsServiceDiscovery", "serviceName"): "it is called `hostname`",
    # Seen in manifests that use SDS; the mode is a matter of the listener.
    ("ClientPolicyTls", "mode"): "a client policy has no mode: `enforce` says whether TLS is a must",
    # The Kubernetes CRD lets it pass and drops it, the API answers 400.
    ("ListenerTlsValidationContextTrust", "acm"): "a listener trusts `file` or `sds`; `acm` is for clients",
    ("ClientTlsCertificate", "acm"): "a client's certificate is `file` or `sds`; `acm` is for listeners",
    ("TcpRouteMatch", "prefix"): "a tcp route can match a `port` and nothing else",
}


class Conversion(NamedTuple, Generic[T]):
    """`value` is there exactly when no problem is an error."""

    value: T | None
    problems: tuple[Problem, ...]


def convert(
    value: object,
    type: type[T],  # noqa: A002  named as in msgspec.convert
    *,
    path: str = "$",
    strict: bool = True,
    unknown: Severity = "error",
) -> Conversion[T]:
    """Convert a plain value to a spec struct (or any type that spec structs are made of).

    `strict=False` takes numbers and booleans written as strings (`"50"`, `"true"`) and floats without a
    fraction, as CloudFormation does. `unknown="warning"` drops unknown fields with a warning, as suits
    responses of the API. `None` for an optional member means absent. Raises nothing for any value.
    """
    walk = _Walk(strict=strict, unknown=unknown)
    converted = walk.convert(value, _schema(cast(Hashable, type)), path)
    return Conversion(None if walk.errors else converted, tuple(walk.problems))


def validate(data: Data, before: Data | None = None) -> tuple[Problem, ...]:
    """What is wrong with a resource that was made in memory: types and bounds, then the cross-field rules.

    The latter only once the former hold. Every problem carries the resource's key. `before` is a resource
    that was found right: what stands in both is not looked at again.
    """
    if not _well_typed(data):
        walk = _Walk(strict=True, unknown="error", built=True)
        walk.convert(data, _schema(type(data)), "$")
        if walk.problems:
            return tuple(msgspec.structs.replace(p, resource=data.key) for p in walk.problems)
    return check(data) if before is None else check(data, known=parts(before))


def _well_typed(data: Data) -> bool:
    """Whether msgspec takes the value for what it says it is. Quick; False only means: look closer."""
    try:
        return bool(msgspec.convert(msgspec.to_builtins(data), type(data)) == data)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return False


@cache
def _schema(type: Hashable) -> inspect.Type:  # noqa: A002
    return inspect.type_info(type)


@cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    info = _schema(cls)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: field for field in info.fields}


class _Walk:
    """One conversion: how to read, and what was found so far.

    `built`: the value is made of structs already, and must be of exactly the right types. The walk follows
    the type, which is finite, so neither deep nor cyclic values can make it run away.
    """

    def __init__(self, *, strict: bool, unknown: Severity, built: bool = False) -> None:
        self.strict = strict
        self.unknown: Severity = unknown
        self.built = built
        self.problems: list[Problem] = []
        self.errors = 0
        self.suggestions = _MAX_SUGGESTIONS

    def convert(self, value: object, schema: inspect.Type, path: str) -> Any:
        """The converted value; None after a problem."""
        return _READERS[schema.__class__](self, value, schema, path)

    def report(self, path: str, message: str, hint: str = "", severity: Severity = "error") -> None:
        self.problems.append(Problem(path=path, message=message, hint=hint, severity=severity))
        self.errors += severity == "error"

    def mismatch(self, path: str, expected: str, value: object, hint: str = "") -> None:
        self.report(path, f"expected {expected}, got {describe(value)}", hint)

    # --- containers -------------------------------------------------------------------------------

    def struct(self, value: object, schema: inspect.StructType, path: str) -> Any:
        members = self.members(value, schema.cls, path)
        if members is None:
            return None
        fields = _fields(schema.cls)
        values: dict[str, Any] = {}
        for key, item in members.items():
            field = fields.get(key) if isinstance(key, str) else None
            if field is None:
                self.unknown_field(key, schema.cls, join(path, key))
            elif item is not None or not self.optional(field):
                values[field.name] = self.convert(item, field.type, join(path, key))
        for key, field in fields.items():
            if field.required and key not in members:
                self.report(join(path, key), "missing: the field is required", _expectation(field.type))
        # A struct with a wrong member is never handed out: convert() returns None then.
        return None if self.errors else schema.cls(**values)

    def optional(self, field: inspect.Field) -> bool:
        """Whether None says "absent". In a struct that is there already it must be a value of the member."""
        return isinstance(field.type, inspect.UnionType) if self.built else not field.required

    def members(self, value: object, cls: type[msgspec.Struct], path: str) -> Mapping[Any, object] | None:
        if self.built:
            if type(value) is cls:
                return {key: getattr(value, field.name) for key, field in _fields(cls).items()}
            self.mismatch(path, f"a {cls.__name__}", value)
            return None
        if isinstance(value, dict):
            return value
        names = ", ".join(f"`{name}`" for name in list(_fields(cls))[:8])
        self.mismatch(path, "an object", value, f"with the fields {names}" if names else "")
        return None

    def unknown_field(self, key: object, cls: type[msgspec.Struct], path: str) -> None:
        name = key if isinstance(key, str) else str(key) if isinstance(key, (int, float)) else ""
        hint = _MISPLACED.get((cls.__name__, name), "")
        if not hint and self.suggestions > 0:
            self.suggestions -= 1
            hint = suggest(name, tuple(_fields(cls)))
        if not hint:
            hint = "known here: " + ", ".join(f"`{field}`" for field in _fields(cls))
        self.report(path, f"unknown field {quote(name)}", hint, self.unknown)

    def array(self, value: object, schema: inspect.VarTupleType, path: str) -> Any:
        if self.built and not isinstance(value, tuple):
            self.mismatch(path, "a tuple", value, "structs must not change: their lists are tuples")
            return None
        if not isinstance(value, (list, tuple)):
            self.mismatch(path, "a list", value, "a single entry is a list of one")
            return None
        self.length(len(value), schema, path, "entry", "entries")
        return tuple(self.convert(item, schema.item_type, f"{path}[{i}]") for i, item in enumerate(value))

    def union(self, value: object, schema: inspect.UnionType, path: str) -> Any:
        # The only unions among the specs are `X | None`.
        if value is None:
            return None
        return self.convert(value, _without_none(schema), path)

    # --- scalars ----------------------------------------------------------------------------------

    def length(self, length: int, schema: Any, path: str, one: str, many: str) -> None:
        low, high = schema.min_length, schema.max_length
        if low is not None and length < low:
            least = "must not be empty" if low == 1 else f"at least {low} {many}"
            self.report(path, f"{least}, got {length}" if low > 1 else least)
        elif high is not None and length > high:
            self.report(path, f"at most {high} {one if high == 1 else many}, got {length}")

    def string(self, value: object, schema: inspect.StrType, path: str) -> str | None:
        if not isinstance(value, str):
            hint = "write it in quotes" if isinstance(value, (bool, int, float)) else ""
            self.mismatch(path, "a string", value, hint)
            return None
        self.length(len(value), schema, path, "character", "characters")
        if schema.pattern is not None and not re.search(schema.pattern, value):
            self.report(path, f"{quote(value)} does not match the pattern {schema.pattern}")
        if not value.isascii() and _SURROGATE.search(value):
            self.report(path, f"{quote(value)} holds half of a surrogate pair, which is not text")
        return value if type(value) is str else str.__str__(value)

    def literal(self, value: object, schema: inspect.LiteralType, path: str) -> Any:
        if isinstance(value, str) and value in schema.values:
            return str.__str__(value)
        allowed = [str(v) for v in schema.values]
        hint = suggest(value, tuple(allowed)) if isinstance(value, str) else ""
        one_of = allowed[0] if len(allowed) == 1 else "one of " + ", ".join(allowed)
        self.mismatch(path, one_of, value, hint)
        return None

    def integer(self, value: object, schema: inspect.IntType, path: str) -> int | None:
        whole = self.whole(value)
        if whole is None:
            hint = ""
            if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
                hint = "write it without quotes"
            elif isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
                hint = f"write it as {int(value)}"
            self.mismatch(path, "a whole number", value, hint)
            return None
        low, high = schema.ge, schema.le
        if (low is not None and whole < low) or (high is not None and whole > high):
            self.report(path, f"{number(whole)} is out of range", f"from {low} to {high}")
        return whole

    def whole(self, value: object) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return value if type(value) is int else int(value)
        if self.strict:
            return None
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return None

    def boolean(self, value: object, schema: inspect.BoolType, path: str) -> bool | None:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) and len(value) < 10 else ""
        if not self.strict and word in _BOOLEANS:
            return _BOOLEANS[word]
        self.mismatch(path, "true or false", value, "write it without quotes" if word in _BOOLEANS else "")
        return None


_Reader = Callable[[_Walk, Any, Any, str], Any]
_READERS: Final[dict[type[inspect.Type], _Reader]] = {
    inspect.StructType: _Walk.struct,
    inspect.VarTupleType: _Walk.array,
    inspect.UnionType: _Walk.union,
    inspect.StrType: _Walk.string,
    inspect.LiteralType: _Walk.literal,
    inspect.IntType: _Walk.integer,
    inspect.BoolType: _Walk.boolean,
}

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _without_none(schema: inspect.UnionType) -> inspect.Type:
    return next(t for t in schema.types if not isinstance(t, inspect.NoneType))


def _expectation(schema: inspect.Type) -> str:
    if isinstance(schema, inspect.LiteralType):
        return "one of " + ", ".join(str(v) for v in schema.values)
    if isinstance(schema, inspect.IntType):
        return f"a whole number from {schema.ge} to {schema.le}"
    if isinstance(schema, inspect.StructType):
        return "an object with " + ", ".join(f"`{name}`" for name in _parts(schema))
    return "a list" if isinstance(schema, inspect.VarTupleType) else "a string"


def _parts(schema: inspect.StructType) -> Iterator[str]:
    required = [f.encode_name for f in schema.fields if f.required]
    return iter(required or [f.encode_name for f in schema.fields])
