"""Everything that translations say, as plain values; as a program, in a process of its own.

`python told.py` reads pickled (resources, facts, options) cases and writes what is told of each.
"""

from __future__ import annotations

import pickle
import sys

from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.resource import TYPE_URLS
from appmesh_xds.snapshot import translate


def told(mesh: Mesh, options: Options) -> list[tuple[object, ...]]:
    """Of every proxy: the resources, where they come from, and the problems."""
    return [
        (
            proxy,
            [(url, one.name, one.value, one.origin) for url in TYPE_URLS for one in snapshot.resources(url)],
            [str(problem) for problem in snapshot.problems],
        )
        for proxy in mesh.proxies()
        for snapshot in (translate(mesh, proxy, options),)
    ]


if __name__ == "__main__":
    cases = pickle.load(sys.stdin.buffer)
    answers = [told(Mesh.of(*resources).replace(**facts), options) for resources, facts, options in cases]
    sys.stdout.buffer.write(pickle.dumps(answers))
