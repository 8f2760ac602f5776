"""CloudFormation: a template that creates the mesh. References between its resources are `Fn::GetAtt`, so
that CloudFormation creates them in order; backends are plain names, because nodes may call each other in a
circle."""

from __future__ import annotations

import re
from typing import Any, Final

from .. import spec
from ..folders import file_name
from ..mesh import Mesh
from .losses import REFERENCES, losses
from .plain import Written, body, names

#: API -> CloudFormation, where it is not just a capital first letter (dialects §5).
_SPELT: Final = {
    "acm": "ACM",
    "awsCloudMap": "AWSCloudMap",
    "dns": "DNS",
    "grpc": "GRPC",
    "http": "HTTP",
    "http2": "HTTP2",
    "sds": "SDS",
    "tcp": "TCP",
    "tls": "TLS",
}
_NOT_IN_IDS: Final = re.compile("[^A-Za-z0-9]")
#: CloudFormation takes 255 characters.
_ID_MAX: Final = 200


def write(mesh: Mesh) -> Written:
    ids = _logical_ids(mesh)
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            ids[data.key]: _resource(data, mesh, ids) for data in mesh.resources() if data.key in ids
        },
    }
    return Written({file_name(mesh.name): (template,)}, tuple(losses(mesh, "cloudformation")))


def _logical_ids(mesh: Mesh) -> dict[str, str]:
    """Key -> logical id: what can stand in one of kind and name, and a number where two are alike."""
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for data in mesh.resources():
        if isinstance(data, spec.MeshData) and data.mesh_owner is not None:
            continue
        base = f"{_spelt(data.kind)}{''.join(_words(data))}"[:_ID_MAX]
        made, number = base, 2
        while made in taken:
            made, number = f"{base}{number}", number + 1
        taken.add(made)
        ids[data.key] = made
    return ids


def _words(data: spec.Data) -> list[str]:
    parts = [part for name in names(data).values() or (data.name,) for part in _NOT_IN_IDS.split(name)]
    return [part[:1].upper() + part[1:] for part in parts]


def _resource(data: spec.Data, mesh: Mesh, ids: dict[str, str]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if isinstance(data, spec.MeshData):
        properties["MeshName"] = data.mesh_name
    else:
        properties["MeshName"] = _attribute(ids, mesh.data.key, "MeshName", data.mesh_name)
        if data.mesh_owner is not None:
            properties["MeshOwner"] = data.mesh_owner
    own = f"{data.kind}Name"
    for member, name in names(data).items():
        properties[_spelt(member)] = name if member == own else _reference(member, name, ids)
    described = _properties(body(data), data, ids)
    if described or not isinstance(data, spec.MeshData):
        properties["Spec"] = described
    return {"Type": f"AWS::AppMesh::{_spelt(data.kind)}", "Properties": properties}


def _properties(value: Any, data: spec.Data, ids: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_properties(item, data, ids) for item in value]
    if not isinstance(value, dict):
        return value
    backend = isinstance(data, spec.VirtualNodeData)
    return {
        _spelt(key): _reference(key, item, ids)
        if isinstance(item, str) and key in REFERENCES and not backend
        else _properties(item, data, ids)
        for key, item in value.items()
    }


def _reference(member: str, name: str, ids: dict[str, str]) -> Any:
    key = REFERENCES[member] + name
    attribute = _spelt(member if member.endswith("Name") else f"{member}Name")
    return _attribute(ids, key, attribute, name)


def _attribute(ids: dict[str, str], key: str, attribute: str, name: str) -> Any:
    """An attribute of a resource of this template; the name itself for any other."""
    return {"Fn::GetAtt": [ids[key], attribute]} if key in ids else name


def _spelt(name: str) -> str:
    return _SPELT.get(name, name[:1].upper() + name[1:])
