"""Meshes that once went wrong, found by generating them (`test_oracle.py`, `test_properties.py`)."""

from __future__ import annotations

from typing import Any

import pytest
from by_hand import gateway, http, mesh, node, service
from oracle import Oracle

from appmesh_xds import proto
from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.errors import SpecErrors, UsageError
from appmesh_xds.facts import PemTrust
from appmesh_xds.options import Options
from appmesh_xds.resource import TYPE_URLS
from appmesh_xds.snapshot import translate
from appmesh_xds.spec import MeshData

ODD = "../a/virtualNode/b:c@d é"


@pytest.mark.parametrize(
    "text",
    [
        f"virtualNode/{ODD}",
        f"mesh/m/virtualNode/{ODD}",
        f"mesh/m@111122223333/virtualNode/{ODD}",
        f"arn:aws:appmesh:eu-west-1:111122223333:mesh/m/virtualNode/{ODD}",
    ],
)
def test_a_node_with_slashes_and_colons_in_its_name_can_be_named(text: str, oracle: Oracle) -> None:
    given = mesh(node(ODD, http(8080), serviceDiscovery={"dns": {"hostname": "a.local"}}))
    snapshot = translate(given, text)
    assert snapshot.proxy == f"virtualNode/{ODD}"
    assert oracle.accepts(snapshot)


@pytest.mark.parametrize(
    "text",
    [
        "mesh/other/virtualNode/a",
        "mesh/mm/virtualNode/a",
        "mesh/m/x/virtualNode/a",
        "mesh/m@222222222222/virtualNode/a",
        "mesh/m",
        "virtualNode/",
        "virtualRouter/a",
        "arn:aws:appmesh:eu-west-1:111122223333:mesh/other/virtualNode/a",
    ],
)
def test_what_names_no_proxy_of_this_mesh_is_refused(text: str) -> None:
    given = mesh(node("a")).replace(MeshData(mesh_name="m", mesh_owner="111122223333"))
    with pytest.raises(UsageError):
        translate(given, text)


@pytest.mark.parametrize("delivery", ["ads", "inline"])
def test_a_proxy_may_show_a_certificate_and_trust_the_authority_of_the_same_arn(
    delivery: Any, oracle: Oracle
) -> None:
    """Both are secrets: under one name, only the first was delivered."""
    arn = "arn:aws:acm:eu-west-1:111122223333:certificate/wildcard"
    tls = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": arn}}}
    authority = certificate_authority("tests")
    given = mesh(
        node("one", http(8080, tls=tls)),
        service("one.mesh", node="one"),
        node("client", http(8081, tls=tls), backends=("one.mesh",)),
    ).replace(
        certificates={arn: issue_certificate(authority, ["*.local"])},
        authorities={arn: PemTrust(certificate_chain=authority.certificate_chain)},
    )
    snapshot = translate(given, "virtualNode/client", Options(delivery=delivery))
    secrets = {one.name: one.message() for one in snapshot.secrets}
    assert {name: one.WhichOneof("type") for name, one in secrets.items()} == {
        arn: "tls_certificate",
        f"trust:{arn}": "validation_context",
    }
    (cluster,) = (one.message() for one in snapshot.clusters if "_one_" in one.name)
    context: Any = proto.unpack(cluster.transport_socket.typed_config)  # type: ignore[attr-defined]
    trusted = context.common_tls_context.combined_validation_context.validation_context_sds_secret_config
    assert trusted.name == f"trust:{arn}"
    assert oracle.accepts(snapshot)


@pytest.mark.parametrize("text", ["%COALESCE(X)%", "%CEL(1 +)%"])
def test_log_formats_whose_inside_only_envoy_can_read_are_refused(text: str) -> None:
    """They passed with a warning, and Envoy refused the listener."""
    logging = {"accessLog": {"file": {"path": "/dev/stdout", "format": {"text": text}}}}
    with pytest.raises(SpecErrors, match="cannot be checked"):
        mesh(node("one", http(8080), logging=logging))


def test_the_second_hop_of_a_gateway_without_routes_comes_from_the_gateway() -> None:
    snapshot = translate(mesh(gateway("g", http(9080))), "virtualGateway/g")
    origins = {one.name: one.origin for url in TYPE_URLS for one in snapshot.resources(url)}
    assert origins["rds_egress_http_15001"] == ("virtualGateway/g $.spec",)
    assert all(origins.values())
