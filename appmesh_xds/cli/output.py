"""Folders of output: written whole or not at all, and cleaned of what an earlier run left."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError

#: What a run wrote, so that the next can remove what it no longer needs, and nothing else.
MANIFEST = ".appmesh-xds.json"

_SAFE = re.compile(r"[A-Za-z0-9._-]")


def file_name(name: str) -> str:
    """A name of the mesh as a name of a file: percent-encoded outside letters, digits, `.`, `_` and `-`.

    A node may be called `../../x`.
    """
    encoded = "".join(
        char
        if _SAFE.match(char)
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in name
    )
    return encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded


def write_files(
    folder: Path, files: Mapping[str, str | bytes], *, private: frozenset[str] = frozenset()
) -> None:
    """Writes files below a folder, each by a rename; removes those of the last run that are not among them.

    Paths are relative, with `/`. Everything is written to a temporary folder first: when that fails, nothing
    has changed. `private` ones can be read by their owner only. Raises UsageError where the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: is a file, not a folder")
    before = _manifest(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".appmesh-xds-", dir=folder))
    try:
        for name, content in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if name in private else 0o644
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps({"files": sorted({*files, *before})}, indent=1) + "\n")
        # Until the run is over the manifest names old and new files alike, so that none is ever forgotten.
        manifest.replace(folder / MANIFEST)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(folder / name)
        for name in sorted(before - set(files)):
            _remove(folder, name)
        manifest.write_text(json.dumps({"files": sorted(files)}, indent=1) + "\n")
        manifest.replace(folder / MANIFEST)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _manifest(folder: Path) -> set[str]:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = content["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if isinstance(name, str) and _inside(name)}


def _inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder:
            break
        try:
            parent.rmdir()
        except OSError:
            break
