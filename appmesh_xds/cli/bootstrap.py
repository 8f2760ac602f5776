"""`appmesh-xds bootstrap`"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .. import names, render
from ..bootstrap import XdsServer, ads_bootstrap, server_files, static_bootstrap
from ..environment import Environment, Identity, from_environment
from ..errors import Problem, UsageError
from ..folders import File, publish
from ..fragments import merge, merge_files
from ..options import Options
from ..readers.text import documents, read_bytes
from ..secret_files import KeyFile
from .outcome import add_strictness, command, refuses, report, status_of, write_text
from .reading import add_reading, chosen, read_mesh
from .rendering import add_options, rendering_of

if TYPE_CHECKING:
    from .. import proto

_NAME: Final = "envoy.yaml"
#: Options that variables may say, when neither flags nor --options do.
_OPTIONS: Final = ("admin_address", "admin_port", "sds_socket")


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "bootstrap",
        "write the file that Envoy is started with",
        "appmesh-xds bootstrap ./mesh --proxy virtualNode/colorgateway --static > envoy.yaml\n"
        "  appmesh-xds bootstrap --proxy virtualNode/colorgateway --mesh colors --xds 127.0.0.1:18000\n"
        "  APPMESH_RESOURCE_ARN=... APPMESH_XDS_ENDPOINT=... appmesh-xds bootstrap --environment",
        usage="appmesh-xds bootstrap PATH... --proxy KIND/NAME --static [OPTION]...\n"
        "       appmesh-xds bootstrap --proxy KIND/NAME --mesh NAME --xds ADDRESS [OPTION]...\n"
        "       appmesh-xds bootstrap --environment [OPTION]...",
    )
    add_reading(parser, optional=True)
    add_options(parser)
    parser.add_argument("--proxy", metavar="KIND/NAME", help="virtualNode/N or virtualGateway/N")
    parser.add_argument(
        "--environment",
        action="store_true",
        help="take what flags do not say from the variables of App Mesh's images (docs/takeover.md)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--static", action="store_true", help="one file with every resource, needs no server")
    kind.add_argument("--xds", metavar="ADDRESS", help="control plane: HOST:PORT or unix:PATH")
    parser.add_argument("--out", metavar="DIR", help="write DIR/envoy.yaml, and the files that it refers to")
    group = parser.add_argument_group("with --xds")
    group.add_argument("--delta", action="store_true", help="incremental ADS")
    group.add_argument(
        "--initial-fetch-timeout",
        metavar="SECONDS",
        type=float,
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
    if not arguments.environment:
        if arguments.proxy is None:
            raise UsageError("bootstrap needs --proxy KIND/NAME, or --environment")
        if not arguments.static and arguments.xds is None:
            raise UsageError("bootstrap needs --static or --xds ADDRESS, or --environment")
    return _static(arguments) if arguments.static else _ads(arguments)


def _static(arguments: argparse.Namespace) -> int:
    if not arguments.paths:
        raise UsageError("bootstrap --static needs a PATH to read specs from")
    rendering = rendering_of(arguments)
    mesh, warnings = read_mesh(arguments)
    wanted = arguments.proxy or _who(_environment(None)).node_id
    (proxy,) = chosen(mesh, [wanted])
    identity = Identity(wanted, mesh.name, mesh.owner, proxy)
    environment = _environment(identity) if arguments.environment else Environment()
    options = _with_environment(rendering.of(mesh.name, proxy), environment, arguments)
    folder = _folder(arguments)
    made = static_bootstrap(mesh, wanted, options, key_folder=None if folder is None else str(folder))
    if arguments.proxy is None:
        _introduce(made.bootstrap, identity)
    data, problems = _finished(made.bootstrap, environment, arguments)
    problems = [*warnings, *made.snapshot.problems, *problems]
    report(problems)
    if refuses(problems, arguments):
        return 1
    _write(data, folder, made.files)
    return status_of(problems, arguments)


def _ads(arguments: argparse.Namespace) -> int:
    if arguments.paths or (arguments.proxy is not None and arguments.mesh is None):
        raise UsageError("bootstrap --xds takes --mesh NAME and no PATH: the control plane has the specs")
    identity, environment = None, Environment()
    if arguments.proxy is not None:
        node_id = names.node_id(arguments.mesh, arguments.mesh_owner, *_parts(arguments.proxy))
        identity = Identity(node_id, arguments.mesh, arguments.mesh_owner, arguments.proxy)
    if arguments.environment:
        environment = _environment(identity)
    who = identity or _who(environment)
    if arguments.mesh not in (None, who.mesh):
        raise UsageError(f"--mesh {arguments.mesh}, and the environment names {who.node_id}")
    target = arguments.xds or environment.xds
    if target is None:
        raise UsageError("where is the control plane? Say --xds ADDRESS, or APPMESH_XDS_ENDPOINT")
    server = XdsServer(
        target,
        ca=arguments.xds_ca,
        certificate=arguments.xds_certificate,
        key=arguments.xds_key,
        server_name=arguments.xds_server_name,
    )
    rendered = rendering_of(arguments).of(who.mesh, who.proxy)
    options = _with_environment(rendered, environment, arguments)
    folder, timeout = _folder(arguments), arguments.initial_fetch_timeout
    made = ads_bootstrap(
        who.mesh,
        who.proxy,
        server,
        options,
        owner=who.owner,
        delta=arguments.delta,
        initial_fetch_timeout=timeout if timeout is not None else environment.initial_fetch_timeout or 0,
        key_folder=None if folder is None else str(folder),
    )
    if identity is None:
        _introduce(made, who)
    data, problems = _finished(made, environment, arguments)
    if arguments.xds is None:
        problems += _plaintext(server)
    report(problems)
    if refuses(problems, arguments):
        return 1
    _write(data, folder, server_files(server, options))
    return status_of(problems, arguments)


# --- the environment --------------------------------------------------------------------------------------


def _environment(identity: Identity | None) -> Environment:
    return from_environment(os.environ, identity)


def _who(environment: Environment) -> Identity:
    if environment.identity is None:
        raise UsageError("which proxy? Say --proxy KIND/NAME, or APPMESH_RESOURCE_ARN")
    return environment.identity


def _parts(proxy: str) -> tuple[str, str]:
    kind, _, name = proxy.partition("/")
    return kind, name


def _introduce(bootstrap: proto.Bootstrap, identity: Identity) -> None:
    """With the very name that the environment gives it."""
    bootstrap.node.id = bootstrap.node.cluster = identity.node_id


def _with_environment(options: Options, environment: Environment, arguments: argparse.Namespace) -> Options:
    said = {name: getattr(environment, name) for name in _OPTIONS}
    free = {
        name: value
        for name, value in said.items()
        if value is not None
        and getattr(arguments, name) is None
        and getattr(options, name) == getattr(Options(), name)
    }
    return msgspec.structs.replace(options, **free)


def _finished(
    bootstrap: proto.Bootstrap, environment: Environment, arguments: argparse.Namespace
) -> tuple[dict[str, Any], list[Problem]]:
    """As it is written, with what the environment adds to it."""
    if environment.cluster is not None:
        bootstrap.node.cluster = environment.cluster
    if environment.admin_socket and arguments.admin_address is None and arguments.admin_port is None:
        pipe = bootstrap.admin.address.pipe
        pipe.path, pipe.mode = environment.admin_socket, 0o600
    data: dict[str, Any] = render.to_dict(bootstrap)
    for fragment in environment.fragments:
        merge(data, fragment)
    files = [(variable, path, _content(path, variable)) for variable, path in environment.files]
    return data, [*environment.problems, *merge_files(data, files)]


def _content(path: str, variable: str) -> Any:
    content = read_bytes(path)
    if isinstance(content, Problem):
        raise UsageError(f"{variable}={path}: {content.message}")
    found, problems = documents(content, path)
    if problems:
        raise UsageError("\n".join(f"{variable}: {problem}" for problem in problems))
    return found[0].value if len(found) == 1 else None


def _plaintext(server: XdsServer) -> list[Problem]:
    """The images knew TLS alone, but over a unix socket."""
    from ..server.address import is_local

    if server.ca is not None or is_local(server.target):
        return []
    text = f"{server.target} is asked without TLS, which the images always used"
    return [
        Problem(
            resource="environment",
            path="APPMESH_XDS_ENDPOINT",
            message=text,
            hint="give --xds-ca FILE",
            severity="warning",
        )
    ]


def _folder(arguments: argparse.Namespace) -> Path | None:
    """Where to write, in full: Envoy may run elsewhere."""
    return None if arguments.out is None else Path(arguments.out).absolute()


def _write(bootstrap: Mapping[str, Any], folder: Path | None, beside: Iterable[KeyFile]) -> None:
    """To stdout, or to `envoy.yaml` in a folder, beside the files it refers to."""
    text = render.to_yaml(bootstrap)
    files = {file.name: File(file.content, 0o600 if file.private else 0o644) for file in beside}
    if folder is None:
        write_text(text)
    else:
        # A bootstrap lies in the folder itself, resources of `translate` below it.
        publish(folder, {**files, _NAME: File(text.encode())}, writer="bootstrap", replaces=lambda _: True)
