"""When files may have changed.

The system is asked to tell (inotify), which is quick but not enough: a folder that is removed and made again,
a link that points elsewhere, or a file on another machine change without a word. So what is watched is looked
at again after each event, and everything once in a while.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from watchfiles import awatch

#: Milliseconds of silence that end a burst of events, and how long a burst may last.
_SILENCE: Final = 20
_BURST: Final = 1_000
#: Seconds. What the system does not tell about files is seen after so long.
_EVERY: Final = 2.0
#: As many links on one way as are looked at: systems follow 40.
_LINKS: Final = 40


async def changes(
    paths: Callable[[], Iterable[str]], *, every: float = _EVERY, silence: int = _SILENCE
) -> AsyncIterator[None]:
    """Yields when something at or below the paths may have changed and then did not for `silence`
    milliseconds, and `every` so many seconds.

    `paths` is asked again and again: which files matter may depend on what stands in others.
    """
    while True:
        try:
            folders = await asyncio.to_thread(_folders, paths())
            async for _ in awatch(
                *folders.values(),
                watch_filter=None,
                recursive=False,
                step=silence,
                debounce=_BURST,
                rust_timeout=int(every * 1000),
                yield_on_timeout=True,
            ):
                yield
                if await asyncio.to_thread(_folders, paths()) != folders:
                    break
        except OSError:
            # One of them went away at this moment, or the system watches no more for us.
            await asyncio.sleep(every)
        yield


#: Device and inode of a folder, and its path.
_Folders = dict[tuple[int, int], str]


def _folders(paths: Iterable[str]) -> _Folders:
    """The folders whose entries matter. Each counts once, so that links cannot run in circles."""
    found: _Folders = {}
    for path in paths:
        _add_parents(path, found)
        waiting = [path]
        while waiting:
            here = waiting.pop()
            if not _add(here, found) and here != path:
                continue
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        if entry.is_symlink():
                            _add_parents(entry.path, found)
                        if entry.is_dir() and not entry.name.startswith("."):
                            waiting.append(entry.path)
            except OSError:
                continue
    return found


def _add_parents(path: str, found: _Folders) -> None:
    """The folder in which the path is an entry, and those of every link on the way to it."""
    waiting = [os.path.abspath(path)]
    for _ in range(_LINKS):
        if not waiting:
            return
        whole = waiting.pop()
        parent = os.path.dirname(whole)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        _add(parent, found)
        here = whole
        while here != os.path.dirname(here):
            above = os.path.dirname(here)
            if os.path.islink(here):
                _add(above, found)
                waiting.append(os.path.normpath(os.path.join(above, os.readlink(here))))
            here = above


def _add(folder: str, found: _Folders) -> bool:
    """Whether it is a folder that was not there yet, under any name."""
    try:
        here = os.stat(folder)
    except (OSError, ValueError):
        return False
    if not stat.S_ISDIR(here.st_mode) or (here.st_dev, here.st_ino) in found:
        return False
    found[here.st_dev, here.st_ino] = folder
    return True
