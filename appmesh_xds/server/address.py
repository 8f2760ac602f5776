"""Addresses that a server listens on."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

_UNIX: Final = "unix:"
#: Nobody listens there any more.
_DEAD: Final = (errno.ECONNREFUSED, errno.ENOENT)


def unix_path(address: str) -> str | None:
    """The path of `unix:PATH` or `unix://PATH`, None for `HOST:PORT`."""
    return address[len(_UNIX) :].removeprefix("//") if address.startswith(_UNIX) else None


def is_local(address: str) -> bool:
    """Whether only this machine can reach `HOST:PORT` or `unix:PATH`."""
    if unix_path(address) is not None:
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_left_behind(path: str) -> bool:
    """Whether nobody listens on a unix socket any more. Raises OSError when that cannot be told."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno in _DEAD:
                return True
            raise
    return False
