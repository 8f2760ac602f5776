"""`appmesh-xds serve`"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from .outcome import command, report
from .reading import add_reading, pairs
from .rendering import add_options, options_of

#: Where Envoys find the server unless told otherwise.
ADDRESS: Final = "127.0.0.1:18000"


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "serve",
        "feed Envoys over ADS, and follow changes",
        "appmesh-xds serve ./mesh --watch",
    )
    add_reading(parser)
    add_options(parser)
    group = parser.add_argument_group("serving")
    group.add_argument(
        "--listen", metavar="ADDR", default=ADDRESS, help=f"HOST:PORT or unix:PATH (default {ADDRESS})"
    )
    group.add_argument("--log-format", choices=("text", "json"), default="text", help="of stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import logging

    from ..server import logs
    from ..server.daemon import Daemon
    from ..server.files import Files
    from ..server.meshes import Meshes
    from ..server.session import Settings

    files = Files(
        paths=tuple(arguments.paths),
        mesh=arguments.mesh,
        facts=arguments.facts,
        parameters=pairs(arguments.parameter, "--parameter"),
        imports=pairs(arguments.imports, "--import"),
        externals=pairs(arguments.external, "--external"),
    )
    daemon = Daemon(files, Meshes(options_of(arguments)))
    daemon.load()
    report(daemon.problems())
    sizes = ", ".join(f"{count} proxies of mesh {name}" for name, count in daemon.meshes.sizes().items())
    handler = logs.set_up(arguments.log_format, logging.INFO)
    try:
        asyncio.run(
            daemon.run(
                arguments.listen,
                Settings(),
                None,
                lambda address: print(f"listening on {address} ({sizes})", flush=True),
            )
        )
    finally:
        logging.getLogger().removeHandler(handler)
    return 0
