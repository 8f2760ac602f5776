"""Kubernetes manifests, by hand and from the corpus."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.readers import read

CORPUS = Path(os.environ.get("APPMESH_XDS_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {mesh: shop}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec:
  namespaceSelector: {matchLabels: {mesh: shop}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front, namespace: shop, managedFields: []}
spec:
  podSelector: {matchLabels: {app: front}}
  listeners:
  - portMapping: {port: 8080, protocol: http}
    tls: {mode: STRICT, certificate: {acm: {certificateARN: "arn:cert"}}}
  serviceDiscovery: {dns: {hostname: front.shop}}
  backendDefaults:
    clientPolicy: {tls: {ports: [], validation: {trust: {acm: {certificateAuthorityARNs: ["arn:ca"]}}}}}
  backends:
  - virtualService: {virtualServiceRef: {name: cars}}
  backendGroups:
  - {name: more}
  nonsense: true
status: {anything: 1}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: cars, namespace: shop}
spec: {awsName: cars.local, provider: {virtualRouter: {virtualRouterRef: {name: cars}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: bikes, namespace: shop}
spec: {provider: {virtualNode: {virtualNodeRef: {name: front}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: BackendGroup
metadata: {name: more, namespace: shop}
spec: {virtualservices: [{name: bikes}, {name: cars}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: appmesh.k8s.aws/v1beta2
  kind: VirtualRouter
  metadata: {name: cars, namespace: shop}
  spec:
    listeners: [{portMapping: {port: 80, protocol: http}}]
    routes:
    - name: all
      priority: 3
      httpRoute:
        match: {prefix: /, headers: []}
        action: {weightedTargets: [{virtualNodeRef: {name: front}, weight: 1}]}
- apiVersion: appmesh.k8s.aws/v1beta2
  kind: VirtualGateway
  metadata: {name: edge, namespace: shop}
  spec:
    namespaceSelector: {matchExpressions: [{key: mesh, operator: In, values: [shop]}]}
    gatewayRouteSelector: {matchLabels: {for: edge}}
    listeners: [{portMapping: {port: 9080, protocol: http}}]
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: in, namespace: shop, labels: {for: edge}}
spec:
  httpRoute:
    match: {prefix: /}
    action: {target: {virtualService: {virtualServiceRef: {name: cars}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: out, namespace: shop}
spec:
  httpRoute:
    match: {prefix: /}
    action: {target: {virtualService: {virtualServiceRef: {name: cars}}}}
"""


def _read(folder: Path, text: str) -> am.Reading:
    (folder / "mesh.yaml").write_text(text)
    return read(folder)


def test_the_controllers_reading(tmp_path: Path) -> None:
    reading = _read(tmp_path, MANIFEST)
    told = [(p.severity, p.path, p.line) for p in reading.problems]
    assert told == [("warning", "$.spec.nonsense", 27), ("warning", "$.metadata", 77)]
    mesh = reading.mesh()
    front = mesh.virtual_nodes["front_shop"].spec
    services = [
        one.virtual_service and one.virtual_service.virtual_service_name for one in front.backends or ()
    ]
    assert services == ["cars.local", "bikes.shop"]
    tls = (
        front.backend_defaults
        and front.backend_defaults.client_policy
        and front.backend_defaults.client_policy.tls
    )
    assert tls is not None and tls.ports is None
    assert tls.validation.trust.acm == spec.AcmTrust(certificate_authority_arns=("arn:ca",))
    (route,) = mesh.routes["cars_shop"]
    assert (route.name, route.spec.priority) == ("all", 3)
    assert route.spec.http_route is not None and route.spec.http_route.match.headers is None
    assert route.spec.http_route.action.weighted_targets[0].virtual_node == "front_shop"
    (gateway_route,) = mesh.gateway_routes["edge_shop"]
    assert gateway_route.name == "in_shop"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("appmesh.k8s.aws/v1beta2\nkind: Mesh", "appmesh.k8s.aws/v1beta1\nkind: Mesh"),
            "v1beta1 is not read",
        ),
        (("labels: {mesh: shop}", "labels: {}"), "no mesh selects namespace 'shop'"),
        (("kind: BackendGroup", "kind: Backends"), "unknown kind 'Backends'"),
        (
            ("virtualServiceRef: {name: cars}}\n  backendGroups", "virtualServiceRef: {}}\n  backendGroups"),
            "needs a name",
        ),
        (("mode: STRICT", "mode: strict"), "expected one of"),
    ],
)
def test_what_is_wrong(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in MANIFEST
    reading = _read(tmp_path, MANIFEST.replace(*change, 1))
    found = [problem for problem in reading.problems if message in problem.message]
    assert found and all(problem.severity == "error" and problem.line > 0 for problem in found)


def test_without_the_namespace_a_lone_mesh_is_meant(tmp_path: Path) -> None:
    reading = _read(tmp_path, MANIFEST.split("---", 1)[1])
    assert {p.severity for p in reading.problems} == {"warning"}
    assert any("there is no Namespace 'shop'" in p.message for p in reading.problems)
    assert "front_shop" in reading.mesh().virtual_nodes


def _meshes() -> list[tuple[str, list[Path], bool]]:
    if not (CORPUS / "MESHES.csv").exists():
        return []
    with (CORPUS / "MESHES.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dialect"] == "kubernetes"]
    return [
        (row["mesh"], [CORPUS / name for name in row["files"].split(";")], row["complete"] == "yes")
        for row in rows
    ]


@pytest.mark.parametrize(("name", "files", "complete"), _meshes() or [("no corpus", [], False)])
def test_the_corpus_translates(name: str, files: list[Path], complete: bool) -> None:
    if not files:
        pytest.skip(f"no corpus at {CORPUS}")
    reading = read(*files, strict=False)
    errors = [str(p) for p in reading.problems if p.severity == "error"]
    assert errors == []
    mesh = reading.mesh()
    arns = {
        arn
        for proxy in mesh.proxies()
        for problem in am.translate(mesh, proxy).errors
        for arn in problem.message.split()
        if arn.startswith("arn:")
    }
    mesh = mesh.replace(
        certificates={arn: FileCertificate(certificate_chain="/c", private_key="/k") for arn in arns},
        authorities={arn: FileTrust(certificate_chain="/ca") for arn in arns},
        endpoints={node: (Endpoint(address="10.0.0.1"),) for node in mesh.virtual_nodes},
    )
    for proxy in mesh.proxies():
        snapshot = am.translate(mesh, proxy, am.Options(sds_socket="/sds.sock"))
        assert snapshot.errors == () or not complete, snapshot.errors
        assert snapshot.listeners


def test_a_kind_that_is_no_text_is_a_problem() -> None:
    """Found by tests/test_fuzz.py."""
    manifest = {"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": ["Mesh"], "metadata": {"name": "m"}}
    with pytest.raises(am.SpecErrors, match=r"unknown kind \['Mesh'\]"):
        am.loads(manifest)


@pytest.mark.parametrize("backends", ["x", [{"virtualService": {"virtualServiceName": ["x"]}}], [7]])
def test_groups_beside_broken_backends_are_a_problem(backends: object) -> None:
    """Found by tests/test_fuzz.py."""
    node = {
        "apiVersion": "appmesh.k8s.aws/v1beta2",
        "kind": "VirtualNode",
        "metadata": {"name": "n", "namespace": "shop"},
        "spec": {"backends": backends, "backendGroups": [{"name": "*"}]},
    }
    with pytest.raises(am.SpecErrors, match="backends"):
        am.loads(node, mesh="m")
