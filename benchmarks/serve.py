"""The server with many streams.

    python -m benchmarks.serve [--streams 1000 5000] [--backends 10] [--rounds 7]

Processes: our server, a bare grpc.aio server that pushes constant bytes of the same sizes, the same with its
garbage collector set as ours, and simulated Envoys of them all (a connection and a stream each) that
acknowledge every response. Rounds take turns: one push to each stream of a server, then of the next. Then
come changes to specs, and a restart. Last a real Envoy.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from appmesh_xds.certs import certificate_authority, issue_certificate

from . import real


class Process:
    """A Python module in a process of its own that answers a JSON line with a JSON line."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Setting:
    """What one comparison is about."""

    def __init__(self, options: argparse.Namespace, streams: int, folder: Path, tls: bool) -> None:
        self.streams = streams
        self.backends: int = options.backends
        self.rounds: int = options.rounds
        self.file = folder / f"{streams}.pickle"
        self.tls = _certificates(folder) if tls else None
        if not self.file.exists():
            size = ["--nodes", str(streams), "--backends", str(self.backends)]
            command = [sys.executable, "-m", "benchmarks.served", "make", str(self.file), *size]
            subprocess.run(command, check=True)

    def server(self, kind: str, port: int = 0) -> Process:
        tls = ["--tls", json.dumps(self.tls)] if self.tls else []
        return Process("served", kind, str(self.file), "--port", str(port), *tls)


def _certificates(folder: Path) -> dict[str, str]:
    """One authority; a certificate for localhost that server and clients share."""
    files = {name: str(folder / f"{name}.pem") for name in ("ca", "certificate", "key")}
    if not Path(files["ca"]).exists():
        authority = certificate_authority("benchmark")
        made = issue_certificate(authority, ["localhost"])
        Path(files["ca"]).write_bytes(authority.certificate_chain)
        Path(files["certificate"]).write_bytes(made.certificate_chain)
        key = Path(files["key"])
        key.touch(mode=0o600)
        key.write_bytes(made.private_key)
    return files


def compare(setting: Setting) -> dict[str, float]:
    """Ours and the bare ones, in turns."""
    streams = setting.streams
    with (
        setting.server("ours") as ours,
        setting.server("bare") as bare,
        setting.server("settled") as settled_bare,
        Process("envoys") as envoys,
    ):
        memory, servers = {}, {"ours": ours, "bare": bare, "settled": settled_bare}
        for name, server in servers.items():
            port = server.answer()["port"]
            more = {"kind": "sotw" if name == "ours" else "silent", "port": port, "tls": setting.tls}
            # What the first streams load is of the process, not of a stream.
            envoys.ask(fleet="first", do="connect", count=min(10, streams), **more)
            server.ask(do="settle", streams=min(10, streams))
            envoys.ask(fleet="first", do="close")
            started = server.ask(do="ready")
            envoys.ask(fleet=name, do="connect", count=streams, **more)
            settled = server.ask(do="settle", streams=streams)
            memory[name] = (settled["resident"] - started["resident"]) / streams
        for server in servers.values():  # what is done for the first time is not counted
            server.ask(do="round", what="prepared")
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        wire = envoys.ask(fleet="ours", do="count")
        for _ in range(setting.rounds):
            for name, server in servers.items():
                samples[name].append(server.ask(do="round", what="prepared"))
        after = envoys.ask(fleet="ours", do="count")
        ours.ask(do="specs", backends=setting.backends)
        changes = {
            what: [ours.ask(do="round", what=what) for _ in range(setting.rounds + 1)][1:]
            for what in ("node", "route", "routes")
        }
        settled = ours.ask(do="settle", streams=streams)
        for name in servers:
            counts = envoys.ask(fleet=name, do="count")
            if counts["lost"] or counts["ended"]:
                raise SystemExit(f"streams of {name} broke: {counts}")
    pushes = setting.rounds * streams
    return {
        "cpu_us": _median(samples["ours"], "cpu") / streams * 1e6,
        "bare_cpu_us": _median(samples["bare"], "cpu") / streams * 1e6,
        "cpu_ratio": _ratio(samples, "bare", "cpu"),
        "settled_cpu_us": _median(samples["settled"], "cpu") / streams * 1e6,
        "settled_cpu_ratio": _ratio(samples, "settled", "cpu"),
        "round_ms": _median(samples["ours"], "seconds") * 1e3,
        "bare_round_ms": _median(samples["bare"], "seconds") * 1e3,
        "round_ratio": _ratio(samples, "bare", "seconds"),
        "settled_round_ratio": _ratio(samples, "settled", "seconds"),
        "kib_per_stream": memory["ours"],
        "bare_kib_per_stream": memory["bare"],
        "kib_above_bare": memory["ours"] - memory["bare"],
        "push_bytes": _median(samples["ours"], "bytes") / streams,
        "bare_push_bytes": _median(samples["bare"], "bytes") / streams,
        "wire_bytes_down": (after["received"] - wire["received"]) / pushes,
        "wire_bytes_up": (after["sent"] - wire["sent"]) / pushes,
        "one_node_ms": _median(changes["node"], "seconds") * 1e3,
        "one_node_translation_ms": _median(changes["node"], "translation") * 1e3,
        "one_node_pushes": _median(changes["node"], "pushes"),
        "one_route_ms": _median(changes["route"], "seconds") * 1e3,
        "one_route_translation_ms": _median(changes["route"], "translation") * 1e3,
        "one_route_pushes": _median(changes["route"], "pushes"),
        "every_node_ms": _median(changes["routes"], "seconds") * 1e3,
        "every_node_translation_ms": _median(changes["routes"], "translation") * 1e3,
    }


def _median(samples: list[dict[str, float]], key: str) -> float:
    return statistics.median(sample[key] for sample in samples)


def _ratio(samples: dict[str, list[dict[str, float]]], other: str, key: str) -> float:
    """The median of the ratios of rounds that followed each other."""
    pairs = zip(samples["ours"], samples[other], strict=True)
    return statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)


def restart(setting: Setting) -> dict[str, float]:
    """The server is killed and started again with nothing changed; Delta streams come back."""
    streams, more = setting.streams, {"kind": "delta", "count": setting.streams, "tls": setting.tls}
    with Process("envoys") as envoys:
        with setting.server("ours") as first:
            port = first.answer()["port"]
            envoys.ask(fleet="ours", do="connect", port=port, **more)
            first.ask(do="settle", streams=streams)
        given = envoys.ask(fleet="ours", do="close")
        with setting.server("ours", port) as second:
            second.answer()
            before = second.ask(do="settle", streams=0)
            envoys.ask(fleet="ours", do="connect", port=port, **more)
            after = second.ask(do="settle", streams=streams)
            resent = envoys.ask(fleet="ours", do="count")
            second.ask(do="round", what="prepared")
            alive = envoys.ask(fleet="ours", do="count")
    return {
        "resources_at_first": given["resources"],
        "resources_re_sent": resent["resources"] - given["resources"],
        "responses_re_sent": resent["responses"] - given["responses"],
        "cpu_us_per_reconnect": (after["cpu"] - before["cpu"]) / streams * 1e6,
        "responses_to_a_change": alive["responses"] - resent["responses"],
    }


#: Key -> what it is, for people.
TABLE = {
    "cpu_us": "server CPU for a push and its ACK, µs",
    "bare_cpu_us": "  of the bare server",
    "cpu_ratio": "  ratio",
    "settled_cpu_us": "  of the bare server with our garbage collection",
    "settled_cpu_ratio": "  ratio",
    "round_ms": "one push to each stream until the last ACK, ms",
    "bare_round_ms": "  of the bare server",
    "round_ratio": "  ratio",
    "settled_round_ratio": "  ratio, with our garbage collection there too",
    "kib_per_stream": "memory of a stream, KiB",
    "bare_kib_per_stream": "  of the bare server",
    "kib_above_bare": "  above it",
    "push_bytes": "bytes of a push",
    "wire_bytes_down": "  with HTTP/2's framing, before TLS",
    "wire_bytes_up": "  bytes of its ACK",
    "one_node_ms": "one node's spec changes, until the last ACK, ms",
    "one_node_translation_ms": "  of these for translation",
    "one_node_pushes": "  pushes that come of it",
    "one_route_ms": "one route's spec changes, until the last ACK, ms",
    "one_route_translation_ms": "  of these for translation",
    "one_route_pushes": "  pushes that come of it",
    "every_node_ms": "every route's spec changes, until the last ACK, ms",
    "every_node_translation_ms": "  of these for translation",
}
RESTART = {
    "resources_at_first": "resources given before",
    "resources_re_sent": "resources sent again, nothing having changed",
    "responses_re_sent": "responses sent again",
    "cpu_us_per_reconnect": "server CPU for a stream that comes back, µs",
}
REAL = {
    "routes_ms": "a route's spec changes, until a real Envoy's ACK, ms",
    "routes_worst_ms": "  the slowest of them",
    "clusters_ms": "a cluster's, until its ACK (Envoy builds it anew), ms",
    "endpoints_ms": "an instance of a Cloud Map node moves, until its ACK, ms",
    "file_ms": "the file of a route changes, until its ACK, ms",
    "files": "  of so many files, a resource in each",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tls", choices=("off", "on", "both"), default="both", help="plaintext, mutual TLS")
    options = parser.parse_args(arguments)
    _allow_sockets(max(options.streams))
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for streams in options.streams:
            for tls in {"off": (False,), "on": (True,), "both": (False, True)}[options.tls]:
                name = f"{streams} streams, {'mutual TLS' if tls else 'plaintext'}"
                found = result[name] = compare(Setting(options, streams, Path(folder), tls))
                _show(f"{name}, medians of {options.rounds} rounds", TABLE, found)
        streams = options.streams[0]
        name = f"restart, {streams} Delta streams"
        result[name] = restart(Setting(options, streams, Path(folder), False))
        _show(name, RESTART, result[name])
        result["a real Envoy"] = real.measure(Path(folder), nodes=streams, changes=3 * options.rounds)
        _show(f"a real Envoy, in a mesh of {streams} nodes", REAL, result["a real Envoy"])
    print(json.dumps({name: {k: round(v, 3) for k, v in found.items()} for name, found in result.items()}))


def _allow_sockets(streams: int) -> None:
    """A socket for each stream, of three servers in the process of the Envoys."""
    needed = 3 * streams + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"{needed} open files are needed, {hard} may be: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


def _show(title: str, table: dict[str, str], found: dict[str, float]) -> None:
    print(title)
    for key, text in table.items():
        if key in found:
            print(f"  {text:<56}{found[key]:>14,.2f}")
    print(flush=True)


if __name__ == "__main__":
    main()
