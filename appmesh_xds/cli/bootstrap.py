"""`appmesh-xds bootstrap`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import render
from ..bootstrap import XdsServer, ads_bootstrap, static_bootstrap, with_key_files
from ..errors import UsageError
from .common import (
    add_options,
    add_reading,
    add_strictness,
    command,
    options_of,
    read_mesh,
    refuses,
    report,
    status_of,
)
from .output import write_files


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "bootstrap",
        "write the file that Envoy is started with",
        "appmesh-xds bootstrap ./mesh --proxy virtualNode/colorgateway --static > envoy.yaml\n"
        "  appmesh-xds bootstrap --proxy virtualNode/colorgateway --mesh colors --xds 127.0.0.1:18000",
    )
    add_reading(parser, optional=True)
    add_options(parser)
    parser.add_argument(
        "--proxy", metavar="KIND/NAME", required=True, help="virtualNode/N or virtualGateway/N"
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--static", action="store_true", help="one file with every resource, needs no server")
    kind.add_argument("--xds", metavar="ADDRESS", help="control plane: HOST:PORT or unix:PATH")
    parser.add_argument("--out", metavar="DIR", help="write DIR/envoy.yaml, and key files that it refers to")
    group = parser.add_argument_group("with --xds")
    group.add_argument("--delta", action="store_true", help="incremental ADS")
    group.add_argument("--xds-ca", metavar="FILE", help="authority of the control plane: makes it TLS")
    group.add_argument("--xds-certificate", metavar="FILE", help="the proxy's certificate for it")
    group.add_argument("--xds-key", metavar="FILE", help="its key")
    group.add_argument("--xds-server-name", metavar="NAME", help="name the control plane must have")
    group.add_argument("--mesh-owner", metavar="ACCOUNT", help="owner of a shared mesh")
    add_strictness(parser, keep_going=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    return _static(arguments) if arguments.static else _ads(arguments)


def _static(arguments: argparse.Namespace) -> int:
    if not arguments.paths:
        raise UsageError("bootstrap --static needs a PATH to read specs from")
    options = options_of(arguments)
    mesh, warnings = read_mesh(arguments)
    folder = None if arguments.out is None else Path(arguments.out).resolve()
    files: dict[str, str | bytes] = {}
    private: list[str] = []
    if folder is not None:
        mesh, keys = with_key_files(mesh, str(folder))
        files.update({key.name: key.content for key in keys})
        private = [key.name for key in keys if key.private]
    made = static_bootstrap(mesh, arguments.proxy, options)
    problems = [*warnings, *made.snapshot.problems]
    report(problems)
    if refuses(problems, arguments):
        return 1
    text = render.to_yaml(render.to_dict(made.bootstrap))
    if folder is None:
        sys.stdout.write(text)
    else:
        write_files(folder, {**files, "envoy.yaml": text}, private=frozenset(private))
    return status_of(problems, arguments)


def _ads(arguments: argparse.Namespace) -> int:
    if arguments.mesh is None or arguments.paths:
        raise UsageError("bootstrap --xds takes --mesh NAME and no PATH: the control plane has the specs")
    if (arguments.xds_certificate is None) != (arguments.xds_key is None):
        raise UsageError("--xds-certificate and --xds-key belong together")
    if arguments.xds_ca is None and arguments.xds_certificate is not None:
        raise UsageError("--xds-certificate needs --xds-ca")
    server = XdsServer(
        arguments.xds,
        ca=arguments.xds_ca,
        certificate=arguments.xds_certificate,
        key=arguments.xds_key,
        server_name=arguments.xds_server_name,
    )
    made = ads_bootstrap(
        arguments.mesh,
        arguments.proxy,
        server,
        options_of(arguments),
        owner=arguments.mesh_owner,
        delta=arguments.delta,
    )
    text = render.to_yaml(render.to_dict(made))
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_files(Path(arguments.out), {"envoy.yaml": text})
    return 0
