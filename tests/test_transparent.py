"""Behind iptables, as App Mesh ran: two network namespaces of our own, and rules that redirect.

One namespace holds the application and its Envoy, the other what it calls. Needs root, `ip netns` and
iptables (`APPMESH_XDS_IPTABLES` names another binary, with its libraries in LD_LIBRARY_PATH and
XTABLES_LIBDIR).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pairs import backend, data, listener, node, service
from proxies import static_proxy
from real_envoy import envoy_path

import appmesh_xds as am
from appmesh_xds.facts import Endpoint

NEAR, FAR = "10.217.0.1", "10.217.0.2"
PROXY_UID = "1337"
IPTABLES = os.environ.get("APPMESH_XDS_IPTABLES") or shutil.which("iptables")
_numbers = itertools.count()

#: Runs in a namespace: an HTTP server that says what it saw, and a TCP one that echoes.
SERVER: Final = """
import http.server, socketserver, sys, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"app {self.headers.get('host')} {self.path}".encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class E(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100): self.request.sendall(data)
address, http_port, tcp_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
socketserver.ThreadingTCPServer.allow_reuse_address = True
servers = [http.server.ThreadingHTTPServer((address, http_port), H),
           socketserver.ThreadingTCPServer((address, tcp_port), E)]
for server in servers: threading.Thread(target=server.serve_forever, daemon=True).start()
print("up", flush=True); threading.Event().wait()
"""
#: One request on a socket: sends what it is given, prints what comes back or what went wrong.
CLIENT: Final = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as sock:
        sock.sendall(sys.argv[3].encode())
        data = sock.recv(4000)
        while data.startswith(b"HTTP/") and (more := sock.recv(4000)): data += more
        print(data.decode() if data else "closed")
except OSError as error:
    print("reset" if isinstance(error, ConnectionResetError) else type(error).__name__)
"""


class Namespace:
    """A network namespace that this test made."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *arguments]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, address: str, port: int, text: str) -> str:
        return self.run(sys.executable, "-c", CLIENT, address, str(port), text).strip()

    def get(self, address: str, port: int, host: str) -> str:
        """Status and body of a request, or how it failed."""
        text = f"GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        answer = self.ask(address, port, text)
        if not answer.startswith("HTTP/"):
            return answer
        head, _, body = answer.partition("\n\n")
        return f"{head.split()[1]} {body}".strip()

    def admin(self, path: str) -> str:
        code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
        return self.run(sys.executable, "-c", code, f"http://127.0.0.1:9901{path}")


@pytest.fixture
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if IPTABLES is None or shutil.which("ip") is None:
        pytest.skip("needs iptables and ip")
    stem = f"amx{os.getpid()}x{next(_numbers)}"
    near, far = Namespace(f"{stem}n"), Namespace(f"{stem}f")
    made = subprocess.run(["ip", "netns", "add", near.name], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        subprocess.run(["ip", "netns", "add", far.name], check=True)
        pair = [
            "ip",
            "link",
            "add",
            "v0",
            "netns",
            near.name,
            "type",
            "veth",
            "peer",
            "v0",
            "netns",
            far.name,
        ]
        subprocess.run(pair, check=True)
        for one, address in ((near, NEAR), (far, FAR)):
            one.run("ip", "link", "set", "lo", "up")
            one.run("ip", "addr", "add", f"{address}/24", "dev", "v0")
            one.run("ip", "link", "set", "v0", "up")
        yield near, far
    finally:
        for one in (near, far):
            subprocess.run(["ip", "netns", "del", one.name], check=False)


def _redirect(near: Namespace, app_port: int) -> None:
    """The rules of App Mesh's route manager, as far as one application needs them."""
    assert IPTABLES is not None
    for rule in (
        "-N APPMESH_EGRESS",
        f"-A APPMESH_EGRESS -m owner --uid-owner {PROXY_UID} -j RETURN",
        "-A APPMESH_EGRESS -p tcp -j REDIRECT --to-port 15001",
        "-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j APPMESH_EGRESS",
        f"-A PREROUTING -p tcp -m addrtype ! --src-type LOCAL --dport {app_port} -j REDIRECT --to-port 15000",
    ):
        near.run(IPTABLES, "-t", "nat", *rule.split())


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)


def _until(reached: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if reached():
            return
        time.sleep(0.05)
    pytest.fail(what)


@contextlib.contextmanager
def _running(near: Namespace, far: Namespace, egress: str, folder: Path) -> Iterator[None]:
    """An application with its Envoy in `near`, behind the rules; servers in `far`."""
    resources = [
        data("mesh", "pair", {"egressFilter": {"type": egress}}),
        node("front", [listener(8080)], backends=[backend("svc.local"), backend("tcp.local")]),
        service("svc.local", to_node="back"),
        service("tcp.local", to_node="echo"),
        node("back", [listener(80)]),
        node("echo", [listener(7000, "tcp")]),
    ]
    endpoints = {name: (Endpoint(address=FAR),) for name in ("back", "echo")}
    mesh = am.Mesh.of(*resources).replace(endpoints=endpoints)
    config = folder / "envoy.json"
    config.write_text(json.dumps(static_proxy(mesh, "virtualNode/front")))
    envoy = [envoy_path(), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
    as_proxy = ["setpriv", "--reuid", PROXY_UID, "--clear-groups"]
    shutil.copy2(envoy_path(), folder / "envoy")  # where the proxy's user may read it
    folder.chmod(0o755)
    for parent in list(folder.parents)[:3]:
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o055)
    envoy[0] = str(folder / "envoy")

    def server(one: Namespace, address: str, port: int, tcp: int, name: str) -> Any:
        command = one.command(sys.executable, "-c", SERVER, address, str(port), str(tcp))
        return _process(command, folder / f"{name}.log")

    with contextlib.ExitStack() as stack:
        stack.enter_context(server(near, "127.0.0.1", 8080, 8081, "near"))
        stack.enter_context(server(far, FAR, 80, 7000, "far"))
        stack.enter_context(server(far, FAR, 81, 7001, "more"))
        stack.enter_context(_process(near.command(*as_proxy, *envoy), folder / "envoy.log"))
        for name in ("near", "far", "more"):
            _until(lambda name=name: "up" in (folder / f"{name}.log").read_text(), f"{name} is not up")

        def ready() -> bool:
            try:
                return "LIVE" in near.admin("/ready")
            except AssertionError:
                return False

        _until(ready, (folder / "envoy.log").read_text())
        _redirect(near, 8080)
        yield


#: What the application does -> what comes of it under ALLOW_ALL and under DROP_ALL.
EGRESS: Final = (
    (lambda near: near.get(FAR, 80, "svc.local"), "200 app svc.local /x", "200 app svc.local /x"),
    (lambda near: near.get(FAR, 80, "other.host"), "200 app other.host /x", "404"),
    (lambda near: near.ask(FAR, 7000, "hello"), "hello", "hello"),
    (lambda near: near.ask(FAR, 7001, "hello"), "hello", "reset"),
    (lambda near: near.get(FAR, 81, "svc.local"), "200 app svc.local /x", "reset"),
    # Straight to the proxy's own port: no loop, whatever the host.
    (lambda near: near.get(NEAR, 15001, "other.host"), "closed", "closed"),
)


@pytest.mark.parametrize(("egress", "column"), [("ALLOW_ALL", 0), ("DROP_ALL", 1)])
def test_redirected(
    egress: str, column: int, namespaces: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    near, far = namespaces
    with _running(near, far, egress, tmp_path):
        found = [act(near) for act, *_ in EGRESS]
        expected = [row[1 + column] for row in EGRESS]
        # A chain that does not exist resets, or closes, as the timing has it.
        assert [{"closed": "reset"}.get(one, one) for one in found] == [
            {"closed": "reset"}.get(one, one) for one in expected
        ]
        # From outside, the application is reached through the ingress listener.
        assert far.get(NEAR, 8080, "front") == "200 app front /x"
        stats = near.admin("/stats?filter=ingress.*rq_2xx|upstream_cx_total")
        assert "http.ingress.downstream_rq_2xx: 1" in stats
        loops = "cluster.cds_egress_pair_mesh-allow-all.upstream_cx_total"
        counts = dict(line.split(": ") for line in stats.splitlines() if ": " in line)
        assert int(counts.get(loops, "0")) == (3 if egress == "ALLOW_ALL" else 0)
