"""Comparison results on the page: a table, learning curves, confusions, and the pictures that were confused."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from clipkit.core.html import Markup, data_url
from clipkit.errors import ClipkitError
from clipkit.evaluate.results import ZERO_SHOT, Comparison, Mistake, Row, format_shots
from clipkit.explore.library import picture_below
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.learn.methods import METHODS
from clipkit.output.comparison_html import PNG, ConfusedPair, InlineThumbnail, gain, span
from clipkit.output.figures import curves_figure

from ..html import render
from .matrix import matrix_svg
from .runs import root_of

SIZE = 152  # pixels of a thumbnail: sharp at 76
PAIRS = 8  # shown of a row
MOST_DRAWN = 400  # classes of a matrix


@dataclass(frozen=True)
class _Curves:
    """The learning curves as data URLs."""

    narrow: str
    wide: str


@dataclass(frozen=True)
class _Row:
    """A row of the table."""

    method: str
    cells: tuple[str, ...]
    is_best: bool


@dataclass(frozen=True)
class _Confused:
    """What one row confused. trouble: why there is no matrix."""

    title: str
    pairs: tuple[ConfusedPair, ...]
    matrix: Markup
    trouble: str
    seeds: int


def view(comparison: Comparison, roots: Collection[Path]) -> Markup:
    """The whole, in escaped text and pictures of our own making. roots: folders whose pictures may be shown."""
    best, zero = comparison.best, comparison.zero_shot
    root = allowed_root(comparison, roots)
    shown = list(dict.fromkeys(row for row in (best, zero) if row))
    names = dict.fromkeys(row.method for row in comparison.rows)
    has_curves = any(row.shots != 0 for row in comparison.rows)
    return render(
        "comparison",
        comparison=comparison,
        name=comparison.dataset.rpartition("/")[2],
        model=comparison.model.get("name", ""),
        counts=", ".join(f"{number:,} {part}" for part, number in comparison.counts.items()),
        best={"title": _title(best), "right": _percent(best.acc1), "interval": span(best.acc1_ci95)},
        zero_shot=_percent(zero.acc1) if zero and zero is not best else None,
        gain=gain(best),
        methods=[(name, METHODS[name].about) for name in names if name in METHODS],
        rows=[_Row(row.method, _cells(row), row is best) for row in comparison.rows],
        curves=_curves(comparison) if has_curves else None,
        confused=[_confused(comparison, row, root) for row in shown],
        has_pictures=root is not None,
        notes=_notes(comparison),
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        format_shots(row.shots),
        f"{100 * row.acc1:.1f}",
        span(row.acc1_ci95),
        f"{100 * row.mean_per_class:.1f}",
        f"{row.seeds:,}",
        f"{row.seconds:.2f}",
        f"{row.labels:,}",
    )


def _curves(comparison: Comparison) -> _Curves:
    narrow, wide = (curves_figure(comparison, narrow=narrow) for narrow in (True, False))
    return _Curves(data_url(narrow, PNG), data_url(wide, PNG))


def _confused(comparison: Comparison, row: Row, root: Path | None) -> _Confused:
    pairs = tuple(_pair(comparison, pair, root) for pair in comparison.pairs_of(row)[:PAIRS])
    if len(comparison.classes) > MOST_DRAWN:
        trouble = f"{len(comparison.classes):,} classes are too many for a confusion matrix on this page."
        return _Confused(_title(row), pairs, Markup(""), trouble, row.seeds)
    return _Confused(_title(row), pairs, matrix_svg(comparison, row, _title(row)), "", row.seeds)


def _pair(comparison: Comparison, pair: Mistake, root: Path | None) -> ConfusedPair:
    if root is None:
        return ConfusedPair(pair, None, None)
    small = tuple(made for file in pair.files[:6] if (made := small_picture(root, file, file)))
    like = comparison.references.get(pair.predicted)
    reference = (
        small_picture(root, like, f"{pair.predicted}, from the training pictures") if isinstance(like, str) else None
    )
    return ConfusedPair(pair, small, reference)


def small_picture(root: Path, name: str, about: str) -> InlineThumbnail | None:
    """A small picture, if the file is one, and lies below `root` when links are followed."""
    file = picture_below(root, name)
    if file is None:
        return None
    try:
        return InlineThumbnail(about, data_url(to_jpeg(thumbnail(file, SIZE).canvas), "image/jpeg"))
    except (ClipkitError, OSError):
        return None


def allowed_root(comparison: Comparison, roots: Collection[Path]) -> Path | None:
    """Where its pictures lie, if that is a folder that this page has open."""
    root = root_of(Path(comparison.path))
    return (
        root if any(root == known or root.is_relative_to(known) for known in roots) and ".." not in root.parts else None
    )


def _notes(comparison: Comparison) -> list[str]:
    lines = [*comparison.notes, *(f"Not run: {reason}" for reason in comparison.left_out)]
    return [*lines, *(f"Not counted: {failure.path}: {failure.reason}" for failure in comparison.failed[:20])]


def _title(row: Row) -> str:
    labels = "1 label" if row.shots == 1 else f"{format_shots(row.shots)} labels"
    return "zero-shot" if row.method == ZERO_SHOT else f"{row.method}, {labels} per class"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
