"""What `appmesh-xds serve` runs: loads, listens, follows files and signals, drains."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from ..errors import Problem, SpecErrors, errors_in
from ..translator import Change
from .collector import settle
from .discovery import Discovery
from .files import Files
from .grpc import serve
from .keys import withheld_keys
from .logs import LOG, note
from .meshes import Meshes
from .operations import Operations
from .security import Security
from .session import Settings
from .sizes import Sizes
from .state import State, unchangeable
from .watch import changes


class Daemon:
    """One server over files.

    A change that cannot be used changes nothing: what is served stays, and `problems` says why.
    """

    def __init__(
        self,
        files: Files,
        meshes: Meshes,
        security: Security,
        state: State | None = None,
        discovery: Discovery | None = None,
    ) -> None:
        self.files = files
        self.meshes = meshes
        self.security = security
        self.state = state
        self.discovery = discovery
        #: Problems of the files as they are now, and whether they could be used.
        self.file_problems: tuple[Problem, ...] = ()
        self.usable = False
        #: When what is served was loaded, in seconds since the epoch.
        self.loaded_at = 0.0
        self.sizes = Sizes()
        self._noted: frozenset[Problem] = frozenset()
        #: Files and endpoints come from two threads.
        self._looking = Lock()
        self.operations = Operations(self, security.certificate, discovery)
        # Reading and translating happen here, one after another, while streams go on.
        self._worker = ThreadPoolExecutor(1, "appmesh-xds-files")
        # Endpoints do not wait for files that take long to read.
        self._asker = ThreadPoolExecutor(1, "appmesh-xds-endpoints")

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files as they are now, and with what is made of them."""
        security = self.security
        withheld = [] if security.keys else withheld_keys(self.meshes.newest(), security.bindings.serve)
        said = (*security.bindings.problems(), *withheld, *self.sizes.problems())
        asked = () if self.discovery is None else self.discovery.problems
        return (*self.file_problems, *asked, *self.meshes.problems(), *said)

    # --- loading ------------------------------------------------------------------------------------------

    def start(self) -> tuple[Problem, ...]:
        """The first load; what is to be said of it.

        Files that cannot be used raise `SpecErrors`, unless there is a state to serve.
        """
        kept = [] if self.state is None else self.state.load()
        self.meshes.remember(kept)
        self._look()
        try:
            self.load()
        except SpecErrors:
            if not kept:
                raise
        if self.discovery is not None and errors_in(self.discovery.problems) and not kept:
            raise SpecErrors(self.discovery.problems)
        problems = self.problems()
        self._noted = frozenset(problems)
        return (*problems, *unchangeable(kept, self.meshes.snapshot))

    def load(self) -> list[Change] | None:
        """Reads the files and takes over what is in them; None when there is nothing new.

        Raises `SpecErrors` for files that cannot be used: then all stays as it was.
        """
        start = time.monotonic()
        try:
            loaded = self.files.load()
        except SpecErrors as error:
            self.file_problems, self.usable = error.problems, False
            self.operations.load_failed()
            raise
        if loaded is None:
            return None
        if self.discovery is not None:
            self.discovery.ask_for(loaded.meshes)
        read = time.monotonic()
        changes = self.meshes.update(*loaded.meshes)
        translated = time.monotonic()
        self._look()
        self.file_problems, self.usable = loaded.problems, True
        self.loaded_at = time.time()
        self.operations.loaded(read - start, translated - read)
        if self.state is not None:
            self._keep(self.state)
        return changes

    def _look(self) -> None:
        """Looks at the proxies that there are now."""
        with self._looking:
            newest = self.meshes.newest()
            self.security.bindings.look(newest)
            self.sizes.look(newest)

    def _keep(self, state: State) -> None:
        with self._looking:
            good, gone = self.meshes.unsaved()
            try:
                state.keep(good)
                state.drop(gone)
            except OSError as error:
                note(
                    logging.ERROR,
                    "state_not_kept",
                    file=str(error.filename),
                    text=error.strerror or str(error),
                )

    async def reload(self) -> None:
        """`load`, beside the streams; notes how it went."""
        try:
            changes = await asyncio.get_running_loop().run_in_executor(self._worker, self.load)
        except SpecErrors:
            note(logging.ERROR, "not_loaded", text="the files have errors; what was served stays")
        except Exception:  # a fault of ours must not end a server that serves
            LOG.exception("a change of the files could not be taken over; what was served stays")
        else:
            if changes is None:
                return  # as mostly: somebody looked, and to go through all problems takes long
            note(logging.INFO, "loaded", proxies=sum(self.meshes.sizes().values()), changed=len(changes))
        self._note_problems()

    async def ask(self) -> None:
        """Asks where endpoints are, beside the streams; notes what is new."""
        if self.discovery is None:
            return
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._asker, self._ask, self.discovery)
            news = await asked
        except Exception:  # a fault of ours, as above
            LOG.exception("endpoints could not be taken over; what was served stays")
        else:
            if news:
                self._note_problems()

    def _ask(self, discovery: Discovery) -> bool:
        """Whether anything is new."""
        before = discovery.problems
        changes = discovery.ask()
        if changes:
            self._look()
            if self.state is not None:
                self._keep(self.state)
        if not changes and discovery.problems == before:
            return False
        self.operations.asked()
        return True

    def _note_problems(self) -> None:
        """Those that were not there the last time."""
        problems = self.problems()
        for problem in problems:
            if problem not in self._noted:
                level = logging.ERROR if problem.severity == "error" else logging.WARNING
                note(level, "problem", text=str(problem))
        self._noted = frozenset(problems)

    async def _watch(self) -> None:
        async for _ in changes(lambda: self.files.paths):
            await self.reload()

    async def _follow(self, due: AsyncIterator[None]) -> None:
        async for _ in due:
            await self.ask()

    async def _read_again(self) -> None:
        await self.reload()
        await self.ask()

    # --- serving ------------------------------------------------------------------------------------------

    async def run(
        self,
        ready: Callable[[Sequence[str]], None],
        *,
        settings: Settings,
        watch: bool = False,
        due: AsyncIterator[None] | None = None,
        admin: str | None = None,
        probe: str | None = None,
    ) -> None:
        """Serves until SIGTERM or SIGINT, then drains. `ready` is given the bound addresses. Endpoints are
        asked for when they are `due`. At `admin` and `probe` answers `operations`."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def begin(work: Coroutine[Any, Any, None]) -> None:
            task = loop.create_task(work)
            tasks.add(task)
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                LOG.error("files or endpoints are no longer followed", exc_info=error)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: begin(self._read_again()))
        async with (
            serve(
                self.meshes,
                listen=self.security.listeners,
                settings=settings,
                observe=self.operations.observe,
            ) as server,
            self.operations.answering(server, admin, probe),
        ):
            settle()
            if watch:
                begin(self._watch())
            if due is not None:
                begin(self._follow(due))
            ready(server.addresses)
            await stopping.wait()
            note(logging.INFO, "stopping", streams=len(server.sessions()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in (self._worker, self._asker):
            worker.shutdown(wait=False, cancel_futures=True)
