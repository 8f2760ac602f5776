"""Endpoints of Cloud Map services under a server: what stays known, for whom, and what is said."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given as having
from hypothesis import settings
from hypothesis import strategies as st
from test_cloud_map import addresses, color, front, service

import appmesh_xds as am
from appmesh_xds.cloud_map import CloudMapService, EndpointSource, Found, services_of
from appmesh_xds.facts import Endpoint
from appmesh_xds.server import discovery as module
from appmesh_xds.server.discovery import Discovery
from appmesh_xds.server.meshes import Meshes

COLOR, OTHER = CloudMapService("shop.internal", "color"), CloudMapService("shop.internal", "other")
FRONT = "mesh/shop/virtualNode/front"
#: Sequences of events; more of them with `APPMESH_XDS_DEPTH=5000 python -m pytest tests/test_discovery.py`.
DEPTH = int(os.environ.get("APPMESH_XDS_DEPTH", "60"))


def at(*ips: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(address=ip) for ip in ips)


def shop(*names: str, mesh: str = "shop") -> am.Mesh:
    """`front`, which calls a node of each name, found as the service of its name."""
    resources = [front(*names), *map(service, names), *map(color, names)]
    return am.loads([{**one, "meshName": mesh} for one in resources])


class Source:
    """A source that says what it is told to say, and remembers what it was asked."""

    name = "test"

    def __init__(self, answer: Found | Exception) -> None:
        self.answer = answer
        self.asked: list[set[str]] = []

    def discover(self, services: Collection[CloudMapService]) -> Found:
        self.asked.append({str(one) for one in services})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def served(meshes: Meshes, mesh: str = "shop") -> list[str]:
    snapshot = meshes.snapshot(f"mesh/{mesh}/virtualNode/front")
    assert snapshot is not None and not snapshot.errors
    return [address for address, _ in addresses(snapshot)]


class Shop:
    """A mesh, what is served of it, and who knows its endpoints."""

    def __init__(self, *names: str, **known: tuple[Endpoint, ...]) -> None:
        self.meshes = Meshes()
        self.meshes.update(shop(*names))
        self.source = Source(Exception())
        self.discovery = Discovery(self.meshes, self.source)
        self.told: list[str] = []
        self.meshes.subscribe(self.told.extend)
        self.say(**known)
        self.told.clear()

    def say(self, **known: tuple[Endpoint, ...]) -> None:
        instances = {CloudMapService("shop.internal", name): one for name, one in known.items()}
        self.answer(Found(instances=instances))

    def answer(self, answer: Found | Exception) -> None:
        self.source.answer = answer
        self.discovery.ask()


def test_a_source_is_a_protocol() -> None:
    source: EndpointSource = Source(Found(instances={}))
    assert source.name == "test"


def test_what_is_known_is_served_and_only_news_are_told() -> None:
    made = Shop("color")
    assert [p.message for p in made.meshes.problems()] == ["no endpoints are known for color.shop.internal"]
    made.say(color=at("10.0.0.2", "10.0.0.1"))
    assert made.source.asked[-1] == {"color.shop.internal"}
    assert (served(made.meshes), made.told) == (["10.0.0.1", "10.0.0.2"], [FRONT])
    assert made.meshes.instances() == {COLOR: at("10.0.0.1", "10.0.0.2")}
    made.say(color=at("10.0.0.1", "10.0.0.2"))
    assert made.told == [FRONT], "another order is no change"
    before = made.meshes.snapshot(FRONT)
    made.say(color=at("10.0.0.3"))
    after = made.meshes.snapshot(FRONT)
    assert before is not None and after is not None
    assert served(made.meshes) == ["10.0.0.3"]
    for kind in ("listeners", "clusters", "routes", "secrets"):
        assert getattr(before, kind) is getattr(after, kind), kind


def test_only_callers_are_told() -> None:
    made = Shop("color", "other", color=at("10.0.0.1"), other=at("10.0.0.2"))
    idle = am.loads([front("color"), service(), color(), {**front(), "virtualNodeName": "idle"}])
    made.meshes.update(idle)
    made.told.clear()
    made.say(color=at("10.0.0.9"))
    assert made.told == [FRONT]


def test_a_service_that_is_gone_has_no_instances_and_one_that_never_was_is_an_error() -> None:
    made = Shop("color", color=at("10.0.0.1"))
    gone = Found(instances={}, gone=frozenset([COLOR]))
    made.say()
    assert served(made.meshes) == ["10.0.0.1"], "nothing is said of it"
    made.answer(gone)
    assert served(made.meshes) == []
    assert [(p.severity, p.message) for p in made.meshes.problems()] == [
        ("warning", "color.shop.internal has no instance now")
    ]
    made = Shop("color")
    made.answer(gone)
    (problem,) = made.meshes.problems()
    assert (problem.severity, problem.message) == ("error", "no endpoints are known for color.shop.internal")
    made.say(color=())
    assert served(made.meshes) == []


def test_what_cannot_be_asked_stays_known() -> None:
    made = Shop("color", "other", color=at("10.0.0.1"), other=at("10.0.0.2"))
    good = made.discovery.last_good
    assert good > 0 and (made.discovery.successes, made.discovery.failures) == (1, 0)
    made.answer(Found(instances={OTHER: at("10.0.0.3")}, failed={COLOR: "throttled"}))
    snapshot = made.meshes.snapshot(FRONT)
    assert snapshot is not None
    found = [one.message() for one in snapshot.endpoints]
    assert [str(one).count('address: "10.0.0.1"') for one in found] == [1, 0]
    assert [str(one).count('address: "10.0.0.3"') for one in found] == [0, 1]
    (problem,) = made.discovery.problems
    assert str(problem) == (
        "warning: test cannot say where color.shop.internal is: throttled (what was known of it stays)"
    )
    assert (made.discovery.successes, made.discovery.failures) == (1, 1)
    assert made.discovery.last_good == good
    made.answer(Found(instances={}, failed={COLOR: "down", OTHER: "down"}))
    assert "where color.shop.internal and 1 more is: down" in str(made.discovery.problems[0])
    made.say(color=at("10.0.0.1"), other=at("10.0.0.2"))
    assert made.discovery.problems == () and made.discovery.last_good > good


def test_a_source_that_fails_altogether_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    made = Shop("color", color=at("10.0.0.1"))
    broken = am.Problem(file="f", message="is broken")
    made.answer(am.SpecErrors([broken]))
    assert made.discovery.problems == (broken,)
    made.answer(ZeroDivisionError())
    (problem,) = made.discovery.problems
    assert (problem.severity, problem.message) == ("warning", "the source test failed: ZeroDivisionError")
    assert "Traceback" in caplog.text
    assert (served(made.meshes), made.told, made.discovery.failures) == (["10.0.0.1"], [], 2)


def test_a_mesh_to_come_is_asked_about_before_it_comes() -> None:
    """So that its nodes are not without endpoints for a moment, with all that is said then."""
    made = Shop("color", color=at("10.0.0.1"))
    more = shop("color", "other")
    made.source.answer = Found(instances={COLOR: at("10.0.0.1"), OTHER: at("10.0.0.2")})
    made.discovery.ask_for([more])
    assert made.source.asked[-1] == {"color.shop.internal", "other.shop.internal"}
    assert made.told == []
    made.meshes.update(more)
    assert served_all(made.meshes) == {"10.0.0.1", "10.0.0.2"}
    asked = len(made.source.asked)
    made.discovery.ask_for([more])
    made.discovery.ask_for([shop("other")])
    assert len(made.source.asked) == asked, "nothing that it was not asked about"
    # What goes and comes again is asked about again.
    made.meshes.update(shop("color"))
    made.discovery.ask_for([more])
    assert len(made.source.asked) == asked + 1
    made.meshes.update(more)
    assert served_all(made.meshes) == {"10.0.0.1", "10.0.0.2"}
    # What the source does not know is not asked about with every change of the specs.
    made.discovery.ask_for([shop("unknown")])
    made.discovery.ask_for([shop("unknown")])
    assert len(made.source.asked) == asked + 2


def served_all(meshes: Meshes) -> set[str]:
    snapshot = meshes.snapshot(FRONT)
    assert snapshot is not None and not snapshot.errors
    return {
        place["endpoint"]["address"]["socket_address"]["address"]
        for one in snapshot.to_dict()["endpoints"]
        for locality in one["endpoints"]
        for place in locality["lb_endpoints"]
    }


def test_without_meshes_nothing_is_asked() -> None:
    source = Source(Found(instances={}))
    discovery = Discovery(Meshes(), source)
    assert discovery.ask() == [] and source.asked == []
    discovery.ask_for([])
    assert source.asked == [set()], "but a broken file is told before anything is served"


def test_it_is_asked_less_often_while_it_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: low)
    made = Shop("color")
    answers = itertools.chain(
        [Found(instances={}, busy=True)] * 3, [Found(instances={})] * 2, itertools.repeat(ValueError())
    )

    async def follow() -> None:
        async for _ in made.discovery.due(10.0):
            made.answer(next(answers))
            if len(waited) == 40:
                return

    asyncio.run(follow())
    assert waited[:7] == pytest.approx([9.0, 18.0, 36.0, 54.0, 9.0, 9.0, 18.0])
    assert max(waited) == pytest.approx(54.0), "a minute at most"
    assert asyncio.run(_first_delay(made.discovery, 900.0, waited)) == pytest.approx(810.0)


async def _first_delay(discovery: Discovery, every: float, waited: list[float]) -> float:
    await anext(discovery.due(every))
    return waited[-1]


# --- meshes -----------------------------------------------------------------------------------------------


def test_facts_about_a_node_win_over_what_is_known_of_its_service() -> None:
    made = Shop("color", color=at("10.0.0.1"))
    made.meshes.know(endpoints={"color": at("10.0.0.2")})
    assert served(made.meshes) == ["10.0.0.2"]
    made.say(color=at("10.0.0.3"))
    assert served(made.meshes) == ["10.0.0.2"]
    made.meshes.know(endpoints={"color": None})
    assert served(made.meshes) == ["10.0.0.3"]
    made.meshes.update(shop("color").replace(endpoints={"color": at("10.0.0.4")}))
    assert made.meshes.problems() == []
    # What was said last stays, and it said that nothing is known.
    assert served(made.meshes) == ["10.0.0.3"]


def test_a_meshs_own_facts_win_too() -> None:
    made = Shop("color", color=at("10.0.0.1"))
    made.meshes.update(shop("color").replace(endpoints={"color": at("10.0.0.4")}))
    assert served(made.meshes) == ["10.0.0.4"]
    made.say(color=at("10.0.0.5"))
    assert served(made.meshes) == ["10.0.0.4"]
    made.meshes.update(shop("color"))
    assert served(made.meshes) == ["10.0.0.5"]


def test_nodes_of_one_name_in_several_meshes() -> None:
    meshes = Meshes()
    meshes.update(shop("color"), shop("color", mesh="mall"))
    meshes.know(endpoints={"color": at("10.0.0.1"), "mesh/mall/virtualNode/color": at("10.0.0.2")})
    assert (served(meshes), served(meshes, "mall")) == (["10.0.0.1"], ["10.0.0.2"])
    meshes.know(endpoints={"mesh/shop/virtualNode/color": at("10.0.0.3")})
    assert (served(meshes), served(meshes, "mall")) == (["10.0.0.3"], ["10.0.0.2"])
    meshes.know(endpoints={"color": at("10.0.0.4")})
    assert (served(meshes), served(meshes, "mall")) == (["10.0.0.3"], ["10.0.0.2"])
    meshes.update(shop("color"), shop("color", mesh="mall"))
    assert (served(meshes), served(meshes, "mall")) == (["10.0.0.3"], ["10.0.0.2"])


def test_meshes_that_share_a_service() -> None:
    meshes = Meshes()
    meshes.update(shop("color"), shop("color", mesh="mall"))
    assert meshes.services() == {COLOR} == set(services_of(shop("color")))
    meshes.know(instances={COLOR: at("10.0.0.1")})
    assert served(meshes) == served(meshes, "mall") == ["10.0.0.1"]


def test_what_no_node_is_found_by_any_more_is_forgotten() -> None:
    made = Shop("color", "other", color=at("10.0.0.1"), other=at("10.0.0.2"))
    made.meshes.update(shop("color"))
    assert made.meshes.instances() == {COLOR: at("10.0.0.1")}
    made.meshes.update(shop("color", "other"))
    assert [p.message for p in made.meshes.problems()] == ["no endpoints are known for other.shop.internal"]


def test_what_was_served_in_an_earlier_life_stays_until_there_is_a_mesh() -> None:
    before = Shop("color", color=at("10.0.0.1")).meshes.snapshot(FRONT)
    assert before is not None
    meshes = Meshes()
    meshes.remember([before])
    assert meshes.know(instances={COLOR: at("10.0.0.2")}) == []
    assert meshes.snapshot(FRONT) is before
    meshes.update(shop("color"))
    assert served(meshes) == ["10.0.0.2"]


def test_a_change_that_fails_half_way_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Shop("color", color=at("10.0.0.1"))

    def fail(self: object, mesh: object) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("appmesh_xds.server.meshes.Translator.update", fail)
        with pytest.raises(MemoryError):
            made.say(color=at("10.0.0.2"))
    assert served(made.meshes) == ["10.0.0.1"]
    made.discovery.ask()
    assert served(made.meshes) == ["10.0.0.2"]


# --- any order of events ----------------------------------------------------------------------------------

_NAMES = ("a", "b", "c")
_SOME = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=2, unique=True)
_NODES = st.sampled_from([*_NAMES, *(f"mesh/{mesh}/virtualNode/a" for mesh in ("shop", "mall"))])
_EVENTS = st.lists(
    st.one_of(
        # The nodes of each mesh, and what their own facts say of `a`.
        st.tuples(
            st.just("update"),
            st.dictionaries(
                st.sampled_from(["shop", "mall"]),
                st.tuples(st.sets(st.sampled_from(_NAMES), min_size=1), st.none() | _SOME),
                max_size=2,
            ),
        ),
        st.tuples(st.just("endpoints"), st.dictionaries(_NODES, st.none() | _SOME, max_size=2)),
        st.tuples(st.just("instances"), st.dictionaries(st.sampled_from(_NAMES), _SOME, max_size=2)),
    ),
    max_size=12,
)


@settings(max_examples=DEPTH, deadline=None)
@having(_EVENTS)
def test_what_is_served_depends_on_what_was_said_and_not_on_when(events: list[tuple[str, Any]]) -> None:
    """Whatever happens, each mesh is what it would be if it were told all that is known at once."""
    meshes = Meshes()
    said: dict[str, tuple[Endpoint, ...] | None] = {}
    known: dict[CloudMapService, tuple[Endpoint, ...]] = {}
    given: dict[str, am.Mesh] = {}
    for event, what in events:
        if event == "update":
            given = {
                name: shop(*sorted(nodes), mesh=name).replace(
                    endpoints={} if own is None else {"a": at(*own)}
                )
                for name, (nodes, own) in what.items()
            }
            meshes.update(*given.values())
            wanted = {service for mesh in given.values() for service in services_of(mesh)}
            known = {service: there for service, there in known.items() if service in wanted}
        elif event == "endpoints":
            news = {node: None if ips is None else at(*ips) for node, ips in what.items()}
            meshes.know(endpoints=news)
            said.update(news)
        else:
            found = {CloudMapService("shop.internal", name): at(*ips) for name, ips in what.items()}
            meshes.know(instances=found)
            known.update(found)
        assert meshes.meshes.keys() == given.keys()
        for name, mesh in given.items():
            nothing = dict.fromkeys(mesh.endpoints)
            whole = mesh.replace(endpoints=nothing).replace(endpoints=_expected(mesh, said, known))
            assert meshes.meshes[name].endpoints == whole.endpoints
            newest = {one.proxy: one for one in meshes.newest() if one.mesh == name}
            assert newest == {proxy: am.translate(whole, proxy) for proxy in mesh.proxies()}


def _expected(
    mesh: am.Mesh, said: dict[str, tuple[Endpoint, ...] | None], known: dict[CloudMapService, Any]
) -> dict[str, tuple[Endpoint, ...]]:
    """What was said of a node in this mesh, or in any; else the mesh's own; else its service's."""
    found = dict(mesh.endpoints)
    for name in {key.rpartition("/")[2] for key in said}:
        own = f"mesh/{mesh.name}/virtualNode/{name}"
        if own in said or name in said:
            there = said[own] if own in said else said[name]
            found.pop(name, None)
            if there is not None:
                found[name] = there
    for one, nodes in services_of(mesh).items():
        found.update((node, known[one]) for node in nodes if node not in found and one in known)
    return found
