"""`appmesh-xds translate`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import render
from ..errors import Problem
from ..resource import TYPE_NAMES
from ..snapshot import Snapshot, translate
from .common import (
    add_options,
    add_reading,
    add_strictness,
    chosen,
    command,
    options_of,
    read_mesh,
    refuses,
    report,
    status_of,
)
from .output import file_name, write_files


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "translate",
        "write the Envoy resources of proxies",
        "appmesh-xds translate ./mesh --proxy virtualNode/colorgateway",
    )
    add_reading(parser)
    add_options(parser)
    parser.add_argument(
        "--proxy", metavar="KIND/NAME", action="append", help="virtualNode/N or virtualGateway/N (all)"
    )
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="yaml (default) or json")
    parser.add_argument("--out", metavar="DIR", help="write DIR/<mesh>/<kind>/<name>/<type>.<format>")
    add_strictness(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments)
    mesh, warnings = read_mesh(arguments)
    snapshots = [translate(mesh, proxy, options) for proxy in chosen(mesh, arguments.proxy)]
    problems: list[Problem] = [*warnings, *(problem for one in snapshots for problem in one.problems)]
    report(problems)
    if refuses(problems, arguments):
        return 1
    if arguments.out is not None:
        write_files(Path(arguments.out), files_of(snapshots, arguments.format))
    elif arguments.format == "json":
        sys.stdout.write(render.to_json({name_of(one): one.to_dict() for one in snapshots}))
    else:
        sys.stdout.write("---\n".join(f"# {name_of(one)}\n{one.to_yaml()}" for one in snapshots))
    return status_of(problems, arguments)


def name_of(snapshot: Snapshot) -> str:
    """`mesh/M/virtualNode/N`; a line break in a name cannot end the comment it stands in."""
    return "".join(char if char.isprintable() else "?" for char in snapshot.node_id)


def files_of(snapshots: list[Snapshot], style: str) -> dict[str, str | bytes]:
    """One file for each type of each proxy."""
    files: dict[str, str | bytes] = {}
    for snapshot in snapshots:
        kind, _, name = snapshot.proxy.partition("/")
        folder = f"{file_name(snapshot.mesh)}/{kind}/{file_name(name)}"
        data = snapshot.to_dict()
        for type_name in TYPE_NAMES:
            part: dict[str, Any] = {type_name: data[type_name]}
            text = render.to_json(part) if style == "json" else render.to_yaml(part)
            files[f"{folder}/{type_name}.{style}"] = text
    return files
