"""The command line: files in, files out. It holds no logic of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..errors import SpecErrors, TranslationErrors, UsageError
from . import bootstrap, check, convert, dev_certs, serve, status, translate
from .outcome import HelpFormatter, report

__all__ = ["main"]

_COMMANDS = (translate, bootstrap, check, convert, serve, status, dev_certs)

_EPILOG = """\
exit status: 0 fine, 1 problems in the specs (each on a line of stderr), 2 wrong usage.
'appmesh-xds COMMAND --help' shows a command's options and an example.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from .. import __version__

    result = argparse.ArgumentParser(
        prog="appmesh-xds",
        usage="appmesh-xds COMMAND [OPTION]...",
        description="AWS App Mesh specs to Envoy v3 xDS resources.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("--version", action="version", version=f"appmesh-xds {__version__}")
    commands = result.add_subparsers(title="commands", metavar="COMMAND [OPTION]...", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit status."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except (SpecErrors, TranslationErrors) as error:
        report(error.problems)
        return 1
    except UsageError as error:
        print(f"appmesh-xds: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Python would complain again while ending.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"appmesh-xds: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
