"""One node's resources: built and serialised here, and the same messages with envoy-data-plane.

    python -m benchmarks.node

The messages are the same: both are serialised, parsed by one runtime and compared before anything is timed.
envoy-data-plane builds them from dataclasses that are written out as a literal, which is the fastest way it
has; what it costs to decide what to build is on our side alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import appmesh_xds as am
from appmesh_xds import betterproto, proto

from . import synthetic
from .betterproto_literal import literal


def _median(work: Callable[[], Any], seconds: float) -> float:
    """Microseconds of one call: the median of at least five."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def measure(backends: int, seconds: float) -> dict[str, float]:
    """Times, in microseconds, and their ratio."""
    mesh = synthetic.mesh(max(backends * 3, 3), backends)
    proxy = "virtualNode/" + synthetic.node_name(0)
    snapshot = am.translate(mesh, proxy)
    resources = [*snapshot.listeners, *snapshot.clusters, *snapshot.routes, *snapshot.endpoints]
    views = [betterproto.message(resource) for resource in resources]
    build = literal(views)
    for resource, view in zip(resources, build(), strict=True):
        kind = proto.message_class(resource.type_url.rpartition("/")[2])
        if kind.FromString(bytes(view)) != resource.message():
            raise SystemExit(f"{resource.name} differs between the runtimes")
    ours = _median(lambda: am.translate(mesh, proxy), seconds)
    theirs = _median(lambda: [bytes(view) for view in build()], seconds)
    return {
        "resources": len(resources),
        "bytes": sum(len(resource.value) for resource in resources),
        "us_appmesh_xds": round(ours, 1),
        "us_envoy_data_plane": round(theirs, 1),
        "ratio_vs_envoy_data_plane": round(theirs / ours, 1),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backends", type=int, default=10, help="backends of the node (10)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each side (3)")
    options = parser.parse_args(arguments)
    found = measure(options.backends, options.seconds)
    print(
        f"one virtual node, {options.backends} backends: {found['resources']:.0f} resources, "
        f"{found['bytes']:.0f} bytes"
    )
    print(f"  specs to serialised resources, appmesh_xds    {found['us_appmesh_xds']:>12,.0f} µs")
    print(f"  the same messages, envoy-data-plane           {found['us_envoy_data_plane']:>12,.0f} µs")
    print(f"  ratio                                         {found['ratio_vs_envoy_data_plane']:>12,.1f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
