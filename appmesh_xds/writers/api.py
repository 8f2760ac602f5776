"""The API's own JSON: each resource as the request that creates it (`aws appmesh create-*
--cli-input-json`)."""

from __future__ import annotations

from typing import Any

from .. import spec
from ..folders import file_name
from ..mesh import Mesh
from .plain import Written, body, names


def write(mesh: Mesh) -> Written:
    return Written({_path(data): (_request(data),) for data in mesh.resources()}, ())


def _request(data: spec.Data) -> dict[str, Any]:
    owner = {} if data.mesh_owner is None else {"meshOwner": data.mesh_owner}
    return {"meshName": data.mesh_name, **owner, **names(data), "spec": body(data)}


def _path(data: spec.Data) -> str:
    """`<mesh>/virtualNode/<name>`; routes stand below their router, gateway routes below their gateway."""
    parts = (data.mesh_name, data.kind, *names(data).values())
    return "/".join(part if part == data.kind else file_name(part) for part in parts)
