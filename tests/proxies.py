"""A proxy of a mesh as a bootstrap that runs with no server, for `run_envoy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import appmesh_xds as am
from appmesh_xds import render
from appmesh_xds.bootstrap import static_bootstrap


def static_proxy(mesh: am.Mesh, proxy: str, *, keys: Path | None = None, **options: Any) -> dict[str, Any]:
    """What `bootstrap --static` writes for a proxy, which must have no error.

    `options` are those of `Options`; `keys` is the folder for certificates that are known as PEM. Fails with
    the problems there are.
    """
    folder = None if keys is None else str(keys)
    bootstrap, snapshot, files = static_bootstrap(mesh, proxy, am.Options(**options), key_folder=folder)
    for file in files:
        with open(os.open(f"{folder}/{file.name}", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as out:
            out.write(file.content)
    assert not snapshot.errors, "\n".join(map(str, snapshot.errors))
    return render.to_dict(bootstrap)
