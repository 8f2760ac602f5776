"""`appmesh-xds status`"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from ..errors import UsageError
from .outcome import ADMIN_ADDRESS, command, write_text

_PATIENCE: Final = 10.0


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "status",
        "say what a running server does, and which proxies refuse what",
        "appmesh-xds status 127.0.0.1:18001",
        usage="appmesh-xds status [ADDR] [OPTION]...",
    )
    parser.add_argument(
        "address",
        metavar="ADDR",
        nargs="?",
        default=ADMIN_ADDRESS,
        help=f"the server's --admin-listen: HOST:PORT or unix:PATH (default {ADMIN_ADDRESS})",
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        body = _fetch(arguments.address, "/debug/proxies")
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        print(f"appmesh-xds: {arguments.address}: {why} (is `appmesh-xds serve` running?)", file=sys.stderr)
        return 1
    status: dict[str, Any] = json.loads(body)
    write_text(body if arguments.json else "".join(f"{line}\n" for line in lines(status, time.time())))
    return 0 if _is_fine(status) else 1


def _fetch(address: str, path: str) -> str:
    if address.startswith("unix:"):
        connection: http.client.HTTPConnection = _Unix(address[5:])
    else:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"{address} is neither HOST:PORT nor unix:PATH")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise ValueError(f"it answers {response.status}: {body.strip()}")
        return body
    finally:
        connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def _is_fine(status: dict[str, Any]) -> bool:
    refused = any(
        one["state"] == "refused" for stream in status["proxies"] for one in stream["types"].values()
    )
    return status["ready"] and not refused and not any(p.startswith("error") for p in status["problems"])


def lines(status: dict[str, Any], now: float) -> Iterator[str]:
    """The status for a person."""
    yield f"appmesh-xds {status['version']}: {'ready' if status['ready'] else status['reason']}"
    for mesh in status["meshes"]:
        yield f"mesh {mesh['name']}: {mesh['proxies']} proxies, loaded {_ago(mesh['loaded'], now)}"
    yield from status["problems"]
    streams = status["proxies"]
    yield f"{len(streams)} stream{'' if len(streams) == 1 else 's'}"
    for stream in streams:
        yield ""
        frozen = ", not in the mesh any more" if stream["frozen"] else ""
        since = _ago(stream["since"], now)
        yield f"{stream['node']}  {stream['protocol']} from {stream['peer']}, since {since}{frozen}"
        for name, one in stream["types"].items():
            yield from _type_lines(name, one, now)


def _type_lines(name: str, one: dict[str, Any], now: float) -> Iterator[str]:
    match one["state"]:
        case "taken":
            yield f"  {name:<9}  taken    {one['taken']}  {_ago(one['taken_at'], now)}"
        case "waits":
            yield f"  {name:<9}  waits    {one['sent']}  sent {_ago(one['sent_at'], now)}"
        case "none":
            yield f"  {name:<9}  nothing had to be sent"
        case "refused":
            nack = one["nack"]
            yield f"  {name:<9}  REFUSED  {nack['version']}  {_ago(nack['at'], now)}: {nack['text']}"
            if "hint" in nack:
                yield f"  {'':<9}  do       {nack['hint']}"
            for place in nack["spec"]:
                yield f"  {'':<9}  from     {place}"


def _ago(moment: str, now: float) -> str:
    seconds = max(0, int(now - datetime.fromisoformat(moment).timestamp()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
