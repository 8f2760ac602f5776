"""Who may connect, and what they may have: by how a server listens.

listens with                         clients                      private keys
nothing, on loopback                 any                          no, or --insecure-serve-keys
TLS, on loopback                     any                          no, or --insecure-serve-keys
TLS and --client-ca                  by their certificate's name  yes
TLS and --no-client-auth             any that reach it            never
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
from msgspec import Struct

from ..errors import UsageError
from ..snapshot import Snapshot
from .address import is_local
from .identity import Identities
from .session import Access, Peer, no_keys
from .tls import ServerTls


class Security(Struct, frozen=True):
    """What `serve` is given."""

    credentials: grpc.ServerCredentials | None
    access: Callable[[Peer, Snapshot], Access]
    #: Whether anybody may have private keys.
    keys: bool
    #: Path of the server's own certificate.
    certificate: str | None = None


def security(
    listen: str,
    tls: ServerTls | None,
    identities: Identities,
    *,
    client_auth: bool = True,
    insecure_keys: bool = False,
) -> Security:
    """Raises `UsageError` for what does not go together."""
    rules = identities.trust_domain is not None or bool(identities.table)
    if tls is not None and tls.client_ca is not None:
        if not client_auth or insecure_keys:
            flag = "--insecure-serve-keys" if insecure_keys else "--no-client-auth"
            raise UsageError(f"{flag} does not go with --client-ca")
        if not rules:
            raise UsageError("--client-ca needs --trust-domain or --identities: else nobody is let in")
        return Security(tls.credentials(), identities.access, True, tls.certificate)
    if rules:
        raise UsageError("--trust-domain and --identities need --client-ca: names must be verified")
    if not is_local(listen):
        if tls is None:
            raise UsageError(f"{listen} is beyond loopback: it needs TLS (--tls-certificate, --tls-key)")
        if client_auth:
            raise UsageError(f"{listen} is beyond loopback: it needs --client-ca, or --no-client-auth")
        if insecure_keys:
            raise UsageError(f"--insecure-serve-keys: {listen} is beyond loopback")
    credentials = None if tls is None else tls.credentials()
    access, certificate = _everything if insecure_keys else no_keys, None if tls is None else tls.certificate
    return Security(credentials, access, insecure_keys, certificate)


def _everything(peer: Peer, snapshot: Snapshot) -> Access:
    return Access.FULL
