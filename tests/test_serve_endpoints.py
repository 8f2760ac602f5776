"""`serve --cloud-map`: endpoints that come and go under a server, and under Envoys that carry requests."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apps import HttpApp, answering
from real_envoy import Envoy
from served import PATIENCE, Served
from test_cli import run
from test_cloud_map import addresses, color, front, service
from test_meshes import node
from test_serve import write
from test_serve_envoys import Customers, Shop, colors, until
from test_serve_operations import _answers, _metric

import appmesh_xds as am

__all__ = ["colors", "run"]

ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
CLUSTER = "cds_egress_shop_color_http_8080"
FRONT = "mesh/shop/virtualNode/front"


class CloudMapShop(Shop):
    """The shop whose endpoints stand in a file of Cloud Map instances."""

    def endpoints(self, **apps: list[str]) -> None:
        self.instances(
            {
                f"{node}.shop": [{"address": "127.0.0.1", "port": self.ports[name]} for name in names]
                for node, names in apps.items()
            }
        )

    def instances(self, said: Any) -> None:
        new = self.facts.with_suffix(".new")
        new.write_text(said if isinstance(said, str) else json.dumps(said))
        os.replace(new, self.facts)

    def arguments(self) -> list[str | Path]:
        folder, _, file, *rest = super().arguments()
        return [folder, "--cloud-map", "file", "--cloud-map-file", file, *rest]


def _versions(envoy: Envoy) -> list[tuple[str, str, str]]:
    """Everything that Envoy has over CDS, LDS and RDS, with the version and the time of its last change."""
    found = []
    for section in envoy.config_dump("")["configs"]:
        for kind in ("dynamic_active_clusters", "dynamic_listeners", "dynamic_route_configs"):
            for one in section.get(kind, ()):
                state = one.get("active_state", one)
                inner = state.get("cluster") or state.get("listener") or state.get("route_config")
                found.append((inner["name"], state["version_info"], state["last_updated"]))
    return sorted(found)


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_traffic_follows_the_file_and_nothing_else_changes(
    tmp_path: Path, colors: dict[str, HttpApp], delta: bool
) -> None:
    shop = CloudMapShop(tmp_path, colors)
    arguments = (*shop.arguments(), "--watch", "--admin-listen", "127.0.0.1:0", "--state", tmp_path / "state")
    server, customers = Served(*arguments, log=tmp_path / "log"), Customers(shop)
    with server, shop.envoy(server.port, tmp_path, delta) as envoy, customers.asking():
        customers.hear("blue")
        admin, versions = _answers(server), _versions(envoy)
        assert [name for name, _, _ in versions if name.startswith(("rds_egress", "lds_", "cds_egress"))]
        pushed = {kind: _metric(admin, f'pushes_total{{type="{kind}"}}') for kind in ("listeners", "routes")}
        good = _metric(admin, 'cloud_map_last_good_timestamp_seconds{source="file"}')

        shop.endpoints(blue=["blue", "azure"], green=["green"])
        customers.hear("blue", "azure")
        shop.endpoints(blue=["azure"], green=["green"])
        customers.hear("azure")
        assert _versions(envoy) == versions
        for kind, count in pushed.items():
            assert _metric(admin, f'pushes_total{{type="{kind}"}}') == count
        assert server.err_text().count(" endpoints source=file services=blue.shop changed=1") == 2
        assert _metric(admin, 'cloud_map_instances{source="file"}') == 2
        assert _metric(admin, 'cloud_map_unknown_services{source="file"}') == 1, "that of front itself"
        assert _metric(admin, 'cloud_map_last_good_timestamp_seconds{source="file"}') > good

        # A broken edit changes nothing, and does not keep specs from changing, nor the other way round.
        shop.instances('{"blue.shop": [{"address": "127.0.0.1"},\n {"address": "azure"}]}')
        server.wait_for(r"error +problem text=.*facts\.yaml:2:\d+ .*is not an IP address")
        assert _metric(admin, 'cloud_map_asked_total{result="failure",source="file"}') >= 1
        assert _metric(admin, 'problems{severity="error"}') == 1
        shop.route("all", "/", green=1)
        customers.hear("green")
        write(shop.folder / "broken.json", node("broken", 99999))
        server.wait_for("not_loaded")
        shop.endpoints(blue=["azure"], green=["blue"])
        customers.hear("blue")
        (shop.folder / "broken.json").unlink()
        server.wait_for(r"loaded .*changed=0")
        shop.endpoints(blue=["azure"], green=["blue", "azure"])
        customers.hear("blue", "azure")

        # A server that starts while the file is broken serves what it served.
        shop.instances("{")
        assert server.stop() == 0
        server.start()
        envoy.wait_stat("control_plane.connected_state", 1)
        (green,) = server.ask(FRONT, ENDPOINTS, "cds_egress_shop_green_http_8080").values()
        assert len(green.endpoints[0].lb_endpoints) == 2
        customers.hear("blue", "azure")
        shop.endpoints(blue=["azure"], green=["green"])
        customers.hear("green")
    assert customers.failures == [] and {told.partition(" ")[0] for told in customers.told} == {"200"}
    assert "Traceback" not in server.err_text() and "nack" not in server.err_text()


def test_all_instances_go_and_come_again(tmp_path: Path, colors: dict[str, HttpApp]) -> None:
    """That there are none is no error: Envoy answers, and what else changes arrives."""
    shop = CloudMapShop(tmp_path, colors)
    with Served(*shop.arguments(), log=tmp_path / "log") as server, shop.envoy(server.port, tmp_path, False):
        until(lambda: shop.told("/") == "200 blue", lambda: shop.told("/"))
        shop.endpoints(blue=[], green=["green"])
        server.signal(signal.SIGHUP)  # without --watch
        until(lambda: shop.told("/") == "503 no healthy upstream", lambda: shop.told("/"))
        server.wait_for(r"warning problem text=.*virtualNode/blue .*blue\.shop has no instance now")
        shop.endpoints(blue=["azure"], green=["green"])
        server.signal(signal.SIGHUP)
        until(lambda: shop.told("/") == "200 azure", lambda: shop.told("/"))


def test_a_file_that_is_being_written_takes_nothing_away(tmp_path: Path, colors: dict[str, HttpApp]) -> None:
    """As `command > file` does: it is empty, then it holds a part, then all."""
    shop = CloudMapShop(tmp_path, colors)
    arguments = (*shop.arguments(), "--watch")
    with Served(*arguments, log=tmp_path / "log") as server, shop.envoy(server.port, tmp_path, False):
        until(lambda: shop.told("/") == "200 blue", lambda: shop.told("/"))
        with shop.facts.open("w") as file:
            server.wait_for(r"error +problem text=.*facts\.yaml .*is empty")
            assert shop.told("/") == "200 blue"
            file.write("green.shop: []\n")
            file.flush()
            server.wait_for(r"warning problem text=.*facts\.yaml .*says nothing of blue\.shop")
            assert shop.told("/") == "200 blue"
            file.write(f"blue.shop: [{{address: 127.0.0.1, port: {shop.ports['azure']}}}]\n")
        until(lambda: shop.told("/") == "200 azure", lambda: shop.told("/"))


def test_a_node_comes_with_its_instances(tmp_path: Path) -> None:
    """Its service is asked about before its callers are told of it."""
    mesh, file = tmp_path / "mesh.json", tmp_path / "instances.json"
    write(mesh, front("color"), service(), color())
    file.write_text('{"color.shop.internal": [{"address": "10.0.0.1"}]}')
    arguments = (mesh, "--cloud-map", "file", "--cloud-map-file", file, "--admin-listen", "127.0.0.1:0")
    with Served(*arguments, log=tmp_path / "log") as server:
        assert "error" not in server.err_text()
        file.write_text(
            '{"color.shop.internal": [], "other.shop.internal": [{"address": "10.0.0.2", "port": 9}]}'
        )
        write(mesh, front("other"), service("other"), color("other"))
        server.signal(signal.SIGHUP)
        server.wait_for("loaded proxies=2 changed=3")
        assert "error" not in server.err_text()
        (one,) = server.ask(FRONT, ENDPOINTS, "cds_egress_shop_other_http_8080").values()
        assert [
            place.endpoint.address.socket_address.port_value for place in one.endpoints[0].lb_endpoints
        ] == [9]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--cloud-map", "file"), 2, "--cloud-map file needs --cloud-map-file FILE"),
        (("--cloud-map-file", "x"), 2, "--cloud-map-file goes with --cloud-map file"),
        (("--cloud-map", "dns", "--cloud-map-file", "x"), 2, "--cloud-map-file goes with --cloud-map file"),
        (("--cloud-map", "dns", "--cloud-map-interval", "3"), 2, "--cloud-map-interval goes with"),
        (("--cloud-map", "aws", "--cloud-map-interval", "0.1"), 2, "0.1: expected 1 to 86400 seconds"),
        (("--cloud-map", "file", "--cloud-map-file", "gone.yaml"), 1, "error: gone.yaml $: cannot be read"),
    ],
)
def test_what_serve_is_told_wrongly(run: Any, arguments: tuple[str, ...], status: int, text: str) -> None:
    done = run("serve", run.mesh(front("color"), service(), color()), *arguments)
    assert (done.status, done.out) == (status, "")
    assert text in done.err


# --- AWS --------------------------------------------------------------------------------------------------


class CloudMap:
    """AWS Cloud Map, as far as `DiscoverInstances` goes, over HTTP."""

    def __init__(self) -> None:
        #: By service.
        self.instances: dict[str, list[str]] = {}
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        cloud_map = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.headers["x-amz-target"].endswith(".DiscoverInstances")
                assert self.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=none/")
                status, answer = cloud_map.answer(request)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/x-amz-json-1.1")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append(request)
        name = request["ServiceName"]
        if self.status != 200:
            return self.status, {"__type": "RequestLimitExceeded", "Message": "too many"}
        if name not in self.instances:
            return 400, {"__type": "ServiceNotFound", "Message": f"no {name}"}
        found = [
            {"InstanceId": ip, "ServiceName": name, "Attributes": {"AWS_INSTANCE_IPV4": ip}}
            for ip in self.instances[name]
        ]
        return 200, {"Instances": found}


@pytest.fixture
def cloud_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CloudMap]:
    made = CloudMap()
    environment = {
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY": f"http://127.0.0.1:{made.server.server_port}",
        # An address has no names below it.
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with answering(made.server):
        yield made


def test_aws_is_asked_again_and_again(tmp_path: Path, cloud_map: CloudMap) -> None:
    write(tmp_path / "mesh.json", front("color"), service(), color())
    cloud_map.instances["color"] = ["10.0.0.1"]
    arguments = ("--cloud-map", "aws", "--cloud-map-interval", "1", "--admin-listen", "127.0.0.1:0")

    def served() -> list[str]:
        (one,) = server.ask(FRONT, ENDPOINTS, CLUSTER).values()
        found = [place for locality in one.endpoints for place in locality.lb_endpoints]
        return [place.endpoint.address.socket_address.address for place in found]

    with Served(tmp_path / "mesh.json", *arguments, log=tmp_path / "log") as server:
        assert served() == ["10.0.0.1"], "it had asked before it listened"
        cloud_map.instances["color"] = ["10.0.0.3", "10.0.0.2"]
        until(lambda: served() == ["10.0.0.2", "10.0.0.3"], server.err_text)
        cloud_map.status = 429
        server.wait_for(r"warning problem text=.*aws cannot say where color\.shop\.internal is: .*too many")
        assert served() == ["10.0.0.2", "10.0.0.3"]
        admin = _answers(server)
        assert _metric(admin, 'cloud_map_asked_total{result="failure",source="aws"}') >= 1
        assert time.time() - _metric(admin, 'cloud_map_last_good_timestamp_seconds{source="aws"}') < PATIENCE
        cloud_map.status = 200
        cloud_map.instances.clear()
        until(lambda: served() == [], server.err_text)
        server.wait_for(
            r"warning problem text=.*AWS Cloud Map has no color\.shop\.internal \(ServiceNotFound\)"
        )
        assert server.stop() == 0
    assert cloud_map.asked[0] == {
        "NamespaceName": "shop.internal",
        "ServiceName": "color",
        "MaxResults": 1000,
        "HealthStatus": "ALL",
    }
    assert "Traceback" not in server.err_text()


# --- other commands ---------------------------------------------------------------------------------------


def _endpoints(run: Any, *arguments: str | Path) -> list[str]:
    done = run("translate", *arguments, "--proxy", "virtualNode/front", "--format", "json")
    assert done.status == 0, done.err
    (made,) = json.loads(done.out).values()
    (one,) = made["endpoints"]
    return [
        place["endpoint"]["address"]["socket_address"]["address"]
        for locality in one["endpoints"]
        for place in locality["lb_endpoints"]
    ]


def test_commands_that_translate_take_the_file(run: Any) -> None:
    path = run.mesh(front("color"), service(), color())
    file = run.file("instances.yaml", "color.shop.internal: [{address: 10.0.0.1}]")
    flags = ("--cloud-map", "file", "--cloud-map-file", file)
    assert _endpoints(run, path, *flags) == ["10.0.0.1"]
    facts = run.file("facts.yaml", "endpoints: {color: [{address: 10.0.0.2}]}")
    assert _endpoints(run, path, *flags, "--facts", facts) == ["10.0.0.2"]
    static = run("bootstrap", path, *flags, "--proxy", "virtualNode/front", "--static")
    assert (static.status, static.err) == (0, "") and "10.0.0.1" in static.out
    assert run("check", path, *flags, "--envoy", "off").status == 0
    assert run("check", path, "--envoy", "off").status == 1

    run.file("instances.yaml", "color.shop.internal: [{address: color}]")
    done = run("translate", path, *flags)
    assert (done.status, done.out) == (1, "")
    assert f'error: {file}:1:24 $["color.shop.internal"][0].address: ' in done.err
    assert len(done.lines) == 1, "and not what comes of it"
    run.file("instances.yaml", "colour.shop.internal: []")
    done = run("translate", path, *flags)
    assert done.status == 1 and "error: " in done.err
    assert "no virtual node is found by colour.shop.internal" in done.err
    assert "says nothing of color.shop.internal (what was known of it stays; color.shop" in done.err


def test_commands_that_translate_ask_aws_once(run: Any, cloud_map: CloudMap) -> None:
    path = run.mesh(front("color"), service(), color())
    cloud_map.instances["color"] = ["10.0.0.1"]
    assert _endpoints(run, path, "--cloud-map", "aws") == ["10.0.0.1"]
    assert len(cloud_map.asked) == 1
    cloud_map.status = 400
    done = run("translate", path, "--cloud-map", "aws")
    assert (done.status, done.out) == (1, "")
    assert f"error: {path}:1" in done.err and "virtualNode/color" in done.err and "too many" in done.err


def test_dns_is_an_option(run: Any) -> None:
    path = run.mesh(front("color"), service(), color())
    done = run("translate", path, "--cloud-map", "dns", "--proxy", "virtualNode/front")
    assert (done.status, done.err) == (0, "") and "address: color.shop.internal" in done.out
    mesh = am.load(path)
    options = am.Options(cloud_map="dns")
    assert am.translate(mesh, "virtualNode/front", options).to_yaml() in done.out
    file = run.file("options.yaml", "proxies: {virtualNode/front: {cloud-map: dns}}")
    assert run("translate", path, "--options", file, "--proxy", "virtualNode/front").out == done.out
    assert addresses(am.translate(mesh.replace(endpoints={"color": ()}), "virtualNode/front", options)) == []
