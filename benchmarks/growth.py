"""What a change and a further backend cost as the mesh grows.

    python -m benchmarks.growth [--small 1000] [--large 20000] [--repeats 5]

One node changes in a small and in a large mesh; nodes have 10 and 20 backends. Samples are those of
`benchmarks.translate`, in fresh processes that take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics

from .translate import _sample

#: Key -> what it is, for people.
TABLE = {
    "incremental_small_ms": "one node changes in the small mesh, ms",
    "incremental_large_ms": "one node changes in the large mesh, ms",
    "incremental_growth": "  large over small",
    "backend_us": "one further backend a node, µs",
    "backend_naive_us": "the same, constructors without a memo, µs",
    "backend_ratio": "  times cheaper",
}


def measure(small: int, large: int, repeats: int) -> dict[str, float]:
    """Medians over fresh processes, and the ratios between them."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, nodes in (("small", small), ("large", large)):
            sample = _sample("ours", nodes, 10, "shared")
            found.setdefault(f"incremental_{name}_ms", []).append(sample["incremental_ms"])
        for backends in (10, 20):
            ours = _sample("ours", small, backends, "shared")["us_per_node"]
            naive = _sample("plain", small, backends, "shared")["naive_us_per_node"]
            found.setdefault(f"ours_{backends}", []).append(ours)
            found.setdefault(f"naive_{backends}", []).append(naive)
    result = {key: statistics.median(values) for key, values in found.items()}
    result["incremental_growth"] = result["incremental_large_ms"] / result["incremental_small_ms"]
    result["backend_us"] = (result.pop("ours_20") - result.pop("ours_10")) / 10
    result["backend_naive_us"] = (result.pop("naive_20") - result.pop("naive_10")) / 10
    result["backend_ratio"] = result["backend_naive_us"] / result["backend_us"]
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    result = measure(options.small, options.large, options.repeats)
    print(f"{options.small} and {options.large} nodes, medians of {options.repeats}")
    for key, text in TABLE.items():
        print(f"  {text:<48}{result[key]:>16,.2f}")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
