"""Private keys stay away from those who may not have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

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
