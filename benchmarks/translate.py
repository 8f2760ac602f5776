"""A whole mesh, and changes in it.

    python -m benchmarks.translate --nodes 5000 --backends 10 [--sharing shared|unique|mixed] [--repeats 7]

Every sample runs in a fresh process, the kinds interleaved, and medians are shown. Before anything is timed
the translator's resources are compared with those of the plain path, with and without templates. The
yardsticks are in the same run: the constructors without any memo, envoy-data-plane building the same
messages (a few nodes, multiplied out), protobuf serialising messages that are built already, and copying the
output's bytes once.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import appmesh_xds as am
from appmesh_xds import proto
from appmesh_xds.envoy import templates
from appmesh_xds.resource import TYPE_NAMES
from appmesh_xds.server import wire

from . import synthetic

#: Nodes that stand for all in the yardsticks whose cost per node does not depend on their number.
_SAMPLE = 1000
_SAMPLE_DATA_PLANE = 4


def _resources(snapshot: am.Snapshot) -> list[am.Resource]:
    return [*snapshot.listeners, *snapshot.clusters, *snapshot.routes, *snapshot.endpoints]


def _names(mesh: am.Mesh, count: int) -> list[str]:
    """Proxies spread over the mesh."""
    proxies = mesh.proxies()
    step = max(1, len(proxies) // count)
    return list(proxies[::step][:count])


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _responses(snapshot: am.Snapshot, kinds: Iterable[str]) -> list[bytes]:
    """What a server would send: one response a type."""
    return [
        wire.response(url, snapshot.version(url), "1", found)
        for kind, url in TYPE_NAMES.items()
        if kind in kinds and (found := snapshot.resources(url))
    ]


class _Pauses:
    """The longest pause of the garbage collector since it was asked last, in milliseconds."""

    def __init__(self) -> None:
        self._start = self._longest = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._start = time.perf_counter()
        else:
            self._longest = max(self._longest, time.perf_counter() - self._start)

    def longest(self) -> float:
        found, self._longest = self._longest * 1e3, 0.0
        return found


def _load(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    text = synthetic.text(nodes, backends, sharing)
    gc.collect()
    return {"load_us_per_node": _timed(lambda: am.loads(text)) / nodes * 1e6}


def _prepared(nodes: int, backends: int, sharing: synthetic.Sharing) -> am.Mesh:
    """The mesh; and protobuf's classes, which take 50 ms to load, are there."""
    mesh = synthetic.mesh(nodes, backends, sharing)
    assert proto.Listener and proto.Cluster
    gc.collect()
    return mesh


def _ours(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    mesh = _prepared(nodes, backends, sharing)
    translator, pauses = am.Translator(), _Pauses()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    translating = _timed(lambda: translator.translate_all(mesh))
    state = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    gc.collect()
    result = {"gc_full_ms": pauses.longest()} | _output(translator.translate_all(mesh), nodes)
    translating_us = translating / nodes * 1e6
    result |= {
        "translate_us_per_node": translating_us,
        "us_per_node": translating_us + result["responses_us_per_node"],
        "state_ratio": state / result["bytes"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    gc.freeze()  # as a server does
    pauses.longest()
    result |= _changes(nodes, backends, sharing, mesh, translator)
    return result | {"gc_pause_ms": pauses.longest()}


def _output(found: list[am.Snapshot], nodes: int) -> dict[str, float]:
    """What can be done with the bytes: count them, copy them, make responses of them."""
    values = [one.value for snapshot in found for one in _resources(snapshot)]
    copying = _timed(lambda: [bytes(bytearray(value)) for value in values])
    joining = _timed(lambda: [_responses(one, TYPE_NAMES) for one in found])
    return {
        "bytes": float(sum(map(len, values))),
        "copy_us_per_node": copying / nodes * 1e6,
        "responses_us_per_node": joining / nodes * 1e6,
    }


def _changes(
    nodes: int, backends: int, sharing: synthetic.Sharing, mesh: am.Mesh, translator: am.Translator
) -> dict[str, float]:
    """Medians of changes, each from `Mesh.replace` to the bytes of every response that changed."""
    if sharing == "mixed":
        return {}
    changed: list[am.Change] = []

    def change(data: Any) -> float:
        nonlocal mesh, changed

        def work() -> None:
            nonlocal mesh, changed
            mesh = mesh.replace(data)
            changed = translator.update(mesh)
            for one in changed:
                if one.snapshot is not None:
                    _responses(one.snapshot, one.differences)

        return _timed(work)

    change(synthetic.changed_node(0, nodes, backends, sharing, 150))
    some = [step * 7 % nodes for step in range(1, 16)]
    node = [change(synthetic.changed_node(i, nodes, backends, sharing, 200 + i)) for i in some]
    reached = len(changed)
    same = synthetic.changed_node(some[-1], nodes, backends, sharing, 200 + some[-1])
    noop = [change(same) for _ in some]
    route = [change(synthetic.changed_route(i, nodes, 5)) for i in some]
    policy = [change(synthetic.changed_policy(i, nodes, backends, sharing, 300)) for i in some]
    return {
        "incremental_ms": statistics.median(node) * 1e3,
        "incremental_proxies": float(reached),
        "route_ms": statistics.median(route) * 1e3,
        "policy_ms": statistics.median(policy) * 1e3,
        "noop_ms": statistics.median(noop) * 1e3,
    }


def _plain(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    mesh = _prepared(nodes, backends, sharing)
    names = _names(mesh, _SAMPLE)
    scale = len(mesh.proxies()) / nodes / len(names) * 1e6

    def translate() -> list[am.Snapshot]:
        return [am.translate(mesh, name) for name in names]

    def answer() -> None:
        for snapshot in translate():
            _serialised(_built_responses(snapshot))

    answer()
    plain = _timed(answer)
    with templates.off():
        naive = _timed(answer)
    found = translate()
    built = [one.message() for snapshot in found for one in _resources(snapshot)]
    built += [response for snapshot in found for response in _built_responses(snapshot)]
    raw = _timed(lambda: _serialised(built))
    return {
        "plain_us_per_node": plain * scale,
        "naive_us_per_node": naive * scale,
        "raw_us_per_node": raw * scale,
    }


def _built_responses(snapshot: am.Snapshot) -> list[Any]:
    """A snapshot's responses as messages of protobuf's own runtime."""
    made = []
    for url in TYPE_NAMES.values():
        response = proto.DiscoveryResponse(version_info=snapshot.version(url), type_url=url, nonce="1")
        response.resources.extend(resource.any() for resource in snapshot.resources(url))
        made.append(response)
    return made


def _serialised(messages: Iterable[Any]) -> list[bytes]:
    return [message.SerializeToString(deterministic=True) for message in messages]


def _data_plane(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    from appmesh_xds import betterproto

    from .betterproto_literal import literal

    mesh = synthetic.mesh(nodes, backends, sharing)
    names = _names(mesh, _SAMPLE_DATA_PLANE)
    views = [betterproto.message(one) for name in names for one in _resources(am.translate(mesh, name))]
    build = literal(views)
    build()
    spent = _timed(lambda: [bytes(view) for view in build()]) / len(names)
    return {"data_plane_us_per_node": spent * len(mesh.proxies()) / nodes * 1e6}


def _equal(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    mesh = synthetic.mesh(nodes, backends, sharing)
    made = {snapshot.proxy: snapshot for snapshot in am.Translator().translate_all(mesh)}
    for name in _names(mesh, _SAMPLE):
        with templates.off():
            naive = am.translate(mesh, name)
        if not made[name] == am.translate(mesh, name) == naive:
            raise SystemExit(f"{name}: the translator and the plain path differ")
    return {}


KINDS: dict[str, Callable[[int, int, synthetic.Sharing], dict[str, float]]] = {
    "load": _load,
    "ours": _ours,
    "plain": _plain,
    "data_plane": _data_plane,
}


def measure(nodes: int, backends: int, sharing: synthetic.Sharing, repeats: int) -> dict[str, float]:
    """Medians over fresh processes, and the ratios between them."""
    found: dict[str, list[float]] = {}
    _sample("equal", nodes, backends, sharing)
    for _ in range(repeats):
        for kind in KINDS:
            for key, value in _sample(kind, nodes, backends, sharing).items():
                found.setdefault(key, []).append(value)
    result = {key: statistics.median(values) for key, values in found.items()}
    ours = result["us_per_node"]
    result["ratio_vs_envoy_data_plane"] = result["data_plane_us_per_node"] / ours
    result["ratio_vs_naive_upb"] = result["naive_us_per_node"] / ours
    result["ratio_vs_plain"] = result["plain_us_per_node"] / ours
    result["ratio_vs_raw_upb"] = ours / result["raw_us_per_node"]
    result["ratio_vs_copy"] = ours / result["copy_us_per_node"]
    return result


def _sample(kind: str, nodes: int, backends: int, sharing: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.translate", "--sample", kind]
    command += ["--nodes", str(nodes), "--backends", str(backends), "--sharing", sharing]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    sample: dict[str, float] = json.loads(done.stdout)
    return sample


#: Key -> what it is, for people.
TABLE = {
    "load_us_per_node": "specs from JSON text, µs a node",
    "us_per_node": "cold: every proxy's responses, µs a node",
    "ratio_vs_envoy_data_plane": "  times faster than envoy-data-plane",
    "ratio_vs_naive_upb": "  times faster than the constructors, no memo",
    "ratio_vs_plain": "  times faster than translate(), proxy by proxy",
    "ratio_vs_raw_upb": "  over protobuf serialising built messages",
    "ratio_vs_copy": "  over copying the bytes",
    "translate_us_per_node": "  of these, resources, versioned",
    "responses_us_per_node": "  and responses, joined of them",
    "incremental_ms": "one node changes, ms",
    "incremental_proxies": "  proxies that change with it",
    "route_ms": "one route changes, ms",
    "policy_ms": "one node's client policies change, ms",
    "noop_ms": "nothing changes, ms",
    "gc_pause_ms": "longest pause for garbage during changes, ms",
    "gc_full_ms": "a full collection without gc.freeze(), ms",
    "state_ratio": "memory of the state over the output's bytes",
    "peak_mib": "peak memory, MiB",
    "bytes": "bytes of resources",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--sharing", choices=("shared", "unique", "mixed"), default="shared")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sample", choices=("equal", *KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    size = (options.nodes, options.backends, options.sharing)
    if options.sample:
        print(json.dumps((_equal if options.sample == "equal" else KINDS[options.sample])(*size)))
        return
    result = measure(*size, options.repeats)
    print(
        f"{options.nodes} nodes, {options.backends} backends each, {options.sharing} policies, "
        f"medians of {options.repeats}"
    )
    for key, text in TABLE.items():
        if key in result:
            print(f"  {text:<48}{result[key]:>16,.2f}")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
