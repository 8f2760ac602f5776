"""Delta: responses hold what changed, and name what is gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from ..resource import CLUSTER, ENDPOINTS, LISTENER, SECRET, Resource
from ..snapshot import set_version
from . import wire
from .limits import Limits
from .messages import DeltaRequest, Event, Memory, Response
from .stream import GATE_TIMEOUT, UNSURE, WILDCARD_TYPES, State, Stream

_EVERYTHING: Final = "*"
#: The version of a resource that the client was told is not there.
_ABSENT: Final = "absent"
#: Responses of one type that may be unanswered. More are not made: the newest state goes out later.
_UNANSWERED: Final = 32


class _Sent(NamedTuple):
    """A response."""

    generation: int
    #: Names and versions, `_ABSENT` for removals.
    names: dict[str, str]
    #: Version and time.
    told: tuple[str, float]


class _Type(State):
    __slots__ = ("doubt", "generation", "held", "pending", "suspect", "unanswered")

    def __init__(self, type_url: str) -> None:
        super().__init__(type_url)
        self.names: set[str] = set()
        #: Even nothing is an answer that a new client waits for.
        self.pending = False
        #: Counts the changes of the snapshot's resources of this type.
        self.generation = 0
        #: Responses without an answer by their nonce, oldest first.
        self.unanswered: dict[str, _Sent] = {}
        #: Names of refused responses: not sent again until the snapshot's resources of this type change.
        self.held: set[str] = set()
        #: Versions that were in a refused response. They travel apart from others, which they may spoil.
        self.suspect: dict[str, str] = {}
        #: Names and versions of refused responses, until a later response with the name is taken.
        self.doubt: dict[str, str] = {}


class Delta(Stream[_Type, DeltaRequest]):
    """A stream of DeltaAggregatedResources; see `Stream`."""

    __slots__ = ()

    def __init__(
        self,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        gate_timeout: float = GATE_TIMEOUT,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(limits=limits, gate_timeout=gate_timeout, memory=memory)

    def _state(self, type_url: str) -> _Type:
        return _Type(type_url)

    # --- requests -----------------------------------------------------------------------------------------

    def _receive(self, state: _Type, request: DeltaRequest) -> list[Event]:
        # Unlike in the other variant, subscriptions count whatever nonce a message carries.
        count = len((state.names | set(request.subscribe)) - set(request.unsubscribe))
        if refusal := self._too_many(state, max(count, len(request.versions))):
            return refusal
        events: list[Event] = []
        if request.nonce in state.unanswered:
            events.append(self._verdict(state, request))
        first, state.asked = not state.asked, True
        if first:
            state.wildcard = state.type_url in WILDCARD_TYPES and not request.subscribe
            state.pending = state.type_url in WILDCARD_TYPES and not request.versions
        self._subscribe(state, request)
        if first:
            self._resume(state, request.versions)
        self._unsubscribe(state, request)
        return events

    def _verdict(self, state: _Type, request: DeltaRequest) -> Event:
        if request.error is None:
            return self._take_ack(state, request.nonce)
        sent = state.unanswered.pop(request.nonce)
        self._refused(state, sent)
        return self._answered(state, request.nonce, sent.told, request.error, sent.names)

    def _take_ack(self, state: _Type, nonce: str) -> Event:
        sent = state.unanswered.pop(nonce)
        self._taken(state, sent.names)
        return self._answered(state, nonce, sent.told, None, sent.names)

    def _sends_all(self, state: _Type) -> bool:
        return not state.suspect

    def _subscribe(self, state: _Type, request: DeltaRequest) -> None:
        for name in request.subscribe:
            if name == _EVERYTHING:
                state.wildcard = True
                continue
            state.names.add(name)
            # Whoever asks again needs it again.
            state.known.pop(name, None)
            state.held.discard(name)

    def _resume(self, state: _Type, versions: Mapping[str, str]) -> None:
        """What the client has from an earlier stream."""
        doubts = self._remembered.doubts.get(state.type_url, {})
        if versions or doubts:
            self._resumed = True
        state.known.update(versions)
        for name, version in doubts.items():
            if versions.get(name, _ABSENT) != version and (state.wildcard or name in state.names):
                state.known[name] = UNSURE
                state.doubt[name] = version
        if state.type_url == ENDPOINTS:
            state.known.update(dict.fromkeys(filter(self._may_warm, versions), UNSURE))

    def _unsubscribe(self, state: _Type, request: DeltaRequest) -> None:
        for name in request.unsubscribe:
            if name == _EVERYTHING:
                state.wildcard = False
            state.names.discard(name)
            state.held.discard(name)
            if state.wildcard and name in state.known:
                state.known[name] = UNSURE  # it is told again what it still gets
        if not state.wildcard:
            state.known = {name: version for name, version in state.known.items() if name in state.names}
            state.held &= state.names

    def _taken(self, state: _Type, names: dict[str, str]) -> None:
        for name, version in names.items():
            state.suspect.pop(name, None)
            state.doubt.pop(name, None)
            if version == state.known.get(name) == _ABSENT and name not in state.names:
                del state.known[name]

    def _refused(self, state: _Type, sent: _Sent) -> None:
        """Nothing of a refused response is known to have been taken: some of it may have been.

        Envoy skips the rest of a response behind the first secret that it refuses, as one whose file is not
        there. So those of several are not held, but go again, each alone.
        """
        held = sent.generation == state.generation and (state.type_url != SECRET or len(sent.names) == 1)
        later = {name for other in state.unanswered.values() for name in other.names}
        for name, version in sent.names.items():
            if name in later or (not state.wildcard and name not in state.names):
                continue
            state.known[name] = UNSURE
            state.last.pop(name, None)
            if held:
                state.held.add(name)
            state.suspect[name] = state.doubt[name] = version

    def _changed(self, state: _Type) -> None:
        state.generation += 1
        state.held.clear()
        goal = self._goal(state.type_url)
        state.suspect = {name: version for name, version in state.suspect.items() if name in goal}

    def _sent_clusters(self, names: Collection[str]) -> None:
        super()._sent_clusters(names)
        self._types[ENDPOINTS].held.difference_update(names)

    # --- responses ----------------------------------------------------------------------------------------

    def _next(self, state: _Type, removing: bool) -> Response | None:
        if not state.asked or len(state.unanswered) >= _UNANSWERED:
            return None
        resources = self._changes(state)
        removed = self._gone(state, removing)
        if not resources and not removed and not state.pending:
            return None
        version, nonce = set_version(self._wanted(state).values()), self._next_nonce()
        if state.type_url == CLUSTER:
            self._sent_clusters([resource.name for resource in resources])
        sent = {resource.name: resource.version for resource in resources}
        self._note_sent(state, resources)
        for name in removed:
            state.known[name] = sent[name] = _ABSENT
        state.unanswered[nonce] = _Sent(state.generation, sent, (version, self._now))
        if len(state.unanswered) == 1:
            # Of several, one that is answered makes room for more to be sent, or comes out of its order.
            self._expect(state, nonce, wire.delta_ack(state.type_url, nonce))
        else:
            self._expect_no_more(state)
        state.pending = False
        return Response(
            type_url=state.type_url,
            nonce=nonce,
            version=version,
            names=tuple(resource.name for resource in resources),
            removed=removed,
            data=wire.delta_response(state.type_url, version, nonce, resources, removed),
        )

    def _changes(self, state: _Type) -> list[Resource]:
        """What the client lacks and may be sent now."""
        lacking = [
            resource
            for name, resource in self._wanted(state).items()
            if state.known.get(name) != resource.version and name not in state.held
        ]
        sound = [resource for resource in lacking if state.suspect.get(resource.name) != resource.version]
        return sound or (lacking[:1] if state.type_url == SECRET else lacking)

    def _gone(self, state: _Type, removing: bool) -> tuple[str, ...]:
        """Names of clusters or listeners that the client has to let go of.

        Of other types Envoy keeps the last value whatever it is told, and unsubscribes by itself.
        """
        if state.type_url not in WILDCARD_TYPES:
            return ()
        goal = self._goal(state.type_url)
        has = state.known if removing else {}
        # A name that was asked for and that it cannot have had is answered at once.
        candidates = {name for name in (*has, *(state.names - state.known.keys())) if name not in goal}
        return tuple(sorted(n for n in candidates - state.held if state.known.get(n) != _ABSENT))

    def _unanswered(self, state: _Type) -> bool:
        return bool(state.unanswered)

    def _doubts(self, state: _Type) -> Mapping[str, str]:
        doubts = dict(state.doubt)
        for sent in state.unanswered.values():
            doubts.update(sent.names)
        return doubts

    def _settled(self, state: _Type) -> bool:
        if not state.asked:
            return True
        if state.unanswered or state.pending or state.held or self._changes(state):
            return False
        return state.type_url != LISTENER or not self._gone(state, True)
