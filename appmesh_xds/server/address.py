"""Addresses that a server listens on."""

from __future__ import annotations

import ipaddress
from typing import Final

_UNIX: Final = "unix:"


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
