"""`appmesh-xds check`"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..lint import check
from ..readers import Reading
from .outcome import add_strictness, command, report, status_of
from .reading import add_reading, chosen, mesh_of, read_paths
from .rendering import add_options, rendering_of


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "check",
        "say every problem, and let Envoy validate the result",
        "appmesh-xds check ./mesh --envoy auto",
    )
    add_reading(parser)
    add_options(parser)
    parser.add_argument("--proxy", metavar="KIND/NAME", action="append", help="check only these")
    parser.add_argument(
        "--envoy",
        metavar="auto|PATH|off",
        default="auto",
        help="the Envoy to ask: found by itself (default), this one, none",
    )
    parser.add_argument("--real-files", action="store_true", help="let Envoy open the files specs name")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what was read and what was not")
    add_strictness(parser, keep_going=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    rendering = rendering_of(arguments)
    reading = read_paths(arguments)
    if arguments.verbose:
        _tell(reading)
    mesh, problems_read = mesh_of(reading, arguments)
    proxies = chosen(mesh, arguments.proxy) if arguments.proxy else None
    found = check(
        mesh,
        rendering.options,
        proxies=proxies,
        own={proxy: rendering.of(mesh.name, proxy) for proxy in mesh.proxies()},
        envoy=arguments.envoy,
        real_files=arguments.real_files,
    )
    problems = [*problems_read, *found.problems]
    report(problems)
    count = len(proxies if proxies is not None else mesh.proxies())
    warnings = sum(problem.severity == "warning" for problem in problems)
    errors = len(problems) - warnings
    print(f"mesh {mesh.name}: {count} proxies, {errors} errors, {warnings} warnings; {found.envoy}")
    return status_of(problems, arguments)


def _tell(reading: Reading) -> None:
    for file in reading.files:
        kinds = ", ".join(f"{number} {kind}" for kind, number in file.kinds.items()) or "nothing"
        dialects = f" ({', '.join(file.dialects)})" if file.dialects else ""
        print(f"{file.path}: {kinds}{dialects}", file=sys.stderr)
        for reason in file.skipped:
            print(f"{file.path}: passed over: {reason}", file=sys.stderr)
