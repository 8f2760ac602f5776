"""Which TLS a client speaks to one listener of a backend: App Mesh's decision table (reference §3.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from .. import proto
from ..facts import FileCertificate, FileTrust
from ..spec import ClientPolicyTls, Listener
from .sources import Material
from .templates import serialized
from .tls import (
    CLIENT_ALPN,
    CertificateSource,
    SecretRef,
    TrustSource,
    is_dns_name,
    transport_socket,
    upstream_tls_context,
)

if TYPE_CHECKING:
    from ..spec import BackendDefaults, ClientPolicy

#: Stands for the client in problems of a part that several clients share; its path starts at the policy.
CLIENT: Final = "client"


class ClientTls(Struct, frozen=True, gc=False):
    """The TLS of one backend cluster. `usable` is false when material is missing: it must then not be
    reached at all, rather than in the clear."""

    usable: bool
    #: The transport socket, serialised; empty for plaintext.
    socket: bytes = b""


def effective_policy(
    override: ClientPolicy | None, defaults: BackendDefaults | None
) -> tuple[ClientPolicyTls | None, bool]:
    """The policy that holds for a backend, and whether it is the backend's own.

    A backend's own `tls` replaces that of `backendDefaults` as a whole; members are not merged.
    """
    if override is not None and override.tls is not None:
        return override.tls, True
    if defaults is not None and defaults.client_policy is not None:
        return defaults.client_policy.tls, False
    return None, False


def client_tls(
    *,
    policy: ClientPolicyTls | None,
    listener: Listener,
    discovery_name: str,
    target: str,
    material: Material,
) -> ClientTls:
    """The decision for one (target listener, policy). Problems name `CLIENT` or the target."""
    port, protocol = listener.port_mapping.port, listener.port_mapping.protocol
    applies = policy is not None and (not policy.ports or port in policy.ports)
    enforced = applies and policy is not None and policy.enforce is not False
    server = listener.tls if listener.tls is not None and listener.tls.mode != "DISABLED" else None
    if not enforced and server is None:
        return ClientTls(True)
    certificate: CertificateSource | None = None
    trust: TrustSource | None = None
    names: tuple[str, ...] = ()
    if applies and policy is not None:
        validation = policy.validation
        if policy.certificate is not None:
            certificate = material.certificate(policy.certificate, CLIENT, ".certificate")
            if certificate is None:
                return ClientTls(False)
        trust = material.trust(validation.trust, CLIENT, ".validation.trust")
        if trust is None:
            return ClientTls(False)
        given = validation.subject_alternative_names
        # Without names the target must carry its own discovery name (reference §3.2).
        names = given.match.exact if given is not None else (discovery_name,)
    elif server is not None and server.certificate.acm is not None:
        path = f"$.spec.listeners[port={port}].tls.certificate.acm.certificateArn"
        trust = material.authority((server.certificate.acm.certificate_arn,), target, path)
        if trust is None:
            return ClientTls(False)
        names = (discovery_name,)
    else:
        material.report.warning(
            CLIENT,
            "",
            f"no client policy covers port {port} of {target}: its certificate is not checked",
            "add clientPolicy.tls.validation, as App Mesh checked nothing here either",
        )
    material.use(certificate, trust)
    sni = discovery_name if material.options.send_sni else ""
    return ClientTls(True, _socket(certificate, trust, names, CLIENT_ALPN[protocol], sni))


@lru_cache(maxsize=1024)
def _socket(
    certificate: CertificateSource | None,
    trust: TrustSource | None,
    names: tuple[str, ...],
    alpn: tuple[str, ...],
    sni: str,
) -> bytes:
    """The socket, serialised: the targets of a service usually agree in it."""
    if isinstance(certificate, SecretRef) or isinstance(trust, SecretRef) or not all(map(is_dns_name, names)):
        context = upstream_tls_context(
            certificate=certificate, trust=trust, subject_alternative_names=names, alpn=alpn, sni=sni
        )
        return transport_socket(context).SerializeToString(deterministic=True)
    files = () if certificate is None else (certificate.certificate_chain, certificate.private_key)
    authority = () if trust is None else (trust.certificate_chain,)
    texts = (*files, *authority, *((sni,) if sni else ()), *names)
    return serialized(_socket_message, texts, bool(files), bool(authority), bool(sni), alpn)


def _socket_message(
    texts: tuple[str, ...], certificate: bool, trust: bool, sni: bool, alpn: tuple[str, ...]
) -> proto.TransportSocket:
    """A socket whose material lies in files; every name is a DNS name."""
    rest = iter(texts)
    context = upstream_tls_context(
        certificate=FileCertificate(certificate_chain=next(rest), private_key=next(rest))
        if certificate
        else None,
        trust=FileTrust(certificate_chain=next(rest)) if trust else None,
        sni=next(rest) if sni else "",
        subject_alternative_names=tuple(rest),
        alpn=alpn,
    )
    return transport_socket(context)
