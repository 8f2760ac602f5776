"""The flags of `Options`, and the file that holds them."""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import UsageError
from ..options import Options
from .cloud_map import add_cloud_map

_PORT: Final = re.compile(r"[0-9]{1,5}")
_PROXY: Final = re.compile(r"(mesh/[^/]+/)?virtual(Node|Gateway)/.+", re.DOTALL)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How specs are rendered: flags for every field of Options."""
    group = parser.add_argument_group("rendering")
    group.add_argument(
        "--options", metavar="FILE", help="YAML with any of these, and `proxies:` of single ones"
    )
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
    group.add_argument(
        "--file-certificates",
        choices=("inline", "sds"),
        help="certificates in files of the proxy's: inline (default): read once; sds: again when replaced",
    )
    group.add_argument("--sds-socket", metavar="PATH", help="unix socket of the local SDS service")
    for flag, summary in _SWITCHES.items():
        group.add_argument(flag, action="store_const", const=True, help=summary)
    add_cloud_map(parser)


_SWITCHES = {
    "--single-hop": "gateways route in one step",
    "--send-sni": "send the discovery name as SNI",
    "--legacy-defaults": "meshes of accounts older than 2020-07-29",
}


class Rendering(NamedTuple):
    """Options for all proxies, and those of single ones."""

    options: Options
    #: By `KIND/NAME` or `mesh/M/KIND/NAME`.
    proxies: Mapping[str, Options] = {}

    def of(self, mesh: str, proxy: str) -> Options:
        """The options of a proxy, `KIND/NAME`."""
        own = self.proxies.get(f"mesh/{mesh}/{proxy}") or self.proxies.get(proxy)
        return self.options if own is None else own


def rendering_of(arguments: argparse.Namespace) -> Rendering:
    """Options from --options FILE; from the flags, which win over it; and for single proxies from what stands
    under `proxies:` in the file, which wins over both. Raises UsageError."""
    said = {} if arguments.options is None else _options_file(arguments.options)
    own = said.pop("proxies", None) or {}
    base = Options() if arguments.options is None else _convert(said, Options(), arguments.options)
    options = _with_flags(base, arguments)
    if not isinstance(own, dict) or not all(isinstance(one, dict) for one in own.values()):
        raise UsageError(f"--options {arguments.options}: proxies: expected KIND/NAME: {{options}}")
    wrong = [name for name in own if not _PROXY.fullmatch(str(name))]
    if wrong:
        hint = "virtualNode/NAME or mesh/MESH/virtualNode/NAME"
        raise UsageError(f"--options {arguments.options}: proxies: {wrong[0]!r} is no proxy: {hint}")
    proxies = {
        str(name): _checked(_convert(_values(one), options, f"{arguments.options}: proxies: {name}"))
        for name, one in own.items()
    }
    return Rendering(options, proxies)


def _with_flags(base: Options, arguments: argparse.Namespace) -> Options:
    values: dict[str, Any] = {}
    for name in ("interception", "bind", "app_address", "admin_address", "sds_socket", "file_certificates"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    if arguments.cloud_map is not None:
        values["cloud_map"] = "dns" if arguments.cloud_map == "dns" else "endpoints"
    for name in ("single_hop", "send_sni", "legacy_defaults"):
        if getattr(arguments, name):
            values[name] = True
    for name in ("egress_port", "admin_port"):
        given = getattr(arguments, name)
        if given is not None:
            values[name] = _port(given, f"--{name.replace('_', '-')}")
    for one, many in (("ingress_port", "ingress_ports"), ("app_port", "app_ports"), (None, "tcp_egress")):
        _add_ports(values, arguments, one, many, dict(getattr(base, many)))
    return _checked(msgspec.structs.replace(base, **values))


def _checked(options: Options) -> Options:
    for name in ("bind", "app_address", "admin_address"):
        address = getattr(options, name)
        if address is not None and not _is_ip(address):
            raise UsageError(f"--{name.replace('_', '-')} {address}: is not an IP address")
    if options.sds_socket is not None and not _is_text(options.sds_socket):
        raise UsageError("--sds-socket: an empty path, or one that is not text")
    return options


def _options_file(path: str) -> dict[str, Any]:
    from ..readers.text import values_of

    value: Any = next(iter(values_of(path, "--options")), {})
    if not isinstance(value, dict):
        raise UsageError(f"--options {path}: expected a mapping of options")
    return {key: item if key == "proxies" else _ports_of_mapping(item) for key, item in _named(value)}


def _values(said: dict[Any, Any]) -> dict[str, Any]:
    return {key: _ports_of_mapping(item) for key, item in _named(said)}


def _named(said: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Names as the struct has them."""
    return ((str(key).replace("-", "_"), item) for key, item in said.items())


def _convert(said: Mapping[str, Any], base: Options, place: str) -> Options:
    """Options like `base`, but for what is said."""
    try:
        return msgspec.convert({**msgspec.structs.asdict(base), **said}, Options)
    except msgspec.ValidationError as error:
        raise UsageError(f"--options {place}: {error}") from None


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
