"""The server's own certificate, and whose clients it trusts: files that may be replaced while it runs."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Struct

from ..errors import Problem, UsageError
from ..readers.text import read_bytes
from .logs import note

_Files = tuple[bytes, bytes, bytes | None]


class ServerTls(Struct, frozen=True, kw_only=True):
    """Paths of PEM files. With `client_ca` clients must show a certificate of that authority."""

    certificate: str
    private_key: str
    client_ca: str | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Reads the files anew for each handshake. A pair that does not fit is left alone until it does.

        Raises `UsageError` for files that cannot be used now.
        """
        first = self._read()
        return grpc.dynamic_ssl_server_credentials(
            _configuration(first),
            _Reloading(self, first),  # type: ignore[arg-type]  # None is allowed: all stays
            require_client_authentication=self.client_ca is not None,
        )

    def _read(self) -> _Files:
        """Certificates, key and authorities, looked at. What a key file holds is never part of a message."""
        chain = _content(self.certificate)
        key = _content(self.private_key)
        trust = None if self.client_ca is None else _content(self.client_ca)
        certificates = _certificates(chain, self.certificate)
        if trust is not None:
            _certificates(trust, self.client_ca or "")
        try:
            public = load_pem_private_key(key, None).public_key()
        except (ValueError, TypeError):
            raise UsageError(f"{self.private_key}: holds no private key in PEM, without a password") from None
        if public != certificates[0].public_key():
            raise UsageError(f"{self.private_key}: is not the key of {self.certificate}")
        return chain, key, trust


class _Reloading:
    """What gRPC asks before each handshake; it may do so from any thread."""

    def __init__(self, tls: ServerTls, used: _Files) -> None:
        self._tls = tls
        self._used = used
        self._complaint = ""

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            found = self._tls._read()
        except UsageError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                note(logging.ERROR, "certificate_not_loaded", text=self._complaint)
            return None
        self._complaint = ""
        if found == self._used:
            return None
        self._used = found
        note(logging.INFO, "certificate_loaded", file=self._tls.certificate)
        return _configuration(found)


def _configuration(files: _Files) -> grpc.ServerCertificateConfiguration:
    chain, key, trust = files
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=trust)


def _content(path: str) -> bytes:
    content = read_bytes(Path(path))
    if isinstance(content, Problem):
        raise UsageError(f"{path}: {content.message}")
    return content


def _certificates(content: bytes, path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise UsageError(f"{path}: holds no certificate in PEM") from None
