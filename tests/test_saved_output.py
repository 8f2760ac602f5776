"""What AWS once printed or logged: CloudTrail, recorded responses, a folder of describe calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import appmesh_xds as am
from appmesh_xds.cli import main

LISTENER = {"portMapping": {"port": 8080, "protocol": "http"}}
DNS = {"dns": {"hostname": "red.local"}}


def _event(action: str, at: str, **given: Any) -> dict[str, Any]:
    request = {"meshName": "shop", "clientToken": "c", **given.pop("request")}
    return {
        "eventSource": "appmesh.amazonaws.com",
        "eventName": action,
        "eventTime": at,
        "requestParameters": request,
        "responseElements": {"ignored": {}},
        **given,
    }


def _node(name: str, port: int) -> dict[str, Any]:
    listener = {"portMapping": {"port": port, "protocol": "http"}}
    return {"virtualNodeName": name, "spec": {"listeners": [listener], "serviceDiscovery": DNS}}


EVENTS = [
    _event("UpdateVirtualNode", "2023-11-05T04:31:00Z", request=_node("red", 8081)),
    _event("CreateVirtualNode", "2023-11-05T04:29:11Z", request=_node("red", 8080)),
    _event("CreateVirtualNode", "2023-11-05T04:29:12Z", request=_node("blue", 8080)),
    _event("DeleteVirtualNode", "2023-11-05T05:00:00Z", request={"virtualNodeName": "blue"}),
    _event(
        "UpdateVirtualNode",
        "2023-11-06T00:00:00Z",
        request=_node("red", 9999),
        errorCode="BadRequestException",
    ),
    _event("DescribeVirtualNode", "2023-11-07T00:00:00Z", request={"virtualNodeName": "red"}),
    {"eventSource": "ec2.amazonaws.com", "eventName": "CreateVpc", "requestParameters": {"meshName": "x"}},
]


@pytest.mark.parametrize("form", ["Records", "Events"])
def test_the_last_event_of_a_resource_counts(form: str) -> None:
    entries = EVENTS if form == "Records" else [{"CloudTrailEvent": json.dumps(one)} for one in EVENTS]
    mesh = am.loads({form: entries})
    assert mesh.name == "shop"
    assert list(mesh.virtual_nodes) == ["red"]
    (listener,) = mesh.virtual_nodes["red"].spec.listeners or ()
    assert listener.port_mapping.port == 8081


def test_events_of_several_files(tmp_path: Path) -> None:
    for number, event in enumerate(EVENTS):
        (tmp_path / f"{9 - number}.json").write_text(json.dumps({"Records": [event]}, indent=1))
    reading = am.read(tmp_path)
    assert [data.key for data in reading.resources] == ["virtualNode/red"]
    assert {name for file in reading.files for name in file.dialects} == {"cloudtrail"}


def test_a_problem_of_an_event_says_where(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    broken = _event("CreateVirtualNode", "2023-11-05T04:29:11Z", request=_node("red", 70000))
    path.write_text(json.dumps({"Records": [broken]}, indent=1))
    (problem,) = am.read(path).problems
    assert problem.path == "$.spec.listeners[0].portMapping.port"
    assert "70000" in path.read_text().splitlines()[problem.line - 1]
    assert problem.severity == "error"


@pytest.mark.parametrize(
    "log",
    [
        {"Records": [{"eventSource": "ec2.amazonaws.com"}]},
        {"Records": "none"},
        {"Events": [{"CloudTrailEvent": "{"}, 7]},
    ],
)
def test_other_logs_are_passed_over(log: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log))
    (problem,) = am.read(path).problems
    assert "no App Mesh resource in it" in problem.message


def test_recorded_responses() -> None:
    """As placebo keeps them, dates and all."""
    created = {"__class__": "datetime", "year": 2023, "month": 11, "day": 5}
    mesh = am.loads(
        {
            "status_code": 200,
            "data": {
                "ResponseMetadata": {"HTTPStatusCode": 200},
                "virtualNode": {
                    "meshName": "shop",
                    **_node("red", 80),
                    "metadata": {"createdAt": created, "version": 1},
                    "status": {"status": "ACTIVE"},
                },
            },
        }
    )
    assert list(mesh.virtual_nodes) == ["red"]


def test_a_folder_made_by_describe_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists name resources without their specs; describe responses of version 1 and 2 hold them."""
    metadata = {"arn": "arn:aws:appmesh:eu-west-1:111122223333:mesh/shop", "uid": "u", "version": 2}
    files: dict[str, Any] = {
        "list-virtual-nodes.json": {
            "virtualNodes": [{"meshName": "shop", "virtualNodeName": "red", "arn": "arn:aws:appmesh:x"}]
        },
        "mesh.json": {"mesh": {"meshName": "shop", "spec": {}, "metadata": {**metadata, "createdAt": 1.5}}},
        "red.json": {
            "virtualNode": {
                "meshName": "shop",
                **_node("red", 8080),
                "metadata": {**metadata, "createdAt": "2023-11-05T04:29:11+00:00"},
                "status": {"status": "ACTIVE"},
            }
        },
    }
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    assert main(["translate", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "lds_ingress_0.0.0.0_15000" in out
    assert "list response: it names 1 resources and does not hold their specs" in err
    assert main(["check", str(tmp_path), "-v", "--envoy", "off"]) == 0
    assert "red.json: 1 virtualNode (api)" in capsys.readouterr().err
