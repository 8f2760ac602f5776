"""`appmesh-xds serve` with real Envoys that carry requests all the while: nothing that happens costs one.

Both modes of the protocol. Everything is done as an operator does it: files change, the server is ended,
killed and started again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from apps import HttpApp
from clients import Http1, get
from pki import Certificates
from real_envoy import Envoy, free_port
from served import PATIENCE, Served
from test_meshes import node

import appmesh_xds as am
from appmesh_xds import render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.cli import main

HOST = "colors.shop.local"
#: What Envoy counts when it refuses something, or uses what is deprecated.
_REFUSALS = r"(update_rejected|deprecated_feature_use|deprecated_feature_seen_since_process_start)$"


@pytest.fixture(scope="module")
def colors() -> Iterator[dict[str, HttpApp]]:
    with HttpApp("blue") as blue, HttpApp("green") as green, HttpApp("azure") as azure:
        yield {"blue": blue, "green": green, "azure": azure}


class Shop:
    """Specs and facts in a folder: the node `front` reaches `colors.shop.local`, routed to blue and green."""

    def __init__(self, folder: Path, apps: dict[str, HttpApp]) -> None:
        self.folder = folder / "mesh"
        self.folder.mkdir()
        self.facts = folder / "facts.yaml"
        self.options = am.Options(interception="none", ingress_port=free_port(), egress_port=free_port())
        self.ports = {name: app.port for name, app in apps.items()}
        self.write("front", self._node("front", backends=[HOST]))
        self.write("blue", self._node("blue"))
        self.write("green", self._node("green"))
        self.write("service", self.service(virtualRouter={"virtualRouterName": "colors"}))
        router = {"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]}
        self.write("router", {"meshName": "shop", "virtualRouterName": "colors", "spec": router})
        self.route("all", "/", blue=1)
        self.endpoints(blue=["blue"], green=["green"])

    def write(self, name: str, resource: dict[str, Any]) -> None:
        new = self.folder / "new"
        new.write_text(json.dumps(resource))
        os.replace(new, self.folder / f"{name}.json")

    def _node(self, name: str, backends: list[str] | None = None, **listener: Any) -> dict[str, Any]:
        spec = {
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}, **listener}],
            "serviceDiscovery": {"awsCloudMap": {"namespaceName": "shop", "serviceName": name}},
            "backends": [{"virtualService": {"virtualServiceName": one}} for one in backends or ()],
        }
        return {"meshName": "shop", "virtualNodeName": name, "spec": spec}

    def service(self, **provider: Any) -> dict[str, Any]:
        return {"meshName": "shop", "virtualServiceName": HOST, "spec": {"provider": provider}}

    def node(self, name: str, **listener: Any) -> None:
        self.write(name, self._node(name, **listener))

    def route(self, name: str, prefix: str, **weights: int) -> None:
        targets = [{"virtualNode": node, "weight": weight} for node, weight in weights.items()]
        spec = {"httpRoute": {"match": {"prefix": prefix}, "action": {"weightedTargets": targets}}}
        route = {"meshName": "shop", "virtualRouterName": "colors", "routeName": name, "spec": spec}
        self.write(f"route-{name}", route)

    def endpoints(self, **apps: list[str]) -> None:
        found = {
            node: [{"address": "127.0.0.1", "port": self.ports[name]} for name in names]
            for node, names in apps.items()
        }
        new = self.facts.with_suffix(".new")
        new.write_text(json.dumps({"endpoints": found}))
        os.replace(new, self.facts)

    def arguments(self) -> list[str | Path]:
        ports = [
            "--ingress-port",
            str(self.options.ingress_port),
            "--egress-port",
            str(self.options.egress_port),
        ]
        return [self.folder, "--facts", self.facts, "--interception", "none", *ports]

    def envoy(self, port: int, folder: Path, delta: bool) -> Envoy:
        made = ads_bootstrap(
            "shop", "virtualNode/front", XdsServer(f"127.0.0.1:{port}"), self.options, delta=delta
        )
        bootstrap = render.to_dict(made)
        strict = {"envoy.features.fail_on_any_deprecated_feature": True}
        bootstrap["layered_runtime"]["layers"].append({"name": "strict", "static_layer": strict})
        quick_to_come_back(bootstrap)
        return Envoy(bootstrap, folder)

    def told(self, path: str) -> str:
        reply = get(self.options.egress_port, path, host=HOST)
        return f"{reply.status} {reply.text}"


def quick_to_come_back(bootstrap: dict[str, Any]) -> None:
    """It shall not wait half a minute for its next try, as it may do after some that failed."""
    (service,) = bootstrap["dynamic_resources"]["ads_config"]["grpc_services"]
    back_off = {"base_interval": "0.1s", "max_interval": "0.2s"}
    service["envoy_grpc"]["retry_policy"] = {"retry_back_off": back_off}


class Customers:
    """Clients that ask without a pause, over connections that they keep."""

    def __init__(self, shop: Shop, count: int = 3) -> None:
        self._shop = shop
        self._stop = threading.Event()
        self.told: list[str] = []
        self.failures: list[str] = []
        self.connections = 0
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                with Http1(self._shop.options.egress_port) as client:
                    self.connections += 1
                    while not self._stop.is_set():
                        reply = client.request("/", host=HOST)
                        self.told.append(f"{reply.status} {reply.text}")
                        time.sleep(0.001)
            except Exception as error:
                self.failures.append(repr(error))
                return

    @contextmanager
    def asking(self) -> Iterator[Customers]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(10)

    def hear(self, *colors: str) -> None:
        """Until the last answers are of all these colors, and of no other."""
        wanted = {f"200 {color}" for color in colors}
        until(lambda: len(self.told) > 30 and set(self.told[-30:]) == wanted, lambda: str(self.told[-30:]))


def until(reached: Callable[[], Any], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_nothing_that_happens_costs_a_request(
    tmp_path: Path, colors: dict[str, HttpApp], delta: bool
) -> None:
    shop = Shop(tmp_path, colors)
    server = Served(*shop.arguments(), "--watch", "--state", tmp_path / "state", log=tmp_path / "log")
    customers = Customers(shop)
    with server, shop.envoy(server.port, tmp_path, delta) as envoy, customers.asking():
        until(lambda: shop.told("/") == "200 blue", lambda: shop.told("/"))
        customers.hear("blue")
        # Routes: weights, a path, on connections that stay open.
        shop.route("all", "/", blue=1, green=1)
        customers.hear("blue", "green")
        shop.route("all", "/", green=1)
        customers.hear("green")
        shop.route("some", "/some", blue=1)
        until(lambda: shop.told("/some") == "200 blue", lambda: shop.told("/some"))
        (shop.folder / "route-some.json").unlink()
        until(lambda: shop.told("/some") == "200 green", lambda: shop.told("/some"))
        # Another backend: the service is a node's itself, no router between.
        shop.write("service", shop.service(virtualNode={"virtualNodeName": "blue"}))
        customers.hear("blue")
        # Endpoints come and go.
        shop.endpoints(blue=["blue", "azure"], green=["green"])
        customers.hear("blue", "azure")
        shop.endpoints(blue=["azure"], green=["green"])
        customers.hear("azure")
        # A cluster changes and its endpoints do not: Envoy warms it until they are sent again.
        for errors in (50, 60):
            second = {"value": 1, "unit": "s"}
            detection = {"maxServerErrors": errors, "interval": second, "baseEjectionDuration": second}
            shop.node("blue", outlierDetection={**detection, "maxEjectionPercent": 1})
            text = f'"consecutive_5xx": {errors}'
            until(lambda t=text: t in _active_clusters(envoy), lambda: _active_clusters(envoy))
        envoy.wait_stat("cluster_manager.warming_clusters", 0)
        # The server ends, and is another one. It is killed, and is another one. It changes meanwhile.
        for end in (signal.SIGTERM, signal.SIGKILL):
            updates = envoy.stats(r"lds\.update_success$")
            server.signal(end)
            assert server.wait() == (0 if end == signal.SIGTERM else -signal.SIGKILL)
            envoy.wait_stat("control_plane.connected_state", 0)
            customers.hear("azure")
            server.start()
            envoy.wait_stat("control_plane.connected_state", 1)
            customers.hear("azure")
            shop.write("service", shop.service(virtualRouter={"virtualRouterName": "colors"}))
            customers.hear("green")
            shop.write("service", shop.service(virtualNode={"virtualNodeName": "blue"}))
            customers.hear("azure")
            assert envoy.stats(r"lds\.update_success$") == updates, "what had not changed was sent again"
        # It starts over broken specs.
        server.kill()
        (shop.folder / "broken.json").write_text('{"meshName": "shop", "virtualNodeName": ')
        server.start()
        envoy.wait_stat("control_plane.connected_state", 1)
        (shop.folder / "broken.json").unlink()
        shop.write("service", shop.service(virtualRouter={"virtualRouterName": "colors"}))
        customers.hear("green")

        refused = {name: count for name, count in envoy.stats(_REFUSALS).items() if count}
        assert refused == {}
        # That it lost the server which was killed, twice, is all it has to say.
        lost = r".*AggregatedResources gRPC config stream to static_cluster_xds closed.*\n"
        log = re.sub(lost, "", envoy.log_text())
        assert log == ""
    assert customers.failures == [] and set(customers.told) == {"200 blue", "200 green", "200 azure"}
    assert customers.connections == 3, "connections were dropped"
    assert "nack" not in server.err_text() and "gate_timeout" not in server.err_text()


def _active_clusters(envoy: Envoy) -> str:
    dump = json.loads(envoy.get("/config_dump?resource=dynamic_active_clusters"))
    return json.dumps(dump, indent=1)


def test_an_envoy_that_cannot_follow_another_interception(tmp_path: Path) -> None:
    """`enable_reuse_port` is fixed while a listener lives: the server knows, and says what to do."""
    (tmp_path / "mesh.json").write_text(json.dumps([node()]))
    common = ("--bind", "127.0.0.7", "--ingress-port", "15000", "--state", tmp_path / "state", "--drain", "0")
    admin = ("--admin-listen", f"unix:{tmp_path}/admin")
    first = Served(tmp_path / "mesh.json", *common, "--interception", "redirect", log=tmp_path / "log")
    with first:
        xds = XdsServer(f"127.0.0.1:{first.port}")
        bootstrap = render.to_dict(ads_bootstrap("shop", "virtualNode/front", xds, am.Options()))
        quick_to_come_back(bootstrap)
        with Envoy(bootstrap, tmp_path / "envoy") as envoy:
            assert first.stop() == 0
            arguments = (tmp_path / "mesh.json", *common, *admin, "--interception", "none")
            with Served(*arguments, log=tmp_path / "log2", port=first.port) as second:
                assert re.search(
                    "warning: virtualNode/front .*lds_ingress_127.0.0.7_15000.*restart", second.err_text()
                )
                envoy.wait_stat("listener_manager.lds.update_rejected", 1)
                second.wait_for(
                    'nack .*reuse port.*hint="this Envoy runs with listeners of another --interception'
                )
                seen: list[str] = []
                until(lambda: seen.append(_status(admin[1])) or "restart it" in seen[-1], lambda: seen[-1])


def _status(address: str) -> str:
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), write_through=True)) as out:
        main(["status", address])
        out.seek(0)
        return out.read()


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_what_envoy_refuses_leaves_the_rest_alone(
    tmp_path: Path, colors: dict[str, HttpApp], certificates: Certificates, delta: bool
) -> None:
    """A certificate that is not on the proxy's disk: said with its place in the specs, until it is."""
    shop = Shop(tmp_path, colors)
    pair = tmp_path / "front.crt", tmp_path / "front.key"
    files = {"certificateChain": str(pair[0]), "privateKey": str(pair[1])}
    server = Served(*shop.arguments(), "--watch", log=tmp_path / "log")
    with server, shop.envoy(server.port, tmp_path, delta) as envoy:
        until(lambda: shop.told("/") == "200 blue", lambda: shop.told("/"))
        tls = {"mode": "STRICT", "certificate": {"file": files}}
        shop.write("front", shop._node("front", backends=[HOST], tls=tls))
        server.wait_for(rf"nack .*{tmp_path}/front.*spec=.*virtualNode/front \$\.spec\.listeners\[0\]")
        # The listener stays as it was, and what does not depend on it goes on.
        shop.route("all", "/", green=1)
        until(lambda: shop.told("/") == "200 green", lambda: shop.told("/"))
        assert server.err_text().count(" nack ") == 1, "it was sent again"
        for path, source in zip(
            pair, (certificates.server.certificate, certificates.server.private_key), strict=True
        ):
            path.write_bytes(source.read_bytes())
        # It is not sent again until it is another one.
        shop.write("front", shop._node("front", backends=[HOST], tls={**tls, "mode": "PERMISSIVE"}))
        assert shop.options.ingress_port is not None
        port = shop.options.ingress_port

        def shown() -> bool:
            with contextlib.suppress(OSError):
                return bool(ssl.get_server_certificate(("127.0.0.1", port)))
            return False

        until(shown, server.err_text)
        envoy.wait_stat("listener_manager.lds.update_rejected", 1)
        assert server.err_text().count(" nack ") == 1
