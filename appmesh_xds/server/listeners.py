"""Where a server listens: TCP addresses, and unix sockets that appear whole.

gRPC itself makes a socket's file with whatever the umask leaves, and takes the path of a server that lives.
So each is made in a folder that nobody else may enter, and moved to its place once it answers.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import grpc
from msgspec import Struct

from ..errors import UsageError
from ..snapshot import Snapshot
from .address import is_left_behind
from .session import Access, Peer, no_keys

#: Only the server's own user may connect.
MODE: Final = 0o600
#: What an address of a unix socket holds (unix(7)), less the byte that ends it.
_PATH_BYTES: Final = 107


class Listener(Struct, frozen=True):
    """One address, who may connect to it, and what they may have."""

    #: `HOST:PORT`, port 0 for a free one, or `unix:PATH`.
    address: str
    credentials: grpc.ServerCredentials | None = None
    #: Is asked with each new stream, and again with every change.
    access: Callable[[Peer, Snapshot], Access] = no_keys
    #: Of a unix socket: its mode and its group, None for that of the process.
    mode: int = MODE
    group: int | None = None


class UnixSocket:
    """A socket on its way to its path. Raises `UsageError` for a path that cannot be used."""

    def __init__(self, path: str, mode: int, group: int | None) -> None:
        self.path = path
        self._mode = mode
        self._group = group
        self._own: tuple[int, int] | None = None
        self._look()
        try:
            # Of the same file system, and mode 0700.
            self._folder = Path(tempfile.mkdtemp(prefix=".", dir=os.path.dirname(path) or "."))
        except OSError as error:
            raise self._unusable(error) from None
        self._first = self._folder / "s"
        longest = max(os.fsencode(path), os.fsencode(self._first), key=len)
        if len(longest) > _PATH_BYTES:
            self.remove()
            raise self._unusable(f"the path is {len(longest) - _PATH_BYTES} bytes too long for a unix socket")
        #: Where gRPC is to make it. It undoes percent signs.
        self.address = f"unix:{quote(os.fsencode(self._first))}"

    def publish(self) -> None:
        """Moves it to its path, where clients may connect from now on."""
        try:
            os.chmod(self._first, self._mode)
            if self._group is not None:
                os.chown(self._first, -1, self._group)
            status = os.stat(self._first)
            os.replace(self._first, self.path)
            self._folder.rmdir()
        except OSError as error:
            raise self._unusable(error) from None
        self._own = (status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Takes it away, unless it is another's by now. Connections live on. Twice is once."""
        with contextlib.suppress(OSError):
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self._own:
                os.unlink(self.path)
        self._own = None
        with contextlib.suppress(OSError):
            self._first.unlink(missing_ok=True)
            self._folder.rmdir()

    def _look(self) -> None:
        """What a server left behind may be replaced, nothing else."""
        try:
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise self._unusable("what is there is no socket")
            if not is_left_behind(self.path):
                raise self._unusable("a server listens there")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, why: str | OSError) -> UsageError:
        text = (why.strerror or why) if isinstance(why, OSError) else why
        return UsageError(f"cannot listen on unix:{self.path}: {text}")
