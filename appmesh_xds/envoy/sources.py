"""Where TLS material comes from: a spec's certificate or trust, with the facts, to what Envoy is told.

An ARN means nothing to Envoy. Facts say what stands behind it; an ARN without a fact is an error that names
the field.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from .. import names, proto
from ..facts import NO_MATERIAL, Authority, Certificate, FileTrust, MaterialFacts, Pem, PemTrust
from ..resource import Resource
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
    from ..spec import ClientPolicyTls, Listener, VirtualGatewayListener


def material_facts(mesh: Mesh, arns: Collection[str]) -> MaterialFacts:
    """What a mesh's facts say of some ARNs: all that a part which names them depends on."""
    if not arns:
        return NO_MATERIAL
    named = tuple(sorted(set(arns)))
    return MaterialFacts(
        named,
        tuple((arn, mesh.certificates[arn]) for arn in named if arn in mesh.certificates),
        tuple((arn, mesh.authorities[arn]) for arn in named if arn in mesh.authorities),
    )


def listener_arns(listeners: Iterable[Listener | VirtualGatewayListener]) -> list[str]:
    """The certificates that listeners name by ARN."""
    return [
        listener.tls.certificate.acm.certificate_arn
        for listener in listeners
        if listener.tls is not None and listener.tls.certificate.acm is not None
    ]


def policy_arns(policy: ClientPolicyTls | None) -> tuple[str, ...]:
    """The authorities that a client policy names by ARN."""
    if policy is None or policy.validation.trust.acm is None:
        return ()
    return policy.validation.trust.acm.certificate_authority_arns


class Secrets:
    """Secrets that the resources of one proxy refer to, by name. Handed down, read once at the end."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        #: With the places that each comes from, as keys.
        self.by_name: dict[str, tuple[proto.Secret, dict[str, None]]] = {}

    def add(self, secret: proto.Secret, origin: str) -> None:
        self.by_name.setdefault(secret.name, (secret, {}))[1][origin] = None

    def resources(self) -> tuple[Resource, ...]:
        return tuple(Resource.of(secret, tuple(origins)) for secret, origins in self.by_name.values())


class Material:
    """What turns certificates and trusts into sources: facts, options, and where to report.

    Secrets of ours are delivered when something uses them: what has a certificate and no trust is left out.
    """

    __slots__ = ("_offered", "authorities", "certificates", "options", "report", "secrets")

    def __init__(self, facts: MaterialFacts, options: Options, report: Report, secrets: Secrets) -> None:
        self.certificates: Mapping[str, Certificate] = dict(facts.certificates) if facts.arns else {}
        self.authorities: Mapping[str, Authority] = dict(facts.authorities) if facts.arns else {}
        self.options = options
        self.report = report
        self.secrets = secrets
        self._offered: dict[SecretRef, tuple[proto.Secret, str]] = {}

    def use(self, *sources: CertificateSource | TrustSource | None) -> None:
        """What a listener or a cluster refers to, now that all of it could be had."""
        for source in sources:
            if isinstance(source, SecretRef) and source in self._offered:
                self.secrets.add(*self._offered[source])

    def certificate(
        self, spec: ListenerTlsCertificate | ClientTlsCertificate, resource: str, path: str
    ) -> CertificateSource | None:
        """A listener's or a client's certificate. None when it cannot be had, which is reported."""
        if spec.file is not None:
            return self._certificate_files(spec.file, f"{resource} {path}.file")
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
            return self._certificate_files(fact, f"{resource} {path}")
        if isinstance(fact, Pem):
            return self._own(certificate_secret(arn, fact), f"{resource} {path}")
        return self._socket(fact.secret_name, resource, path)

    def trust(
        self,
        spec: TlsValidationContextTrust | ListenerTlsValidationContextTrust,
        resource: str,
        path: str,
    ) -> TrustSource | None:
        """Certificate authorities. None when they cannot be had, which is reported."""
        if spec.file is not None:
            return self._trust_file(spec.file, f"{resource} {path}.file")
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
            name = names.trust_secret(arns)
            return self._own(trust_secret(name, PemTrust(certificate_chain=bundle)), origin)
        if any(fact != first for fact in known):
            self.report.error(
                resource,
                path,
                "these authorities stand in different files or secrets, and Envoy takes one",
                "put them into one PEM file and let every ARN's fact name it",
            )
            return None
        if isinstance(first, FileTrust):
            return self._trust_file(first, origin)
        assert not isinstance(first, PemTrust)
        return self._socket(first.secret_name, resource, path)

    def _certificate_files(self, files: FileCertificate, origin: str) -> CertificateSource:
        if self.options.file_certificates == "inline":
            return files
        name = names.file_certificate_secret(files.certificate_chain, files.private_key)
        return self._own(certificate_secret(name, files), origin)

    def _trust_file(self, file: FileTrust, origin: str) -> TrustSource:
        if self.options.file_certificates == "inline":
            return file
        name = names.file_trust_secret(file.certificate_chain)
        return self._own(trust_secret(name, file), origin)

    def _own(self, secret: proto.Secret, origin: str) -> SecretRef:
        source = SecretRef(secret.name, "static" if self.options.delivery == "inline" else "ads")
        self._offered[source] = (secret, origin)
        return source

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
