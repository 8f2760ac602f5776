"""`appmesh-xds serve`"""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from ..errors import UsageError
from .cloud_map import add_interval, due, source_of
from .outcome import ADMIN_ADDRESS, command, report, seconds
from .reading import add_reading, outside
from .rendering import add_options, rendering_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..server.security import Security

#: Where Envoys find the server unless told otherwise.
ADDRESS: Final = "127.0.0.1:18000"
#: PATH=KIND/NAME, with a mesh or as an ARN. Both sides may hold "=".
_BINDING: Final = re.compile(r"(.+)=((?:arn:[^/]+:)?(?:mesh/[^/]+/)?virtual(?:Node|Gateway)/.+)", re.DOTALL)
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


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
        "--listen",
        metavar="ADDR|off",
        default=ADDRESS,
        help=f"HOST:PORT or unix:PATH (default {ADDRESS}); 'off' leaves it to --unix",
    )
    group.add_argument(
        "--unix",
        metavar="PATH=KIND/NAME",
        action="append",
        default=[],
        help="a unix socket of one proxy (mesh/M/KIND/NAME where there are several meshes): who may open it "
        "is that proxy, and is given its private keys; may be repeated",
    )
    group.add_argument(
        "--unix-mode", metavar="MODE", type=_mode, help="of unix sockets (0600, or 0660 with --unix-group)"
    )
    group.add_argument("--unix-group", metavar="GROUP", type=_group, help="of unix sockets, name or number")
    group.add_argument("--watch", action="store_true", help="follow changes of the files (SIGHUP does too)")
    add_interval(group)
    group.add_argument("--state", metavar="DIR", help="keep the last good snapshots over restarts, less keys")
    group.add_argument(
        "--drain", metavar="SECONDS", type=seconds(0), default=5.0, help="spread the end of streams (5)"
    )
    group.add_argument(
        "--max-connection-age",
        metavar="SECONDS",
        type=seconds(0),
        default=1800.0,
        help="end connections after so long, a tenth more or less (1800)",
    )
    _add_security(parser)
    _add_operations(parser)
    parser.set_defaults(run=run)


def _add_security(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("security")
    group.add_argument(
        "--tls-certificate", metavar="FILE", help="the server's certificate chain: makes it TLS"
    )
    group.add_argument("--tls-key", metavar="FILE", help="its key; both are read again when they change")
    group.add_argument("--client-ca", metavar="FILE", help="authority of clients: makes it mutual TLS")
    group.add_argument(
        "--trust-domain",
        metavar="DOMAIN",
        help="a client may ask for the proxy of its SPIFFE id: spiffe://DOMAIN/mesh/MESH/virtualNode/NAME",
    )
    group.add_argument(
        "--identities", metavar="FILE", help="YAML: a URI or DNS name of a certificate to [KIND/NAME, ...]"
    )
    group.add_argument(
        "--no-client-auth", action="store_true", help="TLS alone beyond loopback; private keys are withheld"
    )
    group.add_argument(
        "--insecure-serve-keys", action="store_true", help="give private keys to whoever is on this machine"
    )


def _add_operations(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("operations")
    group.add_argument(
        "--admin-listen",
        metavar="ADDR|off",
        default=ADMIN_ADDRESS,
        help="metrics and state for this machine, also for 'appmesh-xds status': a loopback HOST:PORT or "
        f"unix:PATH (default {ADMIN_ADDRESS})",
    )
    group.add_argument(
        "--probe-listen", metavar="ADDR", help="/healthz, /readyz and /metrics alone, for whoever may connect"
    )
    group.add_argument("--log-format", choices=("text", "json"), default="text", help="of stderr")
    group.add_argument("--log-level", choices=tuple(_LEVELS), default="info", help="how much of it")


def _security(arguments: argparse.Namespace) -> Security:
    from ..server.identity import identities
    from ..server.listeners import MODE
    from ..server.security import security
    from ..server.tls import ServerTls

    certificate, key, ca = arguments.tls_certificate, arguments.tls_key, arguments.client_ca
    listen = None if arguments.listen == "off" else arguments.listen
    sockets = _sockets(arguments.unix)
    if listen is None:
        if not sockets:
            raise UsageError("--listen off needs --unix: else nobody can connect")
        for name in _OF_LISTEN:
            if getattr(arguments, name):
                raise UsageError(f"--{name.replace('_', '-')} does not go with --listen off")
    if not sockets and (listen is None or not listen.startswith("unix:")):
        for flag, value in (("--unix-mode", arguments.unix_mode), ("--unix-group", arguments.unix_group)):
            if value is not None:
                raise UsageError(f"{flag} needs --unix, or --listen unix:PATH")
    if (certificate is None) != (key is None):
        raise UsageError("--tls-certificate and --tls-key go together")
    if certificate is None and (ca is not None or arguments.no_client_auth):
        flag = "--no-client-auth" if ca is None else "--client-ca"
        raise UsageError(f"{flag} needs --tls-certificate and --tls-key")
    tls = certificate and ServerTls(certificate=certificate, private_key=key, client_ca=ca)
    group = arguments.unix_group
    return security(
        listen,
        tls,
        identities(arguments.trust_domain, arguments.identities),
        client_auth=not arguments.no_client_auth,
        insecure_keys=arguments.insecure_serve_keys,
        sockets=sockets,
        mode=arguments.unix_mode if arguments.unix_mode is not None else MODE if group is None else 0o660,
        group=group,
    )


#: Arguments that say how `--listen` is secured.
_OF_LISTEN: Final = (
    "tls_certificate",
    "tls_key",
    "client_ca",
    "trust_domain",
    "identities",
    "no_client_auth",
    "insecure_serve_keys",
)


def _sockets(given: list[str]) -> dict[str, str]:
    """Paths of unix sockets, each with its proxy."""
    from ..server.source import resource_name, without_owner

    found: dict[str, str] = {}
    for text in given:
        read = _BINDING.fullmatch(text)
        if read is None:
            raise UsageError(f"--unix {text}: expected PATH=virtualNode/NAME or PATH=virtualGateway/NAME")
        path, proxy = read[1], without_owner(resource_name(read[2]))
        if found.setdefault(path, proxy) != proxy:
            raise UsageError(f"--unix {path}: a socket is for one proxy")
    return found


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"{text}: expected an octal mode as 0660")
    return int(text, 8)


def _group(text: str) -> int:
    import grp

    try:
        return int(text) if text.isascii() and text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group {text}") from None


def run(arguments: argparse.Namespace) -> int:
    import logging

    from ..readers import Reader
    from ..server import logs
    from ..server.daemon import Daemon
    from ..server.discovery import Discovery
    from ..server.files import Files
    from ..server.meshes import Meshes
    from ..server.session import Settings
    from ..server.state import State

    reader = Reader(*arguments.paths, **outside(arguments))
    files = Files(reader, mesh=arguments.mesh, facts=arguments.facts)
    state = None if arguments.state is None else State(arguments.state)
    rendering = rendering_of(arguments)
    meshes = Meshes(rendering.options, proxies=rendering.proxies)
    source = source_of(arguments)
    discovery = None if source is None else Discovery(meshes, source)
    daemon = Daemon(files, meshes, _security(arguments), state, discovery)
    report(daemon.start())
    sizes = ", ".join(f"{count} proxies of mesh {name}" for name, count in daemon.meshes.sizes().items())
    handler = logs.set_up(arguments.log_format, _LEVELS[arguments.log_level])

    def ready(addresses: Sequence[str]) -> None:
        print(f"listening on {', '.join(addresses)} ({sizes or 'what was kept'})", flush=True)

    settings = Settings(drain=arguments.drain, connection_age=arguments.max_connection_age)
    try:
        asyncio.run(
            daemon.run(
                ready,
                settings=settings,
                watch=arguments.watch,
                due=due(discovery, arguments),
                admin=None if arguments.admin_listen == "off" else arguments.admin_listen,
                probe=arguments.probe_listen,
            )
        )
    finally:
        logging.getLogger().removeHandler(handler)
    return 0
