"""Where TLS material comes from: a spec's certificate or trust, with the facts, to what Envoy is told.

An ARN means nothing to Envoy. Facts say what stands behind it; an ARN without a fact is an error that names
the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from .. import proto
from ..facts import Authority, Certificate, FileTrust, Pem, PemTrust
from ..spec import (
    ClientTlsCertificate,
    FileCertificate,
    ListenerTlsCertificate,
    ListenerTlsValidationContextTrust,
    TlsValidationContextTrust,
)
from .report import Report
from .tls import CertificateSource, SecretRef, TrustSource, certificate_secret, trust_secret

if TYPE_CHECKING:
    from ..mesh import Mesh
    from ..options import Options


class Secrets:
    """Secrets that the resources of one proxy refer to, by name. Handed down, read once at the end."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        self.by_name: dict[str, tuple[proto.Secret, str]] = {}

    def add(self, secret: proto.Secret, origin: str) -> None:
        self.by_name.setdefault(secret.name, (secret, origin))


class Material:
    """What turns certificates and trusts into sources: a mesh's facts, options, and where to report."""

    __slots__ = ("authorities", "certificates", "options", "report", "secrets")

    def __init__(self, mesh: Mesh, options: Options, report: Report, secrets: Secrets) -> None:
        self.certificates: Mapping[str, Certificate] = mesh.certificates
        self.authorities: Mapping[str, Authority] = mesh.authorities
        self.options = options
        self.report = report
        self.secrets = secrets

    def certificate(
        self, spec: ListenerTlsCertificate | ClientTlsCertificate, resource: str, path: str
    ) -> CertificateSource | None:
        """A listener's or a client's certificate. None when it cannot be had, which is reported."""
        if spec.file is not None:
            return spec.file
        if spec.sds is not None:
            return self._socket(spec.sds.secret_name, resource, f"{path}.sds")
        acm = getattr(spec, "acm", None)
        if acm is None:
            return None
        arn: str = acm.certificate_arn
        path = f"{path}.acm.certificateArn"
        fact = self.certificates.get(arn)
        if fact is None:
            self.report.error(
                resource,
                path,
                f"no certificate is known for {arn}",
                f"add it to the facts: certificates: {{{arn}: {{certificateChain: /path/c.pem, "
                "privateKey: /path/k.pem}} or {secretName: NAME}",
            )
            return None
        if isinstance(fact, FileCertificate):
            return fact
        if isinstance(fact, Pem):
            self.secrets.add(certificate_secret(arn, fact), f"{resource} {path}")
            return SecretRef(arn, self._own())
        return self._socket(fact.secret_name, resource, path)

    def trust(
        self,
        spec: TlsValidationContextTrust | ListenerTlsValidationContextTrust,
        resource: str,
        path: str,
    ) -> TrustSource | None:
        """Certificate authorities. None when they cannot be had, which is reported."""
        if spec.file is not None:
            return spec.file
        if spec.sds is not None:
            return self._socket(spec.sds.secret_name, resource, f"{path}.sds")
        acm = getattr(spec, "acm", None)
        if acm is None:
            return None
        return self.authority(
            acm.certificate_authority_arns, resource, f"{path}.acm.certificateAuthorityArns"
        )

    def authority(self, arns: tuple[str, ...], resource: str, path: str) -> TrustSource | None:
        """The authorities behind one or more ARNs; several are one bundle."""
        facts = [(arn, self.authorities.get(arn)) for arn in arns]
        for index, (arn, fact) in enumerate(facts):
            if fact is None:
                self.report.error(
                    resource,
                    f"{path}[{index}]" if path.endswith("Arns") else path,
                    f"no certificate authority is known for {arn}",
                    f"add it to the facts: authorities: {{{arn}: {{certificateChain: /path/ca.pem}}}}",
                )
        known = [fact for _, fact in facts if fact is not None]
        if len(known) != len(facts):
            return None
        first = known[0]
        origin = f"{resource} {path}"
        if all(isinstance(fact, PemTrust) for fact in known):
            bundle = b"\n".join(f.certificate_chain for f in known if isinstance(f, PemTrust))
            name = ",".join(arns)
            self.secrets.add(trust_secret(name, PemTrust(certificate_chain=bundle)), origin)
            return SecretRef(name, self._own())
        if any(fact != first for fact in known):
            self.report.error(
                resource,
                path,
                "these authorities stand in different files or secrets, and Envoy takes one",
                "put them into one PEM file and let every ARN's fact name it",
            )
            return None
        if isinstance(first, FileTrust):
            return first
        assert not isinstance(first, PemTrust)
        return self._socket(first.secret_name, resource, path)

    def _own(self) -> Literal["ads", "static"]:
        return "static" if self.options.delivery == "inline" else "ads"

    def _socket(self, name: str, resource: str, path: str) -> SecretRef | None:
        if self.options.sds_socket is None:
            self.report.error(
                resource,
                path,
                f"the secret {name!r} comes from the proxy's SDS service, and no socket is known for it",
                "give --sds-socket PATH (Options.sds_socket), for example /run/spire/sockets/agent.sock",
            )
            return None
        return SecretRef(name, "socket")
