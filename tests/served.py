"""`appmesh-xds serve`, run by tests as a process of its own.

with Served(folder / "mesh", folder) as server:      # listening when entered
    server.port, server.err_text()
    server.signal(signal.SIGHUP)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from pki import SERVER_NAME

from appmesh_xds import proto
from appmesh_xds.resource import CLUSTER

#: Python starts, reads and translates: seconds on a busy machine.
PATIENCE = 60.0


class Served:
    """One server process. `port` stays the same over `start` again, so that clients find it again."""

    def __init__(self, *arguments: str | Path, log: Path, port: int = 0) -> None:
        self.port = port
        self.out = ""
        #: Of the clients that ask.
        self.credentials: grpc.ChannelCredentials | None = None
        self._arguments = [str(argument) for argument in arguments]
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        listen = () if "--listen" in self._arguments else ("--listen", f"127.0.0.1:{self.port}")
        admin = () if "--admin-listen" in self._arguments else ("--admin-listen", "off")
        command = [sys.executable, "-m", "appmesh_xds", "serve", *self._arguments, *listen, *admin]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONWARNINGS": "error"},
            )
        assert self._process.stdout is not None
        self.out = self._process.stdout.readline()
        found = re.match(r"listening on ([^\s,]+)", self.out)
        if found is None:
            status = self.wait()
            raise AssertionError(f"serve ended with {status}: {self.out}{self.err_text()}")
        if ":" in found[1] and not found[1].startswith("unix:"):
            self.port = int(found[1].rpartition(":")[2])

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def wait(self) -> int:
        """Waits for its end, and gives its exit status."""
        assert self._process is not None, "not started"
        status = self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return status

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, if it runs still."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def err_text(self) -> str:
        """All that it wrote to stderr, also before a restart."""
        return self._log.read_text() if self._log.exists() else ""

    def channel(self, socket: Path | None = None) -> grpc.Channel:
        """To its port, or to a unix socket."""
        if socket is not None:
            return grpc.insecure_channel(f"unix:{socket}")
        address = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            return grpc.insecure_channel(address)
        name = ("grpc.ssl_target_name_override", SERVER_NAME)
        return grpc.secure_channel(address, self.credentials, options=[name])

    def ask(
        self, node: str, type_url: str = CLUSTER, *names: str, socket: Path | None = None
    ) -> dict[str, Any]:
        """The resources that a new client is given, by name. Raises grpc.RpcError when it is turned away."""
        request = proto.DiscoveryRequest(type_url=type_url, resource_names=names)
        request.node.id = node
        path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        with self.channel(socket) as channel:
            call = channel.stream_stream(path)(iter([request.SerializeToString()]), timeout=PATIENCE)
            response: Any = proto.DiscoveryResponse.FromString(next(call))
            call.cancel()
        found = [proto.unpack(resource) for resource in response.resources]
        return {getattr(one, "name", "") or one.cluster_name: one for one in found}

    def wait_for(self, pattern: str, *, times: int = 1) -> None:
        """Until its stderr holds what matches, so often."""
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE:
            if len(re.findall(pattern, self.err_text())) >= times:
                return
            time.sleep(0.01)
        raise AssertionError(f"{pattern} not in {self.err_text()}")
