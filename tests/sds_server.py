"""A secret discovery service on a unix socket, as SPIRE's agent is one: state of the world.

with SdsServer(tmp_path / "sds.sock", secret) as sds:
    sds.put(changed_secret)          # pushed to whoever asked for that name
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from appmesh_xds import proto

_METHOD = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class SdsServer:
    """Answers every stream with the secrets it asks for, once they are there, and again when they change."""

    def __init__(self, path: Path, *secrets: proto.Secret) -> None:
        #: What to give as `Options.sds_socket`.
        self.path = path
        #: Names that were asked for, and what Envoy said of secrets it refused.
        self.asked: set[str] = set()
        self.refused: list[str] = []
        self._lock = threading.Lock()
        self._version = 0
        self._secrets = {secret.name: secret for secret in secrets}
        self._streams: set[queue.SimpleQueue[Any]] = set()
        # A synchronous stream keeps its thread as long as it lives.
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=(_Handler(self),))
        assert self._server.add_insecure_port(f"unix:{path}"), f"cannot listen on {path}"
        self._server.start()

    def __enter__(self) -> SdsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._server.stop(None).wait(5)

    def put(self, *secrets: proto.Secret) -> None:
        """Adds or changes secrets, all at once."""
        with self._lock:
            self._version += 1
            self._secrets.update({secret.name: secret for secret in secrets})
            for stream in self._streams:
                stream.put("changed")

    def serve(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        """One stream. A thread of its own reads, so that changes go out while nothing comes in."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(requests, events), daemon=True).start()
        with self._lock:
            self._streams.add(events)
        names: tuple[str, ...] = ()
        sent: dict[str, proto.Secret] = {}
        try:
            while (event := events.get()) is not None:
                if isinstance(event, proto.DiscoveryRequest):
                    names = tuple(event.resource_names)
                    self.asked.update(names)
                    if event.HasField("error_detail"):
                        self.refused.append(event.error_detail.message)
                with self._lock:
                    known = {name: self._secrets[name] for name in names if name in self._secrets}
                    version = str(self._version)
                if known and known != sent:
                    sent = known
                    yield _response(known, version)
        finally:
            with self._lock:
                self._streams.discard(events)


def _response(secrets: dict[str, proto.Secret], version: str) -> bytes:
    response = proto.DiscoveryResponse(type_url=_SECRET, version_info=version, nonce=version)
    for secret in secrets.values():
        response.resources.append(proto.pack(secret))
    return response.SerializeToString()


def _read(requests: Iterator[bytes], events: queue.SimpleQueue[Any]) -> None:
    try:
        for request in requests:
            events.put(proto.DiscoveryRequest.FromString(request))
    except grpc.RpcError:
        pass  # the client went away
    finally:
        events.put(None)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, server: SdsServer) -> None:
        self.server = server

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != _METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: self.server.serve(requests))
