"""The mesh's own spec."""

from __future__ import annotations

from ._base import Spec
from .types import EgressFilterType, IpPreference


class EgressFilter(Spec, frozen=True, kw_only=True):
    type: EgressFilterType


class MeshServiceDiscovery(Spec, frozen=True, kw_only=True):
    ip_preference: IpPreference | None = None


class MeshSpec(Spec, frozen=True, kw_only=True):
    """What holds for every proxy of a mesh. No egress filter means DROP_ALL."""

    egress_filter: EgressFilter | None = None
    service_discovery: MeshServiceDiscovery | None = None
