"""Certificates of tests, good and odd. The fixture `certificates` makes them once per session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.facts import Pem

#: The names on the certificates of every test.
SERVER_NAME = "server.mesh.local"
CLIENT_NAME = "client.mesh.local"
CLIENT_URI = "spiffe://mesh.local/client"


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate and its key, on disk."""

    certificate: Path
    private_key: Path


@dataclass(frozen=True)
class Certificates:
    """One authority and what it signed, good and odd; and another authority that nobody trusts."""

    authority: Path
    other_authority: Path
    #: For `SERVER_NAME`.
    server: CertificateFiles
    #: For `CLIENT_NAME` and `CLIENT_URI`.
    client: CertificateFiles
    #: For `stranger.mesh.local`, signed by the trusted authority.
    wrong_name: CertificateFiles
    #: `CLIENT_NAME` in the common name alone.
    no_name: CertificateFiles
    #: For `CLIENT_NAME`, signed by the other authority.
    other_ca: CertificateFiles
    #: For `CLIENT_NAME`, until yesterday.
    expired: CertificateFiles
    #: For `CLIENT_NAME`, with extended key usage serverAuth alone.
    server_only: CertificateFiles


def make_certificates(folder: Path) -> Certificates:
    """Writes them all into `folder`."""
    ours, other = certificate_authority("ours"), certificate_authority("other")

    def files(stem: str, pem: Pem) -> CertificateFiles:
        paths = CertificateFiles(folder / f"{stem}.crt", folder / f"{stem}.key")
        paths.certificate.write_bytes(pem.certificate_chain)
        paths.private_key.touch(mode=0o600)
        paths.private_key.write_bytes(pem.private_key)
        return paths

    def client(authority: Pem, **odd: object) -> Pem:
        return issue_certificate(authority, [CLIENT_NAME, CLIENT_URI], **odd)  # type: ignore[arg-type]

    return Certificates(
        authority=files("ca", ours).certificate,
        other_authority=files("other-ca", other).certificate,
        server=files("server", issue_certificate(ours, [SERVER_NAME])),
        client=files("client", client(ours)),
        wrong_name=files("wrong-name", issue_certificate(ours, ["stranger.mesh.local"])),
        no_name=files("no-name", issue_certificate(ours, [], common_name=CLIENT_NAME)),
        other_ca=files("other-client", client(other)),
        expired=files("expired", client(ours, days=1, start=datetime.now(UTC) - timedelta(days=2))),
        server_only=files("server-only", client(ours, usages=["serverAuth"])),
    )
