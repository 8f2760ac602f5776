"""How a command looks to its user: help, problems, output, exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..errors import Problem, errors_in

#: Where a server tells this machine how it is, unless told otherwise.
ADMIN_ADDRESS: Final = "127.0.0.1:18001"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Examples as they stand, and room for long flags before their text."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)


def command(commands: Any, name: str, summary: str, example: str, usage: str = "") -> argparse.ArgumentParser:
    """A subcommand with its summary and an example."""
    result: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        # All flags in a row would fill half a screen; they are listed below it anyway.
        usage=usage or f"appmesh-xds {name} PATH... [OPTION]...",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    return result


def seconds(least: float) -> Callable[[str], float]:
    """A type of arguments: a time of so many seconds at least, and of a day at most."""

    def of(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not least <= value <= 86400:  # nan is not, either
            raise argparse.ArgumentTypeError(f"{text}: expected {least:g} to 86400 seconds")
        return value

    return of


def write_text(text: str) -> None:
    """To stdout, in UTF-8 whatever the locale: it is read by Envoy."""
    sys.stdout.flush()
    rest = memoryview(text.encode())
    while rest:
        # With PYTHONUNBUFFERED, as in many containers, a write may take a part only.
        rest = rest[sys.stdout.buffer.write(rest) :]


def add_strictness(parser: argparse.ArgumentParser, *, keep_going: bool = True) -> None:
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    if keep_going:
        parser.add_argument("--keep-going", action="store_true", help="write what can be written")


def report(problems: Sequence[Problem]) -> None:
    """Every problem on a line of stderr, each once."""
    for problem in dict.fromkeys(problems):
        # Texts from specs stand in it, and must neither break the line nor steer a terminal.
        line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(problem))
        print(line, file=sys.stderr)


def refuses(problems: Sequence[Problem], arguments: argparse.Namespace) -> bool:
    """Whether these problems mean that nothing is written."""
    if getattr(arguments, "keep_going", False):
        return False
    return bool(problems if arguments.strict else errors_in(problems))


def status_of(problems: Sequence[Problem], arguments: argparse.Namespace) -> int:
    return 1 if (problems if arguments.strict else errors_in(problems)) else 0
