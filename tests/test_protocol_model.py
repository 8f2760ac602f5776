"""Streams against a model of Envoy, under whatever may happen: changes, late ACKs, refusals, broken streams.

The model keeps what Envoy keeps. A changed cluster warms until endpoints of its name come in a response, and
as long as one warms, nothing is said about clusters (envoy-notes §0.3). Messages travel in order, each way,
and are delivered one at a time, when Hypothesis says so.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from traces import TYPES

from appmesh_xds import proto
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Resource
from appmesh_xds.server import wire
from appmesh_xds.server.protocol import Connected, Delta, GateTimeout, Refused, Response, Sotw
from appmesh_xds.snapshot import Snapshot

#: How many conversations; `APPMESH_XDS_DEPTH=5000 python -m pytest tests/test_protocol_model.py` in depth.
DEPTH = int(os.environ.get("APPMESH_XDS_DEPTH", "150"))
NAMES = "abcd"
#: How many contents a resource may have. Refused ones are those that end in "!".
CONTENTS = ("1", "2", "3", "!")


# --- what the resources mean ------------------------------------------------------------------------------
# cluster    a=1            its content; endpoints of the same name
# endpoints  a=1
# listener   l=1>r,s        uses these route configurations
# routes     r=1>a,b        refers to these clusters


def make(type_url: str, name: str, content: str, refers: tuple[str, ...] = ()) -> Resource:
    value = f"{name}={content}>{','.join(refers)}".encode()
    return Resource(type_url=type_url, name=name, value=value, version=value.decode())


def refers(resource: bytes) -> set[str]:
    _, _, names = resource.decode().partition(">")
    return set(names.split(",")) - {""}


def is_bad(resource: bytes) -> bool:
    return b"!" in resource


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A consistent one: routes refer to its clusters, listeners to its routes."""
    contents = st.sampled_from(CONTENTS[:3] * 6 + CONTENTS[3:])
    clusters = draw(st.dictionaries(st.sampled_from(NAMES), contents, max_size=3))
    routes = draw(st.dictionaries(st.sampled_from("rst"), contents, max_size=2))
    listeners = draw(st.dictionaries(st.sampled_from("lm"), contents, max_size=2))
    some = st.sets(st.sampled_from(sorted(clusters)), max_size=2) if clusters else st.just(set[str]())
    uses = st.sets(st.sampled_from(sorted(routes)), max_size=2) if routes else st.just(set[str]())
    return Snapshot(
        mesh="m",
        proxy="virtualNode/n",
        clusters=tuple(make(CLUSTER, n, c) for n, c in sorted(clusters.items())),
        endpoints=tuple(make(ENDPOINTS, n, draw(contents)) for n in sorted(clusters) if draw(st.booleans())),
        listeners=tuple(
            make(LISTENER, n, c, tuple(sorted(draw(uses)))) for n, c in sorted(listeners.items())
        ),
        routes=tuple(make(ROUTES, n, c, tuple(sorted(draw(some)))) for n, c in sorted(routes.items())),
    )


class Envoy:
    """The client's side, as far as a control plane can see it. Everything lasts over reconnects."""

    def __init__(self, delta: bool) -> None:
        self.delta = delta
        self.clusters: dict[str, bytes] = {}
        #: Clusters that wait for endpoints, and those that have been warm: their former selves serve on.
        self.warming: set[str] = set()
        self.warm: set[str] = set()
        #: Envoy asks for listeners once its first clusters are warm, whichever stream they came on.
        self.started = False
        self.has_clusters = False
        self.listeners: dict[str, bytes] = {}
        self.endpoints: dict[str, bytes] = {}
        self.routes: dict[str, bytes] = {}
        #: Listeners that are gone, but drain: they use their routes until then.
        self.draining: list[bytes] = []
        self.version = dict.fromkeys(TYPES.values(), "")
        self.versions: dict[str, dict[str, str]] = {url: {} for url in TYPES.values()}
        self.connect()

    def connect(self) -> None:
        self.nonce = dict.fromkeys(TYPES.values(), "")
        self.subscribed: dict[str, set[str]] = {}
        self.first = True
        #: Written while requests for clusters are held back.
        self.held: list[dict[str, Any]] = []
        self.out: deque[bytes] = deque()
        self.ask(CLUSTER)
        if self.wanted(ENDPOINTS):
            self.ask(ENDPOINTS)
        if self.started:
            self.ask(LISTENER)
            if self.wanted(ROUTES):
                self.ask(ROUTES)

    # --- subscriptions ------------------------------------------------------------------------------------

    def wanted(self, url: str) -> set[str]:
        if url == ENDPOINTS:
            return set(self.clusters)
        if url == ROUTES:
            return set().union(*map(refers, (*self.listeners.values(), *self.draining)))
        return set()

    def ask(self, url: str, **answer: Any) -> None:
        """A request; one about clusters waits as long as one of them warms."""
        if url == CLUSTER and self.warming:
            self.held.append(answer)
            return
        if self.delta:
            self.write_delta(url, **answer)
        else:
            self.write_sotw(url, **answer)

    def write_sotw(self, url: str, nonce: str | None = None, error: str | None = None) -> None:
        names = self.wanted(url)
        message = proto.DiscoveryRequest(
            type_url=url,
            resource_names=sorted(names),
            version_info=self.version[url],
            response_nonce=self.nonce[url] if nonce is None else nonce,
        )
        self.subscribed[url] = names
        self.write(message, error)

    def write_delta(self, url: str, nonce: str | None = None, error: str | None = None) -> None:
        names, before = self.wanted(url), self.subscribed.get(url)
        message = proto.DeltaDiscoveryRequest(
            type_url=url,
            resource_names_subscribe=sorted(names - (before or set())),
            resource_names_unsubscribe=sorted((before or set()) - names),
            response_nonce=nonce or "",
        )
        if before is None:
            has = self.versions[url]
            for name, version in has.items():
                if url in (CLUSTER, LISTENER) or name in names:
                    message.initial_resource_versions[name] = version
        for name in (before or set()) - names:
            self.versions[url].pop(name, None)
        self.subscribed[url] = names
        self.write(message, error)

    def write(self, message: Any, error: str | None) -> None:
        if error is not None:
            message.error_detail.message = error
        if self.first:
            message.node.id = "mesh/m/virtualNode/n"
            self.first = False
        self.out.append(message.SerializeToString())

    # --- responses ----------------------------------------------------------------------------------------

    def read(self, data: bytes) -> None:
        kind = proto.DeltaDiscoveryResponse if self.delta else proto.DiscoveryResponse
        message: Any = kind.FromString(data)
        url = message.type_url
        self.has_clusters = self.has_clusters or url == CLUSTER
        bodies: dict[str, tuple[bytes, str]] = {}
        for entry in message.resources:
            body = entry.resource.value if self.delta else entry.value
            name = entry.name if self.delta else _name(body)
            bodies[name] = (body, entry.version if self.delta else "")
        removed = set(message.removed_resources) if self.delta else set()
        bad = sorted(name for name, (body, _) in bodies.items() if is_bad(body))
        good = {name: body for name, (body, _) in bodies.items() if name not in bad}
        held = self.subscribed_names()
        self.apply(url, good, removed, set(bodies))
        if not bad:
            # Of a response that was refused in part it forgets that it took the other part.
            self.versions[url].update({name: version for name, (_, version) in bodies.items()})
            for name in removed:
                self.versions[url].pop(name, None)
            self.version[url] = "" if self.delta else message.version_info
        self.nonce[url] = message.nonce
        self.answer(url, message.nonce, bad, held)

    def subscribed_names(self) -> dict[str, set[str]]:
        return {url: self.wanted(url) for url in (ENDPOINTS, ROUTES)}

    def apply(self, url: str, good: dict[str, bytes], removed: set[str], present: set[str]) -> None:
        gone = removed if self.delta else self.having(url).keys() - present
        if url == CLUSTER:
            for name, body in good.items():
                if self.clusters.get(name) != body:
                    self.clusters[name] = body
                    self.warming.add(name)
            for name in gone:
                if self.clusters.pop(name, None):
                    self.check_unused(name)
                self.warming.discard(name)
                self.warm.discard(name)
        elif url == LISTENER:
            for name, body in good.items():
                if name in self.listeners and self.listeners[name] != body:
                    self.draining.append(self.listeners[name])
                self.listeners[name] = body
            self.draining += [self.listeners.pop(name) for name in gone if name in self.listeners]
        elif url == ENDPOINTS:
            for name, body in good.items():
                if name in self.clusters:
                    self.endpoints[name] = body
                    self.warming.discard(name)
                    self.warm.add(name)
        elif url == ROUTES:
            for name, body in good.items():
                if name in self.wanted(ROUTES):
                    self.routes[name] = body
                    self.check_refers(body)

    def having(self, url: str) -> dict[str, bytes]:
        return {CLUSTER: self.clusters, LISTENER: self.listeners}.get(url, {})

    def answer(self, url: str, nonce: str, bad: list[str], before: dict[str, set[str]]) -> None:
        error = f"refused: {', '.join(f'{name}: bad' for name in bad)}" if bad else None
        self.ask(url, nonce=nonce, error=error)
        self.follow(before)
        self.warmed()

    def warmed(self) -> None:
        """What waited for warm clusters."""
        if self.warming:
            return
        answers, self.held = self.held, []
        for held in answers:
            self.ask(CLUSTER, **held)
        if self.has_clusters:
            self.started = True
        if self.started and LISTENER not in self.subscribed:
            self.ask(LISTENER)

    def give_up_warming(self) -> None:
        """`initial_fetch_timeout`: without endpoints, as if there were none."""
        self.warm |= self.warming
        self.warming.clear()
        self.warmed()

    def follow(self, before: dict[str, set[str]]) -> None:
        """Subscribes to what the new configuration needs, and no longer to what it does not."""
        for url, names in before.items():
            now = self.wanted(url)
            for name in names - now:
                self.having_named(url).pop(name, None)
                self.versions[url].pop(name, None)
            if now != self.subscribed.get(url, set()):
                self.ask(url)

    def having_named(self, url: str) -> dict[str, bytes]:
        return self.endpoints if url == ENDPOINTS else self.routes

    def drained(self) -> None:
        before = self.subscribed_names()
        self.draining.clear()
        self.follow(before)

    # --- what must hold -----------------------------------------------------------------------------------

    def check_unused(self, cluster: str) -> None:
        for name, body in self.routes.items():
            if name in self.wanted(ROUTES):
                assert cluster not in refers(body), f"{cluster} is removed, but routes {name} refer to it"

    def check_refers(self, body: bytes) -> None:
        for cluster in refers(body):
            assert cluster in self.warm, f"routes refer to {cluster}, which is not warm"


def _name(body: bytes) -> str:
    """Empty resources are real messages, with the name as their first field."""
    return body[2 : 2 + body[1]].decode() if body[:1] == b"\n" else body.decode().partition("=")[0]


# --- everything that may happen -----------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    kind: type[Sotw] | type[Delta]

    def __init__(self) -> None:
        super().__init__()
        self.newest: Snapshot | None = None
        self.now = 0.0
        self.envoy = Envoy(self.kind is Delta)
        self.link: deque[Response] = deque()
        self.server = self.kind()
        self.nonces: set[str] = set()
        #: Types of responses with something in them.
        self.sent: list[str] = []

    # --- one message at a time ----------------------------------------------------------------------------

    @precondition(lambda self: self.envoy.out)
    @rule(parsed=st.booleans())
    def server_reads(self, parsed: bool = False) -> None:
        data = self.envoy.out.popleft()
        # The server takes ACKs as they come. Parsed, they must come to the same.
        if not parsed and self.server.acknowledge(data, self.now) is not None:
            return
        message: Any = wire.delta_request(data) if self.kind is Delta else wire.request(data)
        for event in self.server.receive(message, self.now):
            assert not isinstance(event, Refused | GateTimeout), event
            if isinstance(event, Connected) and self.newest is not None:
                self.server.update(self.newest, self.now)

    @precondition(lambda self: len(self.link) < 3)
    @rule()
    def server_writes(self) -> None:
        self.write()

    def write(self) -> bool:
        self.now += 0.01
        response = self.server.respond(self.now)
        if response is None:
            return False
        assert response.nonce and response.nonce not in self.nonces, "a nonce came twice"
        self.nonces.add(response.nonce)
        self.link.append(response)
        if response.names or response.removed:
            self.sent.append(response.type_url)
        return True

    @precondition(lambda self: self.link)
    @rule()
    def envoy_reads(self) -> None:
        self.envoy.read(self.link.popleft().data)

    # --- and what comes between ---------------------------------------------------------------------------

    @rule(snapshot=snapshots())
    def changes(self, snapshot: Snapshot) -> None:
        self.newest = snapshot
        if self.server.node_id is not None:
            self.server.update(snapshot, self.now)

    @rule()
    def breaks(self) -> None:
        memory = self.server.memory()
        self.link.clear()
        self.nonces.clear()
        self.envoy.connect()
        self.server = self.kind(memory=memory)

    @rule()
    def drained(self) -> None:
        self.envoy.drained()

    @rule()
    def settles(self) -> None:
        """Nothing happens for a while. Then Envoy has what it should have."""
        if self.newest is None:
            return
        self.pump()
        for _ in range(3):
            if self.envoy.warming:
                self.envoy.give_up_warming()
            self.pump()
        self.envoy.drained()
        self.pump()
        self.now += 31
        assert self.server.advance(self.now) == []
        self.pump()
        if self.acceptable():
            self.check()

    @precondition(lambda self: self.newest is not None and self.acceptable())
    @rule()
    def restarts(self) -> None:
        """Another server with the same snapshot, and no memory: it has nothing to say."""
        self.settles()
        self.server = self.kind()
        self.link.clear()
        self.nonces.clear()
        self.envoy.connect()
        self.sent.clear()
        self.settles()
        # With names that it dropped meanwhile, what a client has of these is not what its version says.
        allowed = set() if self.kind is Delta else {ENDPOINTS, ROUTES}
        assert set(self.sent) <= allowed, "something was sent again without a cause"

    def teardown(self) -> None:
        self.settles()

    # --- what must hold -----------------------------------------------------------------------------------

    def pump(self) -> None:
        for _ in range(300):
            if self.envoy.out:
                self.server_reads()
            elif self.link:
                self.envoy_reads()
            elif not self.write():
                return
        raise AssertionError("they never stop talking")

    def acceptable(self) -> bool:
        assert self.newest is not None
        return not any(is_bad(r.value) for url in TYPES.values() for r in self.newest.resources(url))

    def check(self) -> None:
        assert self.newest is not None
        envoy, newest = self.envoy, self.newest
        assert envoy.clusters == {r.name: r.value for r in newest.clusters}
        assert envoy.listeners == {r.name: r.value for r in newest.listeners}
        routes = {r.name: r.value for r in newest.routes}
        assert envoy.routes == {name: routes[name] for name in envoy.wanted(ROUTES)}
        endpoints = {r.name: r.value for r in newest.endpoints}
        for name in envoy.clusters:
            empty = wire.empty_resource(ENDPOINTS, name)
            assert empty is not None
            assert envoy.endpoints[name] == endpoints.get(name, empty.value)
        assert not envoy.warming


@pytest.mark.parametrize("kind", [Sotw, Delta])
def test_whatever_happens(kind: type[Sotw] | type[Delta]) -> None:
    machine = type("Machine", (Conversation,), {"kind": kind})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=DEPTH, stateful_step_count=40, deadline=None)
    )
