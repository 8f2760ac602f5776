"""Nodes in Cloud Map: which instances clients are given, and what DNS can say in place of them."""

from __future__ import annotations

from typing import Any

import pytest

import appmesh_xds as am
from appmesh_xds.facts import Endpoint

PATH = "$.spec.serviceDiscovery.awsCloudMap"


def color(name: str = "color", **cloud_map: Any) -> dict[str, Any]:
    """A node that is found as the service of its name in the namespace `shop.internal`."""
    found = {"namespaceName": "shop.internal", "serviceName": name, **cloud_map}
    spec = {
        "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
        "serviceDiscovery": {"awsCloudMap": found},
    }
    return {"meshName": "shop", "virtualNodeName": name, "spec": spec}


def service(name: str = "color") -> dict[str, Any]:
    provider = {"virtualNode": {"virtualNodeName": name}}
    return {"meshName": "shop", "virtualServiceName": f"{name}.local", "spec": {"provider": provider}}


def front(*backends: str) -> dict[str, Any]:
    named = [{"virtualService": {"virtualServiceName": f"{name}.local"}} for name in backends]
    return {"meshName": "shop", "virtualNodeName": "front", "spec": {"backends": named}}


def snapshot(*known: Endpoint, options: am.Options | None = None, **cloud_map: Any) -> am.Snapshot:
    mesh = am.loads([front("color"), service(), color(**cloud_map)]).replace(endpoints={"color": known})
    return am.translate(mesh, "virtualNode/front", options or am.Options())


def addresses(snapshot: am.Snapshot) -> list[tuple[str, int]]:
    """Of the only load assignment, as they stand there."""
    (assignment,) = snapshot.to_dict()["endpoints"]
    return [
        (place["address"], place["port_value"])
        for locality in assignment.get("endpoints", ())
        for one in locality["lb_endpoints"]
        for place in [one["endpoint"]["address"]["socket_address"]]
    ]


# --- which instances --------------------------------------------------------------------------------------


PAIR = Endpoint(address="10.0.0.9", other_address="fd00::9")
SIX = Endpoint(address="fd00::1")
FOUR = Endpoint(address="10.0.0.1")


@pytest.mark.parametrize(
    ("preference", "used"),
    [
        (None, ["10.0.0.1", "10.0.0.9", "fd00::1"]),
        ("IPv4_PREFERRED", ["10.0.0.1", "10.0.0.9", "fd00::1"]),
        ("IPv6_PREFERRED", ["10.0.0.1", "fd00::1", "fd00::9"]),
        ("IPv4_ONLY", ["10.0.0.1", "10.0.0.9"]),
        ("IPv6_ONLY", ["fd00::1", "fd00::9"]),
    ],
)
def test_each_instance_is_used_at_the_address_that_the_node_prefers(
    preference: str | None, used: list[str]
) -> None:
    """One of each kind; whichever of its two addresses an instance is given by first."""
    turned = Endpoint(address="fd00::9", other_address="10.0.0.9")
    for pair in (PAIR, turned):
        made = snapshot(pair, SIX, FOUR, ipPreference=preference)
        assert [address for address, _ in addresses(made)] == used
        assert made.problems == ()


def with_attributes(address: str, *attributes: tuple[str, str], **more: Any) -> Endpoint:
    return Endpoint(address=address, attributes=attributes, **more)


V1, A = ("version", "v1"), ("zone", "a")
WANTED = [{"key": "version", "value": "v1"}, {"key": "zone", "value": "a"}]


def test_every_attribute_must_match() -> None:
    made = snapshot(
        with_attributes("10.0.0.1", V1),
        with_attributes("10.0.0.2", A, V1, ("more", "x")),
        with_attributes("10.0.0.3", ("version", "v2"), A),
        with_attributes("10.0.0.4", ("VERSION", "v1"), A),
        attributes=WANTED,
    )
    assert addresses(made) == [("10.0.0.2", 8080)]


def test_ports_are_the_listeners_unless_an_instance_states_its_own() -> None:
    """Reference §2.4. One instance under two names is used once."""
    made = snapshot(Endpoint(address="10.0.0.2"), Endpoint(address="10.0.0.1", port=9), FOUR, FOUR)
    assert addresses(made) == [("10.0.0.1", 8080), ("10.0.0.1", 9), ("10.0.0.2", 8080)]


def test_ill_instances_are_used_when_there_are_no_others() -> None:
    """Reference §10.25. What does not match does not count."""
    ill = with_attributes("10.0.0.1", V1, A, health="UNHEALTHY")
    well = with_attributes("10.0.0.2", V1, A)
    other = with_attributes("10.0.0.3", V1)
    assert addresses(snapshot(ill, well, other, attributes=WANTED)) == [("10.0.0.2", 8080)]
    made = snapshot(ill, other, attributes=WANTED)
    assert addresses(made) == [("10.0.0.1", 8080)]
    (assignment,) = made.to_dict()["endpoints"]
    assert assignment["endpoints"][0]["lb_endpoints"][0]["health_status"] == "UNHEALTHY"


@pytest.mark.parametrize(
    ("known", "more", "message"),
    [
        ((), {}, "color.shop.internal has no instance now"),
        ((FOUR, SIX), {"attributes": WANTED}, r"none of the instances of color.shop.internal (2) has all"),
        ((FOUR,), {"ipPreference": "IPv6_ONLY"}, "(1) has an address that the ipPreference allows"),
    ],
)
def test_that_nothing_is_left_is_said(known: tuple[Endpoint, ...], more: Any, message: str) -> None:
    made = snapshot(*known, **more)
    assert addresses(made) == []
    (warning,) = made.problems
    assert (warning.severity, warning.resource, warning.path) == ("warning", "virtualNode/color", PATH)
    assert message in warning.message


def test_what_is_not_known_is_an_error() -> None:
    mesh = am.loads([front("color"), service(), color()])
    (error,) = am.translate(mesh, "virtualNode/front").errors
    assert (error.resource, error.path) == ("virtualNode/color", PATH)
    assert error.message == "no endpoints are known for color.shop.internal"
    assert "endpoints: {color: [{address: 10.0.0.1}]}" in error.hint and "--cloud-map" in error.hint


# --- DNS --------------------------------------------------------------------------------------------------

DNS = am.Options(cloud_map="dns")


def _clusters(mesh: am.Mesh, options: am.Options = DNS) -> dict[str, Any]:
    made = am.translate(mesh, "virtualNode/front", options)
    assert made.errors == ()
    found = {one["name"]: one for one in made.to_dict()["clusters"]}
    return {name: one for name, one in found.items() if name != "cds_egress_shop_amazonaws"}


@pytest.mark.parametrize(
    ("preference", "family"),
    [
        (None, None),
        ("IPv4_ONLY", "V4_ONLY"),
        ("IPv6_ONLY", "V6_ONLY"),
        ("IPv4_PREFERRED", "V4_PREFERRED"),
        ("IPv6_PREFERRED", None),
    ],
)
@pytest.mark.parametrize("delivery", ["ads", "inline"])
def test_dns_asks_for_the_service_in_its_namespace(
    preference: str | None, family: str | None, delivery: Any
) -> None:
    mesh = am.loads([front("color"), service(), color(ipPreference=preference)])
    (cluster,) = _clusters(mesh, am.Options(cloud_map="dns", delivery=delivery)).values()
    assert cluster["type"] == "STRICT_DNS"
    assert cluster.get("dns_lookup_family") == family
    (locality,) = cluster["load_assignment"]["endpoints"]
    (one,) = locality["lb_endpoints"]
    place = {"address": "color.shop.internal", "port_value": 8080}
    assert one["endpoint"]["address"]["socket_address"] == place


def test_endpoints_that_are_known_win_over_dns() -> None:
    mesh = am.loads([front("color", "other"), service(), color(), service("other"), color("other")])
    found = _clusters(mesh.replace(endpoints={"color": (FOUR,)}))
    assert {name: one["type"] for name, one in found.items()} == {
        "cds_egress_shop_color_http_8080": "EDS",
        "cds_egress_shop_other_http_8080": "STRICT_DNS",
    }


def test_attributes_choose_nothing_in_dns() -> None:
    mesh = am.loads([front("color"), service(), color(attributes=WANTED)])
    (error,) = am.translate(mesh, "virtualNode/front", DNS).errors
    assert (error.resource, error.path) == ("virtualNode/color", f"{PATH}.attributes")
    assert "what DNS answers for color.shop.internal" in error.message and "--cloud-map file" in error.hint
    assert am.translate(mesh.replace(endpoints={"color": ()}), "virtualNode/front", DNS).errors == ()
