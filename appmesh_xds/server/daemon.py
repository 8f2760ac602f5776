"""What `appmesh-xds serve` runs: loads, listens, follows signals, drains."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from ..errors import Problem, SpecErrors
from .files import Files
from .grpc import serve
from .logs import note
from .meshes import Meshes
from .session import Settings


class Daemon:
    """One server over files."""

    def __init__(self, files: Files, meshes: Meshes) -> None:
        self.files = files
        self.meshes = meshes
        #: Problems of the files as they are now, and whether they could be used.
        self.file_problems: tuple[Problem, ...] = ()
        self.usable = False
        self.loaded_at = 0.0
        # Reading and translating happen here, one after another, while streams go on.
        self._worker = ThreadPoolExecutor(1, "appmesh-xds-files")

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files as they are now, and with what is made of them."""
        return (*self.file_problems, *self.meshes.problems())

    def load(self) -> None:
        """Reads the files and takes over what is in them. Raises `SpecErrors`: then all stays as it was."""
        try:
            loaded = self.files.load()
        except SpecErrors as error:
            self.file_problems, self.usable = error.problems, False
            raise
        self.meshes.update(*loaded.meshes)
        self.file_problems, self.usable = loaded.problems, True
        self.loaded_at = time.time()

    async def reload(self) -> None:
        """`load`, beside the streams; notes how it went."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self.load)
        except SpecErrors as error:
            for problem in error.problems:
                note(logging.ERROR, "not_loaded", problem=str(problem))
            return
        note(logging.INFO, "loaded", **self.meshes.sizes())
        for problem in self.problems():
            note(logging.WARNING, "problem", problem=str(problem))

    async def run(
        self,
        listen: str,
        settings: Settings,
        credentials: grpc.ServerCredentials | None,
        ready: Callable[[str], None],
    ) -> None:
        """Serves until SIGTERM or SIGINT, then drains. `ready` is given the bound address."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(self.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        async with serve(self.meshes, listen=listen, settings=settings, credentials=credentials) as server:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            loop.add_signal_handler(signal.SIGHUP, reload)
            # What is there now stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            bound = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{server.port}"
            ready(bound)
            await stopping.wait()
            note(logging.INFO, "stopping")
        self._worker.shutdown(wait=False, cancel_futures=True)
