"""`certs`: what it makes is what TLS stacks accept, and nothing that exists is lost."""

from __future__ import annotations

import ipaddress
import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appmesh_xds.certs import certificate_authority, dev_certs, issue_certificate
from appmesh_xds.errors import UsageError
from appmesh_xds.facts import Pem


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def sans(certificate: x509.Certificate) -> list[object]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.value for name in extension]


def handshake(server: Pem, client: Pem, trusted: Pem, server_name: str, folder: Path) -> None:
    """A mutual TLS handshake in memory; raises ssl.SSLError when either side refuses the other."""

    def context(side: int, own: Pem) -> ssl.SSLContext:
        result = ssl.SSLContext(side)
        result.verify_mode = ssl.CERT_REQUIRED
        result.load_verify_locations(cadata=trusted.certificate_chain.decode())
        own_file = folder / "own.pem"
        own_file.write_bytes(own.certificate_chain + own.private_key)
        result.load_cert_chain(own_file)
        return result

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        context(ssl.PROTOCOL_TLS_CLIENT, client).wrap_bio(to_client, to_server, server_hostname=server_name),
        context(ssl.PROTOCOL_TLS_SERVER, server).wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in tuple(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


# --- dev_certs ----------------------------------------------------------------------------------------------


def test_files_of_a_first_run(tmp_path: Path) -> None:
    made = dev_certs(tmp_path / "new" / "pki", ["serviceBv1.mesh.local", "spiffe://mesh.local/a", "10.0.0.1"])

    assert sorted(os.listdir(tmp_path / "new" / "pki")) == [
        "10.0.0.1.crt",
        "10.0.0.1.key",
        "ca.crt",
        "ca.key",
        "serviceBv1.mesh.local.crt",
        "serviceBv1.mesh.local.key",
        "spiffe%3A%2F%2Fmesh.local%2Fa.crt",
        "spiffe%3A%2F%2Fmesh.local%2Fa.key",
    ]
    assert made.new_authority
    assert made.authority == tmp_path / "new" / "pki" / "ca.crt"
    assert [c.name for c in made.certificates] == [
        "serviceBv1.mesh.local",
        "spiffe://mesh.local/a",
        "10.0.0.1",
    ]
    for path in made.directory.iterdir():
        expected = 0o600 if path.suffix == ".key" else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("serviceBv1.mesh.local", x509.DNSName, "serviceBv1.mesh.local"),
        ("*.mesh.local", x509.DNSName, "*.mesh.local"),
        ("localhost", x509.DNSName, "localhost"),
        ("under_score.local", x509.DNSName, "under_score.local"),
        ("spiffe://mesh.local/ns/a", x509.UniformResourceIdentifier, "spiffe://mesh.local/ns/a"),
        ("127.0.0.1", x509.IPAddress, ipaddress.ip_address("127.0.0.1")),
        ("fe80::1", x509.IPAddress, ipaddress.ip_address("fe80::1")),
        # Longer than a common name may be: the alternative name is whole all the same.
        ("a" * 60 + ".mesh.local", x509.DNSName, "a" * 60 + ".mesh.local"),
    ],
)
def test_alternative_name_by_the_look_of_the_name(
    tmp_path: Path, name: str, kind: type, value: object
) -> None:
    certificate = read(dev_certs(tmp_path, [name]).certificates[0].certificate)

    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(entry) for entry in extension] == [kind]
    assert sans(certificate) == [value]


def test_what_stands_in_a_certificate(tmp_path: Path) -> None:
    made = dev_certs(tmp_path, ["a.mesh.local"], days=10)
    leaf, authority = read(made.certificates[0].certificate), read(made.authority)

    key = load_pem_private_key(made.certificates[0].private_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    assert key.public_key() == leaf.public_key()
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=10)
    assert timedelta(minutes=59) < datetime.now(UTC) - leaf.not_valid_before_utc < timedelta(hours=2)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    leaf.verify_directly_issued_by(authority)


def test_both_ends_of_a_mutual_handshake_take_them(tmp_path: Path) -> None:
    made = dev_certs(tmp_path, ["server.mesh.local", "client.mesh.local"])
    server, client = (
        Pem(certificate_chain=c.certificate.read_bytes(), private_key=c.private_key.read_bytes())
        for c in made.certificates
    )
    trusted = Pem(certificate_chain=made.authority.read_bytes(), private_key=b"")

    handshake(server, client, trusted, "server.mesh.local", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, client, trusted, "client.mesh.local", tmp_path)


def test_more_names_later_are_signed_by_the_same_authority(tmp_path: Path) -> None:
    first = dev_certs(tmp_path, ["a.mesh.local"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    second = dev_certs(tmp_path, ["b.mesh.local"])

    assert (first.new_authority, second.new_authority) == (True, False)
    assert {n: (tmp_path / n).read_bytes() for n in before} == before
    read(second.certificates[0].certificate).verify_directly_issued_by(read(first.authority))


def test_a_name_given_twice_counts_once(tmp_path: Path) -> None:
    assert [c.name for c in dev_certs(tmp_path, ["a.local", "b.local", "a.local"]).certificates] == [
        "a.local",
        "b.local",
    ]


def test_each_authority_has_a_name_of_its_own(tmp_path: Path) -> None:
    one, two = (read(dev_certs(tmp_path / d, ["a"]).authority).subject for d in ("1", "2"))
    assert one != two


def test_an_existing_key_stays(tmp_path: Path) -> None:
    dev_certs(tmp_path, ["old.local"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(UsageError, match=r"old\.local\.key is there already: leave out old\.local, or use"):
        dev_certs(tmp_path, ["new.local", "old.local"])

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_certificate_without_its_key_stays_too(tmp_path: Path) -> None:
    (tmp_path / "a.local.crt").write_text("somebody's")

    with pytest.raises(UsageError, match=r"a\.local\.crt is there already"):
        dev_certs(tmp_path, ["a.local"])

    assert os.listdir(tmp_path) == ["a.local.crt"]


def test_force_replaces_names_and_never_the_authority(tmp_path: Path) -> None:
    made = dev_certs(tmp_path, ["a.local"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    dev_certs(tmp_path, ["a.local"], force=True)

    changed = {path.name for path in tmp_path.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"a.local.crt", "a.local.key"}
    assert stat.S_IMODE(made.certificates[0].private_key.stat().st_mode) == 0o600


def test_a_certificate_does_not_outlive_its_authority(tmp_path: Path) -> None:
    write(tmp_path, certificate_authority("short", days=30))

    leaf = read(dev_certs(tmp_path, ["a.local"], days=825).certificates[0].certificate)

    assert leaf.not_valid_after_utc <= read(tmp_path / "ca.crt").not_valid_after_utc
    assert leaf.not_valid_after_utc > datetime.now(UTC) + timedelta(days=27)


def test_an_authority_outlives_the_certificates_asked_for(tmp_path: Path) -> None:
    made = dev_certs(tmp_path, ["a.local"], days=5000)
    leaf = read(made.certificates[0].certificate)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc >= timedelta(days=4999)
    assert read(made.authority).not_valid_after_utc >= leaf.not_valid_after_utc


def test_every_odd_character_is_encoded_in_file_names(tmp_path: Path) -> None:
    made = dev_certs(tmp_path, ["*.a_b-c.local", "spiffe://m/~x"])
    assert [c.certificate.name for c in made.certificates] == [
        "%2A.a_b-c.local.crt",
        "spiffe%3A%2F%2Fm%2F%7Ex.crt",
    ]


def test_a_crash_while_writing_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev_certs(tmp_path, ["a.local"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("appmesh_xds.certs.os.replace", full_disk)
    with pytest.raises(UsageError, match=r"a\.local\.key: No space left on device"):
        dev_certs(tmp_path, ["a.local"], force=True)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no name: say at least one"),
        ([""], "an empty name"),
        (["a/b"], "'a/b' holds a '/'"),
        (["../../etc/x"], "holds a '/'"),
        ([".."], "'..' is neither a DNS name"),
        (["a b"], "'a b' is neither a DNS name"),
        (["bücher.local"], "international ones as xn--"),
        (["a.local:8080"], "'a.local:8080' is neither a DNS name"),
        (["spiffe://mesh.local/bü"], "write characters outside printable ASCII as %XX"),
        (["a\n"], "neither a DNS name"),
        (["x" * 254], "neither a DNS name"),
        (["ca"], "its files would be those of the authority"),
        (["CA"], "its files would be those of the authority"),
        (["spiffe://mesh/" + "x" * 250], "too long for a file name"),
        (["a" * 60 + ".b" * 96], "too long for a file name"),
        ("abc", "names is a list of names, not one string"),
    ],
)
def test_bad_names(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        dev_certs(tmp_path / "pki", names)
    assert message in str(raised.value)
    assert not list(tmp_path.rglob("*.key"))


@pytest.mark.parametrize("days", [0, -1, 36501])
def test_bad_days(tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match=rf"^{days} days: 1 to 36500 can be$"):
        dev_certs(tmp_path, ["a"], days=days)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("")
    with pytest.raises(UsageError, match=r"pki is a file, not a folder"):
        dev_certs(tmp_path / "pki", ["a"])


def test_a_folder_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/pki: Not a directory"):
        dev_certs(tmp_path / "file" / "pki", ["a"])


def test_a_folder_that_nobody_can_write() -> None:
    # Not even root: tests in a container often run as root, which file modes do not stop.
    with pytest.raises(UsageError, match=r"^/proc/\S+: (No such file|Permission denied|Read-only)"):
        dev_certs("/proc/self/pki", ["a"])


def write(folder: Path, authority: Pem) -> None:
    (folder / "ca.crt").write_bytes(authority.certificate_chain)
    (folder / "ca.key").write_bytes(authority.private_key)


def encrypted(authority: Pem) -> bytes:
    key = load_pem_private_key(authority.private_key, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


AUTHORITY = certificate_authority("tests")


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        (AUTHORITY.certificate_chain, None, "ca.crt is there without ca.key"),
        (None, AUTHORITY.private_key, "ca.key is there without ca.crt"),
        (b"no PEM", AUTHORITY.private_key, "its certificate is not a PEM certificate"),
        (AUTHORITY.certificate_chain, b"no PEM", "its key is not an unencrypted PEM private key"),
        (AUTHORITY.certificate_chain, encrypted(AUTHORITY), "its key is not an unencrypted PEM private key"),
        (
            AUTHORITY.certificate_chain,
            certificate_authority("other").private_key,
            "its key belongs to another certificate",
        ),
    ],
    ids=range(6),  # not what the cases hold: keys are never printed
)
def test_an_authority_that_cannot_sign(
    tmp_path: Path, certificate: bytes | None, key: bytes | None, message: str
) -> None:
    for name, content in (("ca.crt", certificate), ("ca.key", key)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(UsageError) as raised:
        dev_certs(tmp_path, ["a.local"], force=True)

    assert message in str(raised.value)
    assert "PRIVATE KEY" not in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_authority_that_has_expired(tmp_path: Path) -> None:
    write(tmp_path, certificate_authority("old", days=5, start=datetime.now(UTC) - timedelta(days=9)))
    with pytest.raises(
        UsageError, match=r"ca\.crt has expired with its key: remove both for a new authority"
    ):
        dev_certs(tmp_path, ["a.local"])


def test_a_leaf_is_no_authority(tmp_path: Path) -> None:
    write(tmp_path, issue_certificate(AUTHORITY, ["a.local"]))
    with pytest.raises(UsageError, match="not an authority's"):
        dev_certs(tmp_path, ["b.local"])


# --- the odd ones that tests of TLS need --------------------------------------------------------------------


def test_expired_and_other_authority_and_usage_are_refused_for_that_reason(tmp_path: Path) -> None:
    server = issue_certificate(AUTHORITY, ["s.local"])
    good = issue_certificate(AUTHORITY, ["c.local"])
    past = datetime.now(UTC) - timedelta(days=10)
    expired = issue_certificate(AUTHORITY, ["c.local"], start=past, days=5)
    foreign = issue_certificate(certificate_authority("other"), ["c.local"])
    for_servers = issue_certificate(AUTHORITY, ["c.local"], usages=["serverAuth"])

    handshake(server, good, AUTHORITY, "s.local", tmp_path)
    for client, reason in (
        (expired, "certificate has expired"),
        (foreign, "unable to get local issuer certificate"),
        (for_servers, "unsuitable certificate purpose|unsupported certificate purpose"),
    ):
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            handshake(server, client, AUTHORITY, "s.local", tmp_path)


def test_a_certificate_without_alternative_names() -> None:
    certificate = x509.load_pem_x509_certificate(
        issue_certificate(AUTHORITY, [], common_name="only a common name").certificate_chain
    )
    with pytest.raises(x509.ExtensionNotFound):
        sans(certificate)
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == "only a common name"


@pytest.mark.parametrize("common_name", ["", "x" * 65])
def test_bad_common_name_of_an_authority(common_name: str) -> None:
    with pytest.raises(UsageError, match="1 to 64 characters"):
        certificate_authority(common_name)


def test_keys_do_not_print(tmp_path: Path) -> None:
    pem = issue_certificate(AUTHORITY, ["a.local"])
    made = dev_certs(tmp_path, ["a.local"])

    secret_lines = pem.private_key.decode().splitlines()[1:-1]
    secret_lines += made.certificates[0].private_key.read_text().splitlines()[1:-1]
    printed = f"{pem!r} {pem} {made!r} {[pem]} {AUTHORITY!r} {list(pem.__rich_repr__())}"
    assert "[redacted]" in printed
    assert not [line for line in secret_lines if line in printed]
