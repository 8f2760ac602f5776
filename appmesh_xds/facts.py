"""Facts: what a mesh's specs do not say and only the world outside knows.

App Mesh asked AWS Certificate Manager for certificates and Cloud Map for endpoints. Here the caller says
both, as data, so that translation stays a pure function and a rotation or a new endpoint is an ordinary
change of the mesh:

    mesh.replace(
        certificates={"arn:aws:acm:...": FileCertificate(certificate_chain="/c.pem", private_key="/k.pem")},
        authorities={"arn:aws:acm-pca:...": FileTrust(certificate_chain="/ca.pem")},
        endpoints={"colorteller": (Endpoint(address="10.0.0.1"),)},
    )
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from msgspec import Meta, Struct

from .spec.common import FileCertificate, FileTrust
from .spec.types import SdsSecretName

__all__ = [
    "NO_MATERIAL",
    "Authority",
    "Certificate",
    "Endpoint",
    "FileCertificate",
    "FileTrust",
    "MaterialFacts",
    "Pem",
    "PemTrust",
    "SdsSecret",
]


class SdsSecret(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """The proxy's local SDS service (`Options.sds_socket`) has it, under this name."""

    secret_name: SdsSecretName


class Pem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False, repr_omit_defaults=True):
    """A certificate chain and its private key in memory, delivered as a Secret. The key never prints."""

    certificate_chain: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "Pem(certificate_chain=..., private_key=[redacted])"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("certificate_chain", ...), ("private_key", "[redacted]")]


class PemTrust(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Certificate authorities in memory, delivered as a Secret."""

    certificate_chain: bytes


Certificate: TypeAlias = FileCertificate | SdsSecret | Pem
Authority: TypeAlias = FileTrust | SdsSecret | PemTrust


class Endpoint(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """One instance behind a Cloud Map service."""

    #: An IP address, v4 or v6.
    address: Annotated[str, Meta(min_length=1)]
    #: Its address of the other version, when it has both: the node's ipPreference decides.
    other_address: Annotated[str, Meta(min_length=1)] | None = None
    #: None is the port of the node's listener, as App Mesh did (reference §2.4).
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    health: Literal["HEALTHY", "UNHEALTHY"] = "HEALTHY"
    #: Key and value pairs; all of the node's `attributes` must be among them.
    attributes: tuple[tuple[str, str], ...] = ()


_T = TypeVar("_T")


def of_mesh(mesh: str, said: Mapping[str, _T]) -> dict[str, _T]:
    """What is said of the nodes of one mesh, by their names.

    A key is `NODE`, for nodes of this name in any mesh, or `mesh/MESH/virtualNode/NODE`, which wins.
    """
    prefix = f"mesh/{mesh}/virtualNode/"
    own = {name.removeprefix(prefix): one for name, one in said.items() if name.startswith(prefix)}
    return {name: one for name, one in said.items() if not name.startswith("mesh/")} | own


class MaterialFacts(Struct, frozen=True, gc=False, cache_hash=True):
    """The certificates and authorities behind some ARNs, as a value: part of what a resource is made from."""

    #: Every ARN that was asked for, known or not.
    arns: tuple[str, ...] = ()
    certificates: tuple[tuple[str, Certificate], ...] = ()
    authorities: tuple[tuple[str, Authority], ...] = ()


NO_MATERIAL: Final = MaterialFacts()
