"""What both variants of the protocol share: who the client is, what it asked for, and what may go out when.

The order is make-before-break (envoy-notes §3.9): clusters and their endpoints, then (once the client says
that the clusters are taken, which Envoy does when they are warm) listeners and routes, then (once it has
taken these) the end of clusters that nothing refers to any more. Nothing here is a queue: every decision is
made from the newest snapshot and from what the client is known to have, at the moment in which the
transport can take a response. So a newer snapshot overtakes an older one by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ..resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TYPE_NAMES, TYPE_URLS, Resource
from . import wire
from .limits import Limits, TokenBucket
from .messages import (
    Ack,
    Connected,
    DeltaRequest,
    Event,
    GateTimeout,
    Memory,
    Nack,
    Refused,
    Request,
    Response,
    Standing,
    UnknownSecrets,
    UnknownType,
)
from .redact import printable, redact
from .refused import refused

if TYPE_CHECKING:
    from ..snapshot import Snapshot

#: Seconds without a word about clusters after which listeners and routes go out all the same.
GATE_TIMEOUT: Final = 30.0
#: Types whose whole set a client may ask for by naming nothing.
WILDCARD_TYPES: Final = (CLUSTER, LISTENER)
#: The resources of a snapshot by type, in the order of `TYPE_URLS`.
_all: Final[Callable[[Snapshot], tuple[tuple[Resource, ...], ...]]] = attrgetter(
    *map({url: name for name, url in TYPE_NAMES.items()}.__getitem__, TYPE_URLS)
)
#: How many strange types are remembered, and so reported, per stream.
_STRANGE_TYPES: Final = 8
#: How many places in the specs are told with a refusal.
_ORIGINS: Final = 16
#: As much of a NACK as is searched for names of resources, in characters.
_SEARCHED: Final = 16_384

#: Most streams have no names in most places, and an empty set of its own is as large as some.
NO_NAMES: Final[frozenset[str]] = frozenset()
#: The version of a resource that the client may have, but nobody knows which.
UNSURE: Final[None] = None


class State:
    """One type on one stream."""

    __slots__ = (
        "asked",
        "awaited",
        "known",
        "last",
        "nack",
        "names",
        "nothing",
        "nothing_removing",
        "settled",
        "told",
        "took",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        #: Whether a request of this type came.
        self.asked = False
        #: Subscribed to everything, and to these names.
        self.wildcard = False
        self.names: Set[str] = NO_NAMES
        #: What the client has once it read all that was sent: name to version, or `UNSURE`.
        self.known: dict[str, str | None] = {}
        #: Of endpoints: what was sent last under each name, and not refused.
        self.last: dict[str, Resource] = {}
        #: Version and time of the last response, and of the last one taken; the last refusal and its time.
        self.told: tuple[str, float] = ("", 0.0)
        self.took: tuple[str, float] = ("", 0.0)
        self.nack: tuple[Nack | None, float] = (None, 0.0)
        #: What was found since anything about this type changed, so that it is not looked for again: there is
        #: nothing to send, nor with what the snapshot lost; and the answer of `Stream._settled`.
        self.nothing = False
        self.nothing_removing = False
        self.settled: bool | None = None
        #: The bytes of ACKs that may come next, which are keys of `Stream._acks`.
        self.awaited: list[bytes] = []


S = TypeVar("S", bound=State)
R = TypeVar("R", Request, DeltaRequest)


class Stream(Generic[S, R]):
    """One client's stream. Use `sotw.Sotw` or `delta.Delta`.

    `receive` takes a request, `update` a snapshot, `advance` the time; each returns what happened. After
    each, call `respond` until it returns None, whenever the transport is ready for one more message. `now`
    is in seconds, from any clock that does not go back. `deadline` says when to call `advance` at the latest.
    """

    __slots__ = (
        "_acks",
        "_bucket",
        "_gate_deadline",
        "_gate_timed_out",
        "_gate_timeout",
        "_grace",
        "_idle",
        "_limits",
        "_missing",
        "_nonces",
        "_now",
        "_remembered",
        "_resumed",
        "_sent_names",
        "_snapshot",
        "_strange",
        "_target",
        "_types",
        "node_id",
        "refused",
    )

    def __init__(self, *, limits: Limits, gate_timeout: float, memory: Memory | None) -> None:
        #: The client's node, from its first message; later ones cannot change it.
        self.node_id: str | None = None
        #: True after `Refused`.
        self.refused = False
        self._limits = limits
        self._gate_timeout = gate_timeout
        self._remembered = Memory() if memory is None else memory
        self._bucket = TokenBucket(limits.requests_per_second, limits.burst)
        self._types: dict[str, S] = {url: self._state(url) for url in TYPE_URLS}
        self._snapshot: Snapshot | None = None
        self._target: dict[str, dict[str, Resource]] | None = None
        self._nonces = 0
        #: ACKs as they will come in the usual case, byte for byte: type and nonce.
        self._acks: dict[bytes, tuple[S, str]] = {}
        #: The time of the call in progress.
        self._now = 0.0
        self._idle = False
        self._strange: Set[str] = NO_NAMES
        self._missing: Set[str] = NO_NAMES
        #: The client says that it has resources already, from an earlier stream.
        self._resumed = False
        #: Clusters that were sent on this stream.
        self._sent_names: Set[str] = NO_NAMES
        #: When to stop waiting for the client to accept its clusters; None when not waiting.
        self._gate_deadline: float | None = None
        self._gate_timed_out = False
        #: Until then a resumed client may still be about to repeat its subscriptions.
        self._grace: float | None = None

    # --- input --------------------------------------------------------------------------------------------

    def acknowledge(self, data: bytes, now: float) -> Event | None:
        """Takes a message, as it came, that is an ACK and no more. None for others: parse them and `receive`.

        Most of what a server reads is such, and to parse it costs more than all that follows.
        """
        found = self._acks.get(data)
        if found is None or self.refused:
            return None
        self._now = now
        state, nonce = found
        self._expect_no_more(state)
        return self._acked(state, nonce)

    def _acked(self, state: S, nonce: str) -> Event:
        # What there is to send of this type is what it was before; what waited for it may go now.
        clusters, state.settled = self._types[CLUSTER], None
        if state is clusters or not clusters.nothing_removing:
            self._idle = False
        event = self._take_ack(state, nonce)
        if state is clusters:
            self._look_at_gate()
        return event

    def _look_at_gate(self) -> None:
        """The wait for an answer about clusters may be over."""
        if not self._unanswered(self._types[CLUSTER]):
            self._gate_deadline = None
            self._gate_timed_out = False

    def _expect(self, state: S, nonce: str, data: bytes) -> None:
        state.awaited.append(data)
        self._acks[data] = (state, nonce)

    def _expect_no_more(self, state: S) -> None:
        if state.awaited:
            for data in state.awaited:
                del self._acks[data]
            state.awaited.clear()

    def receive(self, request: R, now: float) -> list[Event]:
        """One message of the client."""
        if self.refused:
            return []
        self._now = now
        if not self._bucket.take(now):
            return self._refuse(True, f"more than {self._limits.requests_per_second:g} requests a second")
        events: list[Event] = []
        if self.node_id is None:
            if not request.node_id:
                return self._refuse(False, "the first message names no node")
            self.node_id = request.node_id
            self._grace = now + self._gate_timeout
            events.append(Connected(node_id=request.node_id))
        state = self._types.get(request.type_url)
        if state is None:
            return events + self._unknown_type(request.type_url)
        self._expect_no_more(state)
        self._touch(state)
        events += self._receive(state, request)
        self._forget_sent_names()
        self._look_at_gate()
        return events + self._missing_secrets()

    def update(self, snapshot: Snapshot, now: float) -> list[Event]:
        """The newest snapshot of this stream's node; also the first one."""
        before, self._snapshot = self._snapshot, snapshot
        if before is None or self._target is None:
            self._target = {
                url: _by_name(resources) for url, resources in zip(TYPE_URLS, _all(snapshot), strict=True)
            }
            self._touch_all()
            return self._missing_secrets()
        owed = self._owed_secrets(before, snapshot)
        for url, old, new in zip(TYPE_URLS, _all(before), _all(snapshot), strict=True):
            if new is not old and not _equal(new, old):
                self._target[url] = _by_name(new)
                state = self._types[url]
                self._changed(state)
                self._touch(state)
        if owed:
            self._target[SECRET] = dict(sorted((owed | self._target[SECRET]).items()))
        return self._missing_secrets()

    def _owed_secrets(self, before: Snapshot, after: Snapshot) -> dict[str, Resource]:
        """Secrets that leave before the client asked for them, while it takes clusters or listeners that use
        them: it would wait for 15 seconds, and Envoy takes nothing else that long."""
        if after.secrets is before.secrets or not before.secrets:
            return {}
        if all(self._is_settled(self._types[url]) for url in (CLUSTER, LISTENER)):
            return {}
        gone = self._goal(SECRET).keys() - {secret.name for secret in after.secrets}
        return {name: self._goal(SECRET)[name] for name in gone - self._types[SECRET].known.keys()}

    def advance(self, now: float) -> list[Event]:
        """Time passes."""
        if self._grace is not None and now >= self._grace:
            self._grace = None
            self._touch_all()
        if self._gate_deadline is None or now < self._gate_deadline:
            return []
        self._gate_deadline = None
        self._gate_timed_out = True
        self._touch_all()
        self._give_up_waiting()
        return [GateTimeout()]

    @property
    def deadline(self) -> float | None:
        """When `advance` must be called at the latest; None when time changes nothing."""
        grace = self._grace if self._resumed else None
        if self._gate_deadline is None or grace is None:
            return self._gate_deadline if grace is None else grace
        return min(self._gate_deadline, grace)

    def memory(self) -> Memory:
        """What to give to the next stream of this node, when this one has ended.

        It makes no difference to a client that took everything it was sent. Of one that did not, what it has
        can be known only in part, and with it nothing is lost: clusters stay until their routes are gone, and
        what may be half taken is sent again.
        """
        doubts = {
            url: self._doubts(state) if state.asked else self._remembered.doubts.get(url, {})
            for url, state in self._types.items()
        }
        return Memory(
            clusters=self._clusters(), doubts={url: names for url, names in doubts.items() if names}
        )

    def standing(self) -> list[Standing]:
        """How it stands with each type that the client asked for."""
        return [
            Standing(
                type_url=url,
                names=None if state.wildcard else len(state.names),
                sent=state.told[0],
                sent_at=state.told[1],
                taken=state.took[0],
                taken_at=state.took[1],
                nack=state.nack[0],
                nack_at=state.nack[1],
            )
            for url, state in self._types.items()
            if state.asked
        ]

    # --- output -------------------------------------------------------------------------------------------

    def respond(self, now: float) -> Response | None:
        """The next response, or None when there is nothing to say for now. What it returns counts as sent."""
        if self._idle or self.refused or self._target is None:
            return None
        self._now = now
        response = self._first_due()
        if response is None:
            self._idle = True
            return None
        url, clusters = response.type_url, self._types[CLUSTER]
        state = self._types[url]
        state.told = (response.version, now)
        if url == ROUTES:
            # Nothing comes after them but the end of clusters, and all that comes before was just looked at.
            self._idle = state.nothing and clusters.nothing_removing
        elif url == CLUSTER:
            self._gate_deadline = now + self._gate_timeout
            self._gate_timed_out = False
        return response

    def _first_due(self) -> Response | None:
        """The types are asked in the order in which they may be sent."""
        types = self._types
        for url in (CLUSTER, ENDPOINTS, SECRET):
            if not (state := types[url]).nothing and (response := self._try(state, False)):
                return response
        if not self._gate_is_open():
            return None
        state = types[LISTENER]
        if self._gate_timed_out:
            if not state.nothing and (response := self._try(state, False)):
                return response
        elif not state.nothing_removing and (response := self._try(state, True)):
            return response
        if not (state := types[ROUTES]).nothing and (response := self._try(state, False)):
            return response
        if (state := types[CLUSTER]).nothing_removing or not self._may_remove():
            return None
        return self._try(state, True)

    def _try(self, state: S, removing: bool) -> Response | None:
        """The next response of a type; with `removing` it may take away what the snapshot lost."""
        response = self._next(state, removing)
        if response is not None:
            self._touch(state)
        if response is None or self._sends_all(state):
            # Having sent all there was, or not, nothing is left.
            if removing:
                state.nothing_removing = True
            else:
                state.nothing = True
        return response

    def _touch(self, state: S) -> None:
        """Something about a type changed: what was found out about it is to be found out again."""
        self._idle = state.nothing = state.nothing_removing = False
        state.settled = None
        if state.type_url == CLUSTER:
            # Which endpoints are wanted, and which are sent again, depends on the clusters.
            self._touch(self._types[ENDPOINTS])

    def _touch_all(self) -> None:
        for state in self._types.values():
            self._touch(state)

    def _is_settled(self, state: S) -> bool:
        if state.settled is None:
            state.settled = self._settled(state)
        return state.settled

    def _gate_is_open(self) -> bool:
        clusters = self._types[CLUSTER]
        if not clusters.asked:
            # Either it wants none, or it will ask: Envoy asks last for clusters that were still warming.
            return not self._resumed or self._grace is None
        return self._gate_timed_out or self._is_settled(clusters)

    def _may_remove(self) -> bool:
        """Whether nothing that the client has refers to clusters that left the snapshot."""
        clusters, listeners, routes = (self._types[url] for url in (CLUSTER, LISTENER, ROUTES))
        if not all(map(self._is_settled, (clusters, listeners, routes))):
            return False
        if any(self._outlived(routes, name) for name in routes.names):
            return False
        # A client that comes back may have routes that it has not asked for yet on this stream.
        return not self._resumed or self._grace is None or (listeners.asked and routes.asked)

    def _outlived(self, routes: S, name: str) -> bool:
        """Whether the client still has routes that left the snapshot. Those are of a listener that drains:
        Envoy unsubscribes when its last connection is gone."""
        if name in self._goal(ROUTES) or name not in routes.known:
            return False
        empty = wire.empty_resource(ROUTES, name)
        return empty is None or routes.known[name] != empty.version

    # --- the variants -------------------------------------------------------------------------------------

    def _state(self, type_url: str) -> S:
        raise NotImplementedError

    def _receive(self, state: S, request: R) -> list[Event]:
        """A request of a known type."""
        raise NotImplementedError

    def _next(self, state: S, removing: bool) -> Response | None:
        """The next response of a type, if there is something to say. It counts as sent."""
        raise NotImplementedError

    def _settled(self, state: S) -> bool:
        """Whether the client took the newest of this type: nothing to send, nothing unanswered or refused."""
        raise NotImplementedError

    def _unanswered(self, state: S) -> bool:
        """Whether a response is out that the client has neither taken nor refused."""
        raise NotImplementedError

    def _doubts(self, state: S) -> Mapping[str, str]:
        """`Memory.doubts` of a type."""
        raise NotImplementedError

    def _clusters(self) -> Mapping[str, tuple[Resource, ...]]:
        """`Memory.clusters`"""
        return self._remembered.clusters

    def _take_ack(self, state: S, nonce: str) -> Event:
        """Takes the ACK of a response, without any other wish."""
        raise NotImplementedError

    def _sends_all(self, state: S) -> bool:
        """Whether the response that was just made holds all that is due of its type."""
        raise NotImplementedError

    def _resuming(self, state: S) -> bool:
        """Whether what the client had of a type when it came is still to be looked at."""
        return False

    def _changed(self, state: S) -> None:
        """The snapshot's resources of a type are others now."""

    def _give_up_waiting(self) -> None:
        """The gate timed out."""

    # --- for the variants ---------------------------------------------------------------------------------

    def _goal(self, type_url: str) -> dict[str, Resource]:
        """The resources of a type in the snapshot, by name, in name order. Not to be changed."""
        return {} if self._target is None else self._target[type_url]

    def _wanted(self, state: S) -> dict[str, Resource]:
        """What the client should have of a type in the end, of what it asked for; by name, in name order.
        Not to be changed."""
        goal = self._goal(state.type_url)
        if goal.keys() == state.names:
            return goal
        if state.wildcard:
            wanted = goal
        else:
            wanted = {name: goal[name] for name in sorted(state.names) if name in goal}
        if state.type_url not in (ENDPOINTS, ROUTES) or wanted.keys() >= state.names:
            return wanted
        stand_ins = {name: self._stand_in(state, name) for name in state.names - wanted.keys()}
        found = wanted | {name: one for name, one in stand_ins.items() if one is not None}
        return dict(sorted(found.items()))

    def _stand_in(self, state: S, name: str) -> Resource | None:
        """The answer to a name that the snapshot does not hold: without one, Envoy waits for 15 seconds.

        But what the client has under that name stays as it is while something that it still has (a draining
        listener, a cluster that is about to go) uses it. If it waits for it again, it gets it again.
        """
        belongs = state.type_url == ENDPOINTS and name in self._goal(CLUSTER)
        if belongs or name not in state.known:
            return wire.empty_resource(state.type_url, name)
        return state.last.get(name) if state.known[name] is UNSURE else None

    def _note_sent(self, state: S, resources: Iterable[Resource]) -> None:
        known, last = state.known, state.last if state.type_url == ENDPOINTS else None
        for resource in resources:
            known[resource.name] = resource.version
            if last is not None:
                last[resource.name] = resource
        if last and len(last) > len(state.names):
            state.last = {name: resource for name, resource in last.items() if name in state.names}

    def _sent_clusters(self, names: Collection[str]) -> None:
        """Envoy warms a changed cluster until its endpoints are sent again, changed or not (envoy-notes
        §0.3)."""
        endpoints = self._types[ENDPOINTS]
        self._sent_names |= set(names)
        self._forget_sent_names()
        for name in names:
            if name in endpoints.known:
                endpoints.known[name] = UNSURE

    def _forget_sent_names(self) -> None:
        """They matter until it is decided what endpoints the client had when it came."""
        endpoints = self._types[ENDPOINTS]
        if self._sent_names and endpoints.asked and not self._resuming(endpoints):
            self._sent_names = NO_NAMES

    def _may_warm(self, cluster: str) -> bool:
        """Whether a cluster may wait for endpoints that the client already had when it came: the cluster was
        sent on this stream, or Envoy holds back its request for clusters, as it does while one warms."""
        return not self._types[CLUSTER].asked or cluster in self._sent_names

    def _answered(
        self, state: S, nonce: str, told: tuple[str, float], error: str | None, names: Iterable[str]
    ) -> Event:
        """The event of an ACK or NACK of a response that held `names`; `told` is its version and time."""
        version, sent_at = told
        if error is None:
            state.took = (version, self._now)
            return Ack(type_url=state.type_url, nonce=nonce, version=version, after=self._now - sent_at)
        goal = self._goal(state.type_url)
        named = refused(names, goal, error[:_SEARCHED])
        origins = chain.from_iterable(goal[name].origin for name in named if name in goal)
        nack = Nack(
            type_url=state.type_url,
            nonce=nonce,
            version=version,
            text=redact(error),
            resources=named,
            origins=tuple(islice(dict.fromkeys(origins), _ORIGINS)),
        )
        state.nack = (nack, self._now)
        return nack

    def _next_nonce(self) -> str:
        self._nonces += 1
        return str(self._nonces)

    def _refuse(self, limit: bool, text: str) -> list[Event]:
        self.refused = True
        return [Refused(limit=limit, text=text)]

    def _too_many(self, state: S, count: int) -> list[Event]:
        """A refusal when a subscription to so many names is too much."""
        if count <= self._limits.names:
            return []
        return self._refuse(True, f"{count} names of {state.type_url}, {self._limits.names} can be")

    def _unknown_type(self, type_url: str) -> list[Event]:
        if type_url in self._strange or len(self._strange) >= _STRANGE_TYPES:
            return []
        self._strange |= {type_url}
        return [UnknownType(type_url=printable(type_url))]

    def _missing_secrets(self) -> list[Event]:
        secrets = self._types[SECRET]
        if not (secrets.names or self._missing) or self._target is None:
            return []
        # What it has and still asks for is of a listener or a cluster that goes, too.
        missing = secrets.names - self._target[SECRET].keys() - secrets.known.keys()
        new = missing - self._missing
        self._missing = missing or NO_NAMES
        return [UnknownSecrets(names=tuple(sorted(new)))] if new else []


def _by_name(resources: tuple[Resource, ...]) -> dict[str, Resource]:
    """In name order, which is theirs in a snapshot."""
    return {resource.name: resource for resource in resources}


def _equal(some: tuple[Resource, ...], others: tuple[Resource, ...]) -> bool:
    """Whether they have the same names and versions. Faster than to compare the resources, many of which are
    the same object."""
    if len(some) != len(others):
        return False
    for one, other in zip(some, others, strict=True):
        if one is not other and (one.version != other.version or one.name != other.name):
            return False
    return True
