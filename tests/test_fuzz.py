"""Readers under broken input: whatever a file holds, there are resources or problems, never an exception.

The suite throws a few of each; in depth: `APPMESH_XDS_DEPTH=20000 python -m pytest tests/test_fuzz.py`.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import appmesh_xds as am
from appmesh_xds.cloud_map import Found, endpoints_of, services_of
from appmesh_xds.cloud_map.file import FileSource
from appmesh_xds.errors import errors_in
from appmesh_xds.readers.found import Context
from appmesh_xds.readers.work import Work

DEPTH = int(os.environ.get("APPMESH_XDS_DEPTH", "40"))
BY_HAND = Path(__file__).parent / "dialects"

_TERRAFORM = {
    "format_version": "1.0",
    "values": {
        "root_module": {
            "resources": [
                {
                    "address": "aws_appmesh_mesh.m",
                    "type": "aws_appmesh_mesh",
                    "name": "m",
                    "values": {"name": "shop", "spec": [{"egress_filter": [{"type": "ALLOW_ALL"}]}]},
                },
                {
                    "address": "aws_appmesh_virtual_node.n",
                    "type": "aws_appmesh_virtual_node",
                    "name": "n",
                    "values": {
                        "name": "red",
                        "mesh_name": "shop",
                        "spec": [
                            {
                                "listener": [{"port_mapping": [{"port": 80, "protocol": "http"}]}],
                                "service_discovery": [{"dns": [{"hostname": "red.local"}]}],
                            }
                        ],
                    },
                },
            ]
        }
    },
}
_CLOUDTRAIL = {
    "Records": [
        {
            "eventSource": "appmesh.amazonaws.com",
            "eventName": "CreateVirtualNode",
            "eventTime": "2023-11-05T04:29:11Z",
            "requestParameters": {
                "meshName": "shop",
                "virtualNodeName": "red",
                "spec": {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]},
            },
        }
    ]
}


class _Plain(yaml.SafeLoader):
    """Short tags as the functions they stand for."""


def _function(loader: Any, tag: str, node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        value = value.split(".") if tag == "GetAtt" else value
    else:
        value = loader.construct_sequence(node, deep=True)
    return {"Ref" if tag == "Ref" else f"Fn::{tag}": value}


_Plain.add_multi_constructor("!", _function)

#: A document of each dialect, or several.
SEEDS: dict[str, list[Any]] = {
    **{
        path.stem: list(yaml.load_all(path.read_text(), Loader=_Plain))
        for path in sorted(BY_HAND.glob("*.yaml"))
    },
    "terraform": [_TERRAFORM],
    "cloudtrail": [_CLOUDTRAIL],
}
_NAMES = st.sampled_from(
    ["spec", "meshName", "kind", "Type", "Fn::GetAtt", "Ref", "Fn::If", "listeners", "name", "values", ""]
)
_TEXTS = ["${x}", "{{resolve:ssm:x}}", "arn:aws:x", "\ud800", "\x00", "*", "9" * 30]
_PIECES = [b"", b"\t", b"\n---\n", b"&a ", b"*a", b"!Ref ", b"{", b"]", b'"', b"\xff", b"\x00"]
_MEMBERS = _NAMES | st.text(max_size=4)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(_TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_MEMBERS, inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key)."""
    found: list[tuple[Any, Any]] = []
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        found.append((value, key))
        if isinstance(item, dict | list):
            found.extend(_places(item))
    return found


@st.composite
def _broken(draw: st.DrawFn, seed: list[Any]) -> list[Any]:
    documents = copy.deepcopy(seed)
    for _ in range(draw(st.integers(1, 4))):
        places = _places(documents)
        if not places:
            break
        container, key = draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        action = draw(st.sampled_from(["replace", "remove", "rename", "wrap", "repeat"]))
        if action == "replace":
            container[key] = draw(_VALUES)
        elif action == "remove":
            del container[key]
        elif action == "rename" and isinstance(container, dict):
            container[draw(_NAMES)] = container.pop(key)
        elif action == "wrap":
            container[key] = [container[key]]
        elif action == "repeat" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
    return documents


def _survives(content: bytes) -> None:
    work = Work()
    work.read_content(content, "file", Context(), by_name=True)
    reading = work.finish()
    for problem in reading.problems:
        assert problem.message and problem.file == "file"
    if not errors_in(reading.problems):
        for name in reading.meshes:
            mesh = reading.mesh(name)
            for proxy in mesh.proxies():
                am.translate(mesh, proxy)


@pytest.mark.parametrize("dialect", SEEDS)
@settings(max_examples=DEPTH, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_documents_that_are_broken(dialect: str, data: st.DataObject) -> None:
    documents = data.draw(_broken(SEEDS[dialect]))
    try:
        # JSON is YAML too, and a stream of documents is YAML alone.
        text = "\n---\n".join(json.dumps(document, ensure_ascii=False) for document in documents)
    except (TypeError, ValueError):
        return
    _survives(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("source", sorted(BY_HAND.glob("*.yaml")), ids=lambda path: path.stem)
@settings(max_examples=DEPTH, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_texts_that_are_broken(source: Path, data: st.DataObject) -> None:
    text = source.read_bytes()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 40)))
        inserted = data.draw(st.sampled_from(_PIECES) | st.binary(max_size=6))
        text = text[:start] + inserted + text[end:]
    _survives(text)


_FOUND = {"awsCloudMap": {"namespaceName": "shop", "serviceName": "red"}}
_CALLED = [
    {
        "meshName": "m",
        "virtualNodeName": "red",
        "spec": {
            "listeners": [{"portMapping": {"port": 80, "protocol": "http"}}],
            "serviceDiscovery": _FOUND,
        },
    },
    {
        "meshName": "m",
        "virtualNodeName": "front",
        "spec": {"backends": [{"virtualService": {"virtualServiceName": "red.local"}}]},
    },
    {
        "meshName": "m",
        "virtualServiceName": "red.local",
        "spec": {"provider": {"virtualNode": {"virtualNodeName": "red"}}},
    },
]
_ANSWER = {
    "InstanceId": "i",
    "ServiceName": "red",
    "NamespaceName": "shop",
    "HealthStatus": "UNKNOWN",
    "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_IPV6": "fd00::1"},
}
#: Instances by service, and as Cloud Map answers.
_INSTANCES = {
    "named": [
        {
            "red.shop": [
                {"address": "10.0.0.1", "port": 80, "health": "HEALTHY", "attributes": {"version": "v1"}},
                {"ipv4": "10.0.0.2", "ipv6": "fd00::2"},
            ]
        }
    ],
    "answers": [[{"Instances": [_ANSWER]}]],
}


@pytest.mark.parametrize("form", _INSTANCES)
@settings(max_examples=DEPTH, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_instances_that_are_broken(form: str, data: st.DataObject) -> None:
    documents = data.draw(_broken(_INSTANCES[form]))
    try:
        text = "\n---\n".join(json.dumps(document, ensure_ascii=False) for document in documents)
    except (TypeError, ValueError):
        return
    mesh = am.loads(_CALLED)
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode("utf-8", "surrogatepass"))
        file.flush()
        try:
            found = FileSource(file.name).discover(services_of(mesh))
        except am.SpecErrors as errors:
            found = Found(instances={}, problems=errors.problems)
    assert all(problem.file == file.name and problem.message for problem in found.problems)
    made = am.translate(mesh.replace(endpoints=endpoints_of(mesh, found.instances)), "virtualNode/front")
    assert bool(made.errors) == (not found.instances)
