"""Endpoints as people write them, in facts and in files of instances.

{address: 10.0.0.1, port: 8080, health: UNHEALTHY, attributes: {version: v1}}
{ipv4: 10.0.0.1, ipv6: "fd00::1"}                    # an instance with both; the node's ipPreference decides
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..envoy.base import ip_address
from ..errors import Problem
from ..facts import Endpoint
from ..spec.convert import convert
from .text import Document, member


class _Instance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint as written, less its attributes."""

    address: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    ipv4: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    ipv6: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    #: UNKNOWN is what Cloud Map says of services without a health check.
    health: Literal["HEALTHY", "UNHEALTHY", "UNKNOWN"] = "HEALTHY"


#: Versions of IP that a member may hold.
_VERSIONS = {"address": (4, 6), "ipv4": (4,), "ipv6": (6,)}


class EndpointsReader:
    """Reads lists of endpoints in a document, and collects its problems."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def problem(self, path: str, message: str, hint: str = "") -> None:
        line, column = self.document.locate(path) or (0, 0)
        self.problems.append(
            Problem(file=self.document.file, line=line, column=column, path=path, message=message, hint=hint)
        )

    def convert(self, value: Any, kind: Any, path: str) -> Any:
        """The value as this type; None after a problem."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            """To be told all that is wrong, and where."""
        converted = convert(value, kind, path=path)
        for problem in converted.problems:
            self.problem(problem.path, problem.message, problem.hint)
        return converted.value

    def endpoints(self, value: Any, path: str) -> tuple[Endpoint, ...] | None:
        if not isinstance(value, list):
            self.problem(path, "expected a list of endpoints", "[{address: 10.0.0.1}]")
            return None
        made = [self._endpoint(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return tuple(endpoint for endpoint in made if endpoint is not None)

    def _endpoint(self, value: Any, path: str) -> Endpoint | None:
        attributes: tuple[tuple[str, str], ...] = ()
        if isinstance(value, dict) and "attributes" in value:
            attributes = self.attributes(value["attributes"], f"{path}.attributes")
            value = {key: inner for key, inner in value.items() if key != "attributes"}
        instance = self.convert(value, _Instance, path)
        if instance is None:
            return None
        given = {name: getattr(instance, name) for name in _VERSIONS if getattr(instance, name) is not None}
        if not given:
            self.problem(f"{path}.address", "missing", "address, or ipv4 and ipv6")
        if "address" in given and len(given) > 1:
            self.problem(f"{path}.address", "does not go with ipv4 and ipv6", "give one of the two")
        good = [self._is_address(text, name, path) for name, text in given.items()]
        if not good or not all(good):
            return None
        address, *other = given.values()
        health: Literal["HEALTHY", "UNHEALTHY"] = "UNHEALTHY" if instance.health == "UNHEALTHY" else "HEALTHY"
        return Endpoint(
            address=address,
            other_address=other[0] if other else None,
            port=instance.port,
            health=health,
            attributes=attributes,
        )

    def _is_address(self, text: str, name: str, path: str) -> bool:
        if ip_version(text) in _VERSIONS[name]:
            return True
        what = "IP" if name == "address" else f"IPv{name[-1]}"
        self.problem(f"{path}.{name}", f"{text[:100]!r} is not an {what} address")
        return False

    def attributes(self, value: Any, path: str) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            self.problem(path, "expected a mapping of attributes", "{version: v1}")
            return ()
        for key, inner in value.items():
            if not isinstance(inner, str):
                self.problem(member(path, key), "expected a string", "write it in quotes")
        return tuple(sorted((str(key), str(inner)) for key, inner in value.items()))


def ip_version(text: str) -> int | None:
    """4 or 6; None for what is no IP address that means the same on every machine."""
    found = None if "%" in text else ip_address(text)
    return None if found is None else found[0]
