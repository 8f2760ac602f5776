"""`appmesh-xds translate`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import render
from ..errors import Problem
from ..folders import File, file_name, publish
from ..resource import TYPE_NAMES
from ..snapshot import Snapshot, translate
from .outcome import add_strictness, command, refuses, report, status_of, write_text
from .reading import add_reading, chosen, read_mesh
from .rendering import add_options, rendering_of


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
    rendering = rendering_of(arguments)
    mesh, warnings = read_mesh(arguments)
    snapshots = [
        translate(mesh, proxy, rendering.of(mesh.name, proxy)) for proxy in chosen(mesh, arguments.proxy)
    ]
    problems: list[Problem] = [*warnings, *(problem for one in snapshots for problem in one.problems)]
    report(problems)
    if refuses(problems, arguments):
        return 1
    if arguments.out is not None:
        folders = [file_name(mesh.name)] if arguments.proxy is None else map(folder_of, snapshots)
        below = tuple(f"{folder}/" for folder in folders)
        publish(
            Path(arguments.out),
            files_of(snapshots, arguments.format),
            writer="translate",
            # What other meshes left there stays, and with --proxy that of other proxies too.
            replaces=lambda path: path.startswith(below),
        )
    elif arguments.format == "json":
        write_text(render.to_json({name_of(one): one.to_dict() for one in snapshots}))
    else:
        write_text("---\n".join(f"# {name_of(one)}\n{one.to_yaml()}" for one in snapshots))
    return status_of(problems, arguments)


def name_of(snapshot: Snapshot) -> str:
    """`mesh/M/virtualNode/N`; a line break in a name cannot end the comment it stands in."""
    return "".join(char if char.isprintable() else "?" for char in snapshot.node_id)


def folder_of(snapshot: Snapshot) -> str:
    """Where a proxy's files go: `<mesh>/<kind>/<name>`."""
    kind, _, name = snapshot.proxy.partition("/")
    return f"{file_name(snapshot.mesh)}/{kind}/{file_name(name)}"


def files_of(snapshots: list[Snapshot], style: str) -> dict[str, File]:
    """One file for each type of each proxy."""
    files: dict[str, File] = {}
    for snapshot in snapshots:
        data = snapshot.to_dict()
        for type_name in TYPE_NAMES:
            part: dict[str, Any] = {type_name: data[type_name]}
            text = render.to_json(part) if style == "json" else render.to_yaml(part)
            files[f"{folder_of(snapshot)}/{type_name}.{style}"] = File(text.encode())
    return files
