"""Spec parts that nodes, gateways and routes share: TLS, durations, logging, matchers.

The API's model repeats identical shapes for gateways (`VirtualGatewayClientPolicy` is `ClientPolicy` member
by member). One struct stands for both here; `tests/test_spec_model.py` holds the pairs together.
"""

from __future__ import annotations

from ._base import Spec
from .types import (
    Arn,
    CertificateAuthorityArns,
    DurationUnit,
    DurationValue,
    FilePath,
    HeaderMatchValue,
    HeaderName,
    JsonKey,
    JsonValue,
    Port,
    RangeBound,
    SdsSecretName,
    SubjectAlternativeNameList,
    TextFormat,
)


class Duration(Spec, frozen=True, kw_only=True):
    """A length of time: `value` in `unit`. The API requires neither; both must be there to mean anything."""

    unit: DurationUnit | None = None
    value: DurationValue | None = None

    @property
    def milliseconds(self) -> int:
        """The length in milliseconds; 0 when incomplete (which a check reports)."""
        return (self.value or 0) * (1 if self.unit == "ms" else 1000)


# --- TLS ------------------------------------------------------------------------------------------


class FileCertificate(Spec, frozen=True, kw_only=True):
    """A certificate chain and its key as PEM files on the proxy's own disk."""

    certificate_chain: FilePath
    private_key: FilePath


class SdsCertificate(Spec, frozen=True, kw_only=True):
    """A certificate that the proxy's local SDS service hands out under a name."""

    secret_name: SdsSecretName


class AcmCertificate(Spec, frozen=True, kw_only=True):
    """A certificate in AWS Certificate Manager. Facts say what stands behind the ARN."""

    certificate_arn: Arn


class AcmTrust(Spec, frozen=True, kw_only=True):
    """Certificate authorities in AWS Private CA, at most three. Facts say what stands behind the ARNs."""

    certificate_authority_arns: CertificateAuthorityArns


class FileTrust(Spec, frozen=True, kw_only=True):
    """Certificate authorities as a PEM bundle on the proxy's own disk."""

    certificate_chain: FilePath


class SdsTrust(Spec, frozen=True, kw_only=True):
    """Certificate authorities that the proxy's local SDS service hands out under a name."""

    secret_name: SdsSecretName


class SubjectAlternativeNameMatchers(Spec, frozen=True, kw_only=True):
    exact: SubjectAlternativeNameList


class SubjectAlternativeNames(Spec, frozen=True, kw_only=True):
    """Names of which the peer's certificate must carry at least one."""

    match: SubjectAlternativeNameMatchers


class ClientTlsCertificate(Spec, frozen=True, kw_only=True):
    """Union: exactly one member."""

    file: FileCertificate | None = None
    sds: SdsCertificate | None = None


class TlsValidationContextTrust(Spec, frozen=True, kw_only=True):
    """Union: exactly one member."""

    acm: AcmTrust | None = None
    file: FileTrust | None = None
    sds: SdsTrust | None = None


class TlsValidationContext(Spec, frozen=True, kw_only=True):
    """How a client checks its server's certificate."""

    trust: TlsValidationContextTrust
    subject_alternative_names: SubjectAlternativeNames | None = None


class ClientPolicyTls(Spec, frozen=True, kw_only=True):
    """TLS that a client originates. `enforce` defaults to true, no `ports` means every port."""

    validation: TlsValidationContext
    certificate: ClientTlsCertificate | None = None
    enforce: bool | None = None
    ports: tuple[Port, ...] | None = None


class ClientPolicy(Spec, frozen=True, kw_only=True):
    tls: ClientPolicyTls | None = None


class BackendDefaults(Spec, frozen=True, kw_only=True):
    client_policy: ClientPolicy | None = None


class ListenerTlsCertificate(Spec, frozen=True, kw_only=True):
    """Union: exactly one member."""

    acm: AcmCertificate | None = None
    file: FileCertificate | None = None
    sds: SdsCertificate | None = None


class ListenerTlsValidationContextTrust(Spec, frozen=True, kw_only=True):
    """Union: exactly one member. (No `acm`: the API refuses it on listeners.)"""

    file: FileTrust | None = None
    sds: SdsTrust | None = None


class ListenerTlsValidationContext(Spec, frozen=True, kw_only=True):
    """Mutual TLS: what a client's certificate must satisfy."""

    trust: ListenerTlsValidationContextTrust
    subject_alternative_names: SubjectAlternativeNames | None = None


# --- access logs ----------------------------------------------------------------------------------


class JsonFormatRef(Spec, frozen=True, kw_only=True):
    key: JsonKey
    value: JsonValue


class LoggingFormat(Spec, frozen=True, kw_only=True):
    """Union: exactly one member. Envoy's access-log operators inside."""

    json: tuple[JsonFormatRef, ...] | None = None
    text: TextFormat | None = None


class FileAccessLog(Spec, frozen=True, kw_only=True):
    path: FilePath
    format: LoggingFormat | None = None


class AccessLog(Spec, frozen=True, kw_only=True):
    """Union: exactly one member."""

    file: FileAccessLog | None = None


class Logging(Spec, frozen=True, kw_only=True):
    access_log: AccessLog | None = None


# --- matching -------------------------------------------------------------------------------------


class MatchRange(Spec, frozen=True, kw_only=True):
    """Integers from `start` up to but not including `end`."""

    start: RangeBound
    end: RangeBound


class HeaderMatchMethod(Spec, frozen=True, kw_only=True):
    """Union: exactly one member. `regex` must match the whole value (RE2 syntax)."""

    exact: HeaderMatchValue | None = None
    prefix: HeaderMatchValue | None = None
    range: MatchRange | None = None
    regex: HeaderMatchValue | None = None
    suffix: HeaderMatchValue | None = None


class HeaderMatch(Spec, frozen=True, kw_only=True):
    """A request header (or a gRPC metadata entry) to match; without `match` it must be present."""

    name: HeaderName
    invert: bool | None = None
    match: HeaderMatchMethod | None = None
