"""Keeps meshes told of where the instances of their Cloud Map services are.

    discovery = Discovery(meshes, source)              # an EndpointSource
    discovery.ask()                                    # from any thread; waits
    async for _ in discovery.due(10.0):                # again and again
        await asyncio.to_thread(discovery.ask)

What was known once stays known: a source that fails, or says nothing of a service, changes nothing; and a
service that does not exist any more is one without instances. Specs that are broken do not keep endpoints
from changing, nor the other way round.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Collection, Iterable
from threading import Lock
from typing import Final

from ..cloud_map import CloudMapService, EndpointSource, Found, services_of
from ..errors import Problem, SpecErrors
from ..facts import Endpoint
from ..mesh import Mesh
from ..translator import Change
from .logs import LOG, note
from .meshes import Meshes

#: Seconds. A source that fails is asked less and less often, but so often at least.
_LONGEST: Final = 60.0


class Discovery:
    """A source, and the meshes that it feeds. May be used from any thread."""

    def __init__(self, meshes: Meshes, source: EndpointSource) -> None:
        self.meshes = meshes
        self.source = source
        #: Of the last time.
        self.problems: tuple[Problem, ...] = ()
        #: How often all could be answered, and how often not.
        self.successes = self.failures = 0
        #: When all could be answered last, in seconds since the epoch; 0 for never.
        self.last_good = 0.0
        self._asking = Lock()
        #: Services that the source could not tell of. None: it was not asked yet.
        self._unknown: frozenset[CloudMapService] | None = None
        #: How many times in a row it could not, or was asked too often.
        self._busy = 0

    def ask(self) -> list[Change]:
        """Asks about every service, and tells the meshes what is new."""
        with self._asking:
            return self._ask(self.meshes.services()) if self.meshes.meshes else []

    def ask_for(self, meshes: Iterable[Mesh]) -> list[Change]:
        """Asks, when these meshes have services that nothing is known of and nobody asked about: before they
        are taken over."""
        services = frozenset(service for mesh in meshes for service in services_of(mesh))
        with self._asking:
            if self._unknown is not None and not services - self.meshes.instances().keys() - self._unknown:
                return []
            return self._ask(services)

    async def due(self, every: float) -> AsyncIterator[None]:
        """Yields when it is time to ask again: after so many seconds, a tenth more or less, so that replicas
        do not ask all at once; and twice as many each time that the source is busy."""
        while True:
            delay = min(every * 2**self._busy, max(every, _LONGEST))
            await asyncio.sleep(delay * random.uniform(0.9, 1.1))
            yield

    def _ask(self, services: frozenset[CloudMapService]) -> list[Change]:
        found = self._discover(services)
        known = self.meshes.instances()
        self._unknown = services - known.keys()
        if found is None:
            return []
        news: dict[CloudMapService, tuple[Endpoint, ...]] = {}
        for service in services:
            there = found.instances.get(service)
            if there is None and (service not in found.gone or service not in known):
                continue  # of what was never known, the translation complains
            now = tuple(sorted(there or (), key=_order))
            if now != known.get(service):
                news[service] = now
        if not news:
            return []
        self._unknown -= news.keys()
        changes = self.meshes.know(instances=news)
        if changes:
            names = sorted(map(str, news))
            note(logging.INFO, "endpoints", source=self.source.name, services=names, changed=len(changes))
        return changes

    def _discover(self, services: Collection[CloudMapService]) -> Found | None:
        """What the source answers, and the books about it."""
        found, busy = None, True
        try:
            found = self.source.discover(services)
            busy = found.busy
            self.problems = (*found.problems, *_failures(self.source.name, found))
        except SpecErrors as error:
            self.problems = error.problems
        except Exception as error:  # a fault of the source must not end what asks it
            LOG.exception("a source of endpoints failed; what was known stays")
            text = f"the source {self.source.name} failed: {type(error).__name__}"
            self.problems = (Problem(message=text, path="", severity="warning"),)
        self._busy = min(self._busy + 1, 30) if busy else 0
        if found is None or found.failed:
            self.failures += 1
        else:
            self.successes += 1
            self.last_good = time.time()
        return found


def _failures(source: str, found: Found) -> Iterable[Problem]:
    """A warning for each reason, with the services that it keeps from being known."""
    services: dict[str, list[CloudMapService]] = {}
    for service, reason in found.failed.items():
        services.setdefault(reason, []).append(service)
    for reason, names in services.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"{source} cannot say where {min(names)}{more} is: {reason}"
        hint = "what was known of it stays"
        yield Problem(message=text, hint=hint, path="", severity="warning")


def _order(endpoint: Endpoint) -> tuple[str, int, str, str, tuple[tuple[str, str], ...]]:
    """Sources may give instances in any order, which is no change."""
    other = endpoint.other_address or ""
    return endpoint.address, endpoint.port or 0, other, endpoint.health, endpoint.attributes
