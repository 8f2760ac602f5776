"""One direction of a stream, a message at a time.

A task for each message, or one that waits for the next, costs as much as the message. So the coroutines of
grpc.aio are run by hand: until they wait for the transport, and on when it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any


class Transfer:
    """Runs one awaitable after another. `done` is called with what came of each: its result, or its error.
    That gRPC called it off is an error too."""

    __slots__ = ("_done", "_idle", "_steps")

    def __init__(self, done: Callable[[Any, BaseException | None], None]) -> None:
        self._done = done
        self._steps: Generator[asyncio.Future[Any], None, Any] | None = None
        self._idle: asyncio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether something is going on."""
        return self._steps is not None

    def begin(self, what: Awaitable[Any]) -> None:
        """Runs it as far as it goes at once. Not while busy."""
        self._steps = what.__await__()
        self._step()

    async def idle(self) -> None:
        """Returns when nothing is going on."""
        while self._steps is not None:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def _step(self, _: object = None) -> None:
        assert self._steps is not None
        result: Any = None
        error: BaseException | None = None
        try:
            waits = next(self._steps)
        except StopIteration as end:
            result = end.value
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        else:
            waits.add_done_callback(self._step)
            return
        self._steps = None
        if self._idle is not None:
            self._idle.set()
            self._idle = None
        self._done(result, error)
