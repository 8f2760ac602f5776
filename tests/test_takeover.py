"""A stock Envoy on the bootstrap of App Mesh's images, before `appmesh-xds serve` (reference §6.2).

They speak plain state-of-the-world ADS through Envoy's `google_grpc` client, not through a cluster: over a
unix socket as it is, over TCP with TLS and signed metadata.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import agent
import grpc
import pytest
from apps import HttpApp
from clients import get, tls_client
from pki import SERVER_NAME
from real_envoy import Envoy, free_port, poll_until, validate
from test_meshes import node
from test_security import Site
from test_serve import FRONT
from test_server_grpc import Running

import appmesh_xds as am
from appmesh_xds import proto
from appmesh_xds.resource import CLUSTER
from appmesh_xds.server import grpc as shell
from appmesh_xds.server.messages import Connected
from appmesh_xds.server.source import Snapshots

NODE_ARN = f"arn:aws:appmesh:us-west-2:111122223333:{FRONT}"
#: The images wait ten seconds before they connect again; tests do not.
QUICK = {"initial_reconnect_backoff_ms": 100, "max_reconnect_backoff_ms": 200}
_REFUSED = r"\.update_rejected$"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Image:
    """Where it finds things, and an Envoy as it starts one. Its node `front` has a STRICT listener whose
    certificate the server has in memory."""

    def __init__(self, site: Site, app: HttpApp) -> None:
        self.site = site
        self.socket = site.folder / "xds.sock"
        self.port = free_port()
        shape = ("--interception", "none", "--ingress-port", str(self.port), "--app-port", str(app.port))
        self.on_socket = (*shape, "--listen", "off", "--unix", f"{self.socket}=virtualNode/front")
        self.shape = shape

    def envoy(self, service: dict[str, Any], **more: Any) -> Envoy:
        made = agent.bootstrap(NODE_ARN, service, log=str(self.site.folder / "admin.log"), **more)
        return Envoy(made, self.site.folder / "envoy")

    def told(self) -> str:
        client = tls_client(self.site.folder / "ca.crt")
        reply = get(self.port, "/", host=SERVER_NAME, tls=client)
        return f"{reply.status} {reply.text}"


def complaints(envoy: Envoy) -> list[str]:
    """What it said, but for what every such bootstrap has it say, and the stack that goes with a bug."""
    lines = envoy.log_text().splitlines()
    return [line for line in lines if not re.search(rf"{agent.WARNING}|stacktrace|\] #[0-9]+ ", line)]


@pytest.fixture
def image(site: Site, http_app: HttpApp) -> Image:
    return Image(site, http_app)


def test_over_a_unix_socket_with_the_key_of_its_listener(image: Image) -> None:
    with (
        image.site.serve(*image.on_socket) as server,
        image.envoy(agent.over_unix(f"unix://{image.socket}")) as envoy,
    ):
        assert image.told() == "200 http-app"
        refused = envoy.stats(_REFUSED)
        assert refused and not any(refused.values())
        assert complaints(envoy) == []
        # Its key is not to be seen, here nor there.
        assert "PRIVATE" not in server.err_text() + envoy.get("/config_dump")
        assert f"connected node={NODE_ARN} peer=unix:{image.socket}\n" in server.err_text()


def test_it_finds_the_server_that_comes_later_and_the_one_that_comes_back(image: Image) -> None:
    server = image.site.serve(*image.on_socket)
    envoy = image.envoy(agent.over_unix(f"unix://{image.socket}", **QUICK))
    try:
        envoy.start(wait_ready=False)
        assert not envoy.is_ready()
        with server:
            poll_until(envoy.is_ready, envoy.log_text)
            assert image.told() == "200 http-app"
            updates = r"(lds|cds)\.update_success$"
            before = envoy.stats(updates)
            server.kill()
            envoy.wait_stat("control_plane.connected_state", 0)
            assert image.told() == "200 http-app"
            server.start()
            envoy.wait_stat("control_plane.connected_state", 1)
            server.wait_for("connected ", times=2)
            assert image.told() == "200 http-app"
            assert envoy.stats(updates) == before, "what had not changed was sent again"
    finally:
        envoy.stop()


def test_what_the_images_switch_on(image: Image) -> None:
    """Envoy takes it all; of what it had and has no more it complains, and runs."""
    with (
        image.site.serve(*image.on_socket),
        image.envoy(agent.over_unix(f"unix://{image.socket}"), runtime=agent.RUNTIME) as envoy,
    ):
        assert image.told() == "200 http-app"
        said = complaints(envoy)
        named = {name for line in said for name in agent.GONE if f"removed guard {name}." in line}
        assert named and all("removed guard envoy.reloadable_features" in line for line in said), said


def test_their_admin_endpoint_on_a_unix_socket(image: Image) -> None:
    """`ENVOY_ADMIN_MODE=uds`"""
    pipe = {"pipe": {"path": str(image.site.folder / "admin.sock"), "mode": 0o600}}
    log = str(image.site.folder / "admin.log")
    made = agent.bootstrap(NODE_ARN, agent.over_unix(f"unix://{image.socket}"), log=log, admin=pipe)
    valid, said = validate(made)
    assert valid, said


def test_over_tcp_with_tls_and_signed_metadata(image: Image) -> None:
    """The server looks at no signature. Stock Envoys have no `aws_iam` any more: what a file holds stands in
    for one, it comes the same way."""
    site = image.site
    signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-west-2/appmesh/aws4_request, Signature=0"
    (site.folder / "signature").write_text(signature)
    site.put("server", site.issue("localhost"))
    call = agent.plugin(
        "file_based_metadata",
        secret_data={"filename": str(site.folder / "signature")},
        header_key="authorization",
    )
    tls = ("--tls-certificate", site.folder / "server.crt", "--tls-key", site.folder / "server.key")
    with site.serve(*tls, "--no-client-auth", "--insecure-serve-keys", *image.shape) as server:
        service = agent.over_tls(f"localhost:{server.port}", str(site.folder / "ca.crt"), call)
        with image.envoy(service) as envoy:
            assert image.told() == "200 http-app"
            assert not any(envoy.stats(_REFUSED).values())
            assert complaints(envoy) == []
        # Word for word what `aws_iam` adds, from a client of our own.
        signed = (
            ("authorization", signature),
            ("x-amz-date", "20261121T000000Z"),
            ("x-amz-security-token", "token"),
            ("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        )
        request = proto.DiscoveryRequest(type_url=CLUSTER)
        request.node.id = NODE_ARN
        trust = grpc.ssl_channel_credentials((site.folder / "ca.crt").read_bytes())
        path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        with grpc.secure_channel(f"localhost:{server.port}", trust) as channel:
            call_ = channel.stream_stream(path)(
                iter([request.SerializeToString()]), metadata=signed, timeout=60
            )
            assert proto.DiscoveryResponse.FromString(next(call_)).resources
            call_.cancel()


def test_stock_envoys_cannot_sign(image: Image) -> None:
    """What they lack is `aws_iam`; with it they would start. When one does, it can be tested here."""
    call = agent.plugin("aws_iam", service_name="appmesh", region="us-west-2")
    service = agent.over_tls("localhost:1", str(image.site.folder / "ca.crt"), call)
    valid, said = validate(agent.bootstrap(NODE_ARN, service, log="/dev/null"))
    assert not valid and "AwsIamConfig" in said


def test_their_keepalive_does_not_end_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ping every ten seconds, of which the server must allow twice as many. Scaled down; and with the
    limit as gRPC has it such an Envoy is sent away."""
    made = am.translate(am.loads([node()]), "virtualNode/front")
    limit = "grpc.http2.min_ping_interval_without_data_ms"
    scaled = dict(shell._OPTIONS)
    assert scaled[limit] * 2 == 10_000
    lasted = 0.0
    for number, least in enumerate((300_000, 70)):
        monkeypatch.setattr(shell, "_OPTIONS", tuple({**scaled, limit: least}.items()))
        service = agent.over_unix("", keepalive_time_ms=150, **QUICK)
        with Running(Snapshots([made])) as server:
            service["google_grpc"]["target_uri"] = f"127.0.0.1:{server.port}"
            config = agent.bootstrap(FRONT, service, log="/dev/null")
            with Envoy(config, tmp_path / str(number)) as envoy:
                started = time.monotonic()
                if least > 70:
                    poll_until(lambda: len(server.seen(Connected)) > 1, envoy.log_text)
                    lasted = time.monotonic() - started
                else:
                    time.sleep(lasted)
                    assert len(server.seen(Connected)) == 1, "the stream was ended"
