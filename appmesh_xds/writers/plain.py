"""Plain: specs as plain data, and what a writer gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from .. import spec
from ..errors import Problem


class Written(NamedTuple):
    files: dict[str, tuple[dict[str, Any], ...]]
    problems: tuple[Problem, ...]


def body(data: spec.Data) -> dict[str, Any]:
    """A resource's spec in the API's spelling."""
    found: dict[str, Any] = _lists(msgspec.to_builtins(data.spec))
    return found


def _lists(value: Any) -> Any:
    """Lists for tuples."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def names(data: spec.Data) -> dict[str, str]:
    """What names a resource, in the API's spelling: `{"virtualRouterName": "r", "routeName": "x"}`."""
    found: dict[str, Any] = msgspec.to_builtins(data)
    return {key: value for key, value in found.items() if key not in ("meshName", "meshOwner", "spec")}
