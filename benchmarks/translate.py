"""A whole mesh, and changes in it.

    python -m benchmarks.translate --nodes 5000 --backends 10 [--sharing shared|unique] [--repeats 7]

Every sample runs in a fresh process, the kinds interleaved, and medians are shown. Before anything is timed
the translator's resources are compared with those of the plain path. The yardsticks are in the same run: the
plain path without a memo, envoy-data-plane building the same messages (a few nodes, multiplied out), protobuf
serialising messages that are built already, and copying the output's bytes once.
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
from collections.abc import Callable
from typing import Any

import msgspec

import appmesh_xds as am

from . import synthetic

#: Nodes that stand for all in the yardsticks whose cost per node does not depend on their number.
_SAMPLE = 200
_SAMPLE_DATA_PLANE = 4


def _resources(snapshot: am.Snapshot) -> list[am.Resource]:
    return [*snapshot.listeners, *snapshot.clusters, *snapshot.routes, *snapshot.endpoints]


def _names(nodes: int, count: int) -> list[str]:
    return [f"virtualNode/{synthetic.node_name(i)}" for i in range(min(nodes, count))]


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _load(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    text = msgspec.json.encode(synthetic.requests(nodes, backends, sharing))
    return {"load_us_per_node": _timed(lambda: am.loads(text)) / nodes * 1e6}


def _ours(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    mesh = synthetic.mesh(nodes, backends, sharing)
    gc.collect()
    translator = am.Translator()
    found: list[am.Snapshot] = []
    cold = _timed(lambda: found.extend(translator.translate_all(mesh)))
    values = [one.value for snapshot in found for one in _resources(snapshot)]
    copy = _timed(lambda: [bytes(bytearray(value)) for value in values])
    pause = _timed(gc.collect)
    gc.freeze()

    def change(data: Any) -> float:
        nonlocal mesh

        def work() -> None:
            nonlocal mesh
            mesh = mesh.replace(data)
            translator.update(mesh)

        return _timed(work)

    change(synthetic.changed_node(0, nodes, backends, sharing, 150))
    some = [step * 7 % nodes for step in range(1, 8)]
    node = statistics.median(
        change(synthetic.changed_node(i, nodes, backends, sharing, 200 + i)) for i in some
    )
    same = synthetic.changed_node(some[-1], nodes, backends, sharing, 200 + some[-1])
    return {
        "us_per_node": cold / nodes * 1e6,
        "copy_us_per_node": copy / nodes * 1e6,
        "bytes": float(sum(map(len, values))),
        "gc_pause_ms": pause * 1e3,
        "incremental_ms": node * 1e3,
        "route_ms": statistics.median(change(synthetic.changed_route(i, nodes, 5)) for i in some) * 1e3,
        "noop_ms": statistics.median(change(same) for _ in range(7)) * 1e3,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _plain(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    mesh = synthetic.mesh(nodes, backends, sharing)
    names = _names(nodes, _SAMPLE)
    am.translate(mesh, names[0])
    plain = _timed(lambda: [am.translate(mesh, name) for name in names]) / len(names)
    messages = [one.message() for name in names for one in _resources(am.translate(mesh, name))]
    raw = _timed(lambda: [one.SerializeToString(deterministic=True) for one in messages]) / len(names)
    return {"plain_us_per_node": plain * 1e6, "raw_us_per_node": raw * 1e6}


def _data_plane(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    from appmesh_xds import betterproto

    from .betterproto_literal import literal

    mesh = synthetic.mesh(nodes, backends, sharing)
    names = _names(nodes, _SAMPLE_DATA_PLANE)
    views = [betterproto.message(one) for name in names for one in _resources(am.translate(mesh, name))]
    build = literal(views)
    build()
    spent = _timed(lambda: [bytes(view) for view in build()]) / len(names)
    return {"data_plane_us_per_node": spent * 1e6}


def _equal(nodes: int, backends: int, sharing: synthetic.Sharing) -> dict[str, float]:
    mesh = synthetic.mesh(nodes, backends, sharing)
    for snapshot in am.Translator().translate_all(mesh)[: _SAMPLE * 5]:
        if snapshot != am.translate(mesh, snapshot.proxy):
            raise SystemExit(f"{snapshot.proxy}: the translator and the plain path differ")
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
    result["ratio_vs_naive_upb"] = result["plain_us_per_node"] / ours
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
    "us_per_node": "cold: every proxy's resources, µs a node",
    "ratio_vs_envoy_data_plane": "  times faster than envoy-data-plane",
    "ratio_vs_naive_upb": "  times faster than the plain path",
    "ratio_vs_raw_upb": "  over protobuf serialising built messages",
    "ratio_vs_copy": "  over copying the bytes",
    "incremental_ms": "one node changes, ms",
    "route_ms": "one route changes, ms",
    "noop_ms": "nothing changes, ms",
    "gc_pause_ms": "a full garbage collection, ms",
    "peak_mib": "peak memory, MiB",
    "bytes": "bytes of resources",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--backends", type=int, default=10)
    parser.add_argument("--sharing", choices=("shared", "unique"), default="shared")
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
        print(f"  {text:<48}{result[key]:>16,.2f}")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
