"""Applications that stand behind an Envoy in tests, on a free port of 127.0.0.1.

    with HttpApp("a") as app:        # HTTP/1.1        with H2App("a") as app:     # HTTP/2 in clear text
        app.port, app.seen, ...      #                 with GrpcApp("a") ...       # grpcio; echoes
    with TcpApp("a") as app:         # echoes          with ServerFirstApp("a") ... # says `220 hello` first

Each notes what it saw in `seen`, in order. HTTP answers 200 with the application's name as the body, unless
the request says otherwise in its headers: `app-status: 503`, `app-delay-ms: 200`.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions


@dataclass(frozen=True)
class Seen:
    """One request (HTTP, gRPC) or one connection (TCP) as the application saw it."""

    method: str = ""
    path: str = ""
    #: Names in lower case; the authority is `:authority` whatever the protocol.
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Where the connection came from: equal for requests on one connection.
    peer: str = ""


class App:
    """What all of them share: a name, a port, what was seen."""

    port: int

    def __init__(self, name: str = "app") -> None:
        self.name = name
        self.seen: list[Seen] = []

    @property
    def count(self) -> int:
        return len(self.seen)

    @property
    def last(self) -> Seen:
        assert self.seen, f"{self.name} has seen nothing"
        return self.seen[-1]

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def answering(server: socketserver.BaseServer) -> Iterator[None]:
    """Has a server of the standard library answer while the context lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingTCPServer):
    """A thread per connection; `close` ends the open ones too."""

    daemon_threads = True
    block_on_close = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler], app: App) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.app = app
        self.connections: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        # An application that waits for the peer's ACK adds 40 ms to a keep-alive connection.
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not an error of the test; others show as a missing answer."""

    def end(self) -> None:
        self.shutdown()
        for connection in tuple(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self.thread.join(5)


class _SocketApp(App):
    handler: type[socketserver.BaseRequestHandler]

    def __init__(self, name: str = "app") -> None:
        super().__init__(name)
        self._server = _Server(self.handler, self)
        self.port = self._server.server_address[1]

    def close(self) -> None:
        self._server.end()


def _peer(address: Any) -> str:
    return f"{address[0]}:{address[1]}"


def _answer(headers: dict[str, str]) -> int:
    """What the request's own headers ask for: waits, and gives the status."""
    time.sleep(int(headers.get("app-delay-ms", "0")) / 1000)
    return int(headers.get("app-status", "200"))


# --- HTTP/1.1 -----------------------------------------------------------------------------------------------


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers[":authority"] = headers.get("host", "")
        body = self.rfile.read(int(headers.get("content-length", "0")))
        app = self.server.app
        app.seen.append(Seen(self.command, self.path, headers, body, _peer(self.client_address)))
        answer = app.name.encode()
        self.send_response(_answer(headers))
        self.send_header("app", app.name)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Says nothing: pytest would show it beside failures of other tests."""


class HttpApp(_SocketApp):
    handler = _HttpHandler


# --- HTTP/2 -------------------------------------------------------------------------------------------------


def _text(headers: Any) -> dict[str, str]:
    """With `header_encoding` the pairs are text, which h2's types do not know."""
    return dict(headers)


class _H2Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self.request.sendall(connection.data_to_send())
        while data := self.request.recv(65536):
            for event in connection.receive_data(data):
                self._take(connection, requests, event)
            self.request.sendall(connection.data_to_send())

    def _take(
        self,
        connection: h2.connection.H2Connection,
        requests: dict[int, tuple[dict[str, str], bytearray]],
        event: h2.events.Event,
    ) -> None:
        if isinstance(event, h2.events.RequestReceived):
            requests[event.stream_id] = _text(event.headers), bytearray()
        elif isinstance(event, h2.events.DataReceived):
            requests[event.stream_id][1].extend(event.data)
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            headers, body = requests.pop(event.stream_id)
            app = self.server.app
            peer = _peer(self.client_address)
            app.seen.append(Seen(headers[":method"], headers[":path"], headers, bytes(body), peer))
            answer = [(":status", str(_answer(headers))), ("app", app.name)]
            connection.send_headers(event.stream_id, answer)
            connection.send_data(event.stream_id, app.name.encode(), end_stream=True)


class H2App(_SocketApp):
    handler = _H2Handler


# --- gRPC ---------------------------------------------------------------------------------------------------


class GrpcApp(App):
    """Answers every unary method with the request's own bytes."""

    def __init__(self, name: str = "app") -> None:
        super().__init__(name)
        options = (("grpc.so_reuseport", 0),)
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=(_Echo(self),), options=options)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait(5)


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, app: App) -> None:
        self.app = app

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
            # Values of `-bin` headers are bytes.
            metadata = details.invocation_metadata
            headers = {name: v if isinstance(v, str) else v.hex() for name, v in metadata}
            self.app.seen.append(Seen("POST", details.method, headers, request, context.peer()))
            _answer(headers)
            context.set_trailing_metadata((("app", self.app.name),))
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


# --- TCP ----------------------------------------------------------------------------------------------------


class _TcpHandler(socketserver.BaseRequestHandler):
    """Echoes what it reads; `Seen.body` is the first piece of it."""

    server: _Server
    greeting = b""

    def handle(self) -> None:
        if self.greeting:
            self.request.sendall(self.greeting)
        first = True
        while data := self.request.recv(65536):
            if first:
                self.server.app.seen.append(Seen(body=data, peer=_peer(self.client_address)))
                first = False
            self.request.sendall(data)


class TcpApp(_SocketApp):
    handler = _TcpHandler


class _ServerFirstHandler(_TcpHandler):
    greeting = b"220 hello\r\n"


class ServerFirstApp(_SocketApp):
    """Speaks before its client does, as SMTP and MySQL do; then echoes."""

    handler = _ServerFirstHandler
