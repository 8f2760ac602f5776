"""`appmesh-xds convert`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from ..folders import File, publish
from ..writers import convert
from .outcome import add_strictness, command, refuses, report, status_of, write_text
from .reading import add_reading, read_mesh


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "convert",
        "write a mesh in another dialect",
        "appmesh-xds convert template.yaml --to kubernetes > mesh.yaml",
        usage="appmesh-xds convert PATH... --to DIALECT [OPTION]...",
    )
    add_reading(parser)
    parser.add_argument(
        "--to",
        choices=("api", "cloudformation", "kubernetes"),
        required=True,
        help="requests of the API, a template, or manifests of the controller",
    )
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="yaml (default) or json")
    parser.add_argument("--out", metavar="DIR", help="write files into DIR; for api one for each resource")
    parser.add_argument(
        "--lossy", action="store_true", help="write what the dialect can say, and warn of the rest"
    )
    add_strictness(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    mesh, warnings = read_mesh(arguments)
    converted = convert(mesh, arguments.to)
    lost = converted.problems
    if arguments.lossy:
        lost = tuple(msgspec.structs.replace(one, severity="warning", hint="") for one in lost)
    problems = [*warnings, *lost]
    report(problems)
    if refuses(problems, arguments):
        return 1
    if arguments.out is None:
        write_text(converted.to_text(arguments.format))
    else:
        files = {name: File(text.encode()) for name, text in converted.to_files(arguments.format).items()}
        publish(Path(arguments.out), files, writer="convert", replaces=lambda _: True)
    return status_of(problems, arguments)
