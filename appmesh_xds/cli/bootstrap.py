"""`appmesh-xds bootstrap`"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from .. import proto, render
from ..bootstrap import XdsServer, ads_bootstrap, server_files, static_bootstrap
from ..errors import UsageError
from ..folders import File, publish
from ..secret_files import KeyFile
from .outcome import add_strictness, command, refuses, report, status_of, write_text
from .reading import add_reading, chosen, read_mesh
from .rendering import add_options, rendering_of

_NAME: Final = "envoy.yaml"


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "bootstrap",
        "write the file that Envoy is started with",
        "appmesh-xds bootstrap ./mesh --proxy virtualNode/colorgateway --static > envoy.yaml\n"
        "  appmesh-xds bootstrap --proxy virtualNode/colorgateway --mesh colors --xds 127.0.0.1:18000",
        usage="appmesh-xds bootstrap PATH... --proxy KIND/NAME --static [OPTION]...\n"
        "       appmesh-xds bootstrap --proxy KIND/NAME --mesh NAME --xds ADDRESS [OPTION]...",
    )
    add_reading(parser, optional=True)
    add_options(parser)
    parser.add_argument(
        "--proxy", metavar="KIND/NAME", required=True, help="virtualNode/N or virtualGateway/N"
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--static", action="store_true", help="one file with every resource, needs no server")
    kind.add_argument("--xds", metavar="ADDRESS", help="control plane: HOST:PORT or unix:PATH")
    parser.add_argument("--out", metavar="DIR", help="write DIR/envoy.yaml, and the files that it refers to")
    group = parser.add_argument_group("with --xds")
    group.add_argument("--delta", action="store_true", help="incremental ADS")
    group.add_argument(
        "--initial-fetch-timeout",
        metavar="SECONDS",
        type=float,
        default=0,
        help="say ready with nothing to serve after so long without an answer (0: wait for ever)",
    )
    group.add_argument("--xds-ca", metavar="FILE", help="authority of the control plane: makes it TLS")
    group.add_argument("--xds-certificate", metavar="FILE", help="the proxy's certificate for it")
    group.add_argument("--xds-key", metavar="FILE", help="its key")
    group.add_argument("--xds-server-name", metavar="NAME", help="name the control plane must have")
    group.add_argument("--mesh-owner", metavar="ACCOUNT", help="owner of a shared mesh")
    add_strictness(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    return _static(arguments) if arguments.static else _ads(arguments)


def _static(arguments: argparse.Namespace) -> int:
    if not arguments.paths:
        raise UsageError("bootstrap --static needs a PATH to read specs from")
    rendering = rendering_of(arguments)
    mesh, warnings = read_mesh(arguments)
    (proxy,) = chosen(mesh, [arguments.proxy])
    options = rendering.of(mesh.name, proxy)
    folder = _folder(arguments)
    made = static_bootstrap(
        mesh, arguments.proxy, options, key_folder=None if folder is None else str(folder)
    )
    problems = [*warnings, *made.snapshot.problems]
    report(problems)
    if refuses(problems, arguments):
        return 1
    _write(made.bootstrap, folder, made.files)
    return status_of(problems, arguments)


def _ads(arguments: argparse.Namespace) -> int:
    if arguments.mesh is None or arguments.paths:
        raise UsageError("bootstrap --xds takes --mesh NAME and no PATH: the control plane has the specs")
    server = XdsServer(
        arguments.xds,
        ca=arguments.xds_ca,
        certificate=arguments.xds_certificate,
        key=arguments.xds_key,
        server_name=arguments.xds_server_name,
    )
    options = rendering_of(arguments).of(arguments.mesh, arguments.proxy)
    folder = _folder(arguments)
    made = ads_bootstrap(
        arguments.mesh,
        arguments.proxy,
        server,
        options,
        owner=arguments.mesh_owner,
        delta=arguments.delta,
        initial_fetch_timeout=arguments.initial_fetch_timeout,
        key_folder=None if folder is None else str(folder),
    )
    _write(made, folder, server_files(server, options))
    return 0


def _folder(arguments: argparse.Namespace) -> Path | None:
    """Where to write, in full: Envoy may run elsewhere."""
    return None if arguments.out is None else Path(arguments.out).absolute()


def _write(bootstrap: proto.Bootstrap, folder: Path | None, beside: Iterable[KeyFile]) -> None:
    """To stdout, or to `envoy.yaml` in a folder, beside the files it refers to."""
    text = render.to_yaml(render.to_dict(bootstrap))
    files = {file.name: File(file.content, 0o600 if file.private else 0o644) for file in beside}
    if folder is None:
        write_text(text)
    else:
        # A bootstrap lies in the folder itself, resources of `translate` below it.
        publish(folder, {**files, _NAME: File(text.encode())}, writer="bootstrap", replaces=lambda _: True)
