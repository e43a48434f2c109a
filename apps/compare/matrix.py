"""Confusion matrix as SVG: drawn in milliseconds, in the colours of the page, light or dark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipkit.core.html import Markup
from clipkit.core.text import printable
from clipkit.evaluate.results import Comparison, Row
from clipkit.output.figures import by_confusion

from ..html import render

CELL, NAMES = 22, 170  # units: a cell, and the room for the names beside and above them
MOST_NAMED = 60  # classes whose names and numbers can be read
WIDE = 660  # units of all cells together where there are no names
LONG = 24  # characters of a name that are shown


@dataclass(frozen=True)
class _Cell:
    """How often one class was called another. x, y: its corner."""

    x: float
    y: float
    share: float
    about: str


def matrix_svg(comparison: Comparison, row: Row, title: str) -> Markup:
    """Shares of each class's pictures that were given each class, ordered so that neighbours are confused."""
    matrix = comparison.confusion(row.method, row.shots)
    order = by_confusion(matrix, comparison.groups)
    order = order[(matrix.sum(axis=0) + matrix.sum(axis=1))[order] > 0]
    matrix, names = matrix[order][:, order], [printable(comparison.classes[i]) for i in order]
    is_named = len(names) <= MOST_NAMED
    side, start = (CELL, NAMES) if is_named else (WIDE / len(names), 0)
    totals = matrix.sum(axis=1)
    cells = [
        _Cell(
            start + side * x,
            start + side * y,
            matrix[y, x] / totals[y],
            f"{names[y]} called {names[x]}: {matrix[y, x]:,} of {totals[y]:,}",
        )
        for y, x in np.argwhere(matrix).tolist()
    ]
    short = [name if len(name) <= LONG else f"{name[: LONG - 1]}…" for name in names]
    return render(
        "matrix", title=title, cells=cells, names=short if is_named else (), side=side, start=start, count=len(names)
    )
