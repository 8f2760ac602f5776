"""Certificates for trying it: a development authority and what it signs.

`dev_certs` is what `appmesh-xds dev-certs DIR --name serviceBv1.mesh.local` runs. The files of DIR:

    ca.crt        the authority: what listeners and client policies trust
    ca.key        its private key; reused when more names are added later
    <name>.crt    one certificate per name, good on both sides of a connection: a proxy shows the same
    <name>.key    identity as a server and as a client, so there is no second pair for the client

Characters outside `[A-Za-z0-9._-]` of a name are percent-encoded in its file names
(`spiffe://mesh.local/a` is `spiffe%3A%2F%2Fmesh.local%2Fa.crt`). Private keys are written with mode 0600,
every file under a temporary name that is then renamed. Not for production: the authority's key lies beside
what it signs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import tempfile
import urllib.parse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from .errors import UsageError
from .facts import Pem

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["DevCert", "DevCerts", "certificate_authority", "dev_certs", "issue_certificate"]

Usage = Literal["serverAuth", "clientAuth"]

#: What public authorities allow a certificate at most, and so what clients are sure to accept.
_LEAF_DAYS: Final = 825
_AUTHORITY_DAYS: Final = 3650
_MAX_DAYS: Final = 36500
#: Certificates start in the past: clocks of containers and laptops differ a little.
_BACKDATED: Final = timedelta(hours=1)
#: X.520's upper bound of a common name, in characters.
_COMMON_NAME_MAX: Final = 64
#: A file name has at most 255 bytes, four of them `.crt`.
_STEM_MAX: Final = 251
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_][A-Za-z0-9_-]*)*\.?")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+")


class DevCert(Struct, frozen=True, kw_only=True):
    """Where the certificate of one name and its private key are."""

    name: str
    certificate: Path
    private_key: Path


class DevCerts(Struct, frozen=True, kw_only=True):
    """What `dev_certs` made: the authority's certificate and one entry per name, in the order given."""

    directory: Path
    authority: Path
    #: False when the authority was there before and has been used again.
    new_authority: bool
    certificates: tuple[DevCert, ...]


def dev_certs(
    directory: str | os.PathLike[str], names: Iterable[str], *, days: int = _LEAF_DAYS, force: bool = False
) -> DevCerts:
    """Makes `ca.crt`, `ca.key` and a certificate and key for each of `names` in `directory`.

    A name is a DNS name, an IP address or a URI such as `spiffe://mesh.local/colorteller`, told by its look,
    and becomes the only subject alternative name of its certificate. `days` (1 to 36500) is how long the
    certificates are valid, though never longer than their authority. An authority that is in `directory`
    signs again. Without `force` nothing is written when a file of one of the names exists; with it those
    are replaced, the authority never.

    Raises UsageError for a bad name or number of days, a folder that cannot be written, a file that is
    there already, and an authority that cannot sign (without key, expired, not one).
    """
    folder = Path(directory)
    wanted = _targets(folder, names)
    _check_days(days)
    try:
        if not force:
            _refuse_existing(wanted)
        folder.mkdir(parents=True, exist_ok=True)
        authority, is_new = _authority_of(folder, days)
        for target in wanted:
            _write_pair(target.certificate, target.private_key, _signed_by(authority, target.name, days))
    except FileExistsError:
        raise UsageError(f"{folder} is a file, not a folder") from None
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror}") from None
    return DevCerts(directory=folder, authority=folder / "ca.crt", new_authority=is_new, certificates=wanted)


def _refuse_existing(wanted: Iterable[DevCert]) -> None:
    for target in wanted:
        for path in (target.private_key, target.certificate):
            if path.exists():
                raise UsageError(f"{path} is there already: leave out {target.name}, or use --force")


def certificate_authority(
    common_name: str, *, days: int = _AUTHORITY_DAYS, start: datetime | None = None
) -> Pem:
    """A self-signed authority (EC P-256, no authority below it) and its key.

    `start` (aware; None is an hour ago) and `days` say when it is valid. Raises UsageError for a common name
    that is empty or longer than 64 characters, and for `days` outside 1 to 36500.
    """
    from cryptography import x509

    _check_days(days)
    if not 0 < len(common_name) <= _COMMON_NAME_MAX:
        raise UsageError(f"an authority's common name has 1 to {_COMMON_NAME_MAX} characters")
    key = _new_key()
    subject = _subject(common_name)
    builder = (
        _certificate(subject, subject, key.public_key(), start or datetime.now(UTC) - _BACKDATED, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return _signed(builder, key, key)


def issue_certificate(
    authority: Pem,
    names: Sequence[str],
    *,
    common_name: str | None = None,
    days: int = _LEAF_DAYS,
    start: datetime | None = None,
    usages: Sequence[Usage] = ("serverAuth", "clientAuth"),
) -> Pem:
    """A new key and a certificate for it, signed by `authority`.

    `names` are its subject alternative names (none at all makes a certificate without the extension), the
    first of them its common name unless `common_name` says another; `usages` its extended key usages.
    `start` (aware; None is an hour ago) and `days` may lie in the past: that is how tests get an expired
    one. Raises UsageError for bad names or days, and for an authority whose key cannot be used.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    _check_days(days)
    oids = {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH, "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH}
    issuer, signer = _load_authority(authority)
    key = _new_key()
    subject = _subject((common_name or (names[0] if names else ""))[:_COMMON_NAME_MAX])
    builder = (
        _certificate(subject, issuer.subject, key.public_key(), start or datetime.now(UTC) - _BACKDATED, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage([oids[u] for u in usages]), critical=False)
    if names:
        sans = x509.SubjectAlternativeName([_alternative_name(name) for name in names])
        builder = builder.add_extension(sans, critical=False)
    return _signed(builder, key, signer)


# --- names ------------------------------------------------------------------------------------------------


def _targets(folder: Path, names: Iterable[str]) -> tuple[DevCert, ...]:
    """The files of each name; a name given twice counts once."""
    if isinstance(names, str):
        raise UsageError(f"names is a list of names, not one string: [{names!r}]")
    result = []
    for name in dict.fromkeys(names):
        _alternative_name(name)
        stem = urllib.parse.quote(name, safe="").replace("~", "%7E")
        if stem.lower() == "ca":  # in any case: some file systems see no difference
            raise UsageError(f"{name}: its files would be those of the authority, ca.crt and ca.key")
        if len(stem) > _STEM_MAX:
            raise UsageError(f"{name}: too long for a file name")
        pair = DevCert(name=name, certificate=folder / f"{stem}.crt", private_key=folder / f"{stem}.key")
        result.append(pair)
    if not result:
        raise UsageError("no name: say at least one, such as --name serviceBv1.mesh.local")
    return tuple(result)


def _alternative_name(name: str) -> x509.GeneralName:
    """By the look of it: an IP address, a URI (`scheme://...`), else a DNS name."""
    from cryptography import x509

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    if _URI.fullmatch(name):
        return x509.UniformResourceIdentifier(name)
    if _DNS_NAME.fullmatch(name) and len(name) <= 253:
        return x509.DNSName(name)
    if not name:
        raise UsageError("an empty name")
    if "://" in name:
        raise UsageError(f"{name!r} is not a URI: write characters outside printable ASCII as %XX")
    if "/" in name:
        raise UsageError(
            f"{name!r} holds a '/': a DNS name and an IP address have none, a URI begins 'spiffe://'"
        )
    raise UsageError(
        f"{name!r} is neither a DNS name (international ones as xn--...), an IP address nor a URI"
    )


def _check_days(days: int) -> None:
    if not 1 <= days <= _MAX_DAYS:
        raise UsageError(f"{days} days: 1 to {_MAX_DAYS} can be")


# --- certificates -----------------------------------------------------------------------------------------


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _subject(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> Pem:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Pem(
        certificate_chain=builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


# --- the authority ----------------------------------------------------------------------------------------


def _load_authority(
    authority: Pem, where: str = "the authority"
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]:
    """Its certificate and key. Raises UsageError, which never quotes the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate_chain)
    except ValueError:
        raise UsageError(f"{where}: its certificate is not a PEM certificate") from None
    try:
        key = load_pem_private_key(authority.private_key, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise UsageError(f"{where}: its key is not an unencrypted PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise UsageError(f"{where}: its key is neither EC nor RSA")
    if key.public_key() != certificate.public_key():
        raise UsageError(f"{where}: its key belongs to another certificate")
    if not _may_sign(certificate):
        raise UsageError(f"{where}: its certificate is not an authority's (basic constraints lack CA:TRUE)")
    return certificate, key


def _may_sign(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _authority_of(folder: Path, days: int) -> tuple[Pem, bool]:
    """The authority in the folder, made when there is none; and whether it is new."""
    certificate, key = folder / "ca.crt", folder / "ca.key"
    there = certificate.exists(), key.exists()
    if there == (False, False):
        # A name of its own for each: with equal subjects a verifier would find the wrong authority first.
        made = certificate_authority(
            f"appmesh-xds development CA {secrets.token_hex(4)}", days=max(_AUTHORITY_DAYS, days)
        )
        _write_pair(certificate, key, made)
        return made, True
    again = "remove both for a new authority, which makes the certificates of the old one worthless"
    if there != (True, True):
        has, lacks = (certificate, key) if there[0] else (key, certificate)
        raise UsageError(f"{has} is there without {lacks.name}: {again}, or put the other one back")
    found = Pem(certificate_chain=certificate.read_bytes(), private_key=key.read_bytes())
    loaded, _ = _load_authority(found, where=str(certificate))
    if loaded.not_valid_after_utc <= datetime.now(UTC):
        raise UsageError(f"{certificate} has expired with its key: {again}")
    return found, False


def _signed_by(authority: Pem, name: str, days: int) -> Pem:
    """For `days`, or for as long as the authority lives: a certificate that outlives it helps nobody."""
    issuer, _ = _load_authority(authority)
    start = datetime.now(UTC) - _BACKDATED
    left = (issuer.not_valid_after_utc - start).days
    return issue_certificate(authority, [name], days=max(1, min(days, left)), start=start)


# --- files ------------------------------------------------------------------------------------------------


def _write_pair(certificate: Path, private_key: Path, pem: Pem) -> None:
    _write(private_key, pem.private_key, 0o600)
    _write(certificate, pem.certificate_chain, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Under a temporary name, then renamed: nobody ever reads half of it, or a key before its mode is set."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".dev-certs-")  # 0600 from the start
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
