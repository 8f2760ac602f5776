"""Options that several commands have, and what they mean."""

from __future__ import annotations

import argparse
import ipaddress
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import Problem, SpecErrors, UsageError, errors_in
from ..mesh import Mesh
from ..options import Options
from ..readers import Reading, read

_PORT: Final = re.compile(r"[0-9]{1,5}")
_EXAMPLES = argparse.RawDescriptionHelpFormatter


def command(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A subcommand with its summary and an example."""
    result: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=_EXAMPLES,
        allow_abbrev=False,
    )
    return result


# --- reading ------------------------------------------------------------------------------------------


def add_reading(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Paths and what is said about them from outside."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*" if optional else "+",
        help="file or folder with specs; KIND/NAME=PATH for a spec that does not say what it is",
    )
    group = parser.add_argument_group("reading")
    group.add_argument("--mesh", metavar="NAME", help="the mesh to take; also of specs that name none")
    group.add_argument("--facts", metavar="FILE", help="YAML with certificates, authorities and endpoints")
    group.add_argument(
        "--parameter", metavar="KEY=VALUE", action="append", default=[], help="CloudFormation parameter"
    )
    group.add_argument(
        "--import",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="imports",
        help="CloudFormation export of another stack",
    )
    group.add_argument(
        "--external",
        metavar="LOGICAL.ATTR=VALUE",
        action="append",
        default=[],
        help="attribute of a resource that is not App Mesh's",
    )


def read_paths(arguments: argparse.Namespace) -> Reading:
    return read(
        *arguments.paths,
        mesh=arguments.mesh,
        parameters=_pairs(arguments.parameter, "--parameter"),
        imports=_pairs(arguments.imports, "--import"),
        externals=_pairs(arguments.external, "--external"),
    )


def read_mesh(arguments: argparse.Namespace) -> tuple[Mesh, tuple[Problem, ...]]:
    """The mesh with its facts, and the readers' problems, which are warnings unless --keep-going is given.

    Raises SpecErrors.
    """
    reading = read_paths(arguments)
    return mesh_of(reading, arguments), reading.problems


def mesh_of(reading: Reading, arguments: argparse.Namespace) -> Mesh:
    """The mesh that was asked for, with its facts. Raises SpecErrors, with the problems of both."""
    problems = list(reading.problems)
    facts = None
    if arguments.facts is not None:
        from ..readers.facts import load_facts

        try:
            facts = load_facts(arguments.facts)
        except SpecErrors as error:
            problems.extend(error.problems)
    if getattr(arguments, "keep_going", False) and reading.resources:
        reading = msgspec.structs.replace(reading, problems=())
    try:
        mesh = reading.mesh(arguments.mesh)
    except SpecErrors as error:
        raise SpecErrors(dict.fromkeys([*error.problems, *problems])) from None
    if arguments.facts is None:
        return mesh
    if facts is None:
        raise SpecErrors(problems)
    return facts.apply(mesh)


def _pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {text}: expected KEY=VALUE")
        found[key] = value
    return found


# --- options ------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """How specs are rendered: flags for every field of Options."""
    group = parser.add_argument_group("rendering")
    group.add_argument("--options", metavar="FILE", help="YAML with any of the options below")
    group.add_argument(
        "--interception",
        choices=("redirect", "none"),
        help="redirect (default): behind iptables, as App Mesh; none: applications connect to the proxy",
    )
    group.add_argument("--bind", metavar="ADDRESS", help="address that listeners bind")
    group.add_argument(
        "--ingress-port", metavar="[LISTENER=]PORT", action="append", help="port to bind for a listener"
    )
    group.add_argument("--egress-port", metavar="PORT", help="port of the egress listener (15001)")
    group.add_argument(
        "--tcp-egress", metavar="SERVICE_PORT=PORT", action="append", help="port to bind for a TCP backend"
    )
    group.add_argument("--app-address", metavar="ADDRESS", help="where the application listens (loopback)")
    group.add_argument(
        "--app-port", metavar="[LISTENER=]PORT", action="append", help="port of the application"
    )
    group.add_argument("--admin-address", metavar="ADDRESS", help="Envoy's admin endpoint (127.0.0.1)")
    group.add_argument("--admin-port", metavar="PORT", help="its port (9901)")
    group.add_argument("--sds-socket", metavar="PATH", help="unix socket of the local SDS service")
    for flag, summary in _SWITCHES.items():
        group.add_argument(flag, action="store_const", const=True, help=summary)


_SWITCHES = {
    "--single-hop": "gateways route in one step",
    "--send-sni": "send the discovery name as SNI",
    "--legacy-defaults": "meshes of accounts older than 2020-07-29",
}


def options_of(arguments: argparse.Namespace) -> Options:
    """Options from --options FILE, and from the flags, which win. Raises UsageError."""
    base = Options() if arguments.options is None else _options_file(arguments.options)
    values: dict[str, Any] = {}
    for name in ("interception", "bind", "app_address", "admin_address", "sds_socket"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    for name in ("single_hop", "send_sni", "legacy_defaults"):
        if getattr(arguments, name):
            values[name] = True
    for name in ("egress_port", "admin_port"):
        given = getattr(arguments, name)
        if given is not None:
            values[name] = _port(given, f"--{name.replace('_', '-')}")
    for one, many in (("ingress_port", "ingress_ports"), ("app_port", "app_ports"), (None, "tcp_egress")):
        _add_ports(values, arguments, one, many, dict(getattr(base, many)))
    options = msgspec.structs.replace(base, **values)
    for name in ("bind", "app_address", "admin_address"):
        address = getattr(options, name)
        if address is not None and not _is_ip(address):
            raise UsageError(f"--{name.replace('_', '-')} {address}: is not an IP address")
    if options.sds_socket is not None and not _is_text(options.sds_socket):
        raise UsageError("--sds-socket: an empty path, or one that is not text")
    return options


def _options_file(path: str) -> Options:
    from ..readers.text import documents, read_bytes

    content = read_bytes(Path(path))
    if isinstance(content, Problem):
        raise UsageError(f"--options {content.file}: {content.message}")
    found, problems = documents(content, path)
    if problems:
        raise UsageError("\n".join(f"--options {problem}" for problem in problems))
    value = found[0].value if found else {}
    if not isinstance(value, dict):
        raise UsageError(f"--options {path}: expected a mapping of options")
    values = {str(key).replace("-", "_"): _ports_of_mapping(item) for key, item in value.items()}
    try:
        return msgspec.convert(values, Options)
    except msgspec.ValidationError as error:
        raise UsageError(f"--options {path}: {error}") from None


def _ports_of_mapping(item: Any) -> Any:
    """`{8080: 18080}` (or `{"8080": 18080}`, as JSON has it) for `[[8080, 18080]]`."""
    if not isinstance(item, dict):
        return item
    return [[int(k) if isinstance(k, str) and _PORT.fullmatch(k) else k, v] for k, v in item.items()]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # a zone is for the machine it was written on


def _is_text(text: str) -> bool:
    """Whether Envoy can be told: arguments that are no UTF-8 hold surrogates."""
    return bool(text) and "\0" not in text and not re.search("[\ud800-\udfff]", text)


def _port(text: str, flag: str) -> int:
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise UsageError(f"{flag} {text}: a port is a number from 1 to 65535")
    return int(text)


def _add_ports(
    values: dict[str, Any],
    arguments: argparse.Namespace,
    one: str | None,
    many: str,
    pairs: dict[int, int],
) -> None:
    """A repeatable flag whose value is `PORT` (for the option `one`) or `LISTENER=PORT` (for `many`)."""
    dest = one or many
    flag = f"--{dest.replace('_', '-')}"
    for text in getattr(arguments, dest) or ():
        left, equals, right = text.rpartition("=")
        if equals:
            pairs[_port(left, flag)] = _port(right, flag)
            values[many] = tuple(sorted(pairs.items()))
        elif one is None:
            raise UsageError(f"{flag} {text}: expected SERVICE_PORT=PORT")
        else:
            values[one] = _port(right, flag)


# --- outcomes -----------------------------------------------------------------------------------------


def write_text(text: str) -> None:
    """To stdout, in UTF-8 whatever the locale: it is read by Envoy."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())


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


def chosen(mesh: Mesh, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The proxies asked for, or all. Raises UsageError for one that is not there, SpecErrors for none."""
    if wanted:
        return tuple(dict.fromkeys(f"{data.kind}/{data.name}" for data in map(mesh.proxy, wanted)))
    if not mesh.proxies():
        raise SpecErrors([Problem(message=f"mesh {mesh.name} has no virtual node and no virtual gateway")])
    return mesh.proxies()
