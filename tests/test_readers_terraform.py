"""Terraform: HCL, state and plan."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.readers import read

CORPUS = Path(os.environ.get("APPMESH_XDS_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))

HCL = """
variable "suffix" { default = "local" }

locals { port = 8080 }

resource "aws_appmesh_mesh" "shop" {
  name = "shop"
  spec {
    egress_filter { type = "ALLOW_ALL" }
  }
}

resource "aws_appmesh_virtual_node" "front" {
  name      = "front"
  mesh_name = aws_appmesh_mesh.shop.id

  spec {
    backend {
      virtual_service { virtual_service_name = aws_appmesh_virtual_service.cars.name }
    }
    backend {
      virtual_service { virtual_service_name = "other.${var.suffix}" }
    }
    listener {
      port_mapping {
        port     = local.port
        protocol = "http"
      }
      tls {
        mode = "STRICT"
        certificate {
          file {
            certificate_chain = "/c.crt"
            private_key       = "/c.key"
          }
        }
      }
    }
    service_discovery {
      aws_cloud_map {
        namespace_name = "shop.local"
        service_name   = "front"
        attributes     = { version = "v1", zone = "a" }
      }
    }
  }
}

resource "aws_appmesh_virtual_service" "cars" {
  name      = "cars.local"
  mesh_name = "shop"
  spec {}
}
"""


def _read(folder: Path, **files: str) -> am.Reading:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return read(folder)


def test_hcl(tmp_path: Path) -> None:
    reading = _read(tmp_path, main__tf=HCL)
    assert reading.problems == ()
    mesh = reading.mesh()
    assert mesh.data.spec.egress_filter == spec.EgressFilter(type="ALLOW_ALL")
    node = mesh.virtual_nodes["front"].spec
    names = [
        backend.virtual_service and backend.virtual_service.virtual_service_name
        for backend in node.backends or ()
    ]
    assert names == ["cars.local", "other.local"]
    listener = (node.listeners or ())[0]
    assert listener.port_mapping == spec.PortMapping(port=8080, protocol="http")
    assert listener.tls is not None and listener.tls.certificate.file is not None
    assert listener.tls.certificate.file.private_key == "/c.key"
    found = node.service_discovery and node.service_discovery.aws_cloud_map
    assert found is not None
    assert [(one.key, one.value) for one in found.attributes or ()] == [("version", "v1"), ("zone", "a")]


def test_files_of_a_folder_are_one_module(tmp_path: Path) -> None:
    mesh, rest = HCL.split('resource "aws_appmesh_virtual_node"', 1)
    reading = _read(
        tmp_path,
        a__tf='resource "aws_appmesh_virtual_node"' + rest,
        b__tf=mesh,
        terraform__tfvars='suffix = "given"\n',
    )
    backends = reading.mesh().virtual_nodes["front"].spec.backends or ()
    assert backends[1] == spec.Backend(
        virtual_service=spec.VirtualServiceBackend(virtual_service_name="other.given")
    )


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (("local.port", "var.unknown"), "portMapping.port", "var.unknown"),
        (('"other.${var.suffix}"', 'lower("X")'), "backends[1]", "lower"),
        (("aws_appmesh_mesh.shop.id", "data.x.y.name"), "$.meshName", "data.x.y.name"),
        (('  mesh_name = "shop"\n', '  mesh_name = "shop"\n  count = 2\n'), "$", "count"),
    ],
    ids=["variable without default", "function", "data source", "count"],
)
def test_what_terraform_must_evaluate(
    tmp_path: Path, change: tuple[str, str], path: str, message: str
) -> None:
    assert change[0] in HCL
    reading = _read(tmp_path, main__tf=HCL.replace(*change))
    problem = reading.problems[0]
    assert path in problem.path
    assert message in problem.message
    assert "terraform show -json" in problem.hint
    assert problem.resource.startswith("aws_appmesh_")
    assert problem.line > 1


def test_a_wrong_value_names_its_place(tmp_path: Path) -> None:
    reading = _read(tmp_path, main__tf=HCL.replace('"STRICT"', '"strict"'))
    assert [(p.path, p.line) for p in reading.problems] == [("$.spec.listeners[0].tls.mode", 13)]


def test_broken_hcl(tmp_path: Path) -> None:
    reading = _read(tmp_path, main__tf='resource "aws_appmesh_mesh" {\n  name = \n')
    assert len(reading.problems) == 1
    assert "HCL" in reading.problems[0].message


TARGETS = [
    {"port": 0, "virtual_node": "front", "weight": 0},
    {"port": 0, "virtual_node": "back", "weight": 1},
]
ROUTE: dict[str, Any] = {
    "address": "aws_appmesh_route.all",
    "mode": "managed",
    "type": "aws_appmesh_route",
    "name": "all",
    "values": {
        "arn": "arn:aws:appmesh:eu-west-1:123456789012:mesh/shop/virtualRouter/cars/route/all",
        "mesh_name": "shop",
        "mesh_owner": "123456789012",
        "name": "all",
        "virtual_router_name": "cars",
        "spec": [
            {
                "grpc_route": [],
                "http2_route": [],
                "http_route": [
                    {
                        "action": [{"weighted_target": TARGETS}],
                        "match": [
                            {
                                "header": [
                                    {
                                        "invert": True,
                                        "match": [
                                            {
                                                "exact": "",
                                                "prefix": "",
                                                "range": [{"start": 0, "end": 9}],
                                                "regex": "",
                                                "suffix": "",
                                            }
                                        ],
                                        "name": "x",
                                    }
                                ],
                                "method": "",
                                "path": [],
                                "port": 0,
                                "prefix": "/",
                                "query_parameter": [],
                                "scheme": "",
                            }
                        ],
                        "retry_policy": [],
                        "timeout": [{"idle": [], "per_request": [{"unit": "s", "value": 5}]}],
                    }
                ],
                "priority": 0,
                "tcp_route": [],
            }
        ],
        "tags": {"a": "b"},
    },
}
MESH = {
    "mode": "managed",
    "type": "aws_appmesh_mesh",
    "name": "shop",
    "values": {"name": "shop", "mesh_owner": "123456789012", "spec": []},
}
STATE = {
    "format_version": "1.0",
    "terraform_version": "1.9.0",
    "values": {"root_module": {"resources": [MESH], "child_modules": [{"resources": [ROUTE]}]}},
}
PLAN = {"format_version": "1.2", "terraform_version": "1.9.0", "planned_values": STATE["values"]}
RAW = {
    "version": 4,
    "terraform_version": "1.9.0",
    "resources": [
        {
            "mode": one["mode"],
            "type": one["type"],
            "name": one["name"],
            "instances": [{"attributes": one["values"]}],
        }
        for one in (MESH, ROUTE)
    ],
}


@pytest.mark.parametrize("shown", [STATE, PLAN, RAW], ids=["state", "plan", "tfstate"])
def test_state_and_plan(tmp_path: Path, shown: dict[str, Any]) -> None:
    reading = _read(tmp_path, shown__json=json.dumps(shown))
    assert reading.problems == ()
    route = reading.mesh().routes["cars"][0]
    http = route.spec.http_route
    assert http is not None
    # What nobody wrote is "" and 0 in a state: absent here. A weight of 0 was written.
    assert route.spec.priority is None
    assert http.match.port is None and http.match.method is None
    assert http.action.weighted_targets[0] == spec.WeightedTarget(virtual_node="front", weight=0)
    assert http.match.headers is not None and http.match.headers[0].match is not None
    assert http.match.headers[0].match.range == spec.MatchRange(start=0, end=9)
    assert http.timeout is not None and http.timeout.per_request == spec.Duration(unit="s", value=5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
def test_mutated_states_never_raise(data: st.DataObject) -> None:
    mutated = json.loads(json.dumps(STATE))
    place = mutated
    while isinstance(place, dict | list) and place:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))  # type: ignore[arg-type]
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
    with contextlib.suppress(am.SpecErrors):
        assert am.loads(mutated).name


def test_the_corpus_loads_or_says_why() -> None:
    folder = CORPUS / "terraform"
    if not folder.exists():
        pytest.skip(f"no corpus at {CORPUS}")
    reading = read(folder)
    assert len(reading.resources) > 30
    assert all(
        "terraform show -json" in p.hint or "resource of this name" in p.message for p in reading.problems
    )
