"""Private keys stay away from those who may not have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Problem

if TYPE_CHECKING:
    from ..resource import Resource
    from ..snapshot import Snapshot


def without_keys(snapshot: Snapshot) -> Snapshot:
    """The snapshot without the secrets that hold key material. Those that name files, and authorities, stay.

    What uses such a secret then waits for it: its listener accepts nothing.
    """
    if not snapshot.secrets:
        return snapshot
    kept = tuple(secret for secret in snapshot.secrets if not _holds_key(secret))
    return snapshot if len(kept) == len(snapshot.secrets) else msgspec.structs.replace(snapshot, secrets=kept)


def withheld_keys(snapshots: Iterable[Snapshot], served: Callable[[Snapshot], bool]) -> list[Problem]:
    """A warning for each proxy that waits for a private key which nobody is given. `served`: somebody is."""
    hint = "serve with mutual TLS (--client-ca) or on a socket of its own (--unix), or give the proxy a file"
    return [
        Problem(
            resource=snapshot.proxy,
            message=f"its private keys are not served: {', '.join(names)}",
            hint=hint,
            severity="warning",
        )
        for snapshot in snapshots
        if (names := [secret.name for secret in snapshot.secrets if _holds_key(secret)])
        and not served(snapshot)
    ]


def _holds_key(resource: Resource) -> bool:
    secret: Any = resource.message()
    if secret.HasField("tls_certificate"):
        material = secret.tls_certificate
        return bool(material.HasField("private_key") and _inline(material.private_key)) or material.HasField(
            "private_key_provider"
        )
    # Ticket keys and generic secrets are secret as a whole; this library makes none.
    return not secret.HasField("validation_context")


def _inline(source: Any) -> bool:
    return source.WhichOneof("specifier") in ("inline_bytes", "inline_string")
