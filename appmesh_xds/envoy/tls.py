"""TLS contexts, transport sockets and secrets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from .. import proto
from ..facts import FileCertificate, FileTrust, Pem, PemTrust
from ..names import SDS_CLUSTER
from .base import ads, is_ip

if TYPE_CHECKING:
    from google.protobuf.message import Message

#: What a listener offers and what a client offers, by the listener's protocol (reference §10.9).
LISTENER_ALPN: Final[dict[str, tuple[str, ...]]] = {
    "http": ("h2", "http/1.1"),  # the connection manager's codec is AUTO, it serves both
    "http2": ("h2",),
    "grpc": ("h2",),
    "tcp": (),
}
CLIENT_ALPN: Final[dict[str, tuple[str, ...]]] = {
    "http": ("http/1.1",),
    "http2": ("h2",),
    "grpc": ("h2",),
    "tcp": (),
}

#: TlsParameters.TlsProtocol. Envoy's own upper bound for upstreams is 1.2 (reference §11).
_TLS_1_2: Final = 3
_TLS_1_3: Final = 4

#: SubjectAltNameMatcher.SanType
_SAN_DNS: Final = 2
_SAN_URI: Final = 3
_SAN_IP: Final = 4


class SecretRef(Struct, frozen=True, gc=False):
    """A secret by name, and who hands it out.

    `socket`: the proxy's local SDS service. `ads`: the control plane. `static`: the bootstrap itself.
    """

    name: str
    via: Literal["socket", "ads", "static"]


CertificateSource: TypeAlias = FileCertificate | SecretRef
TrustSource: TypeAlias = FileTrust | SecretRef


def downstream_tls_context(
    *,
    certificate: CertificateSource,
    trust: TrustSource | None = None,
    subject_alternative_names: Sequence[str] = (),
    alpn: Sequence[str] = (),
) -> proto.DownstreamTlsContext:
    """TLS of a listener. With a trust, clients must present a certificate (mutual TLS).

    `require_client_certificate` is always written when there is a trust and never without: Envoy would let
    everybody in, silently (envoy-notes §0). No names means any certificate the trust signed
    (App Mesh user guide, "Mutual TLS Authentication"). Raises ValueError for names without a trust, which
    would check nothing.
    """
    if trust is None and subject_alternative_names:
        raise ValueError("subject alternative names without a trust would check nothing")
    result = proto.DownstreamTlsContext()
    _fill_common(result.common_tls_context, certificate, trust, subject_alternative_names, alpn)
    if trust is not None:
        result.require_client_certificate.value = True
    return result


def upstream_tls_context(
    *,
    certificate: CertificateSource | None = None,
    trust: TrustSource | None = None,
    subject_alternative_names: Sequence[str] = (),
    alpn: Sequence[str] = (),
    sni: str = "",
) -> proto.UpstreamTlsContext:
    """TLS that a client originates. Without a trust the server's certificate is not checked at all.

    Raises ValueError for names without a trust, which would check nothing.
    """
    if trust is None and subject_alternative_names:
        raise ValueError("subject alternative names without a trust would check nothing")
    result = proto.UpstreamTlsContext()
    if sni:
        result.sni = sni
    _fill_common(result.common_tls_context, certificate, trust, subject_alternative_names, alpn)
    return result


def _fill_common(
    common: proto.CommonTlsContext,
    certificate: CertificateSource | None,
    trust: TrustSource | None,
    names: Sequence[str],
    alpn: Sequence[str],
) -> None:
    common.tls_params.tls_minimum_protocol_version = _TLS_1_2
    common.tls_params.tls_maximum_protocol_version = _TLS_1_3
    common.alpn_protocols.extend(alpn)
    if isinstance(certificate, FileCertificate):
        _fill_files(common.tls_certificates.add(), certificate)
    elif certificate is not None:
        common.tls_certificate_sds_secret_configs.append(sds_secret_config(certificate))
    if trust is None:
        return
    if isinstance(trust, FileTrust):
        common.validation_context.trusted_ca.filename = trust.certificate_chain
        common.validation_context.match_typed_subject_alt_names.extend(map(subject_alt_name_matcher, names))
    elif names:
        combined = common.combined_validation_context
        combined.default_validation_context.match_typed_subject_alt_names.extend(
            map(subject_alt_name_matcher, names)
        )
        combined.validation_context_sds_secret_config.CopyFrom(sds_secret_config(trust))
    else:
        # Not `combined` with an empty default: Envoy refused that from App Mesh (RM#331).
        common.validation_context_sds_secret_config.CopyFrom(sds_secret_config(trust))


def _fill_files(target: proto.TlsCertificate, certificate: FileCertificate) -> None:
    target.certificate_chain.filename = certificate.certificate_chain
    target.private_key.filename = certificate.private_key


def subject_alt_name_matcher(name: str) -> proto.SubjectAltNameMatcher:
    """An exact name, of the type that its look tells: URI, IP address or else DNS (reference §10.13)."""
    result = proto.SubjectAltNameMatcher()
    result.san_type = _san_type(name)
    result.matcher.exact = name
    return result


def _san_type(name: str) -> int:
    if "://" in name:
        return _SAN_URI
    return _SAN_IP if is_ip(name) else _SAN_DNS


def is_dns_name(name: str) -> bool:
    """Whether a subject alternative name is taken for a DNS name."""
    return _san_type(name) == _SAN_DNS


@cache
def sds_secret_config(secret: SecretRef) -> proto.SdsSecretConfig:
    """Where Envoy fetches a secret from. Shared: copy it into a message, never change it."""
    result = proto.SdsSecretConfig()
    result.name = secret.name
    if secret.via == "ads":
        result.sds_config.CopyFrom(ads())
    elif secret.via == "socket":
        source = result.sds_config
        source.resource_api_version = 2
        api = source.api_config_source
        api.api_type = 2  # GRPC
        api.transport_api_version = 2
        # Envoy's node message is 61 kB of extension names; once per stream is enough.
        api.set_node_on_first_message_only = True
        api.grpc_services.add().envoy_grpc.cluster_name = SDS_CLUSTER
    return result


def transport_socket(context: Message) -> proto.TransportSocket:
    """A TLS context as a transport socket."""
    result = proto.TransportSocket()
    result.name = "envoy.transport_sockets.tls"
    result.typed_config.CopyFrom(proto.pack(context))
    return result


def certificate_secret(name: str, certificate: Pem | FileCertificate) -> proto.Secret:
    """A certificate and its key as a secret. With `Pem` it holds the key itself.

    Files are read again when something is renamed in their folder; a pair that does not fit is left alone
    until it does.
    """
    result = proto.Secret()
    result.name = name
    if isinstance(certificate, FileCertificate):
        _fill_files(result.tls_certificate, certificate)
        _watch(result.tls_certificate, certificate.certificate_chain, certificate.private_key)
    else:
        result.tls_certificate.certificate_chain.inline_bytes = certificate.certificate_chain
        result.tls_certificate.private_key.inline_bytes = certificate.private_key
    return result


def trust_secret(name: str, trust: PemTrust | FileTrust) -> proto.Secret:
    """Certificate authorities as a secret. A file is read again when something is renamed in its folder."""
    result = proto.Secret()
    result.name = name
    trusted_ca = result.validation_context.trusted_ca
    if isinstance(trust, FileTrust):
        trusted_ca.filename = trust.certificate_chain
        _watch(result.validation_context, trust.certificate_chain)
    else:
        trusted_ca.inline_bytes = trust.certificate_chain
    return result


#: The link that Kubernetes swaps to bring new files into a volume.
_SWAPPED: Final = "/..data/"


def link_folder(path: str) -> str | None:
    """The folder to watch for a path that leads through the link `..data`: the one the link stands in.

    None for other paths. Envoy watches the folder of each file by itself, and sees what is renamed there; it
    sees neither writing in place nor a link further up the path that is swapped. To name that folder would
    change nothing but one thing: where a file is not there at first, Envoy 1.36 ends with the first rename
    (envoyproxy/envoy#21239, mended by #42554).
    """
    return (path[: path.index(_SWAPPED)] or "/") if _SWAPPED in path else None


def _watch(material: proto.TlsCertificate | proto.CertificateValidationContext, *paths: str) -> None:
    folders = {link_folder(path) for path in paths}
    # Envoy would watch this one alone.
    if len(folders) == 1 and (folder := folders.pop()) is not None:
        material.watched_directory.path = folder
