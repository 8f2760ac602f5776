"""Secrets that a client refuses, whatever else happens: those it would take come, and nobody talks for ever.

The client is Envoy as far as its secrets go: it takes those of a response in an order of its own, up to the
first that it refuses (its file is not there, say), and refuses the response as a whole. More at depth:
`APPMESH_XDS_DEPTH=N python -m pytest tests/test_protocol_secrets.py`.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from traces import encoded

from appmesh_xds import proto
from appmesh_xds.resource import SECRET, Resource
from appmesh_xds.server.protocol import Connected, Delta, DeltaRequest, Refused, Request, Response, Sotw
from appmesh_xds.snapshot import Snapshot

DEPTH = int(os.environ.get("APPMESH_XDS_DEPTH", "60"))
NAMES = "abcde"


def _is_bad(secret: Resource) -> bool:
    return secret.version == "!"


def _secret(name: str, version: str) -> Resource:
    value = proto.Secret(name=name).SerializeToString()
    return Resource(type_url=SECRET, name=name, value=value, version=version)


def _snapshot(versions: dict[str, str]) -> Snapshot:
    secrets = tuple(_secret(name, version) for name, version in sorted(versions.items()))
    return Snapshot(mesh="m", proxy="virtualNode/n", secrets=secrets)


class Client:
    """Its messages wait in `out`. What it has lasts over streams."""

    def __init__(self, delta: bool, backwards: bool) -> None:
        self.delta = delta
        self.backwards = backwards
        self.has: dict[str, str] = {}
        self.wants: set[str] = set("ab")
        #: Names that its version cannot be of: they were never in a response that it took.
        self.new = set(NAMES)
        self.version = ""
        self.connect()

    def connect(self) -> None:
        self.out: deque[Any] = deque()
        self.nonce = ""
        self.told: set[str] = set()
        self.ask(first=True)

    def ask(self, *, nonce: str = "", error: str | None = None, first: bool = False) -> None:
        node = "mesh/m/virtualNode/n" if first else ""
        if not self.delta:
            wants = tuple(sorted(self.wants))
            request = Request(
                type_url=SECRET,
                names=wants,
                version=self.version,
                nonce=self.nonce,
                error=error,
                node_id=node,
            )
            self.out.append(request)
            return
        new, gone = tuple(sorted(self.wants - self.told)), tuple(sorted(self.told - self.wants))
        has = {name: version for name, version in self.has.items() if name in self.wants} if first else {}
        self.told = set(self.wants)
        self.out.append(
            DeltaRequest(
                type_url=SECRET,
                subscribe=new,
                unsubscribe=gone,
                versions=has,
                nonce=nonce,
                error=error,
                node_id=node,
            )
        )

    def read(self, response: Response, secrets: dict[str, Resource]) -> None:
        error = None
        for name in sorted(response.names, reverse=self.backwards):
            if name not in self.wants:
                continue
            if _is_bad(secrets[name]):
                error = "no"
                break
            self.has[name] = secrets[name].version
            self.new.discard(name)
        self.nonce = response.nonce
        if error is None:
            self.version = response.version
        self.ask(nonce=response.nonce, error=error)

    def want(self, names: set[str]) -> None:
        self.wants = names
        self.has = {name: version for name, version in self.has.items() if name in names}
        self.ask()


class Conversation(RuleBasedStateMachine):
    kind: type[Sotw] | type[Delta]
    backwards: bool

    def __init__(self) -> None:
        super().__init__()
        self.newest = _snapshot({})
        self.client = Client(self.kind is Delta, self.backwards)
        self.server: Any = self.kind()
        #: Responses on their way, with what they hold.
        self.link: deque[tuple[Response, dict[str, Resource]]] = deque()

    @precondition(lambda self: self.client.out)
    @rule()
    def server_reads(self) -> None:
        message = self.client.out.popleft()
        # As servers do: what is an ACK and no more is not parsed.
        if self.server.acknowledge(encoded(message, self.kind), 0.0) is not None:
            return
        for event in self.server.receive(message, 0.0):
            assert not isinstance(event, Refused), event
            if isinstance(event, Connected):
                self.server.update(self.newest, 0.0)

    @precondition(lambda self: len(self.link) < 3)
    @rule()
    def server_writes(self) -> None:
        self.write()

    def write(self) -> bool:
        response = self.server.respond(0.0)
        if response is None:
            return False
        newest = {secret.name: secret for secret in self.newest.secrets}
        self.link.append((response, {name: newest[name] for name in response.names}))
        return True

    @precondition(lambda self: self.link)
    @rule()
    def client_reads(self) -> None:
        self.client.read(*self.link.popleft())

    @rule(versions=st.dictionaries(st.sampled_from(NAMES), st.sampled_from("123!"), max_size=5))
    def changes(self, versions: dict[str, str]) -> None:
        self.newest = _snapshot(versions)
        if self.server.node_id is not None:
            self.server.update(self.newest, 0.0)

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def wants(self, names: set[str]) -> None:
        self.client.want(names)

    # A client without Delta that dropped a name and wants it again says a version that it no longer has: none
    # could tell, if the stream broke just then.
    @precondition(
        lambda self: self.client.delta or self.client.wants <= self.client.has.keys() | self.client.new
    )
    @rule(remembers=st.booleans())
    def breaks(self, remembers: bool) -> None:
        memory = self.server.memory() if remembers else None
        self.link.clear()
        self.client.connect()
        self.server = self.kind(memory=memory)

    @rule()
    def settles(self) -> None:
        for _ in range(200):
            if self.client.out:
                self.server_reads()
            elif self.link:
                self.client_reads()
            elif not self.write():
                break
        else:
            raise AssertionError("they never stop talking")
        wanted = {one.name: one for one in self.newest.secrets if one.name in self.client.wants}
        for name, secret in wanted.items():
            assert _is_bad(secret) or self.client.has.get(name) == secret.version, f"{name} never came"

    def teardown(self) -> None:
        self.settles()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", [Sotw, Delta])
def test_what_is_good_comes(kind: type[Sotw] | type[Delta], backwards: bool) -> None:
    machine = type("Machine", (Conversation,), {"kind": kind, "backwards": backwards})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=DEPTH, stateful_step_count=40, deadline=None)
    )
