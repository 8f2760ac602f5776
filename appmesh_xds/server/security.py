"""Who may connect, and what they may have: by how a server listens.

listens with                         clients                      private keys
nothing, on loopback                 any                          no, or --insecure-serve-keys
TLS, on loopback                     any                          no, or --insecure-serve-keys
TLS and --client-ca                  by their certificate's name  yes
TLS and --no-client-auth             any that reach it            never
--unix PATH=KIND/NAME                who may open the socket      yes, of that proxy
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from ..errors import UsageError
from ..snapshot import Snapshot
from .address import is_local
from .bindings import Bindings
from .identity import Identities
from .listeners import MODE, Listener
from .session import Access, Peer, no_keys
from .tls import ServerTls


class Security(Struct, frozen=True, kw_only=True):
    """What `serve` is given."""

    listeners: tuple[Listener, ...]
    #: Whether private keys are given to whoever may have a proxy, wherever that connects.
    keys: bool = False
    #: Sockets that are each one proxy's, which is given its keys there.
    bindings: Bindings = msgspec.field(default_factory=lambda: Bindings({}))
    #: Path of the server's own certificate.
    certificate: str | None = None


def security(
    listen: str | None,
    tls: ServerTls | None,
    identities: Identities,
    *,
    client_auth: bool = True,
    insecure_keys: bool = False,
    sockets: Mapping[str, str] | None = None,
    mode: int = MODE,
    group: int | None = None,
) -> Security:
    """`sockets` are paths, each with its proxy; `mode` and `group` are those of every unix socket.

    Raises `UsageError` for what does not go together.
    """
    bindings = Bindings(sockets or {})
    own = [Listener(f"unix:{path}", None, bindings.access(path), mode, group) for path in bindings.proxies]
    if listen is None:
        return Security(listeners=tuple(own), bindings=bindings)
    rules = identities.trust_domain is not None or bool(identities.table)
    access, keys = (_everything, True) if insecure_keys else (no_keys, False)
    if tls is not None and tls.client_ca is not None:
        if not client_auth or insecure_keys:
            flag = "--insecure-serve-keys" if insecure_keys else "--no-client-auth"
            raise UsageError(f"{flag} does not go with --client-ca")
        if not rules:
            raise UsageError("--client-ca needs --trust-domain or --identities: else nobody is let in")
        access, keys = identities.access, True
    elif rules:
        raise UsageError("--trust-domain and --identities need --client-ca: names must be verified")
    elif not is_local(listen):
        if tls is None:
            raise UsageError(f"{listen} is beyond loopback: it needs TLS (--tls-certificate, --tls-key)")
        if client_auth:
            raise UsageError(f"{listen} is beyond loopback: it needs --client-ca, or --no-client-auth")
        if insecure_keys:
            raise UsageError(f"--insecure-serve-keys: {listen} is beyond loopback")
    credentials = None if tls is None else tls.credentials()
    return Security(
        listeners=(Listener(listen, credentials, access, mode, group), *own),
        keys=keys,
        bindings=bindings,
        certificate=None if tls is None else tls.certificate,
    )


def _everything(peer: Peer, snapshot: Snapshot) -> Access:
    return Access.FULL
