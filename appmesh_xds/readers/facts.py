"""Facts files: certificates, authorities and endpoints, as YAML or JSON.

certificates:
  arn:aws:acm:...: {certificateChain: /certs/a.crt, privateKey: /certs/a.key}     # files of the proxy
  arn:aws:acm:...: {secretName: a}                                               # its SDS service
  arn:aws:acm:...: {pem: {certificateChain: a.crt, privateKey: a.key}}            # files read here
authorities:
  arn:aws:acm-pca:...: {certificateChain: /certs/ca.crt}
endpoints:
  colorteller: [{address: 10.0.0.1, port: 8080, attributes: {version: v1}}]
  mesh/shop/virtualNode/colorteller: []             # of this mesh's node alone
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..errors import Problem, SpecErrors
from ..facts import (
    Authority,
    Certificate,
    Endpoint,
    FileCertificate,
    FileTrust,
    Pem,
    PemTrust,
    SdsSecret,
    of_mesh,
)
from .endpoints import EndpointsReader
from .text import Document, documents, member, read_bytes

if TYPE_CHECKING:
    from ..mesh import Mesh


#: The label of a PEM block; keys have more words before (`RSA PRIVATE KEY`).
_CERTIFICATE: Final = "CERTIFICATE"
_PRIVATE_KEY: Final = "PRIVATE KEY"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a facts file says; `apply` puts it into a mesh."""

    file: str

    certificates: Mapping[str, Certificate]
    authorities: Mapping[str, Authority]
    endpoints: Mapping[str, tuple[Endpoint, ...]]
    #: The files under `pem`, which were read too.
    materials: tuple[str, ...] = ()

    def apply(self, mesh: Mesh) -> Mesh:
        """The mesh with these facts."""
        return mesh.replace(
            certificates=self.certificates,
            authorities=self.authorities,
            endpoints=of_mesh(mesh.name, self.endpoints),
        )

    def strangers(self, *meshes: Mesh) -> tuple[Problem, ...]:
        """A warning for every virtual node with endpoints that is in none of these meshes.

        Those of a mesh that is not among them may well be in it.
        """
        there = {name for mesh in meshes for name in mesh.virtual_nodes}
        there.update(f"mesh/{mesh.name}/virtualNode/{name}" for mesh in meshes for name in mesh.virtual_nodes)
        prefixes = tuple(f"mesh/{mesh.name}/virtualNode/" for mesh in meshes)
        names = " or ".join(mesh.name for mesh in meshes)
        return tuple(
            Problem(
                file=self.file,
                path=member("$.endpoints", name),
                message=f"mesh {names} has no virtual node of this name",
                severity="warning",
            )
            for name in sorted(self.endpoints)
            if name not in there and (not name.startswith("mesh/") or name.startswith(prefixes))
        )


def load_facts(path: str | os.PathLike[str]) -> Facts:
    """Reads a facts file. Files named under `pem` are read too, relative to the facts file.

    The content of those may be a private key and is never part of a problem. Raises `SpecErrors` with every
    problem.
    """
    file = Path(path)
    content = read_bytes(file)
    if isinstance(content, Problem):
        raise SpecErrors([content])
    found, problems = documents(content, str(file))
    if len(found) > 1:
        problems.append(Problem(file=str(file), message="holds several documents", hint="one is expected"))
    if problems:
        raise SpecErrors(problems)
    document = found[0] if found else Document(str(file), {}, dict)
    return _Reader(document, file.parent).read()


class _Reader(EndpointsReader):
    def __init__(self, document: Document, folder: Path) -> None:
        super().__init__(document)
        self.folder = folder
        self.materials: list[str] = []

    def read(self) -> Facts:
        value = self.document.value
        if not isinstance(value, dict):
            self.problem("$", "expected a mapping", "certificates:, authorities:, endpoints:")
            value = {}
        known = ("certificates", "authorities", "endpoints")
        for key in value:
            if key not in known:
                self.problem(member("$", key), f"unknown; known are {', '.join(known)}")
        facts = Facts(
            file=self.document.file,
            certificates=self._table(value, "certificates", self._certificate),
            authorities=self._table(value, "authorities", self._authority),
            endpoints=self._table(value, "endpoints", self.endpoints),
            materials=tuple(self.materials),
        )
        if self.problems:
            raise SpecErrors(sorted(self.problems))
        return facts

    def _table(self, value: dict[Any, Any], key: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
        table = value.get(key)
        path = member("$", key)
        if table is None:
            return {}
        if not isinstance(table, dict):
            self.problem(path, "expected a mapping")
            return {}
        made = {str(name): read(item, member(path, name)) for name, item in table.items()}
        return {name: item for name, item in made.items() if item is not None}

    def _certificate(self, value: Any, path: str) -> Certificate | None:
        if isinstance(value, dict) and "pem" in value:
            files = self.convert(value["pem"], FileCertificate, f"{path}.pem")
            if files is None:
                return None
            self._alone(value, path)
            chain = self._content(files.certificate_chain, _CERTIFICATE, f"{path}.pem.certificateChain")
            key = self._content(files.private_key, _PRIVATE_KEY, f"{path}.pem.privateKey")
            if chain is None or key is None:
                return None
            if not _is_pair(chain, key):
                # Also what one sees in the middle of a rotation.
                self.problem(f"{path}.pem", "the private key does not belong to the certificate")
                return None
            return Pem(certificate_chain=chain, private_key=key)
        kind = SdsSecret if isinstance(value, dict) and "secretName" in value else FileCertificate
        made: Certificate | None = self.convert(value, kind, path)
        return made

    def _authority(self, value: Any, path: str) -> Authority | None:
        if isinstance(value, dict) and "pem" in value:
            file = self.convert(value["pem"], FileTrust, f"{path}.pem")
            if file is None:
                return None
            self._alone(value, path)
            chain = self._content(file.certificate_chain, _CERTIFICATE, f"{path}.pem.certificateChain")
            return PemTrust(certificate_chain=chain) if chain else None
        kind = SdsSecret if isinstance(value, dict) and "secretName" in value else FileTrust
        made: Authority | None = self.convert(value, kind, path)
        return made

    def _alone(self, value: dict[str, Any], path: str) -> None:
        for key in value:
            if key != "pem":
                self.problem(member(path, key), "does not go with `pem`", "give one of the two")

    def _content(self, name: str, kind: str, path: str) -> bytes | None:
        """The content of a PEM file. What it holds is never part of a message."""
        self.materials.append(str(self.folder / name))
        nul = "\0" in name  # Python refuses to open such a one
        content = (
            Problem(message="cannot be read: NUL in its name") if nul else read_bytes(self.folder / name)
        )
        if isinstance(content, Problem):
            self.problem(path, f"{self.folder / name} {content.message}")
            return None
        if not re.search(rf"-----BEGIN [A-Z ]*{kind}-----".encode(), content):
            self.problem(path, f"{self.folder / name} holds no PEM {kind.lower()}")
            return None
        return content


def _is_pair(chain: bytes, private_key: bytes) -> bool:
    """Whether a private key belongs to the first certificate. Heavy to import, and only needed here."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        public = load_pem_private_key(private_key, None).public_key()
        return public == x509.load_pem_x509_certificates(chain)[0].public_key()
    except (ValueError, TypeError):
        return False
