"""The translator: whatever it remembers, it says what a cold translation says."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import appmesh_xds as am
from appmesh_xds import spec
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.translator import Difference

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks' mesh
from benchmarks import synthetic

CERTIFICATE = "arn:aws:acm:eu-west-1:123456789012:certificate/1"


def _resource(kind: str, name: str, body: dict[str, Any], **names: str) -> spec.Data:
    value = {"meshName": "m", f"{kind}Name": name, **names, "spec": body}
    return msgspec.convert(value, spec.BY_KIND[kind])


def _node(name: str, *, port: int = 80, mode: str = "", calls: tuple[str, ...] = ()) -> spec.Data:
    listener: dict[str, Any] = {"portMapping": {"port": port, "protocol": "http"}}
    if mode == "acm":
        listener["tls"] = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": CERTIFICATE}}}
    elif mode:
        files = {"certificateChain": "/c.crt", "privateKey": "/c.key"}
        listener["tls"] = {"mode": mode, "certificate": {"file": files}}
    found = {"dns": {"hostname": f"{name}.local"}}
    if name.endswith("cloud"):
        found = {"awsCloudMap": {"namespaceName": "local", "serviceName": name}}
    return _resource(
        "virtualNode",
        name,
        {
            "listeners": [listener],
            "serviceDiscovery": found,
            "backends": [{"virtualService": {"virtualServiceName": service}} for service in calls],
        },
    )


def _service(name: str, *, router: str = "", node: str = "") -> spec.Data:
    provider = (
        {"virtualRouter": {"virtualRouterName": router}}
        if router
        else {"virtualNode": {"virtualNodeName": node}}
    )
    return _resource("virtualService", name, {"provider": provider} if router or node else {})


def _router(name: str, port: int = 80) -> spec.Data:
    listener = {"portMapping": {"port": port, "protocol": "http"}}
    return _resource("virtualRouter", name, {"listeners": [listener]})


def _route(router: str, name: str, target: str, weight: int = 1) -> spec.Data:
    action = {"weightedTargets": [{"virtualNode": target, "weight": weight}]}
    body = {"httpRoute": {"match": {"prefix": f"/{name}"}, "action": action}}
    return _resource("route", name, body, virtualRouterName=router)


def _gateway(name: str, port: int = 9080) -> spec.Data:
    return _resource(
        "virtualGateway", name, {"listeners": [{"portMapping": {"port": port, "protocol": "http"}}]}
    )


def _gateway_route(gateway: str, name: str, service: str) -> spec.Data:
    target = {"virtualService": {"virtualServiceName": service}}
    body = {"httpRoute": {"match": {"prefix": f"/{name}"}, "action": {"target": target}}}
    return _resource("gatewayRoute", name, body, virtualGatewayName=gateway)


NODES = ("a", "b", "c-cloud")
SERVICES = ("s1", "s2")
ROUTERS = ("r1", "r2")


class Edits(RuleBasedStateMachine):
    """Random edits of a small mesh; after each, incremental equals cold for every proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = am.Mesh.of(spec.MeshData(mesh_name="m"), _node("a", calls=("s1", "s2")))
        self.translator = am.Translator()
        self.known = {one.proxy: one for one in self.translator.translate_all(self.mesh)}

    def take(self, mesh: am.Mesh) -> None:
        before = self.known
        self.mesh = mesh
        changes = self.translator.update(mesh)
        cold = {proxy: am.translate(mesh, proxy) for proxy in mesh.proxies()}
        named = {change.proxy for change in changes}
        assert named == {p for p in before.keys() | cold.keys() if before.get(p) != cold.get(p)}
        for change in changes:
            assert change.snapshot == cold.get(change.proxy)
        self.known = cold

    def remove(self, key: str) -> None:
        if self.mesh.get(key) is not None:
            self.take(self.mesh.without(key))

    @rule(
        name=st.sampled_from(NODES),
        port=st.sampled_from((80, 81)),
        mode=st.sampled_from(("", "STRICT", "PERMISSIVE", "acm")),
        calls=st.sets(st.sampled_from(SERVICES)),
    )
    def put_node(self, name: str, port: int, mode: str, calls: set[str]) -> None:
        self.take(self.mesh.replace(_node(name, port=port, mode=mode, calls=tuple(sorted(calls)))))

    @rule(name=st.sampled_from(NODES))
    def remove_node(self, name: str) -> None:
        self.remove(f"virtualNode/{name}")

    @rule(name=st.sampled_from(SERVICES), behind=st.sampled_from((*ROUTERS, *NODES, "")))
    def put_service(self, name: str, behind: str) -> None:
        router = behind if behind in ROUTERS else ""
        self.take(self.mesh.replace(_service(name, router=router, node="" if router else behind)))

    @rule(name=st.sampled_from(SERVICES))
    def remove_service(self, name: str) -> None:
        self.remove(f"virtualService/{name}")

    @rule(name=st.sampled_from(ROUTERS), port=st.sampled_from((80, 81)))
    def put_router(self, name: str, port: int) -> None:
        self.take(self.mesh.replace(_router(name, port)))

    @rule(name=st.sampled_from(ROUTERS))
    def remove_router(self, name: str) -> None:
        self.remove(f"virtualRouter/{name}")

    @rule(
        router=st.sampled_from(ROUTERS),
        name=st.sampled_from(("x", "y")),
        to=st.sampled_from((*NODES, "gone")),
        weight=st.integers(0, 2),
    )
    def put_route(self, router: str, name: str, to: str, weight: int) -> None:
        self.take(self.mesh.replace(_route(router, name, to, weight)))

    @rule(router=st.sampled_from(ROUTERS), name=st.sampled_from(("x", "y")))
    def remove_route(self, router: str, name: str) -> None:
        self.remove(f"virtualRouter/{router}/route/{name}")

    @rule(port=st.sampled_from((9080, 9081)))
    def put_gateway(self, port: int) -> None:
        self.take(self.mesh.replace(_gateway("g", port)))

    @rule()
    def remove_gateway(self) -> None:
        self.remove("virtualGateway/g")

    @rule(name=st.sampled_from(("p", "q")), service=st.sampled_from((*SERVICES, "gone")))
    def put_gateway_route(self, name: str, service: str) -> None:
        self.take(self.mesh.replace(_gateway_route("g", name, service)))

    @rule(name=st.sampled_from(("p", "q")))
    def remove_gateway_route(self, name: str) -> None:
        self.remove(f"virtualGateway/g/gatewayRoute/{name}")

    @rule(kind=st.sampled_from(("ALLOW_ALL", "DROP_ALL")))
    def put_mesh(self, kind: str) -> None:
        body = spec.MeshSpec(egress_filter=spec.EgressFilter(type=kind))  # type: ignore[arg-type]
        self.take(self.mesh.replace(spec.MeshData(mesh_name="m", spec=body)))

    @rule(last=st.integers(1, 2), there=st.booleans())
    def put_endpoints(self, last: int, there: bool) -> None:
        given = (Endpoint(address=f"10.0.0.{last}"),) if there else None
        self.take(self.mesh.replace(endpoints={"c-cloud": given}))

    @rule(path=st.sampled_from(("/1", "/2", None)))
    def put_certificate(self, path: str | None) -> None:
        files = FileCertificate(certificate_chain=path, private_key=path) if path else None
        trust = FileTrust(certificate_chain=path) if path else None
        self.take(self.mesh.replace(certificates={CERTIFICATE: files}, authorities={CERTIFICATE: trust}))

    @rule()
    def unrelated(self) -> None:
        """The same content in a mesh of no common past."""
        again = am.Mesh.of(*self.mesh.resources()).replace(
            certificates=self.mesh.certificates,
            authorities=self.mesh.authorities,
            endpoints=self.mesh.endpoints,
        )
        self.take(again)

    @invariant()
    def the_translator_agrees(self) -> None:
        for proxy, snapshot in self.known.items():
            assert self.translator.snapshot(proxy) == snapshot


Edits.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestEdits = Edits.TestCase


def _small() -> am.Mesh:
    return am.Mesh.of(
        _node("a", calls=("s1",)), _node("b", calls=("s1",)), _node("c"), _service("s1", node="c")
    )


def test_an_update_names_the_proxies_and_what_changed() -> None:
    translator = am.Translator()
    mesh = _small()
    translator.translate_all(mesh)
    changes = translator.update(mesh.replace(_node("c", port=81)))
    by_proxy = {change.proxy: change for change in changes}
    assert list(by_proxy) == ["virtualNode/a", "virtualNode/b", "virtualNode/c"]
    assert by_proxy["virtualNode/a"].differences["clusters"] == Difference(
        ("cds_egress_m_c_http_81",), (), ("cds_egress_m_c_http_80",)
    )
    assert by_proxy["virtualNode/a"].differences["routes"] == Difference(
        ("rds_egress_http_81",), (), ("rds_egress_http_80",)
    )
    assert by_proxy["virtualNode/a"].differences["listeners"].updated == ("lds_egress_0.0.0.0_15001",)


def test_callers_of_a_changed_node_keep_all_but_its_bytes() -> None:
    """What is not the changed node's is not even made again."""
    translator = am.Translator()
    mesh = _small().replace(_service("s2", node="b"), _node("a", calls=("s1", "s2")))
    before = {one.proxy: one for one in translator.translate_all(mesh)}["virtualNode/a"]
    hurried = msgspec.convert(
        {
            "protocol": "http",
            "path": "/",
            "healthyThreshold": 2,
            "unhealthyThreshold": 2,
            "intervalMillis": 5000,
            "timeoutMillis": 2000,
        },
        spec.HealthCheckPolicy,
    )
    node = mesh.virtual_nodes["c"]
    listener = msgspec.structs.replace(node.spec.listeners[0], health_check=hurried)  # type: ignore[index]
    checked = msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, listeners=(listener,)))
    changed = {change.proxy: change for change in translator.update(mesh.replace(checked))}
    after = changed["virtualNode/a"].snapshot
    assert changed["virtualNode/a"].differences == {
        "clusters": Difference((), ("cds_egress_m_c_http_80",), ())
    }
    assert after == am.translate(mesh.replace(checked), "virtualNode/a")
    assert after is not None and after.listeners is before.listeners and after.routes is before.routes
    kept = [one for one in after.clusters if one.name != "cds_egress_m_c_http_80"]
    assert kept and all(any(one is other for other in before.clusters) for one in kept)


def test_a_failure_half_way_leaves_nothing_false(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = am.Translator()
    mesh = _small()
    translator.translate_all(mesh)
    monkeypatch.setattr("appmesh_xds.translator.exchanges", lambda *_: 1 / 0)
    monkeypatch.setattr("appmesh_xds.translator.assemble", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        translator.update(mesh.replace(_node("c", port=81)))
    monkeypatch.undo()
    again = mesh.replace(_node("c", port=82))
    assert {one.proxy: one.snapshot for one in translator.update(again)} == {
        proxy: am.translate(again, proxy) for proxy in again.proxies()
    }


def test_equal_resources_are_no_change() -> None:
    translator = am.Translator()
    mesh = _small()
    first = translator.translate_all(mesh)
    again = mesh.replace(_node("c"))
    assert again.virtual_nodes["c"] is mesh.virtual_nodes["c"]
    assert translator.update(again) == []
    assert all(one is two for one, two in zip(translator.translate_all(again), first, strict=True))


def test_parts_are_shared_between_proxies() -> None:
    translator = am.Translator()
    snapshots = translator.translate_all(_small())
    clusters = [one.clusters[1] for one in snapshots[:2]]
    assert clusters[0].name == "cds_egress_m_c_http_80"
    assert clusters[0] is clusters[1]


def test_parts_that_nobody_uses_are_dropped() -> None:
    translator = am.Translator()
    mesh = _small()
    translator.translate_all(mesh)
    gc.collect()
    before = len(translator)
    for turn in range(1000):
        for name in ("a", "b", "c"):
            calls = () if name == "c" else ("s1",)
            mesh = mesh.replace(_node(name, port=1024 + turn, calls=calls))
        translator.update(mesh)
    gc.collect()
    assert len(translator) == before


def test_one_proxy_is_translated_alone() -> None:
    translator = am.Translator()
    mesh = _small()
    alone = translator.snapshot("virtualNode/a", mesh)
    assert alone == am.translate(mesh, "virtualNode/a")
    # Nobody asked for the others, so they are no change.
    changes = translator.update(mesh.replace(_node("c", port=81)))
    assert [change.proxy for change in changes] == ["virtualNode/a"]


def test_a_translator_of_several_meshes_asks_which() -> None:
    translator = am.Translator()
    other = am.Mesh.of(msgspec.structs.replace(_node("x"), mesh_name="other"))
    translator.translate_all(_small())
    translator.translate_all(other)
    assert translator.snapshot("virtualNode/x", "other").mesh == "other"
    with pytest.raises(am.UsageError, match=r"which mesh\?.* m, other"):
        translator.snapshot("virtualNode/x")
    translator.forget("other")
    assert translator.snapshot("virtualNode/a").mesh == "m"


def test_a_second_thread_is_refused() -> None:
    translator = am.Translator()
    mesh = _small()
    inside, leave = threading.Event(), threading.Event()

    def stall(problem: am.Problem) -> am.Problem:
        inside.set()
        leave.wait(10)
        return problem

    slow = am.Mesh.trusted([*mesh.resources(), _node("z", calls=("not there",))], name="m", locate=stall)
    thread = threading.Thread(target=translator.translate_all, args=(slow,))
    thread.start()
    assert inside.wait(10)
    try:
        with pytest.raises(RuntimeError, match="one thread at a time"):
            translator.snapshot("virtualNode/a", mesh)
    finally:
        leave.set()
        thread.join()
    assert translator.snapshot("virtualNode/a", mesh).proxy == "virtualNode/a"


@pytest.mark.parametrize("sharing", ["shared", "unique"])
def test_the_benchmark_mesh(sharing: synthetic.Sharing) -> None:
    mesh = synthetic.mesh(12, 3, sharing)
    translator = am.Translator()
    for snapshot in translator.translate_all(mesh):
        assert snapshot == am.translate(mesh, snapshot.proxy)
        assert snapshot.problems == ()
    mesh = mesh.replace(synthetic.changed_route(3, 12))
    for change in translator.update(mesh):
        assert change.snapshot == am.translate(mesh, change.proxy)


def test_what_did_not_change_is_the_same_object() -> None:
    """Servers compare by identity before they look closer, for every stream."""
    mesh = synthetic.mesh(6, 2)
    translator = am.Translator()
    before = {one.proxy: one for one in translator.translate_all(mesh)}
    changes = translator.update(mesh.replace(*(synthetic.changed_route(i, 6, 3) for i in range(6))))
    assert len(changes) == 6
    for change in changes:
        old, new = before[change.proxy], change.snapshot
        assert new is not None and set(change.differences) == {"routes"}
        assert new.clusters is old.clusters and new.listeners is old.listeners
        assert translator.snapshot(change.proxy) is new


def test_a_place_in_the_specs_that_moved_is_told_anew() -> None:
    """Nothing that Envoy sees changes when backends change places; where they come from does."""

    def service(name: str) -> spec.Data:
        provider = {"provider": {"virtualNode": {"virtualNodeName": name}}}
        return _resource("virtualService", f"{name}.local", provider)

    rest = [_node("a"), _node("b"), service("a"), service("b")]
    mesh = am.Mesh.of(_node("front", calls=("a.local", "b.local")), *rest)
    translator = am.Translator()
    translator.translate_all(mesh)
    turned = mesh.replace(_node("front", calls=("b.local", "a.local"), port=81))
    (new,) = [one.snapshot for one in translator.update(turned) if one.proxy == "virtualNode/front"]
    plain = am.translate(turned, "virtualNode/front")
    assert new is not None
    assert [one.origin for one in new.clusters] == [one.origin for one in plain.clusters]
