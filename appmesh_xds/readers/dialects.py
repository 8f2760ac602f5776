"""The dialects: who recognises a document, and who reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..errors import Problem
from . import api, cloudformation, cloudtrail, kubernetes, terraform
from .found import Context, Found
from .text import Document


class Dialect(NamedTuple):
    """One way to write specs. `read` gets every document of it at once: they may refer to one another."""

    name: str
    recognise: Callable[[Any], bool]
    read: Callable[[Sequence[Document], Context], Iterable[Found | Problem]]


def _read_api(found: Sequence[Document], context: Context) -> Iterator[Found | Problem]:
    for document in found:
        yield from api.read(document, context)


#: What a spec is read as whose kind and name are given from outside.
API = Dialect("api", api.recognise, _read_api)
#: In the order in which they are asked whether a document is theirs.
DIALECTS: tuple[Dialect, ...] = (
    Dialect("cloudformation", cloudformation.recognise, cloudformation.read),
    Dialect("kubernetes", kubernetes.recognise, kubernetes.read),
    Dialect("terraform", terraform.recognise, terraform.read),
    Dialect("cloudtrail", cloudtrail.recognise, cloudtrail.read),
    API,
)
