"""Instances from a file, YAML or JSON: by `SERVICE.NAMESPACE`, or as Cloud Map itself answered.

color.shop.internal:
- {address: 10.0.0.1, attributes: {version: v1}}
- {ipv4: 10.0.0.2, ipv6: "fd00::2", port: 8080, health: UNHEALTHY}
empty.shop.internal: []

Answers of `aws servicediscovery discover-instances` may stand there as they are, several as several documents
or as a list.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from ..errors import Problem, SpecErrors
from ..facts import Endpoint
from ..readers.endpoints import EndpointsReader
from ..readers.text import Document, documents, member, read_bytes
from . import CloudMapService, Found
from .answers import endpoint_of

_ANSWER: Final = "Instances"


class _Entry(msgspec.Struct, frozen=True):
    """A service in the file."""

    endpoints: tuple[Endpoint, ...]
    #: Where it stands.
    document: Document
    path: str

    def stranger(self, name: str) -> Problem:
        line, column = self.document.locate(self.path) or (0, 0)
        return Problem(
            file=self.document.file,
            line=line,
            column=column,
            path=self.path,
            message=f"no virtual node is found by {name}",
            severity="warning",
        )


class _Read(msgspec.Struct, frozen=True):
    """What a content came to."""

    content: bytes | Problem
    #: By `SERVICE.NAMESPACE`.
    entries: Mapping[str, _Entry] = {}
    problems: tuple[Problem, ...] = ()


class FileSource:
    """An `EndpointSource` over one file, which is read again each time."""

    name = "file"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._last: _Read | None = None

    def discover(self, services: Collection[CloudMapService]) -> Found:
        read = self._read()
        if any(problem.severity == "error" for problem in read.problems):
            raise SpecErrors(read.problems)
        by_name = {str(service): service for service in services}
        strangers = [entry.stranger(name) for name, entry in read.entries.items() if name not in by_name]
        missing = [
            Problem(
                file=self.path,
                message=f"says nothing of {name}",
                hint=f"what was known of it stays; {name}: [] says that it has no instances",
                severity="warning",
            )
            for name in sorted(by_name.keys() - read.entries.keys())
        ]
        return Found(
            instances={
                service: read.entries[str(service)].endpoints
                for service in services
                if str(service) in read.entries
            },
            problems=(*read.problems, *strangers, *missing),
        )

    def _read(self) -> _Read:
        """The last reading itself while the content is the same."""
        content = read_bytes(self.path)
        if self._last is None or content != self._last.content:
            self._last = _read(content, self.path)
        return self._last


def _read(content: bytes | Problem, path: str) -> _Read:
    if isinstance(content, Problem):
        return _Read(content, {}, (content,))
    found, problems = documents(content, path)
    entries: dict[str, _Entry] = {}
    for document in found:
        reader = _Reader(document, entries)
        reader.read()
        problems.extend(reader.problems)
    if not found and not problems:
        # Or is about to be written: a shell empties it first.
        problems.append(Problem(file=path, message="is empty", hint="{} says nothing of any service"))
    return _Read(content, entries, tuple(sorted(problems)))


class _Reader(EndpointsReader):
    """Reads one document into the entries of its file."""

    def __init__(self, document: Document, entries: dict[str, _Entry]) -> None:
        super().__init__(document)
        self._entries = entries

    def read(self) -> None:
        value = self.document.value
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._answer(item, f"$[{index}]")
        elif isinstance(value, dict) and isinstance(value.get(_ANSWER), list):
            self._answer(value, "$")
        elif isinstance(value, dict):
            for name, item in value.items():
                path = member("$", name)
                endpoints = self.endpoints(item, path)
                if endpoints is not None:
                    self._add(str(name), endpoints, path)
        else:
            self.problem("$", "expected a mapping", "SERVICE.NAMESPACE: [{address: 10.0.0.1}]")

    def _add(self, name: str, endpoints: tuple[Endpoint, ...], path: str) -> None:
        if name in self._entries:
            self.problem(path, f"{name} was given before", "one document has all of its instances")
            return
        self._entries[name] = _Entry(endpoints, self.document, path)

    def _answer(self, value: Any, path: str) -> None:
        """One answer of Cloud Map, which is of one service; it says which only where it has instances."""
        if not isinstance(value, dict) or not isinstance(value.get(_ANSWER), list):
            self.problem(path, f"expected an answer of discover-instances, with {_ANSWER}")
            return
        path = member(path, _ANSWER)
        if not value[_ANSWER]:
            self._warn(path, "has no instances, and does not say of which service", "SERVICE.NAMESPACE: []")
        found: dict[str, list[Endpoint]] = {}
        for index, item in enumerate(value[_ANSWER]):
            self._instance(item, f"{path}[{index}]", found)
        for name, endpoints in found.items():
            self._add(name, tuple(endpoints), path)

    def _instance(self, item: Any, path: str, found: dict[str, list[Endpoint]]) -> None:
        service, namespace = (
            (item.get("ServiceName"), item.get("NamespaceName")) if isinstance(item, dict) else (None, None)
        )
        if not isinstance(service, str) or not isinstance(namespace, str):
            self.problem(path, "expected an instance, with ServiceName and NamespaceName")
            return
        endpoints = found.setdefault(str(CloudMapService(namespace, service)), [])
        endpoint = endpoint_of(item)
        if isinstance(endpoint, str):
            self._warn(path, f"{endpoint}; it is left out")
        else:
            endpoints.append(endpoint)

    def _warn(self, path: str, message: str, hint: str = "") -> None:
        self.problem(path, message, hint)
        self.problems[-1] = msgspec.structs.replace(self.problems[-1], severity="warning")
