"""Simulated Envoys: one process, a connection and a stream for each, that acknowledge every response.

They speak just enough HTTP/2 over asyncio to cost a fraction of the server that is measured; a gRPC client
library would cost as much as the server, and be what is measured. What they do is what an Envoy does: ask for
clusters, then for their endpoints and for listeners, then for the routes that these name; and come back with
the versions they have.

Commands come as JSON lines on stdin, answers go to stdout; see `serve.Process`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import sys
from collections.abc import Callable
from typing import Any

from appmesh_xds import proto
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from appmesh_xds.wire import field

from .synthetic import MESH, node_name

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 0x1, 0x1, 0x4
_LARGEST = 2**31 - 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _opening(method: str, scheme: str) -> bytes:
    """The start of a connection and of its one stream. Windows are as large as they can be."""
    headers = {
        ":method": "POST",
        ":scheme": scheme,
        ":path": f"/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # Literals without indexing (RFC 7541 §6.2.2); no name or value is longer than 126 bytes.
    block = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, struct.pack(">HI", 0x4, _LARGEST)),
            _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGEST - 65_535)),
            _frame(_HEADERS, _END_HEADERS, 1, block),
        )
    )


class Stream(asyncio.Protocol):
    """One stream on a connection of its own."""

    method = ""

    def __init__(self, fleet: Fleet, index: int) -> None:
        self.fleet = fleet
        self.node = f"mesh/{MESH}/virtualNode/{node_name(index)}"
        self._in = bytearray()
        self._body = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        scheme = "https" if self.fleet.tls else "http"
        transport.write(_opening(self.method, scheme))
        self.begin()

    def connection_lost(self, error: Exception | None) -> None:
        self.fleet.lost += 1

    def data_received(self, data: bytes) -> None:
        self.fleet.received += len(data)
        self._in += data
        at = 0
        while len(self._in) >= at + 9:
            end = at + 9 + int.from_bytes(self._in[at : at + 3], "big")
            if len(self._in) < end:
                break
            kind, flags = self._in[at + 3], self._in[at + 4]
            self._take(kind, flags, bytes(self._in[at + 9 : end]))
            at = end
        del self._in[:at]

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _DATA:
            self._body += payload
            while len(self._body) >= 5 and len(self._body) >= 5 + (
                size := struct.unpack_from(">I", self._body, 1)[0]
            ):
                message = bytes(self._body[5 : 5 + size])
                del self._body[: 5 + size]
                self.respond(message)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY or (kind == _HEADERS and flags & _END_STREAM):
            self.fleet.ended += 1

    def send(self, message: bytes) -> None:
        data = _frame(_DATA, 0, 1, b"\0" + struct.pack(">I", len(message)) + message)
        self.fleet.sent += len(data)
        self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()

    def begin(self) -> None:
        raise NotImplementedError

    def respond(self, message: bytes) -> None:
        raise NotImplementedError


class Sotw(Stream):
    method = "StreamAggregatedResources"

    def begin(self) -> None:
        self._names: dict[str, bytes] = {}
        self._ask(CLUSTER, node=field(2, field(1, self.node.encode())))

    def _ask(self, type_url: str, version: str = "", nonce: str = "", node: bytes = b"") -> None:
        """Fields in the order of their numbers, as every protobuf library writes them."""
        first = field(1, version.encode()) if version else b""
        last = field(5, nonce.encode()) if nonce else b""
        self.send(first + node + self._names.get(type_url, b"") + field(4, type_url.encode()) + last)

    def respond(self, message: bytes) -> None:
        response = proto.DiscoveryResponse.FromString(message)
        url = response.type_url
        self.fleet.responses += 1
        self.fleet.resources += len(response.resources)
        self._ask(url, response.version_info, response.nonce)
        if url == CLUSTER and ENDPOINTS not in self._names:
            self._names[ENDPOINTS] = _encoded(_endpoint_names(one.value for one in response.resources))
            self._ask(ENDPOINTS)
            self._ask(LISTENER)
        elif url == LISTENER and ROUTES not in self._names:
            self._names[ROUTES] = _encoded(_route_names(one.value for one in response.resources))
            self._ask(ROUTES)


class Delta(Stream):
    method = "DeltaAggregatedResources"

    def begin(self) -> None:
        #: Type to name to version: kept over reconnections.
        self._has: dict[str, dict[str, str]] = self.fleet.kept.setdefault(self.node, {})
        self._asked: set[str] = set()
        if not self._has:
            self._ask(CLUSTER, ())
            return
        for url in (CLUSTER, ENDPOINTS, LISTENER, ROUTES):
            self._ask(url, () if url in (CLUSTER, LISTENER) else self._has.get(url, ()))

    def _ask(self, type_url: str, names: Any) -> None:
        request = proto.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=list(names))
        request.initial_resource_versions.update(self._has.get(type_url, {}))
        if not self._asked:
            request.node.id = self.node
        self._asked.add(type_url)
        self.send(request.SerializeToString())

    def respond(self, message: bytes) -> None:
        response = proto.DeltaDiscoveryResponse.FromString(message)
        url = response.type_url
        self.fleet.responses += 1
        self.fleet.resources += len(response.resources)
        self._has.setdefault(url, {}).update({one.name: one.version for one in response.resources})
        self.send(field(2, url.encode()) + field(6, response.nonce.encode()))
        values = [one.resource.value for one in response.resources]
        if url == CLUSTER and ENDPOINTS not in self._asked:
            self._ask(ENDPOINTS, _endpoint_names(values))
            self._ask(LISTENER, ())
        elif url == LISTENER and ROUTES not in self._asked:
            self._ask(ROUTES, _route_names(values))


class Silent(Stream):
    """Asks nothing and acknowledges whatever comes: for the bare server."""

    method = "StreamAggregatedResources"

    def begin(self) -> None:
        self.send(field(2, field(1, self.node.encode())) + field(4, CLUSTER.encode()))

    def respond(self, message: bytes) -> None:
        response = proto.DiscoveryResponse.FromString(message)
        self.fleet.responses += 1
        # As large as the names of two route configurations.
        names = _encoded(("rds_ingress_http_8080", "rds_egress_http_80"))
        first, last = field(1, response.version_info.encode()), field(5, response.nonce.encode())
        self.send(first + names + field(4, response.type_url.encode()) + last)


def _encoded(names: Any) -> bytes:
    return b"".join(field(3, name.encode()) for name in names)


def _endpoint_names(clusters: Any) -> list[str]:
    parsed = [proto.Cluster.FromString(value) for value in clusters]
    return [
        one.eds_cluster_config.service_name or one.name
        for one in parsed
        if one.HasField("eds_cluster_config")
    ]


def _route_names(listeners: Any) -> list[str]:
    names: dict[str, None] = {}
    for value in listeners:
        for chain in proto.Listener.FromString(value).filter_chains:
            for one in chain.filters:
                if one.typed_config.type_url.endswith(".HttpConnectionManager"):
                    manager = proto.HttpConnectionManager.FromString(one.typed_config.value)
                    names[manager.rds.route_config_name] = None
    return list(names)


KINDS: dict[str, type[Stream]] = {"sotw": Sotw, "delta": Delta, "silent": Silent}


class Fleet:
    """The streams to one server, and what they count together."""

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.kept: dict[str, dict[str, dict[str, str]]] = {}
        self.streams: list[Any] = []
        self.received = self.sent = self.responses = self.resources = self.lost = self.ended = 0

    def counts(self) -> dict[str, int]:
        return {
            name: getattr(self, name)
            for name in ("received", "sent", "responses", "resources", "lost", "ended")
        }

    async def connect(self, kind: str, port: int, count: int, tls: dict[str, str] | None) -> None:
        self.tls = _tls(tls) if tls else None
        loop = asyncio.get_running_loop()
        free = asyncio.Semaphore(50)

        async def one(index: int) -> Any:
            async with free:
                make: Callable[[], Stream] = lambda: KINDS[kind](self, index)  # noqa: E731
                name = "localhost" if self.tls else None
                _, stream = await loop.create_connection(
                    make, "127.0.0.1", port, ssl=self.tls, server_hostname=name
                )
                return stream

        self.streams = await asyncio.gather(*map(one, range(count)))

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.streams = []


def _tls(files: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files["ca"])
    context.load_cert_chain(files["certificate"], files["key"])
    context.set_alpn_protocols(["h2"])
    return context


async def main() -> None:
    fleets: dict[str, Fleet] = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        command = json.loads(line)
        fleet = fleets.setdefault(command.pop("fleet"), Fleet())
        match command.pop("do"):
            case "connect":
                await fleet.connect(**command)
            case "close":
                fleet.close()
        print(json.dumps(fleet.counts()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
