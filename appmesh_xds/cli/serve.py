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
    group.add_argument("--watch", action="store_true", help="follow changes of the files (SIGHUP does too)")
    group.add_argument("--state", metavar="DIR", help="keep the last good snapshots over restarts, less keys")
    group.add_argument(
        "--drain", metavar="SECONDS", type=_seconds, default=5.0, help="spread the end of streams (5)"
    )
    group.add_argument("--log-format", choices=("text", "json"), default="text", help="of stderr")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 86400:  # nan is not, either
        raise argparse.ArgumentTypeError(f"{text}: expected 0 to 86400 seconds")
    return value


def run(arguments: argparse.Namespace) -> int:
    import logging

    from ..readers import Reader
    from ..server import logs
    from ..server.daemon import Daemon
    from ..server.files import Files
    from ..server.meshes import Meshes
    from ..server.session import Settings
    from ..server.state import State

    reader = Reader(
        *arguments.paths,
        mesh=arguments.mesh,
        parameters=pairs(arguments.parameter, "--parameter"),
        imports=pairs(arguments.imports, "--import"),
        externals=pairs(arguments.external, "--external"),
    )
    files = Files(reader, mesh=arguments.mesh, facts=arguments.facts)
    state = None if arguments.state is None else State(arguments.state)
    daemon = Daemon(files, Meshes(options_of(arguments)), state)
    daemon.start()
    report(daemon.problems())
    sizes = ", ".join(f"{count} proxies of mesh {name}" for name, count in daemon.meshes.sizes().items())
    handler = logs.set_up(arguments.log_format, logging.INFO)

    def ready(address: str) -> None:
        print(f"listening on {address} ({sizes or 'what was kept'})", flush=True)

    settings = Settings(drain=arguments.drain)
    try:
        asyncio.run(daemon.run(arguments.listen, ready, settings=settings, watch=arguments.watch))
    finally:
        logging.getLogger().removeHandler(handler)
    return 0
