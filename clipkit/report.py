"""Figures (matplotlib): a confusion matrix as PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.records import IntArray

MANY = 60  # classes whose names can still be read beside a matrix
INK, PAPER = "#1b1f24", "#ffffff"
DPI = 150


def confusion_png(matrix: IntArray, classes: Sequence[str], file: str | os.PathLike[str], *, title: str = "") -> None:
    """Write the shares of each class's pictures (a row) that were given each class (a column); empty rows are left out.

    Up to 60 classes are named. ClipkitError where the file cannot be written, or there is nothing to show.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = np.asarray(matrix)
    if not table.sum():
        raise ClipkitError("there are no pictures to draw a confusion matrix of")
    is_shown = (table.sum(axis=1) > 0) | (table.sum(axis=0) > 0)
    names = [name for name, shown in zip(classes, is_shown, strict=True) if shown]
    table = table[np.ix_(is_shown, is_shown)]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = 4.0 + 0.22 * len(names) if len(names) <= MANY else 9.0
    figure = Figure(figsize=(side + 0.6, side), dpi=DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the class's pictures", color=INK, fontsize=8)
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=INK)
    bar.outline.set_visible(False)
    _label(axes, names)
    if len(names) <= MANY:
        _number(axes, table, shares)
    axes.set_title(_plain(title), color=INK, loc="left", fontsize=11)
    _write(figure, Path(file))


def _label(axes: Any, names: Sequence[str]) -> None:
    axes.set_xlabel("called", color=INK)
    axes.set_ylabel("is", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=7, labelcolor=INK)
    if len(names) > MANY:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xticks(range(len(names)), [_plain(name) for name in names], rotation=90)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])


def _number(axes: Any, table: IntArray, shares: np.ndarray) -> None:
    for i, j in zip(*np.nonzero(table), strict=True):
        colour = PAPER if shares[i, j] > 0.45 else INK
        axes.text(j, i, str(table[i, j]), ha="center", va="center", fontsize=6, color=colour)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib reads the rest as a formula


def _write(figure: Any, file: Path) -> None:
    try:
        figure.savefig(file, format="png", metadata={"Software": "clipkit"})
    except OSError as error:
        raise ClipkitError(f"{file} cannot be written: {error.strerror or error}") from error
