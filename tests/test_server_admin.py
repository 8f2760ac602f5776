"""What a running server says about itself: numbers, pages for this machine, a command that reads them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from traces import snapshot

import appmesh_xds as am
from appmesh_xds import proto
from appmesh_xds.cli import main
from appmesh_xds.cloud_map.file import FileSource
from appmesh_xds.errors import Problem, UsageError
from appmesh_xds.resource import CLUSTER, LISTENER, SECRET, Resource
from appmesh_xds.server.admin import MeshStatus, admin_answers, probe_answers
from appmesh_xds.server.discovery import Discovery
from appmesh_xds.server.grpc import Server, serve
from appmesh_xds.server.http import Answer, listening
from appmesh_xds.server.meshes import Meshes
from appmesh_xds.server.messages import Ack, Connected, Ended, GateTimeout, Nack, Response, UnknownSecrets
from appmesh_xds.server.metrics import Metrics
from appmesh_xds.server.session import Access, Peer, Session, Settings
from appmesh_xds.server.source import Snapshots

NODE = "mesh/m/virtualNode/n"
PEER = Peer("ipv4:10.0.0.1:4000")
KEY = b"-----BEGIN PRIVATE KEY-----\nMIIEvSECRET\n-----END PRIVATE KEY-----\n"
_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"


def _values(metrics: Metrics, *starts: str) -> dict[str, float]:
    """Series that start so (without our prefix), by their text."""
    lines = (line for line in metrics.exposition().decode().splitlines() if not line.startswith("#"))
    named = (line.removeprefix("appmesh_xds_").rpartition(" ") for line in lines)
    return {name: float(value) for name, _, value in named if name.startswith(starts or "")}


# --- metrics ------------------------------------------------------------------------------------------------


def test_what_happens_to_streams_is_counted() -> None:
    metrics = Metrics()
    push = Response(type_url=CLUSTER, nonce="1", version="v", names=("a",), data=bytes(100))
    nack = Nack(type_url=LISTENER, nonce="1", version="v", text="no", resources=())
    for event in (
        Connected(node_id="anything {}"),
        *(push, push, Ack(type_url=CLUSTER, nonce="1", version="v", after=0.003), nack),
        GateTimeout(),
        UnknownSecrets(names=("a", "b")),
        Ended(status="NOT_FOUND", text="no such node"),
    ):
        metrics.observe("anything {}", PEER, event)
    expected = {
        "streams_started_total": 1,
        'streams_ended_total{status="NOT_FOUND"}': 1,
        'pushes_total{type="clusters"}': 2,
        'pushed_bytes_total{type="clusters"}': 200,
        'ack_seconds_count{type="clusters"}': 1,
        'ack_seconds_bucket{le="0.0025",type="clusters"}': 0,
        'ack_seconds_bucket{le="0.005",type="clusters"}': 1,
        'nacks_total{type="listeners"}': 1,
        "gate_timeouts_total": 1,
        "unknown_secrets_total": 2,
    }
    found = _values(metrics)
    assert {name: found[name] for name in expected} == expected
    assert "anything" not in metrics.exposition().decode(), "what a client says is no label"


def test_loads_are_counted() -> None:
    now = 1000.0
    metrics = Metrics(clock=lambda: now)
    warning = Problem(message="odd", severity="warning")
    metrics.loaded({"shop": 3, "old": 1}, [warning], reading=0.02, translation=0.01)
    now = 2000.0
    metrics.loaded({"shop": 4}, [], reading=0.02, translation=0.01)
    now = 3000.0
    metrics.load_failed([Problem(message="bad"), Problem(message="worse"), warning])
    names = (
        "loads_total",
        "last_good",
        "load_failing",
        "proxies",
        "problems",
        "load_seconds_count",
        "translation_seconds_sum",
    )
    assert _values(metrics, *names) == {
        'loads_total{result="success"}': 2,
        'loads_total{result="failure"}': 1,
        "last_good_timestamp_seconds": 2000,
        "load_failing": 1,
        'proxies{mesh="shop"}': 4,
        'problems{severity="error"}': 2,
        'problems{severity="warning"}': 1,
        "load_seconds_count": 2,
        "translation_seconds_sum": 0.02,
    }
    metrics.loaded({"shop": 4}, [], reading=0.02, translation=0.01)
    assert _values(metrics, "load_failing", "problems{") == {
        "load_failing": 0,
        'problems{severity="error"}': 0,
        'problems{severity="warning"}': 0,
    }


def test_certificates_that_are_gone_are_not_shown() -> None:
    metrics = Metrics()
    there: dict[tuple[str, str], float] = {("server", "server.crt"): 1.7e9, ("secret", "arn:x"): 1.8e9}
    metrics.watch_certificates(lambda: there)
    assert len(_values(metrics, "certificate")) == 2
    there = {("secret", "arn:x"): 1.9e9}
    assert _values(metrics, "certificate") == {
        'certificate_expiry_timestamp_seconds{name="arn:x",use="secret"}': 1.9e9
    }


def test_servers_do_not_share_their_numbers() -> None:
    first, second = Metrics(), Metrics()
    first.observe(NODE, PEER, Connected(node_id=NODE))
    assert _values(second, "streams_started_total") == {"streams_started_total": 0}


def test_the_page_lists_every_metric() -> None:
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    table = page.partition("## Metrics")[2].partition("\nWorth an alert")[0]
    told = set(re.findall(r"`([a-z_]+)(?:\{([a-z,]*)\})?`", table))
    metrics = Metrics()
    metrics.watch(list)
    metrics.watch_certificates(lambda: {("server", "x"): 1.0})
    metrics.watch_endpoints(Discovery(Meshes(), FileSource(Path("nowhere"))))
    metrics.loaded({"m": 1}, [], 0.1, 0.1)
    there = set()
    for family in metrics.registry.collect():
        name = family.name.removeprefix("appmesh_xds_") + ("_total" if family.type == "counter" else "")
        if not name.startswith("process_"):
            there.add(name)
    assert there == {name for name, _ in told if name not in _WORDS}


#: What stands in the table beside names of metrics.
_WORDS = {"sotw", "delta", "server", "secret", "appmesh_xds_", "type", "process_"}
_WORDS |= {"source", "file", "aws", "failure"}
_WORDS |= {"clusters", "endpoints", "listeners", "routes", "secrets"}


# --- a server that is looked at -----------------------------------------------------------------------------


class Looked:
    """A server with its admin endpoint, in a thread of its own; `admin.Subject`."""

    def __init__(self, *snapshots: am.Snapshot, admin: str = "127.0.0.1:0") -> None:
        self.metrics = Metrics()
        self.source = Snapshots(snapshots)
        self.reason = ""
        self.admin = admin
        self.server: Server | None = None
        self.found: list[Problem] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        options: dict[str, Any] = {"access": lambda *_: Access.FULL, "settings": Settings(drain=0.01)}
        try:
            async with (
                serve(self.source, observe=self.metrics.observe, **options) as self.server,
                listening(self.admin, admin_answers(self), only_local=True) as self.address,
                listening("127.0.0.1:0", probe_answers(self), only_local=False) as self.probe,
            ):
                self.metrics.watch(self.sessions)
                self._started.set()
                await self._stop.wait()
        finally:
            self._started.set()

    def not_ready(self) -> str:
        return self.reason

    def meshes(self) -> Iterable[MeshStatus]:
        return [MeshStatus(name="m", proxies=1, loaded_at=1_700_000_000)]

    def problems(self) -> Iterable[Problem]:
        return self.found

    def sessions(self) -> Iterable[Session]:
        assert self.server is not None
        return self.server.sessions()

    def snapshot(self, node_id: str) -> am.Snapshot | None:
        return self.source.snapshot(node_id)

    def __enter__(self) -> Looked:
        self._thread.start()
        assert self._started.wait(10) and self.server is not None, "it did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "it did not stop"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


def _ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes, reads until the end: status, headers, body. Status 0 when there was no answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]) if first else 0, headers, body


def _get(port: int, path: str, host: str = "localhost", method: str = "GET") -> tuple[int, bytes]:
    status, _, body = _ask(port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return status, body


@contextmanager
def client(looked: Looked, *talk: Callable[[Any], Any]) -> Iterator[None]:
    """A stream that says what it is told to (`_say`), and stays."""
    assert looked.server is not None
    port, done, stop = looked.server.port, threading.Event(), threading.Event()

    async def run() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = channel.stream_stream(_ADS + "StreamAggregatedResources")()
            for step in talk:
                await step(stream)
            done.set()
            await asyncio.get_running_loop().run_in_executor(None, stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert done.wait(20), "the client did not come to its end"
        yield
    finally:
        stop.set()
        thread.join(20)


def _say(**fields: Any) -> Callable[[Any], Any]:
    """Sends a request; `nack` is the text of an error, and `nonce` answers the first response."""
    nack = fields.pop("nack", None)
    message = proto.DiscoveryRequest(**{"type_url": CLUSTER, **fields})
    message.node.id = NODE
    if nack:
        message.error_detail.message = nack
    return lambda stream: stream.write(message.SerializeToString())


def _hear(stream: Any) -> Any:
    return stream.read()


def _until(looked: Looked, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """`/debug/proxies`, once it says so."""
    for _ in range(3000):
        status, body = _get(looked.port, "/debug/proxies")
        assert status == 200, body
        if reached(found := json.loads(body)):
            return found
        threading.Event().wait(0.01)
    raise AssertionError(body.decode())


def _state(found: dict[str, Any], name: str = "clusters") -> str:
    return found["proxies"][0]["types"].get(name, {}).get("state", "") if found["proxies"] else ""


def _spec_snapshot() -> am.Snapshot:
    made = snapshot(cds="a1,b1")
    clusters = (made.clusters[0], made.clusters[1].at("virtualNode/n $.spec.backends[1]"))
    return am.Snapshot(mesh="m", proxy="virtualNode/n", clusters=clusters)


def test_a_refusal_is_joined_to_the_spec(capsys: pytest.CaptureFixture[str]) -> None:
    with Looked(_spec_snapshot()) as looked:
        with client(looked, _say(), _hear, _say(response_nonce="1", nack="b: bad")):
            found = _until(looked, lambda found: _state(found) == "refused")
            (stream,) = found["proxies"]
            nack = stream["types"]["clusters"].pop("nack")
            assert nack.pop("at").endswith("Z")
            assert nack == {
                "version": _spec_snapshot().version(CLUSTER),
                "text": "b: bad",
                "resources": ["b"],
                "spec": ["virtualNode/n $.spec.backends[1]"],
            }
            assert (stream["node"], stream["proxy"], stream["protocol"]) == (NODE, NODE, "sotw")
            _, metrics = _get(looked.port, "/metrics")
            series = 'appmesh_xds_refusing_streams{node="mesh/m/virtualNode/n",type="clusters"} 1.0'
            assert series in metrics.decode().splitlines()
            assert b'appmesh_xds_streams{protocol="sotw"} 1.0' in metrics
            assert main(["status", looked.address]) == 1
            printed = capsys.readouterr().out
            assert f"{NODE}  sotw from ipv4:127.0.0.1:" in printed
            version = _spec_snapshot().version(CLUSTER)
            assert f"  clusters   REFUSED  {version}  0 s ago: b: bad\n" in printed
            assert "  " + " " * 9 + "  from     virtualNode/n $.spec.backends[1]\n" in printed
        _until(looked, lambda found: found["proxies"] == [])
        assert b"refusing_streams{" not in _get(looked.port, "/metrics")[1]


def test_a_stream_that_took_what_it_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with Looked(snapshot(cds="a1")) as looked, client(looked, _say(), _hear):
        assert _state(_until(looked, lambda found: _state(found) != "")) == "waits"
        assert "unanswered 1.0" in _get(looked.port, "/metrics")[1].decode()
    with (
        Looked(snapshot(cds="a1")) as looked,
        client(looked, _say(), _hear, _say(response_nonce="1", version_info="x")),
    ):
        (stream,) = _until(looked, lambda found: _state(found) == "taken")["proxies"]
        clusters = stream["types"]["clusters"]
        version = snapshot(cds="a1").version(CLUSTER)
        assert (clusters["sent"], clusters["taken"], clusters["names"]) == (version, version, None)
        assert main(["status", looked.address]) == 0
        assert f"  clusters   taken    {version}  0 s ago\n" in capsys.readouterr().out
        assert main(["status", looked.address, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["proxies"][0]["node"] == NODE
        looked.source.remove(NODE)
        assert _until(looked, lambda found: found["proxies"][0]["frozen"])
        assert b"appmesh_xds_frozen_streams 1.0" in _get(looked.port, "/metrics")[1]
        assert main(["status", looked.address]) == 0
        assert "not in the mesh any more" in capsys.readouterr().out


def test_problems_and_readiness(capsys: pytest.CaptureFixture[str]) -> None:
    with Looked() as looked:
        assert _get(looked.port, "/readyz") == (200, b"ready\n")
        looked.found = [Problem(file="a.yaml", line=3, column=1, message="bad\n")]
        assert main(["status", looked.address]) == 1
        assert "error: a.yaml:3:1 $: bad" in capsys.readouterr().out
        looked.found, looked.reason = [], "no mesh is loaded"
        assert _get(looked.port, "/readyz") == (503, b"no mesh is loaded\n")
        assert _get(looked.port, "/healthz") == (200, b"ok\n")
        assert main(["status", looked.address]) == 1
        assert capsys.readouterr().out.splitlines()[0].endswith(": no mesh is loaded")


def test_the_configuration_of_a_proxy_without_its_keys() -> None:
    secret = proto.Secret(name="key")
    secret.tls_certificate.private_key.inline_bytes = KEY
    made = am.Snapshot(mesh="m", proxy="virtualNode/n", clusters=(), secrets=(Resource.of(secret),))
    with Looked(made) as looked, client(looked, _say(type_url=SECRET, resource_names=["key"]), _hear):
        for path in (NODE, "virtualNode/n", "mesh%2Fm%2FvirtualNode%2Fn"):
            status, body = _get(looked.port, f"/debug/config/{path}")
            assert status == 200 and b"secrets:\n- name: key" in body and b"[redacted]" in body
            assert b"SECRET" not in body
        assert b"SECRET" not in _get(looked.port, "/debug/proxies")[1]
        status, body = _get(looked.port, "/debug/config/virtualNode/x%0a")
        assert (status, body[:26]) == (404, b"virtualNode/x is not serve")


# --- who is answered ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked() -> Iterator[Looked]:
    with Looked(snapshot(cds="a1")) as running:
        yield running


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.0.0.1:18001", "localhost:", "[::1]:80", "[::1]"]
)
def test_hosts_that_are_this_machine(looked: Looked, host: str) -> None:
    assert _get(looked.port, "/healthz", host) == (200, b"ok\n")


@pytest.mark.parametrize(
    "host", ["example.org", "evil.localhost.example:18001", "127.0.0.1.example", "", "10.0.0.1"]
)
def test_hosts_that_are_not(looked: Looked, host: str) -> None:
    assert _get(looked.port, "/debug/proxies", host)[0] == 403


def test_probes_are_answered_to_any_host_and_tell_no_more(looked: Looked) -> None:
    port = int(looked.probe.rpartition(":")[2])
    assert [_get(port, path, "10.0.0.7")[0] for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    assert [_get(port, path)[0] for path in ("/debug/proxies", f"/debug/config/{NODE}", "/")] == [404] * 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(looked: Looked, method: str) -> None:
    request = f"{method} /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    status, headers, _ = _ask(looked.port, request.encode())
    assert (status, headers["allow"]) == (405, "get")


def test_head_is_get_without_the_body(looked: Looked) -> None:
    status, headers, body = _ask(looked.port, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, headers["content-length"], body) == (200, "3", b"")
    assert headers["connection"] == "close" and headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /" + b"x" * 24_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /debug/config/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ],
    ids=["nonsense", "no host", "two hosts", "too long", "odd path", "no proxy", "absolute"],
)
def test_strange_requests(looked: Looked, request_: bytes, status: int) -> None:
    assert _ask(looked.port, request_)[0] == status


def test_a_slow_client_does_not_stay(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appmesh_xds.server.http._PATIENCE", 0.05)
    assert _ask(looked.port, b"GET / HTTP/1.1\r\n")[0] == 0


def test_connections_are_few(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appmesh_xds.server.http._CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", looked.port)) as first:
        first.sendall(b"GET /he")
        statuses = set()
        for _ in range(100):
            statuses.add(_status_or_none(looked.port))
            if None in statuses:
                break
        assert None in statuses, "a second connection is not served"
        first.sendall(b"althz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")


def _status_or_none(port: int) -> int | None:
    try:
        return _get(port, "/healthz")[0] or None
    except ConnectionError:
        return None


def test_a_unix_socket_is_for_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Looked(admin=f"unix:{path}") as looked:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert main(["status", looked.address]) == 0
        assert "0 streams" in capsys.readouterr().out
        with pytest.raises(UsageError, match=r"cannot listen on unix:.*in use"):
            asyncio.run(_listen(f"unix:{path}"))
    assert not path.exists()


async def _listen(address: str, only_local: bool = True) -> None:
    async with listening(address, lambda _: Answer.text(200, ""), only_local=only_local):
        pass


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("0.0.0.0:0", "beyond loopback"),
        ("example.org:80", "beyond loopback"),
        ("127.0.0.1:x", "cannot listen on 127.0.0.1:x"),
        ("127.0.0.1:99999", "cannot listen on 127.0.0.1:99999"),
        ("unix:/nowhere/at/all.sock", "cannot listen on unix:/nowhere/at/all.sock: No such file"),
    ],
)
def test_addresses_that_cannot_be(address: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        asyncio.run(_listen(address))


def test_a_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(UsageError, match="cannot listen"):
        asyncio.run(_listen(f"unix:{path}"))
    assert path.read_text() == "x"
    assert os.path.exists(path)


@pytest.mark.parametrize(
    ("address", "code", "text"),
    [
        ("127.0.0.1:1", 1, "is `appmesh-xds serve` running?"),
        ("unix:/nowhere/a.sock", 1, "No such file or directory"),
        ("nonsense", 2, "neither HOST:PORT nor unix:PATH"),
    ],
)
def test_status_of_nobody(address: str, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", address]) == code
    printed = capsys.readouterr()
    assert printed.out == "" and text in printed.err
