"""Output folders: written whole or not at all, and cleaned of what an earlier run wrote.

A manifest in the folder lists what was written. Files that stand in no manifest belong to somebody else: they
are neither replaced nor removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Final

from .errors import UsageError

MANIFEST: Final = ".appmesh-xds.json"
_NOTE: Final = "Files that appmesh-xds wrote here. It removes those that a later run no longer needs."
_STAGING: Final = ".appmesh-xds-"
#: File systems take 255 bytes; a suffix such as `.yaml` must fit too.
_NAME_MAX: Final = 200


class File:
    """Content and permissions of a file to be written (0600 for private keys). The content never prints."""

    __slots__ = ("content", "mode")

    def __init__(self, content: bytes, mode: int = 0o644) -> None:
        self.content = content
        self.mode = mode

    def __repr__(self) -> str:
        return f"File(content=[redacted], mode={self.mode:#o})"


def file_name(name: str) -> str:
    """Any name as one part of a path: what is outside `[A-Za-z0-9._-]` is percent-encoded.

    So is a dot at the start, which makes `..` and hidden files impossible. A name that would be too long is
    cut, and told from others by a hash behind a `~`, which no encoded name holds.
    """
    encoded = urllib.parse.quote(name, safe="").replace("~", "%7E")
    if encoded.startswith("."):
        encoded = "%2E" * (len(encoded) - len(encoded.lstrip("."))) + encoded.lstrip(".")
    if len(encoded) > _NAME_MAX:
        encoded = f"{encoded[: _NAME_MAX - 17]}~{blake2b(name.encode(), digest_size=8).hexdigest()}"
    return encoded


def publish(
    folder: Path, files: Mapping[str, File], *, writer: str, replaces: Callable[[str], bool]
) -> tuple[str, ...]:
    """Writes `files` (path below `folder`, with `/`, to content); gives back the paths it removed.

    All are written beside their places first and then renamed into them, so that nobody reads half of one
    and a failure leaves the folder as it was. Of what `writer` wrote in earlier runs, those paths that
    `replaces` accepts and `files` no longer holds are removed afterwards, with folders that become empty.

    Raises UsageError when the folder cannot be written, when a file of somebody else is in the way, and for
    a manifest that cannot be read.
    """
    made = _missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _staging(folder) as staging:
            return _publish(folder, staging, files, writer, replaces)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror or error}") from None
    finally:
        # Those that stayed empty: something went wrong.
        _remove_empty(made)


def _publish(
    folder: Path, staging: Path, files: Mapping[str, File], writer: str, replaces: Callable[[str], bool]
) -> tuple[str, ...]:
    before = _read_manifest(folder)
    for path in files:
        _refuse_foreign(folder, path, before)
    for number, file in enumerate(files.values()):
        _write(staging / str(number), file)
    stale = [p for p, by in before.items() if by == writer and p not in files and replaces(p)]
    now = dict.fromkeys(files, writer)
    # First what was and what will be there: if this process dies now, the next one knows all the same.
    _write_manifest(folder, staging, before | now)
    for number, path in enumerate(files):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / str(number), target)
    for path in stale:
        (folder / path).unlink(missing_ok=True)
        _remove_empty(_parents(folder, path))
    _write_manifest(folder, staging, {p: by for p, by in (before | now).items() if p not in stale})
    return tuple(stale)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A private folder on the same file system, gone afterwards."""
    path = Path(tempfile.mkdtemp(dir=folder, prefix=_STAGING))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, file: File) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(file.content)
        os.fchmod(stream.fileno(), file.mode)


def _refuse_foreign(folder: Path, path: str, manifest: Mapping[str, str]) -> None:
    target = folder / path
    if path not in manifest and os.path.lexists(target):
        raise UsageError(f"{target} was not written by appmesh-xds: move it away, or choose another folder")
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(target.parent)]) != root:
        raise UsageError(f"{target.parent} leads out of {folder}")


def _read_manifest(folder: Path) -> dict[str, str]:
    """Path -> writer. Paths that do not stay below the folder are not ours, whoever wrote them there."""
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_bytes())["files"]
        return {str(p): str(by) for p, by in files.items() if _is_below(folder, p)}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UsageError(f"{manifest} is not a manifest of appmesh-xds: remove it, or the folder") from None


def _is_below(folder: Path, path: str) -> bool:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
        return False
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath((folder / path).parent)]) == root


def _write_manifest(folder: Path, staging: Path, files: Mapping[str, str]) -> None:
    content = json.dumps({"note": _NOTE, "files": dict(sorted(files.items()))}, indent=1) + "\n"
    _write(staging / "manifest", File(content.encode()))
    os.replace(staging / "manifest", folder / MANIFEST)


def _missing_folders(folder: Path) -> list[Path]:
    """The folder and those above it that are not there yet, deepest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    return missing


def _parents(folder: Path, path: str) -> list[Path]:
    """The folders of a file below `folder`, deepest first, without `folder` itself."""
    return [folder / parent for parent in PurePosixPath(path).parents][:-1]


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
