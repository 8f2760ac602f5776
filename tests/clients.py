"""Clients of proxies in tests. Every connection goes to 127.0.0.1.

    get(port, "/path", host="serviceb.mesh.local", tls=tls_client(certificates.authority))   # HTTP/1.1
    h2_get(port, "/path", ...)     grpc_echo(port, b"hi", ...)     tcp_echo(port, b"hello", ...)

They raise what their library raises. `NO_ANSWER` holds what a refused connection may show as: a reset, the
end of the stream or a TLS alert, which one is up to timing (TLS 1.3 tells a client late, TLS 1.2 during the
handshake). A timeout is never among them: a proxy that hangs has not refused.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

import grpc
import h2.config
import h2.connection
import h2.events

NO_ANSWER = (ConnectionError, EOFError, http.client.HTTPException, ssl.SSLError)
TIMEOUT = 5.0


class KeyPair(Protocol):
    """Where a certificate and its key are: `certs.DevCert`, or one of the session's certificates."""

    @property
    def certificate(self) -> Path: ...
    @property
    def private_key(self) -> Path: ...


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def tls_client(
    trusted: Path,
    *,
    certificate: KeyPair | None = None,
    version: ssl.TLSVersion | None = None,
    alpn: Sequence[str] = (),
    check_name: bool = True,
) -> ssl.SSLContext:
    """What a client trusts and shows. `version` pins it to one version of TLS.

    On TLS 1.2 a refused client certificate shows as an exact alert in the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusted)
    context.check_hostname = check_name
    if certificate is not None:
        context.load_cert_chain(certificate.certificate, certificate.private_key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextlib.contextmanager
def connect(
    port: int, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> Iterator[socket.socket]:
    """A connection, after its TLS handshake when `tls` is given."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with raw:
        if tls is None:
            yield raw
        else:
            with tls.wrap_socket(raw, server_hostname=server_name) as wrapped:
                yield wrapped


# --- HTTP/1.1 -----------------------------------------------------------------------------------------------


class Http1:
    """One keep-alive connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, server_name: str | None = None) -> None:
        self._stack = contextlib.ExitStack()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        self._connection.sock = self._stack.enter_context(connect(port, tls, server_name))
        self._connection.auto_open = 0  # a second, silent connection would be another test

    def __enter__(self) -> Http1:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._stack.close()

    def request(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "localhost",
        headers: Mapping[str, str] = {},
        body: bytes | None = None,
    ) -> Reply:
        self._connection.request(method, path, body=body, headers={"host": host, **headers})
        response = self._connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, answered, response.read())


def get(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "localhost",
    headers: Mapping[str, str] = {},
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Reply:
    """One HTTP/1.1 request on a connection of its own. `server_name` (SNI) is `host` unless given."""
    with Http1(port, tls, server_name or host) as client:
        return client.request(path, method=method, host=host, headers=headers, body=body)


# --- HTTP/2 -------------------------------------------------------------------------------------------------


def h2_get(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "localhost",
    headers: Mapping[str, str] = {},
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Reply:
    """One HTTP/2 request without a body: with prior knowledge in clear text, by `tls`'s ALPN otherwise."""
    scheme = "http" if tls is None else "https"
    pseudo = [(":method", method), (":scheme", scheme), (":authority", host), (":path", path)]
    with connect(port, tls, server_name or host) as sock:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        connection.send_headers(1, [*pseudo, *headers.items()], end_stream=True)
        sock.sendall(connection.data_to_send())
        return _h2_reply(sock, connection)


def _h2_reply(sock: socket.socket, connection: h2.connection.H2Connection) -> Reply:
    answered: dict[str, str] = {}
    body = bytearray()
    while data := sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                answered = dict(cast(Any, event.headers))
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionResetError(f"HTTP/2 error {event.error_code}")
            elif isinstance(event, h2.events.StreamEnded):
                return Reply(int(answered.pop(":status")), answered, bytes(body))
        if pending := connection.data_to_send():
            sock.sendall(pending)
    raise EOFError("the stream ended without an answer")


# --- gRPC ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GrpcTls:
    """What a gRPC client trusts and shows, and the name it expects (and sends as SNI)."""

    trusted: Path
    server_name: str
    certificate: KeyPair | None = None


def grpc_echo(
    port: int,
    payload: bytes = b"hi",
    *,
    method: str = "/test.Echo/Say",
    authority: str | None = None,
    metadata: Sequence[tuple[str, str]] = (),
    tls: GrpcTls | None = None,
) -> bytes:
    """One unary call on a channel of its own. Raises grpc.RpcError, whose `.code()` says why."""
    options: list[tuple[str, str | int]] = [
        ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share a connection
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]
    if authority is not None:
        options.append(("grpc.default_authority", authority))
    target = f"127.0.0.1:{port}"
    if tls is None:
        channel = grpc.insecure_channel(target, options)
    else:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
        channel = grpc.secure_channel(target, _grpc_credentials(tls), options)
    with channel:
        call = channel.unary_unary(method)
        answer: bytes = call(payload, timeout=TIMEOUT, metadata=metadata)
        return answer


def _grpc_credentials(tls: GrpcTls) -> grpc.ChannelCredentials:
    own = tls.certificate
    return grpc.ssl_channel_credentials(
        tls.trusted.read_bytes(),
        own.private_key.read_bytes() if own else None,
        own.certificate.read_bytes() if own else None,
    )


# --- TCP ----------------------------------------------------------------------------------------------------


def tcp_echo(
    port: int, payload: bytes = b"hello", *, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> bytes:
    """Sends `payload` and returns as many bytes as came back; raises EOFError when the peer closes first."""
    with connect(port, tls, server_name) as sock:
        sock.sendall(payload)
        return read_exactly(sock, len(payload))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = sock.recv(size - len(received))
        if not data:
            raise EOFError(f"the stream ended after {received!r}")
        received += data
    return received
