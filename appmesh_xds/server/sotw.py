"""State of the world: each response of a type holds everything that the client asked for of it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ..resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource
from ..snapshot import set_version
from . import wire
from .limits import Limits
from .messages import Event, Memory, Request, Response
from .stream import GATE_TIMEOUT, NO_NAMES, UNSURE, WILDCARD_TYPES, State, Stream

#: How many sets of clusters a stream remembers for the next one.
_REMEMBERED: Final = 16
_EVERYTHING: Final = "*"
#: Most streams have nothing in most places, and an empty dict of its own is as large as some.
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class _Type(State):
    __slots__ = (
        *("doubt", "encoded", "had", "held", "kept", "named", "nonce", "refused", "sent"),
        *("suspect", "unanswered"),
    )

    def __init__(self, type_url: str) -> None:
        super().__init__(type_url)
        #: The names of the last request, as they came.
        self.encoded = b""
        #: Whether names were ever given: then an empty list means none, not all.
        self.named = False
        #: Of the last response; only a request that carries it counts.
        self.nonce = ""
        #: What the client had when it came, until it is compared with the snapshot.
        self.had: str | None = None
        #: What the last response held, by name. None before one, or before what equals one.
        self.sent: dict[str, Resource] | None = None
        self.unanswered = False
        self.refused = False
        #: Version of a response that the client may have taken in part; None when it took the last one.
        self.doubt: str | None = None
        #: Of clusters and listeners: what the client took last, which it keeps until it may be removed.
        self.kept: dict[str, Resource] = {}
        #: Of secrets: versions that were in a refused response, which go alone from then on; and those that
        #: were refused alone, which are not sent again until the snapshot's secrets change. Envoy skips the
        #: rest of a response behind the first secret that it refuses, as one whose file is not there.
        self.suspect: Mapping[str, str] = _NONE
        self.held: Mapping[str, str] = _NONE


class Sotw(Stream[_Type, Request]):
    """A stream of StreamAggregatedResources; see `Stream`.

    A response that lacks a cluster removes it. So clusters which left the snapshot stay in responses, as the
    client has them, until nothing refers to them. What a client that comes back has is known by its version
    alone: the memory of its former stream, when there is one, says what that version held. Without it (the
    server started anew) clusters that the snapshot lacks go at once.
    """

    __slots__ = ("_sets",)

    def __init__(
        self,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        gate_timeout: float = GATE_TIMEOUT,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(limits=limits, gate_timeout=gate_timeout, memory=memory)
        #: Sets of clusters by their version, newest last.
        self._sets = dict(self._remembered.clusters)

    def _state(self, type_url: str) -> _Type:
        return _Type(type_url)

    # --- requests -----------------------------------------------------------------------------------------

    def _receive(self, state: _Type, request: Request) -> list[Event]:
        if state.asked and request.nonce != state.nonce:
            # Stale: written before our last response was read, which will be answered too. Its names must
            # not be recorded: what is new in them would count as answered (envoy-notes §0.4).
            return []
        names = set(request.names)
        if refusal := self._too_many(state, len(names)):
            return refusal
        if not state.asked:
            state.asked = True
            if request.version:
                self._resumed = True
                state.had = "" if self._may_be_new(state) else request.version
            state.doubt = self._remembered.doubts.get(state.type_url, {}).get("")
        events = [self._verdict(state, request)] if request.nonce and state.unanswered else []
        self._subscribe(state, names)
        state.encoded = wire.encoded_names(request.names)
        return events

    def _resuming(self, state: _Type) -> bool:
        return state.had is not None

    def _sends_all(self, state: _Type) -> bool:
        return True

    def _verdict(self, state: _Type, request: Request) -> Event:
        if request.error is None:
            return self._take_ack(state, request.nonce)
        state.unanswered, state.refused = False, True
        state.last.clear()
        if state.type_url == SECRET:
            self._suspect(state)
        return self._answered(state, request.nonce, state.told, request.error, state.sent or {})

    def _suspect(self, state: _Type) -> None:
        """One of the secrets that were sent is refused."""
        sent = {name: resource.version for name, resource in (state.sent or {}).items()}
        if len(sent) == 1:
            state.held = {**state.held, **sent}
            state.suspect = _without(state.suspect, sent)
        else:
            state.suspect = {**state.suspect, **sent}
            state.known.update(dict.fromkeys(sent, UNSURE))

    def _changed(self, state: _Type) -> None:
        if state.held or state.suspect:
            goal = self._goal(state.type_url)
            state.known.update(dict.fromkeys(state.held, UNSURE))
            old = {**state.suspect, **state.held}
            state.suspect = {n: v for n, v in old.items() if n in goal and goal[n].version == v} or _NONE
            state.held = _NONE

    def _take_ack(self, state: _Type, nonce: str) -> Event:
        sent = state.sent or {}
        state.unanswered = state.refused = False
        state.kept, state.doubt = sent, None
        if state.suspect:
            state.suspect = _without(state.suspect, sent)
            self._touch(state)  # now it is the next one's turn
        return self._answered(state, nonce, state.told, None, sent)

    def _subscribe(self, state: _Type, names: set[str]) -> None:
        everything = _EVERYTHING in names
        names.discard(_EVERYTHING)
        state.named = state.named or everything or bool(names)
        state.wildcard = everything or (state.type_url in WILDCARD_TYPES and not state.named)
        if not state.wildcard:
            if state.had is not None and state.names and names != state.names:
                state.had = ""  # its version is of the names that it came with, if of any
            dropped = state.names - names
            for name in dropped:
                # Asked for again, it will be needed again.
                state.known.pop(name, None)
            if state.held or state.suspect:
                state.held, state.suspect = _without(state.held, dropped), _without(state.suspect, dropped)
        # The resources' own texts, where they have them: those of the request are as many and not shared.
        goal = self._goal(state.type_url)
        state.names = {goal[name].name if name in goal else name for name in names} or NO_NAMES

    # --- responses ----------------------------------------------------------------------------------------

    def _next(self, state: _Type, removing: bool) -> Response | None:
        if state.had is not None:
            self._resume(state)
        content = self._content(state, removing)
        if not self._due(state, content):
            return None
        url, version, nonce = state.type_url, set_version(content.values()), self._next_nonce()
        if url == CLUSTER:
            self._note_clusters(state, content, version)
        self._note_sent(state, content.values())
        state.sent, state.nonce, state.unanswered, state.refused = content, nonce, True, False
        state.doubt = version
        # Earlier ones will not be answered in a way that counts.
        self._expect_no_more(state)
        data, ack = wire.response_and_ack(url, version, nonce, content.values(), state.encoded)
        self._expect(state, nonce, ack)
        return Response(type_url=url, nonce=nonce, version=version, names=tuple(content), data=data)

    def _content(self, state: _Type, removing: bool) -> dict[str, Resource]:
        wanted = self._wanted(state)
        if state.suspect or state.held:
            return self._apart(state, wanted)
        if removing or state.type_url not in WILDCARD_TYPES:
            return wanted
        kept = _subscribed(state, state.kept)
        return wanted if wanted.keys() >= kept.keys() else dict(sorted((kept | wanted).items()))

    def _apart(self, state: _Type, wanted: dict[str, Resource]) -> dict[str, Resource]:
        """The secrets that may go together: those that nothing is held against, then each of the others."""
        sound = {
            name: secret
            for name, secret in wanted.items()
            if secret.version not in (state.suspect.get(name), state.held.get(name))
        }
        if _lacking(state, sound):
            return sound
        alone = [n for n, secret in wanted.items() if secret.version == state.suspect.get(n)]
        return {alone[0]: wanted[alone[0]]} if alone else sound

    def _due(self, state: _Type, content: dict[str, Resource]) -> bool:
        if not state.asked or not (state.wildcard or state.names):
            return False
        if state.suspect and state.unanswered:
            return False  # an answer that the next response overtakes would not count
        if state.sent is None and state.type_url in WILDCARD_TYPES:
            return True  # even with nothing in it: Envoy waits for the answer
        if state.type_url in WILDCARD_TYPES or (state.refused and state.type_url != SECRET):
            return content != state.sent
        return _lacking(state, content)

    def _unanswered(self, state: _Type) -> bool:
        return state.unanswered

    def _doubts(self, state: _Type) -> Mapping[str, str]:
        # A version of this variant is of a whole response.
        return {} if state.doubt is None else {"": state.doubt}

    def _clusters(self) -> Mapping[str, tuple[Resource, ...]]:
        return self._sets

    def _settled(self, state: _Type) -> bool:
        if not state.asked:
            return True
        self._resume(state)
        if state.unanswered or (state.refused and (state.wildcard or state.names)):
            return False
        removing = state.type_url != CLUSTER
        if state.nothing_removing if removing else state.nothing:
            return True
        return not self._due(state, self._content(state, removing))

    def _note_clusters(self, state: _Type, content: dict[str, Resource], version: str) -> None:
        # After a refusal only what was taken before counts as had.
        before = state.kept if state.refused else (state.sent or {})
        if not state.nonce:
            before = {}  # clusters that it has from an earlier stream may be warming still
        self._sent_clusters([name for name, resource in content.items() if before.get(name) != resource])
        state.kept = {name: kept for name, kept in state.kept.items() if name in content}
        self._remember(version, content.values())

    def _remember(self, version: str, clusters: Iterable[Resource]) -> None:
        self._sets.pop(version, None)
        self._sets[version] = tuple(clusters)
        while len(self._sets) > _REMEMBERED:
            del self._sets[next(iter(self._sets))]

    def _give_up_waiting(self) -> None:
        # Routes of this snapshot go out now, and refer to its clusters.
        clusters = self._types[CLUSTER]
        clusters.kept = clusters.kept | (clusters.sent or {})

    # --- coming back --------------------------------------------------------------------------------------

    def _may_be_new(self, state: _Type) -> bool:
        """Whether the names of a first request may come from what was sent on this stream. Then they are not
        what the version is of: a client keeps the version of a type when its last name is gone."""
        listeners, clusters = bool(self._types[LISTENER].nonce), bool(self._types[CLUSTER].nonce)
        return {ROUTES: listeners, SECRET: listeners or clusters}.get(state.type_url, False)

    def _resume(self, state: _Type) -> None:
        """Compares the version that the client came with to what it would be sent."""
        version, state.had = state.had, None
        if version is None:
            return
        had = self._had(state, version)
        if state.type_url not in WILDCARD_TYPES:
            # Names that it may have had beside those are left alone while the snapshot lacks them.
            state.known = dict.fromkeys(state.names, UNSURE)
        if had is None:
            return
        state.kept = had
        if state.type_url == CLUSTER:
            self._remember(version, had.values())
        if state.doubt not in (None, version):
            return  # it has that, and perhaps some of what came later
        state.doubt, state.sent = None, had
        for name, resource in had.items():
            state.known[name] = resource.version

    def _had(self, state: _Type, version: str) -> dict[str, Resource] | None:
        """What a version held, if that is known."""
        wanted = self._wanted(state)
        without_empty = {n: r for n, r in wanted.items() if n in self._goal(state.type_url)}
        for candidate in (wanted, without_empty):
            if set_version(candidate.values()) == version:
                warming = state.type_url == ENDPOINTS and any(map(self._may_warm, candidate))
                return None if warming else candidate
        if state.type_url == CLUSTER and version in self._sets:
            return _subscribed(state, {r.name: r for r in self._sets[version]})
        return None


def _without(versions: Mapping[str, str], names: Container[str]) -> Mapping[str, str]:
    return {name: version for name, version in versions.items() if name not in names} or _NONE


def _lacking(state: _Type, resources: dict[str, Resource]) -> bool:
    """Whether the client lacks one of these."""
    known = state.known
    for name, resource in resources.items():  # noqa: SIM110 - often, and a generator costs more
        if known.get(name) != resource.version:
            return True
    return False


def _subscribed(state: _Type, resources: dict[str, Resource]) -> dict[str, Resource]:
    if state.wildcard:
        return resources
    return {name: resource for name, resource in resources.items() if name in state.names}
