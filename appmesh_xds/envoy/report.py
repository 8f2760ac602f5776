"""Report: where a translation says what it could not do."""

from __future__ import annotations

from ..errors import Problem


class Report:
    """Collects the problems of one translation. Handed down, read once at the end."""

    __slots__ = ("problems",)

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def error(self, resource: str, path: str, message: str, hint: str = "") -> None:
        """Something cannot be translated faithfully."""
        self.problems.append(Problem(resource=resource, path=path, message=message, hint=hint))

    def warning(self, resource: str, path: str, message: str, hint: str = "") -> None:
        """It can, but is likely not what was meant."""
        self.problems.append(
            Problem(resource=resource, path=path, message=message, hint=hint, severity="warning")
        )
