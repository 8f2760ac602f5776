"""Which resources a refusal speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from ..resource import SECRET, Resource


def refused(names: Iterable[str], resources: Mapping[str, Resource], text: str) -> tuple[str, ...]:
    """Those of a response's names that Envoy's words mean, sorted. Of a secret it names the file at most."""
    found = set(_standing(names, text))
    if not found:
        secrets = [resources[n] for n in names if n in resources and resources[n].type_url == SECRET]
        found = {
            secret.name for secret in secrets if len(secrets) == 1 or any(_standing(_files(secret), text))
        }
    return tuple(sorted(found))


def _files(resource: Resource) -> tuple[str, ...]:
    """The files that a secret names."""
    try:
        secret: Any = resource.message()
    except DecodeError:
        return ()
    pair = secret.tls_certificate
    sources = (pair.certificate_chain, pair.private_key, secret.validation_context.trusted_ca)
    return tuple(source.filename for source in sources)


def _standing(names: Iterable[str], text: str) -> Iterator[str]:
    """Those of the names that stand in a text, not as part of a longer name."""
    for name in names:
        start = text.find(name) if name else -1
        while start >= 0:
            end = start + len(name)
            if not _in_name(text[start - 1 : start]) and not _in_name(text[end : end + 1]):
                yield name
                break
            start = text.find(name, end)


def _in_name(character: str) -> bool:
    return character.isalnum() or character in ("_", "-")
