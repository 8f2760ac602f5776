"""What was made of files, for as long as these do not change."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, NamedTuple, TypeVar

from ..errors import Problem
from .text import read_bytes

T = TypeVar("T")

#: Seconds. File systems count time in steps, two seconds at worst: a file that changed so shortly before it
#: was looked at may change again and look the same.
_STEP: Final = 2.0

#: Times of content and of metadata, size, device and inode: an editor that renames a new file over the old
#: one changes the inode, whatever it does to the times.
_Stamp = tuple[int, int, int, int, int]


class _Held(NamedTuple, Generic[T]):
    #: None: to be read again, come what may.
    stamp: _Stamp | None
    digest: bytes
    value: T


class FileCache(Generic[T]):
    """Values made of files. What a round does not ask for is dropped at its end.

        with cache.round():
            value = cache.get(path, key, make)

    A file is read again when its stamp changed, and `make` is called again when its content did.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held[T]] = {}
        self._used: dict[Hashable, _Held[T]] = {}
        #: Whether the last round gave other values than the one before.
        self.changed = True

    @contextmanager
    def round(self) -> Iterator[None]:
        self._used = {}
        yield
        before, self._held, self._used = self._held, self._used, {}
        self.changed = before.keys() != self._held.keys() or any(
            held.value is not before[key].value for key, held in self._held.items()
        )

    def get(self, path: str, key: Hashable, make: Callable[[bytes | Problem], T]) -> T:
        """The value of a file, by a key that stands for the path and for all else that `make` depends on."""
        # Before the content: if that changes meanwhile, the stamp is an old one next time.
        while key in self._used:
            key = (key,)  # the file is given twice, and each time is one of its own
        stamp, held = _stamp(path), self._held.get(key)
        if held is None or stamp is None or stamp != held.stamp:
            held = self._read(path, stamp, held, make)
        self._used[key] = held
        return held.value

    def _read(
        self, path: str, stamp: _Stamp | None, held: _Held[T] | None, make: Callable[[bytes | Problem], T]
    ) -> _Held[T]:
        content = read_bytes(path)
        if isinstance(content, Problem):
            stamp, digest = None, str(content).encode()
        else:
            digest = hashlib.blake2b(content).digest()
        value = held.value if held is not None and held.digest == digest else make(content)
        return _Held(stamp, digest, value)


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if max(found.st_mtime, found.st_ctime) > time.time() - _STEP:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_dev, found.st_ino
