"""Writers: a mesh in any of the dialects that `readers` read.

    converted = convert(mesh, "kubernetes")
    converted.problems     # what the dialect cannot say
    converted.to_text()    # one YAML text

Pure: a mesh to plain data. What is written is read back as the same mesh, less what the table of losses
names (docs/dialects.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from msgspec import Struct

from ..errors import Problem, UsageError
from . import api, cloudformation, kubernetes
from .losses import LOSSES, Loss
from .plain import Written

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..mesh import Mesh

__all__ = ["LOSSES", "Converted", "Loss", "convert"]

Dialect = Literal["api", "cloudformation", "kubernetes"]
Format = Literal["yaml", "json"]

_WRITERS: Final[dict[Dialect, Callable[[Mesh], Written]]] = {
    "api": api.write,
    "cloudformation": cloudformation.write,
    "kubernetes": kubernetes.write,
}


class Converted(Struct, frozen=True, kw_only=True):
    """A mesh in a dialect, as plain data."""

    dialect: Dialect
    #: Path of a file, without its suffix and with `/`, to the documents in it.
    files: dict[str, tuple[dict[str, Any], ...]]
    #: What the dialect cannot say: errors, as the mesh would not be the same.
    problems: tuple[Problem, ...] = ()

    def to_text(self, style: Format = "yaml") -> str:
        """Everything in one text: documents of YAML, or one JSON value."""
        documents = [document for found in self.files.values() for document in found]
        return _text(self.dialect, documents, style)

    def to_files(self, style: Format = "yaml") -> dict[str, str]:
        """Each file's text, by its path."""
        return {
            f"{path}.{style}": _text(self.dialect, list(documents), style)
            for path, documents in self.files.items()
        }


def convert(mesh: Mesh, to: Dialect) -> Converted:
    """A mesh as `api` (requests of create calls), `cloudformation` (a template) or `kubernetes` (manifests of
    the App Mesh controller). Facts are not part of it. Raises `UsageError` for another dialect."""
    if to not in _WRITERS:
        raise UsageError(f"{to!r} is no dialect: {', '.join(get_args(Dialect))}")
    written = _WRITERS[to](mesh)
    return Converted(
        dialect=to, files=written.files, problems=tuple(mesh.locate(one) for one in written.problems)
    )


def _text(dialect: Dialect, documents: list[dict[str, Any]], style: Format) -> str:
    from ..render import to_json, to_yaml

    if style == "yaml":
        return "---\n".join(map(to_yaml, documents))
    if len(documents) == 1:
        return to_json(documents[0])
    if dialect == "kubernetes":
        return to_json({"apiVersion": "v1", "kind": "List", "items": documents})
    return f"[{','.join(map(to_json, documents))}]\n"
