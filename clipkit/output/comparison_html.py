"""Comparison report: one HTML page that needs nothing else, with its figures and its data in files beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clipkit.core.files import replace_file
from clipkit.core.html import data_url, render
from clipkit.errors import ClipkitError, ImageError
from clipkit.evaluate.results import FORMAT, ZERO_SHOT, Comparison, Interval, Mistake, Row, Shots, format_shots
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.output.figures import DARK, LIGHT, Theme, by_confusion, confusion_figure, cost_figure, curves_figure

TEMPLATES = Path(__file__).parent / "templates"
SIZE = 192  # pixels of a thumbnail: sharp at 96, also where pixels are small
PAIRS = 8  # shown of each row
PNG = "image/png"
NARROW, IN_DARK = "(max-width: 30rem)", "(prefers-color-scheme: dark)"
ABOUT_CURVES = "Accuracy by labelled pictures a class; upright: the 95 % interval."
ABOUT_COST = "Each method with the most labels; seconds of one run, features at hand."


@dataclass(frozen=True)
class InlineThumbnail:
    """A small picture as a data URL, and its alternative text."""

    about: str
    source: str


@dataclass(frozen=True)
class _Figure:
    """A figure for a light screen, and for others by media query; the browser draws the one that fits."""

    about: str
    light: str
    sources: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Cell:
    """A cell of the table of accuracies; span: over how many columns."""

    text: str = ""
    is_best: bool = False
    span: int = 0


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that were confused, with thumbnails of the pictures, unless nobody wants them."""

    mistake: Mistake
    thumbnails: tuple[InlineThumbnail, ...] | None
    reference: InlineThumbnail | None

    @property
    def share(self) -> str:
        return f"{self.mistake.n / max(self.mistake.of, 1):.0%}"


@dataclass(frozen=True)
class _Confused:
    """What one row confused."""

    title: str
    pairs: tuple[ConfusedPair, ...]
    matrix: _Figure
    seeds: int


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Make the folder; ClipkitError where it cannot be, or holds something that is no report of ours."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        there = {entry.name for entry in place.iterdir() if not entry.name.startswith(".")}
        is_ours = not there
        if "results.json" in there:
            with open(place / "results.json", "rb") as stream:
                is_ours = FORMAT.encode() in stream.read(100)
    except OSError as error:
        raise ClipkitError(
            f"{place} cannot be written: {error.strerror or error}", hint="another place: --out FOLDER"
        ) from error
    if not is_ours:
        raise ClipkitError(f"{place} holds other things than a report; they were left as they are", hint="--out report")


def write_report(comparison: Comparison, folder: str | os.PathLike[str], *, thumbnails: bool = True) -> None:
    """Write a comparison as an HTML page, with its figures and its data beside it.

    The folder gets index.html, results.json, curves.png, cost.png and confusion-METHOD.png for each method; every file
    whole or not at all. What an earlier report left there is replaced.

    Parameters
    ----------
    comparison : Comparison
        What `compare` gave.
    folder : str or path
        Made if need be.
    thumbnails : bool, default True
        Whether the page shows pictures of the dataset.

    Raises
    ------
    ClipkitError
        If the folder cannot be written, or holds other things than a report.

    Examples
    --------
    >>> import os
    >>> from clipkit.output import write_report
    >>> encoder = clipkit.load_encoder("starter")
    >>> comparison = clipkit.compare("animals", encoder, methods=["zeroshot", "prototypes"], shots=[1], seeds=2)
    >>> write_report(comparison, "report")
    >>> sorted(name for name in os.listdir("report") if not name.startswith("confusion"))
    ['cost.png', 'curves.png', 'index.html', 'results.json']
    """
    check_folder(folder)
    place = Path(folder)
    contents = {"results.json": comparison.to_json().encode(), "cost.png": cost_figure(comparison)}
    contents["curves.png"] = curves_figure(comparison)
    for row in comparison.fullest:
        contents[f"confusion-{row.method}.png"] = _confusion(comparison, row, LIGHT)
    contents["index.html"] = page(comparison, thumbnails=thumbnails).encode()
    try:
        for name, content in contents.items():
            replace_file(place / name, content)
    except OSError as error:
        raise ClipkitError(
            f"{place} cannot be written: {error.strerror or error}", hint="another place: --out FOLDER"
        ) from error


def page(comparison: Comparison, *, thumbnails: bool = True) -> str:
    """Tables, and figures for light and dark, wide and narrow screens; every text is escaped, no request is made."""
    best, zero = comparison.best, comparison.zero_shot
    shown = list(dict.fromkeys(row for row in (best, zero) if row))
    has_curves = any(row.shots != 0 for row in comparison.rows)
    made = render(
        TEMPLATES / "comparison.html",
        title=f"{comparison.dataset}: what labels buy",
        comparison=comparison,
        counts=", ".join(f"{n:,} {part}" for part, n in comparison.counts.items()),
        best={"title": _title(best), "row": best},
        zero_shot=zero if zero is not best else None,
        gain=gain(best),
        span=span,
        steps=[format_shots(shots) for shots in _steps(comparison)],
        accuracies=list(_accuracies(comparison)),
        curves=_figure(comparison, curves_figure, ABOUT_CURVES) if has_curves else None,
        cost=_figure(comparison, cost_figure, ABOUT_COST),
        details=[(row.method, _details(row)) for row in comparison.rows],
        confused=[_confused(comparison, row, thumbnails=thumbnails) for row in shown],
        lines=_footer(comparison),
    )
    return str(made)


def gain(row: Row) -> str:
    """What its labels bought, as the end of a sentence; "" where there is no zero-shot to compare it with."""
    if row.gain is None or row.gain_ci95 is None:
        return ""
    return f": {100 * row.gain:+.1f} points ({_points(row.gain_ci95)}) for {row.labels:,} labels"


def _steps(comparison: Comparison) -> list[Shots]:
    """The numbers of shots that were run, all of them last."""
    steps = dict.fromkeys(row.shots for row in comparison.rows if row.shots != 0)
    return sorted(steps, key=lambda shots: (shots is None, shots or 0))


def _accuracies(comparison: Comparison) -> Iterator[tuple[str, list[_Cell]]]:
    """Methods down, shots across: what fits on a telephone."""
    steps = _steps(comparison)
    table = {(row.method, row.shots): row for row in comparison.rows}
    best = {shots: max(row.acc1 for row in comparison.rows if row.shots == shots) for shots in steps}
    for method in dict.fromkeys(row.method for row in comparison.rows):
        if method == ZERO_SHOT:
            yield method, [_Cell(f"{100 * table[method, 0].acc1:.1f}, no labels", span=max(len(steps), 1))]
        else:
            yield method, [_cell(table.get((method, shots)), best[shots]) for shots in steps]


def _cell(row: Row | None, best: float) -> _Cell:
    return _Cell() if row is None else _Cell(f"{100 * row.acc1:.1f}", row.acc1 == best)


def _details(row: Row) -> tuple[str, ...]:
    over = "" if row.gain_ci95 is None or row.method == ZERO_SHOT else _points(row.gain_ci95)
    return (
        format_shots(row.shots),
        f"{100 * row.acc1:.1f}",
        span(row.acc1_ci95),
        f"{100 * row.mean_per_class:.1f}",
        span(row.mean_per_class_ci95),
        span((row.lowest, row.highest)) if row.seeds > 1 else "",
        over,
        str(row.seeds),
        f"{row.seconds:.2f}",
        f"{row.labels:,}",
    )


def _confused(comparison: Comparison, row: Row, *, thumbnails: bool) -> _Confused:
    pairs = tuple(_pair(comparison, pair, thumbnails=thumbnails) for pair in comparison.pairs_of(row)[:PAIRS])
    light, dark = (data_url(_confusion(comparison, row, theme), PNG) for theme in (LIGHT, DARK))
    return _Confused(
        _title(row), pairs, _Figure(f"Confusion matrix of {_title(row)}", light, ((IN_DARK, dark),)), row.seeds
    )


def _pair(comparison: Comparison, pair: Mistake, *, thumbnails: bool) -> ConfusedPair:
    if not thumbnails:
        return ConfusedPair(pair, None, None)
    small = tuple(made for file in pair.files if (made := _thumbnail(comparison, file, file)))
    like = comparison.references.get(pair.predicted)
    reference = _thumbnail(comparison, like, f"{pair.predicted}, from train") if like else None
    return ConfusedPair(pair, small, reference)


def _thumbnail(comparison: Comparison, file: str, about: str) -> InlineThumbnail | None:
    root = Path(comparison.path)
    with suppress(ImageError, OSError):
        canvas = thumbnail((root.parent if root.is_file() else root) / file, SIZE).canvas
        return InlineThumbnail(about, data_url(to_jpeg(canvas), "image/jpeg"))
    return None


def _footer(comparison: Comparison) -> list[str]:
    settings, seconds = comparison.settings, comparison.feature_seconds
    features = ", ".join(f"{space} {number:.1f} s" for space, number in seconds.items())
    return [
        f"Intervals: {settings.get('intervals', '')}.",
        "Labels used counts those that were fitted and those by which hyperparameters were chosen.",
        f"Features of all pictures: {features} (next to nothing where they came from the cache); seconds are without.",
        *comparison.notes,
        *(f"Not run: {reason}." for reason in comparison.left_out),
        *(f"Not counted: {failure.path}: {failure.reason}." for failure in comparison.failed),
        f"Weights: {comparison.model.get('fingerprint', '')}; pixels: {comparison.model.get('pixels', '')}.",
        "Machine: " + ", ".join(f"{key} {value}" for key, value in comparison.machine.items()) + ".",
        "Versions: " + ", ".join(f"{key} {value}" for key, value in comparison.versions.items()) + ".",
    ]


class _Draw(Protocol):
    """A figure of a comparison."""

    def __call__(self, comparison: Comparison, *, narrow: bool = False, theme: Theme = LIGHT) -> bytes: ...


def _figure(comparison: Comparison, draw: _Draw, about: str) -> _Figure:
    def drawn(theme: Theme, *, narrow: bool = False) -> str:
        return data_url(draw(comparison, theme=theme, narrow=narrow), PNG)

    sources = (
        (f"{NARROW} and {IN_DARK}", drawn(DARK, narrow=True)),
        (NARROW, drawn(LIGHT, narrow=True)),
        (IN_DARK, drawn(DARK)),
    )
    return _Figure(about, drawn(LIGHT), sources)


def matrix_figure(comparison: Comparison, row: Row, theme: Theme, *, title: str = "") -> bytes:
    """The row's confusion matrix as PNG, in an order that brings together what is confused."""
    matrix = comparison.confusion(row.method, row.shots)
    order = by_confusion(matrix, comparison.groups)
    names, groups = ([words[i] for i in order] for words in (comparison.classes, comparison.groups))
    return confusion_figure(matrix[order][:, order], names, groups=groups, percent=True, title=title, theme=theme)


def _confusion(comparison: Comparison, row: Row, theme: Theme) -> bytes:
    return matrix_figure(comparison, row, theme, title=f"{_title(row)}: % of each class's pictures")


def _title(row: Row) -> str:
    return "zero-shot" if row.method == ZERO_SHOT else f"{row.method}, {format_shots(row.shots)} shots"


def span(interval: Interval) -> str:
    """From where to where, in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _points(interval: Interval) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
