"""A small HTTP server for probes and for people: GET, one answer a connection.

    async with listening("127.0.0.1:18001", answer, only_local=True) as address: ...

h11 reads the protocol; here are the limits. A request has five seconds and 16 KiB, there are 64 connections
at once, and every connection is closed after its answer, so that nobody can keep one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import unquote

import h11

from ..errors import UsageError
from .address import is_left_behind, is_local, unix_path

#: Seconds for a request and for its answer.
_PATIENCE: Final = 5.0
_REQUEST_BYTES: Final = 16 * 1024
_CONNECTIONS: Final = 64
_PORT: Final = re.compile(r":[0-9]*$")


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def text(cls, status: int, text: str) -> Answer:
        return cls(status, f"{text}\n".encode())


#: From the path, decoded, without the query. It must not wait.
Handler = Callable[[str], Answer]


@asynccontextmanager
async def listening(address: str, handler: Handler, *, only_local: bool) -> AsyncIterator[str]:
    """Answers at `HOST:PORT` (port 0: a free one) or `unix:PATH`. Gives the address as it is bound.

    With `only_local` the address must be one that only this machine reaches, and requests must name such a
    host: a page in somebody's browser could otherwise have its own name resolve to 127.0.0.1 and read along.
    Raises `UsageError` for an address that cannot be used.
    """
    if only_local and not is_local(address):
        raise UsageError(f"{address} is beyond loopback: use a loopback address or unix:PATH here")
    path = unix_path(address)
    check_host = only_local and path is None
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Noted at once: a task that is called off before it began could not close its connection.
        task = asyncio.create_task(serve(reader, writer, len(connections) < _CONNECTIONS))
        connections[task] = writer
        task.add_done_callback(lambda done: connections.pop(done).close())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: bool) -> None:
        try:
            if welcome:
                async with asyncio.timeout(_PATIENCE):
                    await _converse(reader, writer, handler, check_host)
        except (TimeoutError, OSError, asyncio.CancelledError):
            pass  # the connection is closed, that is all there is to say
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server, bound = await _listen(address, connected)
    try:
        yield bound
    finally:
        server.close()
        await _turns()  # in which the last that were accepted are connected
        for task, writer in tuple(connections.items()):
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*connections, return_exceptions=True)
        await _turns()  # in which their sockets are closed
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)


async def _turns() -> None:
    """Lets the loop do what it has put off: what it does for a connection takes it a few turns."""
    for _ in range(4):
        await asyncio.sleep(0)


async def _listen(address: str, connected: Callable[..., None]) -> tuple[asyncio.Server, str]:
    try:
        if (path := unix_path(address)) is not None:
            return await asyncio.start_unix_server(connected, sock=_bound(path)), address
        host, _, port = address.rpartition(":")
        server = await asyncio.start_server(connected, host.strip("[]") or None, int(port))
    except (OSError, ValueError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"cannot listen on {address}: {why}") from None
    return server, f"{host}:{server.sockets[0].getsockname()[1]}"


def _bound(path: str) -> socket.socket:
    """A socket that its owner alone may use; one that a server left behind is in the way, and removed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and is_left_behind(path):
            os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(path)
        os.chmod(path, 0o600)  # before it listens, nobody can connect
    except OSError:
        made.close()
        raise
    return made


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, check_host: bool
) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_REQUEST_BYTES)
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
    except h11.RemoteProtocolError as error:
        answer, is_head = Answer.text(error.error_status_hint, "not a request that is understood here"), False
    else:
        if not isinstance(event, h11.Request):
            return  # nobody said anything
        answer, is_head = _answer(event, handler, check_host), event.method == b"HEAD"
    headers = [
        ("content-type", answer.content_type),
        ("content-length", str(len(answer.body))),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
        *([("allow", "GET")] if answer.status == 405 else []),
    ]
    if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        body = b"" if is_head else answer.body
        for part in (
            h11.Response(status_code=answer.status, headers=headers),
            *([h11.Data(data=body)] if body else []),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(part) or b"")
        await writer.drain()


def _answer(request: h11.Request, handler: Handler, check_host: bool) -> Answer:
    if request.method not in (b"GET", b"HEAD"):
        return Answer.text(405, "only GET is answered here")
    if check_host and not _names_this_machine(request):
        return Answer.text(403, "this is answered to localhost alone: ask for http://localhost or 127.0.0.1")
    target = request.target.partition(b"?")[0].decode("ascii")
    return handler(unquote(target))


def _names_this_machine(request: h11.Request) -> bool:
    hosts = [value.decode("ascii", "replace") for name, value in request.headers if name == b"host"]
    return len(hosts) == 1 and is_local(hosts[0] if _PORT.search(hosts[0]) else f"{hosts[0]}:80")
