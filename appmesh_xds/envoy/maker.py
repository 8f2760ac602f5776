"""Maker: how the parts of a snapshot are made, each from values alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..resolve import Service, resolve_service
from .backend import Backend, backend, backend_facts

if TYPE_CHECKING:
    from ..mesh import Mesh
    from ..options import Options
    from ..spec import ClientPolicyTls


class Maker(Protocol):
    """What the assembly of a proxy calls. A translator brings one that remembers."""

    def part(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`, or what the same call gave before. The arguments are immutable values."""

    def service(self, mesh: Mesh, name: str) -> Service | None:
        """What stands behind a virtual service; None when the mesh has no such service."""

    def backend(
        self, mesh: Mesh, options: Options, service: str, policy: ClientPolicyTls | None
    ) -> Backend | None:
        """What a virtual service adds to a proxy that calls it under this policy; None as above."""


class Fresh:
    """The maker that remembers nothing."""

    def part(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def service(self, mesh: Mesh, name: str) -> Service | None:
        return resolve_service(mesh, name)

    def backend(
        self, mesh: Mesh, options: Options, service: str, policy: ClientPolicyTls | None
    ) -> Backend | None:
        found = resolve_service(mesh, service)
        if found is None:
            return None
        return backend(found, policy, backend_facts(found, policy, mesh), mesh.data, options)
