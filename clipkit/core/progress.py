"""Progress of a run and files that failed, as records."""

from __future__ import annotations

from dataclasses import dataclass

PROGRESS = "CLIPKIT_PROGRESS"  # "json": one object a line, for the program that started this one


@dataclass(frozen=True)
class Failure:
    """A file that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a run is: pictures done of those to read, and the one at hand."""

    done: int
    total: int
    path: str
