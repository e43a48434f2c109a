"""Progress of a run and files that failed, as records."""

from __future__ import annotations

from dataclasses import dataclass

PROGRESS = "CLIPKIT_PROGRESS"  # "json": one object a line, for the program that started this one


@dataclass(frozen=True)
class Failure:
    """A file that could not be read, and why.

    Attributes
    ----------
    path : str
        The file.
    reason : str
        Why.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    done, total : int
        Items done, of those to do.
    path : str
        The one at hand.
    """

    done: int
    total: int
    path: str
