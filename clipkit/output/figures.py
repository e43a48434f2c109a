"""Figures (matplotlib): confusion matrices, learning curves and costs as PNG."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.core.arrays import IntArray
from clipkit.core.text import printable
from clipkit.errors import ClipkitError
from clipkit.evaluate.results import ZERO_SHOT, Comparison, Row, format_shots

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure as Figure


MANY = 60  # classes whose names can still be read beside a matrix
LONG = 30  # characters of a name that are shown
PIXELS_AN_INCH = 96.0  # of a page; figures have twice as many, for screens with small pixels
WIDE, NARROW = 9.4, 3.65  # inches: a desk and a telephone
DODGE = 0.022  # of the way from one number of shots to the next, between two methods
LABEL_GAP = 0.034  # of the height, between two names at the end of their lines

MOST = 400  # classes whose best order is searched for; its cost grows with the cube


@dataclass(frozen=True)
class Theme:
    """Colours of a figure. full: of a cell that holds all pictures of its row. tint: how much white a line has."""

    ink: str
    faint: str
    grid: str
    paper: str
    full: str
    tint: float = 0.0


LIGHT = Theme(ink="#1b1f24", faint="#62625e", grid="#e4e4e0", paper="#ffffff", full="#0b4f9e")
DARK = Theme(ink="#ececea", faint="#a3a3a0", grid="#3a3a3e", paper="#212124", full="#8fc1ff", tint=0.4)
COLOURS = {
    "probe": "#1f6fd6",
    "probe-backbone": "#0b3d91",
    "text-probe": "#0d9aa8",
    "gelu": "#8553c6",
    "knn": "#7c8a1e",
    "prototypes": "#a87400",
    "tip-adapter": "#e07b00",
    "tip-adapter-f": "#bf3528",
    "blend": "#23904a",
    "finetune": "#cc2f6b",
}
MARKERS = dict(zip(COLOURS, "osD^vPX*hp", strict=True))


def confusion_png(matrix: IntArray, classes: Sequence[str], file: str | os.PathLike[str], *, title: str = "") -> None:
    """Write a confusion matrix as a PNG: the shares of each class's pictures that were given each class.

    Colours are shares, numbers are counts. A class without pictures that was never given is left out. Up to 60 classes
    are named.

    Parameters
    ----------
    matrix : ndarray of shape (c, c), int
        Rows are the right classes, columns those that were given.
    classes : sequence of str
        The c names.
    file : str or path
        Replaced if it exists.
    title : str, optional
        Above the figure.

    Raises
    ------
    ClipkitError
        If the file cannot be written, or there is nothing to show.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.output import confusion_png
    >>> confusion_png(np.array([[9, 1], [2, 8]]), ["cat", "dog"], "confusion.png")
    >>> Path("confusion.png").read_bytes()[1:4]
    b'PNG'
    """
    content = confusion_figure(matrix, classes, title=title)
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise ClipkitError(
            f"{file} cannot be written: {error.strerror or error}", hint="another place: --confusion FILE"
        ) from error


def confusion_figure(
    matrix: IntArray,
    classes: Sequence[str],
    *,
    groups: Sequence[str] = (),
    percent: bool = False,
    title: str = "",
    theme: Theme = LIGHT,
) -> bytes:
    """The same as PNG. groups: one a class, lines are drawn where it changes. percent: shares, instead of counts."""
    side = confusion_side(matrix)
    figure = blank_figure(side + 0.5, side, theme)
    draw_confusion(figure.add_subplot(), matrix, classes, groups=groups, percent=percent, title=title, theme=theme)
    return png(figure)


def confusion_side(matrix: IntArray) -> float:
    """Inches that a confusion matrix takes; ClipkitError where there is nothing in it."""
    table = np.asarray(matrix)
    if not table.sum():
        raise ClipkitError("there are no pictures to draw a confusion matrix of", hint="leave --confusion FILE out")
    count = int(_is_shown(table).sum())
    return 2.9 + 0.2 * count if count <= MANY else 9.0


def draw_confusion(
    axes: Axes,
    matrix: IntArray,
    classes: Sequence[str],
    *,
    groups: Sequence[str] = (),
    percent: bool = False,
    title: str = "",
    theme: Theme = LIGHT,
) -> None:
    """The same on axes of a figure."""
    table = np.asarray(matrix)
    is_shown = _is_shown(table)
    names = [name for name, shown in zip(classes, is_shown, strict=True) if shown]
    kinds = [group for group, shown in zip(groups or [""] * len(classes), is_shown, strict=True) if shown]
    table = table[np.ix_(is_shown, is_shown)]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap=shades(theme), vmin=0, vmax=1, interpolation="nearest")
    add_scale(axes, picture, "share of the class's pictures", theme)
    _label(axes, names, theme)
    _separate(axes, kinds, theme)
    if len(names) <= MANY:
        _number(axes, 100 * shares if percent else table, shares, theme)
    add_title(axes, title, theme, pad=16 if any(kinds) else 6)  # room for the names of groups


def _is_shown(table: np.ndarray) -> np.ndarray:
    """Which classes have pictures, or were given."""
    return np.asarray((table.sum(axis=1) > 0) | (table.sum(axis=0) > 0))


def curves_figure(comparison: Comparison, *, narrow: bool = False, theme: Theme = LIGHT) -> bytes:
    """Accuracy by labelled pictures a class: a line a method with its interval, zero-shot as a level line."""
    figure = blank_figure(NARROW if narrow else WIDE, 4.6 if narrow else 5.6, theme)
    draw_curves(figure.add_subplot(), comparison, narrow=narrow, theme=theme)
    return png(figure)


def draw_curves(axes: Axes, comparison: Comparison, *, narrow: bool = False, theme: Theme = LIGHT) -> None:
    """The same on axes of a figure."""
    lines: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.method != ZERO_SHOT:
            lines.setdefault(row.method, []).append(row)
    steps = [shots for shots in _steps(comparison) if shots != 0]
    place = {shots: i for i, shots in enumerate(steps)}
    ends = []
    for number, (method, rows) in enumerate(lines.items()):
        aside = DODGE * (number - (len(lines) - 1) / 2)  # so that intervals do not cover each other
        colour, xs = _colour(method, theme), [place[row.shots] + aside for row in rows]
        low, high = (np.array([row.acc1_ci95[i] for row in rows]) * 100 for i in (0, 1))
        ys = np.array([row.acc1 for row in rows]) * 100
        axes.vlines(xs, low, high, color=colour, alpha=0.45, linewidth=1.4)
        axes.plot(xs, ys, color=colour, marker=MARKERS.get(method, "o"), markersize=4.5, linewidth=1.4)
        ends.append((xs[-1], float(ys[-1]), method, colour))
    if zero := comparison.zero_shot:
        bottom, top = (100 * value for value in zero.acc1_ci95)
        axes.axhspan(bottom, top, color=theme.ink, alpha=0.07, linewidth=0)
        axes.axhline(100 * zero.acc1, color=theme.ink, linestyle=(0, (5, 3)), linewidth=1.2)
        ends.append((max(len(steps) - 1, 0), 100 * zero.acc1, "zero-shot", theme.ink))
    axes.set_xticks(range(len(steps)), [format_shots(shots) for shots in steps])
    axes.set_xlim(-0.2, max(len(steps) - 1, 0) + 0.2)
    axes.set_xlabel("labelled pictures a class", color=theme.ink, fontsize=9)
    axes.set_ylabel("right, % of test pictures", color=theme.ink, fontsize=9)
    plainly(axes, theme)
    _name_ends(axes, ends, narrow=narrow)


def cost_figure(comparison: Comparison, *, narrow: bool = False, theme: Theme = LIGHT) -> bytes:
    """Each method at its largest number of shots, best first: accuracy with its interval, and seconds of one run."""
    rows = sorted(comparison.fullest, key=lambda row: row.acc1)
    figure = blank_figure(NARROW if narrow else WIDE, 0.9 + 0.32 * len(rows), theme)
    right, cost = figure.subplots(1, 2, sharey=True)
    for i, row in enumerate(rows):
        colour = _colour(row.method, theme)
        low, high = (100 * value for value in row.acc1_ci95)
        right.plot([low, high], [i, i], color=colour, linewidth=2.4, alpha=0.55)
        right.plot([100 * row.acc1], [i], marker="o", color=colour, markersize=6)
        cost.plot([max(row.seconds, 1e-3)], [i], marker="o", color=colour, markersize=6)
        cost.annotate(_seconds(row.seconds), (max(row.seconds, 1e-3), i), **_beside(theme.ink))
    right.set_yticks(range(len(rows)), [_named(row) for row in rows])
    right.set_ylim(-0.6, len(rows) - 0.4)
    right.set_xlabel("right, %", color=theme.ink, fontsize=9)
    cost.set_xscale("log")
    cost.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    cost.set_xlim(5e-4, max(10.0, *(10 * row.seconds for row in rows)) * (4 if narrow else 1))
    cost.set_xlabel("seconds, log scale", color=theme.ink, fontsize=9)
    for axes in (right, cost):
        plainly(axes, theme)
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    cost.tick_params(which="minor", length=0)
    return png(figure)


def warm_up() -> None:
    """Load what draws: a second or two that the first figure then does not take."""
    for name in ("matplotlib.backends.backend_agg", "matplotlib.figure", "scipy.cluster.hierarchy"):
        import_module(name)


def axes_for(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes that somebody gave, or those of a new figure of pyplot, which a notebook shows."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def shades(theme: Theme) -> Colormap:
    """From paper to the colour of a full cell."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", [theme.paper, theme.full])


def add_scale(axes: Axes, picture: Any, words: str, theme: Theme) -> None:
    """A colour scale beside axes."""
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label(words, color=theme.ink, fontsize=8)
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=theme.ink)
    bar.outline.set_visible(False)


def add_title(axes: Axes, title: str, theme: Theme, *, pad: float = 6) -> None:
    axes.set_title(plain(title), color=theme.ink, loc="left", fontsize=11, pad=pad)


def blank_figure(width: float, height: float, theme: Theme) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches: nothing touches the edge
    figure = Figure(figsize=(width, height), dpi=2 * PIXELS_AN_INCH, facecolor=theme.paper, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _label(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    axes.set_xlabel("called", color=theme.ink)
    axes.set_ylabel("is", color=theme.ink)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=7, labelcolor=theme.ink)
    if len(names) > MANY:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=90)
    axes.set_yticks(range(len(names)), [short(name) for name in names])


def _separate(axes: Axes, groups: Sequence[str], theme: Theme) -> None:
    """A line between two groups, and the name of each above it."""
    starts = [i for i, group in enumerate(groups) if not i or groups[i - 1] != group]
    for start, end in zip(starts, [*starts[1:], len(groups)], strict=True):
        if start:
            axes.axhline(start - 0.5, color=theme.faint, linewidth=0.9)
            axes.axvline(start - 0.5, color=theme.faint, linewidth=0.9)
        middle, above = (start + end - 1) / 2, axes.get_xaxis_transform()
        words = short(groups[start])
        axes.text(middle, 1.006, words, transform=above, ha="center", va="bottom", fontsize=8, color=theme.faint)


def _number(axes: Axes, table: np.ndarray, shares: np.ndarray, theme: Theme) -> None:
    for i, j in zip(*np.nonzero(table), strict=True):
        colour = theme.paper if shares[i, j] > 0.45 else theme.ink
        words = f"{table[i, j]:.0f}" if table[i, j] >= 0.5 else "·"
        axes.text(j, i, words, ha="center", va="center", fontsize=6, color=colour)


def plainly(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.spines[:].set_visible(False)
    axes.grid(axis="both", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=theme.ink)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, narrow: bool) -> None:
    """Names at the right, each at the height where its line ends, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * LABEL_GAP * (1.25 if narrow else 1)
    heights: list[float] = []
    for _, y, _, _ in sorted(ends, key=lambda end: end[1]):
        heights.append(max(y, heights[-1] + gap) if heights else y)
    excess = max(0.0, (heights[-1] if heights else 0) - high)
    right = axes.get_xlim()[1]
    for height, (x, y, name, colour) in zip(heights, sorted(ends, key=lambda end: end[1]), strict=True):
        at = height - excess
        axes.annotate(
            short(name),
            (x, y),
            xytext=(right, at),
            textcoords="data",
            fontsize=7 if narrow else 8.5,
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2},
        )


def _beside(colour: str) -> dict[str, Any]:
    return {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": colour}


def _steps(comparison: Comparison) -> list[int | None]:
    shots = {row.shots for row in comparison.rows}
    return [*sorted(number for number in shots if number is not None), *({None} & shots)]


def _named(row: Row) -> str:
    return "zero-shot" if row.method == ZERO_SHOT else f"{short(row.method)}, {format_shots(row.shots)}"


def _seconds(seconds: float) -> str:
    return "< 0.01" if seconds < 0.01 else f"{seconds:.2g}" if seconds < 100 else f"{seconds:,.0f}"


def _colour(method: str, theme: Theme) -> str:
    from matplotlib.colors import to_hex, to_rgb

    if method == ZERO_SHOT:
        return theme.ink
    red, green, blue = (part + (1 - part) * theme.tint for part in to_rgb(COLOURS.get(method, theme.faint)))
    return to_hex((red, green, blue))


def plain(text: str) -> str:
    """On one line, and no formula, which matplotlib reads between two dollars."""
    return printable(text).replace("$", r"\$")


def short(name: str, *, most: int = LONG) -> str:
    """A name as it fits into a figure."""
    return plain(name if len(name) <= most else f"{name[: most - 1]}…")


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # no font has every letter; a box stands for it
        figure.savefig(stream, format="png", metadata={"Software": "clipkit"})
    return stream.getvalue()


def by_confusion(matrix: IntArray, groups: Sequence[str] = ()) -> IntArray:
    """Positions of classes (c,): groups in order of appearance, and in each of them classes that are confused together.

    matrix (c, c): how often each class (row) was called each other. A hierarchy of shares of confusion (average
    linkage), its leaves turned so that neighbours are as close as they can be.
    """
    count = len(matrix)
    names = list(groups) or [""] * count
    pictures = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = matrix / pictures
    closeness = (shares + shares.T) / 2
    parts = [np.flatnonzero([name == group for name in names]) for group in dict.fromkeys(names)]
    return np.concatenate([part[_leaves(closeness[np.ix_(part, part)])] for part in parts]).astype(np.int64)


def _leaves(closeness: np.ndarray) -> IntArray:
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering  # type: ignore[import-untyped]

    if len(closeness) < 3:
        return np.arange(len(closeness))
    apart = 1 - closeness[np.triu_indices(len(closeness), 1)]
    tree = linkage(apart, "average")
    if len(closeness) <= MOST:
        tree = optimal_leaf_ordering(tree, apart)
    return np.asarray(leaves_list(tree), dtype=np.int64)
