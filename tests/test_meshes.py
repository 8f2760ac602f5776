"""Meshes as a source: what is offered for each node while meshes and facts change."""

from __future__ import annotations

from typing import Any

import pytest

import appmesh_xds as am
from appmesh_xds.facts import Endpoint
from appmesh_xds.server import meshes as module
from appmesh_xds.server.meshes import Meshes

FRONT = "mesh/shop/virtualNode/front"
#: A certificate that nobody knows: an error of this node alone.
UNKNOWN = {
    "mode": "STRICT",
    "certificate": {"acm": {"certificateArn": "arn:aws:acm:us-west-2:123456789012:certificate/1"}},
}


def node(name: str = "front", port: int = 8080, mesh: str = "shop", **listener: Any) -> dict[str, Any]:
    listeners = [{"portMapping": {"port": port, "protocol": "http"}, **listener}]
    discovery = {"dns": {"hostname": f"{name}.local"}}
    spec = {"listeners": listeners, "serviceDiscovery": discovery}
    return {"meshName": mesh, "virtualNodeName": name, "spec": spec}


def shop(*nodes: dict[str, Any]) -> am.Mesh:
    return am.loads(list(nodes))


class Told:
    """What a source tells its server."""

    def __init__(self, source: Meshes) -> None:
        self.nodes: list[str] = []
        source.subscribe(self.nodes.extend)


def test_snapshots_are_those_of_the_mesh() -> None:
    source, mesh = Meshes(), shop(node(), node("back"))
    assert source.snapshot(FRONT) is None
    assert [change.proxy for change in source.update(mesh)] == ["virtualNode/back", "virtualNode/front"]
    assert source.snapshot(FRONT) == am.translate(mesh, "virtualNode/front")
    assert source.snapshot("mesh/shop/virtualNode/none") is None
    assert source.snapshot("mesh/other/virtualNode/front") is None
    assert source.sizes() == {"shop": 2}


@pytest.mark.parametrize(
    ("owner", "asked", "served"),
    [
        (None, FRONT, True),
        (None, "mesh/shop@111122223333/virtualNode/front", True),
        (None, "arn:aws:appmesh:us-west-2:111122223333:mesh/shop/virtualNode/front", True),
        (None, "arn:aws-us-gov:appmesh:us-gov-west-1:111122223333:mesh/shop/virtualNode/front", True),
        ("111122223333", "mesh/shop@111122223333/virtualNode/front", True),
        ("111122223333", "arn:aws-cn:appmesh:cn-north-1:44:mesh/shop@111122223333/virtualNode/front", True),
        ("111122223333", "mesh/shop@444455556666/virtualNode/front", False),
        (None, "mesh/shop/virtualGateway/front", False),
        (None, "virtualNode/front", False),
    ],
)
def test_the_forms_of_a_node_id(owner: str | None, asked: str, served: bool) -> None:
    source = Meshes()
    source.update(am.loads([{"meshName": "shop", "spec": {}, "meshOwner": owner}, node()]))
    assert (source.snapshot(asked) is not None) == served


def test_only_changed_proxies_get_another_snapshot() -> None:
    source, mesh = Meshes(), shop(node(), node("back"))
    source.update(mesh)
    told, front = Told(source), source.snapshot(FRONT)
    changes = source.update(shop(node(), node("back", 9090), node("new")))
    assert [change.proxy for change in changes] == ["virtualNode/back", "virtualNode/new"]
    assert source.snapshot(FRONT) is front
    assert told.nodes == ["mesh/shop/virtualNode/back", "mesh/shop/virtualNode/new"]
    assert source.update(shop(node(), node("back", 9090), node("new"))) == []
    assert len(told.nodes) == 2, "nothing changed"
    source.update(shop(node()))
    assert sorted(told.nodes[2:]) == ["mesh/shop/virtualNode/back", "mesh/shop/virtualNode/new"]


def test_a_proxy_with_errors_keeps_its_last_good_snapshot_while_others_go_on() -> None:
    source = Meshes()
    source.update(shop(node(), node("back")))
    good = source.snapshot(FRONT)
    source.update(shop(node(tls=UNKNOWN), node("back", 9090)))
    assert source.snapshot(FRONT) is good
    assert [(p.resource, p.severity) for p in source.problems()] == [("virtualNode/front", "error")]
    back = source.snapshot("mesh/shop/virtualNode/back")
    assert back == am.translate(shop(node("back", 9090)), "virtualNode/back")
    source.update(shop(node(port=7070), node("back", 9090)))
    assert source.snapshot(FRONT) == am.translate(shop(node(port=7070)), "virtualNode/front")
    assert source.problems() == []


def test_a_proxy_that_never_was_good() -> None:
    source = Meshes()
    source.update(shop(node(tls=UNKNOWN), node("back")))
    snapshot = source.snapshot(FRONT)
    assert snapshot is not None and snapshot.errors


def test_what_leaves_is_forgotten() -> None:
    source = Meshes()
    source.update(shop(node(tls=UNKNOWN), node("back")), shop(node(mesh="other")))
    source.update(shop(node("back")))
    assert source.snapshot(FRONT) is None
    assert source.snapshot("mesh/other/virtualNode/front") is None
    assert source.problems() == []
    assert source.sizes() == {"shop": 1}


def test_a_mesh_that_gets_an_owner_has_other_nodes() -> None:
    source = Meshes()
    source.update(shop(node()))
    source.update(am.loads([{"meshName": "shop", "spec": {}, "meshOwner": "111122223333"}, node()]))
    assert source.snapshot(FRONT) is None
    assert source.snapshot("mesh/shop@111122223333/virtualNode/front") is not None


def test_proxies_with_options_of_their_own() -> None:
    laptop = am.Options(interception="none", ingress_port=20000)
    own = {"virtualNode/front": laptop, "mesh/shop/virtualNode/back": laptop, "mesh/x/virtualNode/c": laptop}
    source = Meshes(proxies=own)
    mesh = shop(node(), node("back"), node("c"))
    source.update(mesh)
    for name, options in (("front", laptop), ("back", laptop), ("c", am.Options())):
        made = source.snapshot(f"mesh/shop/virtualNode/{name}")
        assert made == am.translate(mesh, f"virtualNode/{name}", options), name
    after = shop(node(port=9090), node("c", 9090))
    changes = source.update(after)
    assert sorted((change.proxy, change.snapshot is None) for change in changes) == [
        ("virtualNode/back", True),
        ("virtualNode/c", False),
        ("virtualNode/front", False),
    ]
    assert source.snapshot("mesh/shop/virtualNode/back") is None
    assert source.snapshot(FRONT) == am.translate(after, "virtualNode/front", laptop)
    assert source.update(after) == []


def test_facts_of_others_stay_over_changes_of_the_specs() -> None:
    arn = UNKNOWN["certificate"]["acm"]["certificateArn"]  # type: ignore[index]
    certificate = am.facts.FileCertificate(certificate_chain="/a.crt", private_key="/a.key")
    source = Meshes()
    source.update(shop(node(tls=UNKNOWN)))
    changes = source.know(
        certificates={arn: certificate}, endpoints={"back": (Endpoint(address="10.0.0.1"),)}
    )
    assert [change.proxy for change in changes] == ["virtualNode/front"]
    source.update(shop(node(port=9090, tls=UNKNOWN), node("back")))
    wanted = shop(node(port=9090, tls=UNKNOWN)).replace(certificates={arn: certificate})
    assert source.snapshot(FRONT) == am.translate(wanted, "virtualNode/front")
    assert [e.address for e in source.meshes["shop"].endpoints["back"]] == ["10.0.0.1"]
    source.know(certificates={arn: None})
    assert [p.resource for p in source.problems()] == ["virtualNode/front"]


def test_an_update_that_fails_half_way_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Meshes()
    source.update(shop(node(), node("back")))
    front = source.snapshot(FRONT)

    def fail(self: object, mesh: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(module.Translator, "update", fail)
        with pytest.raises(MemoryError):
            source.update(shop(node(port=9090)))
    assert source.snapshot(FRONT) is front
    source.update(shop(node(port=9090)))
    assert source.snapshot(FRONT) == am.translate(shop(node(port=9090)), "virtualNode/front")
    assert source.snapshot("mesh/shop/virtualNode/back") is None
