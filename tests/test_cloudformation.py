"""CloudFormation templates, by hand and from the corpus."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.readers import read

CORPUS = Path(os.environ.get("APPMESH_XDS_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))

TEMPLATE = """
Parameters:
  Stage: {Type: String, Default: prod}
  Port: {Type: Number}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsOther: !Not [!Condition IsProd]
Mappings:
  Weights: {prod: {front: "7"}}
Resources:
  Mesh:
    Type: AWS::AppMesh::Mesh
    Properties: {MeshName: !Sub "shop-${Stage}"}
  Registry:
    Type: AWS::ServiceDiscovery::Service
    Properties: {Name: registry}
  Front:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualNodeName: !Join ["-", [front, !Ref Stage]]
      Spec:
        Listeners:
        - PortMapping: {Port: !Ref Port, Protocol: http}
          TLS: !If
          - IsProd
          - Mode: STRICT
            Certificate: {ACM: {CertificateArn: !ImportValue certificate}}
          - !Ref AWS::NoValue
          Timeout: {HTTP: {PerRequest: {Unit: s, Value: "5"}}}
        ServiceDiscovery:
          AWSCloudMap: {ServiceName: !GetAtt Registry.Name, NamespaceName: !Select [1, !Split [".", a.local]]}
  Router:
    Type: AWS::AppMesh::VirtualRouter
    Properties:
      MeshName: {Fn::GetAtt: [Mesh, MeshName]}
      VirtualRouterName: router
      Spec: {Listeners: [{PortMapping: {Port: 80, Protocol: http}}]}
  Route:
    Type: AWS::AppMesh::Route
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualRouterName: !GetAtt Router.VirtualRouterName
      RouteName: all
      Spec:
        HttpRoute:
          Match: {Prefix: /}
          Action:
            WeightedTargets:
            - VirtualNode: !GetAtt Front.VirtualNodeName
              Weight: !FindInMap [Weights, !Ref Stage, front]
  Other:
    Type: AWS::AppMesh::VirtualRouter
    Condition: IsOther
    Properties: {MeshName: x, VirtualRouterName: other, Spec: {}}
Outputs:
  Certificate: {Value: "arn:cert", Export: {Name: certificate}}
"""


def _read(folder: Path, text: str = TEMPLATE, **given: Any) -> am.Reading:
    (folder / "stack.yaml").write_text(text)
    return read(folder, parameters={"Port": "8080"}, **given)


def test_functions(tmp_path: Path) -> None:
    reading = _read(tmp_path)
    assert reading.problems == ()
    mesh = reading.mesh()
    assert mesh.name == "shop-prod"
    assert sorted(mesh.virtual_routers) == ["router"]
    node = mesh.virtual_nodes["front-prod"].spec
    listener = (node.listeners or ())[0]
    assert listener.port_mapping.port == 8080
    assert listener.tls is not None
    assert listener.tls.certificate.acm == spec.AcmCertificate(certificate_arn="arn:cert")
    assert listener.timeout is not None and listener.timeout.http is not None
    assert listener.timeout.http.per_request == spec.Duration(unit="s", value=5)
    found = node.service_discovery and node.service_discovery.aws_cloud_map
    assert found is not None and (found.service_name, found.namespace_name) == ("registry", "local")
    targets = mesh.routes["router"][0].spec.http_route
    assert targets is not None
    assert targets.action.weighted_targets == (spec.WeightedTarget(virtual_node="front-prod", weight=7),)


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("Default: prod", "NoEcho: true"), "parameter Stage has no value", "--parameter Stage=VALUE"),
        (
            ("Export: {Name: certificate}", "Export: {Name: x}"),
            "is exported by another stack",
            "--import certificate=",
        ),
        (
            ("!GetAtt Router.VirtualRouterName", "!Ref Router"),
            "is its ARN",
            "use !GetAtt Router.VirtualRouterName",
        ),
        (
            ("!GetAtt Registry.Name", "!GetAtt Balancer.DNSName"),
            "known after deployment",
            "--external Balancer.DNSName=",
        ),
        (("TLS: !If", "Tls: !If"), "unknown property 'Tls'", "did you mean TLS?"),
        (
            ("Listeners:\n        - PortMapping", "listeners:\n        - PortMapping"),
            "unknown property",
            "Listeners?",
        ),
        (("Mode: STRICT", "Mode: strict"), "expected one of", "STRICT"),
        (("!Select [1,", "!Select [9,"), "does not have the arguments", ""),
        (("!Equals [!Ref Stage, prod]", "!Condition IsProd"), "refers to itself", ""),
        (("!ImportValue certificate", '"{{resolve:ssm:x}}"'), "known to AWS alone", "write the value itself"),
    ],
)
def test_what_cannot_be_resolved(tmp_path: Path, change: tuple[str, str], message: str, hint: str) -> None:
    assert change[0] in TEMPLATE
    reading = _read(tmp_path, TEMPLATE.replace(*change))
    found = [p for p in reading.problems if message in p.message and hint in p.hint]
    assert found, [str(problem) for problem in reading.problems]
    assert found[0].severity == "error" and found[0].line > 1


def test_names_that_cloudformation_would_make_up(tmp_path: Path) -> None:
    text = TEMPLATE.replace("      VirtualRouterName: router\n", "")
    reading = _read(tmp_path, text)
    assert [p.severity for p in reading.problems] == ["warning"]
    assert sorted(reading.mesh().routes) == ["stack-Router"]


def test_json_and_long_forms(tmp_path: Path) -> None:
    resource = {
        "Type": "AWS::AppMesh::VirtualService",
        "Properties": {
            "MeshName": {"Fn::Sub": ["${a}-x", {"a": {"Ref": "AWS::Region"}}]},
            "VirtualServiceName": {"Fn::Join": [".", ["a", "local"]]},
            "Spec": {},
        },
    }
    (tmp_path / "a.json").write_text(json.dumps({"Resources": {"S": resource}}))
    mesh = am.load(tmp_path, parameters={"AWS::Region": "eu"})
    assert (mesh.name, list(mesh.virtual_services)) == ("eu-x", ["a.local"])


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")

values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just({"Ref": "Mesh"})


@given(st.data())
def test_mutated_templates_never_raise(draw: st.DataObject) -> None:
    template = yaml.load(TEMPLATE, Loader=_Loader)
    place: Any = template
    while isinstance(place, dict | list) and place:
        key = draw.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], dict | list) or draw.draw(st.booleans()):
            place[key] = draw.draw(values | st.lists(values, max_size=2))
            break
        place = place[key]
    with contextlib.suppress(am.SpecErrors):
        assert am.loads(template).name


def _meshes() -> list[dict[str, str]]:
    if not (CORPUS / "MESHES.csv").exists():
        return []
    with (CORPUS / "MESHES.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["dialect"] == "cloudformation"]


#: Real templates that CloudFormation itself would refuse, and the property.
REFUSED = {"wt-howto-outlier-detection": "baseEjectionDuration"}


@pytest.mark.parametrize("row", _meshes() or [{"mesh": ""}], ids=lambda row: row["mesh"] or "no corpus")
def test_the_corpus_translates(row: dict[str, str]) -> None:
    if not row["mesh"]:
        pytest.skip(f"no corpus at {CORPUS}")
    reading = read(
        *(CORPUS / name for name in row["files"].split(";")),
        parameters={"AWS::Region": "us-west-2", **json.loads(row["cfn_params"] or "{}")},
        imports=json.loads(row["cfn_imports"] or "{}"),
    )
    errors = [str(problem) for problem in reading.problems if problem.severity == "error"]
    if row["mesh"] in REFUSED:
        assert any(REFUSED[row["mesh"]] in text for text in errors)
        return
    assert errors == []
    mesh = reading.mesh()
    assert mesh.proxies()
    problems = [problem for proxy in mesh.proxies() for problem in am.translate(mesh, proxy).errors]
    arns = {word for problem in problems for word in problem.message.split() if word.startswith("arn:")}
    mesh = mesh.replace(
        certificates={arn: FileCertificate(certificate_chain="/c", private_key="/k") for arn in arns},
        authorities={arn: FileTrust(certificate_chain="/ca") for arn in arns},
        endpoints={name: (Endpoint(address="10.0.0.1"),) for name in mesh.virtual_nodes},
    )
    for proxy in mesh.proxies():
        assert am.translate(mesh, proxy).errors == () or row["complete"] != "yes"
