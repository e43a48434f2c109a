"""Comparison results on the page: a table, learning curves, confusions, and the pictures that were confused."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterator
from pathlib import Path

from clipkit.errors import ClipkitError
from clipkit.evaluate.results import ZERO_SHOT, Comparison, Mistake, Row, Shots, said_shots
from clipkit.explore.library import picture_below
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.output.comparison_html import gain, matrix_figure, png, span
from clipkit.output.figures import DARK, LIGHT, curves_figure

from ..html import safe
from .runs import root_of

SIZE = 152  # pixels of a thumbnail: sharp at 76
PAIRS = 8  # shown of a row
MOST_DRAWN = 400  # classes of a matrix


def view(comparison: Comparison, roots: Collection[Path]) -> str:
    """The whole, in escaped text and pictures of our own making. roots: folders whose pictures may be shown."""
    return f'<div class="ck-result">{"".join(_parts(comparison, roots))}</div>'


def _parts(comparison: Comparison, roots: Collection[Path]) -> Iterator[str]:
    counts = ", ".join(f"{number:,} {part}" for part, number in comparison.counts.items())
    name, model = comparison.dataset.rpartition("/")[2], str(comparison.model.get("name", ""))
    yield f'<p class="ck-lead">{_lead(comparison)}</p>'
    yield (
        f'<p class="ck-line">{safe(name)}: {safe(model)}, '
        f"{len(comparison.classes):,} classes; pictures: {safe(counts)} ({safe(comparison.split)}); "
        f"{safe(comparison.date[:10])}</p>"
    )
    yield from _table(comparison)
    if any(row.shots != 0 for row in comparison.rows):
        yield "<h2>What labels buy</h2>" + _curves(comparison)
    shown = list(dict.fromkeys(row for row in (comparison.best, comparison.zero_shot) if row))
    root = _allowed(comparison, roots)
    yield "<h2>What is confused</h2>"
    for row in shown:
        yield from _pairs(comparison, row, root)
    if root is None:
        yield '<p class="ck-line">Pictures are shown of datasets that this page has open.</p>'
    matrices = (
        f"<div><h3>{_named(row.method, row.shots)}: % of each class's pictures</h3>{_confusion(comparison, row)}</div>"
        for row in shown
    )
    yield f'<div class="ck-matrices">{"".join(matrices)}</div>'
    yield from _notes(comparison)


def _lead(comparison: Comparison) -> str:
    best, zero = comparison.best, comparison.zero_shot
    sentence = f"<b>{_named(best.method, best.shots)}</b> names {_percent(best.acc1)} rightly ({span(best.acc1_ci95)})"
    if zero is None or zero is best:
        return f"{sentence}."
    return f"{sentence}, the classes' names alone {_percent(zero.acc1)}{gain(best)}."


def _table(comparison: Comparison) -> Iterator[str]:
    heads = ("method", "labels a class", "right, %", "95 % interval", "mean per class, %", "seeds", "seconds", "labels")
    best = comparison.best
    yield '<div class="ck-wide" tabindex="0"><table class="ck-results"><thead><tr>'
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    for row in comparison.rows:
        mark = ' class="ck-top"' if row is best else ""
        cells: tuple[str, ...] = (
            said_shots(row.shots),
            f"{100 * row.acc1:.1f}",
            span(row.acc1_ci95),
            f"{100 * row.mean_per_class:.1f}",
        )
        cells += (f"{row.seeds:,}", f"{row.seconds:.2f}", f"{row.labels:,}")
        body = "".join(f"<td{mark if place == 1 else ''}>{cell}</td>" for place, cell in enumerate(cells))
        yield f'<tr><th scope="row">{safe(row.method)}</th>{body}</tr>'
    yield "</tbody></table></div>"


def _curves(comparison: Comparison) -> str:
    about = "Accuracy by labelled pictures a class, a line a method; shaded: the 95 % interval"
    figures = []
    for theme, name in ((LIGHT, "light"), (DARK, "dark")):
        narrow = png(curves_figure(comparison, narrow=True, theme=theme))
        wide = png(curves_figure(comparison, theme=theme))
        figures.append(
            f'<picture class="ck-in-{name}"><source media="(max-width: 30rem)" srcset="{narrow} 2x">'
            f'<img alt="{about}" srcset="{wide} 2x"></picture>'
        )
    return f'<figure class="ck-figure">{"".join(figures)}</figure>'


def _confusion(comparison: Comparison, row: Row) -> str:
    if len(comparison.classes) > MOST_DRAWN:
        return f'<p class="ck-line">{len(comparison.classes):,} classes are too many for a matrix on a page.</p>'
    about = f"Confusion matrix of {_named(row.method, row.shots)}"
    themes = ((LIGHT, "light"), (DARK, "dark"))
    try:
        images = "".join(
            f'<img class="ck-in-{name}" alt="{about}" srcset="{png(matrix_figure(comparison, row, theme))} 2x">'
            for theme, name in themes
        )
    except ClipkitError as error:
        return f'<p class="ck-line">{safe(error.message)}</p>'
    return f'<div class="ck-wide" tabindex="0"><figure class="ck-figure">{images}</figure></div>'


def _pairs(comparison: Comparison, row: Row, root: Path | None) -> Iterator[str]:
    pairs = comparison.pairs_of(row)[:PAIRS]
    yield f"<h3>{_named(row.method, row.shots)}: the pairs most often confused</h3>"
    if not pairs:
        yield '<p class="ck-line">None: every picture was named rightly.</p>'
        return
    yield '<ul class="ck-pairs">'
    for pair in pairs:
        yield f"<li><b>{safe(pair.actual)}</b> called <b>{safe(pair.predicted)}</b>: {pair.n:,} of {pair.of:,}"
        yield (_pictures(comparison, pair, root) if root else "") + "</li>"
    yield "</ul>"


def _pictures(comparison: Comparison, pair: Mistake, root: Path) -> str:
    small = "".join(_picture(root, file, file) for file in pair.files[:6])
    like = comparison.references.get(pair.predicted)
    other = _picture(root, like, f"{pair.predicted}, as it was learned") if isinstance(like, str) else ""
    return f'<div class="ck-small">{small}{f"""<span class="ck-like">{other}</span>""" if other else ""}</div>'


def _picture(root: Path, name: str, about: str) -> str:
    """A small picture, if the file is one, and lies below `root` when links are followed."""
    file = picture_below(root, name)
    if file is None:
        return ""
    try:
        data = b64encode(to_jpeg(thumbnail(file, SIZE).canvas)).decode("ascii")
    except (ClipkitError, OSError):
        return ""
    label = safe(about)
    return f'<img alt="{label}" title="{label}" src="data:image/jpeg;base64,{data}" width="76" height="76">'


def _allowed(comparison: Comparison, roots: Collection[Path]) -> Path | None:
    """Where its pictures lie, if that is a folder that this page has open."""
    root = root_of(Path(comparison.path))
    return (
        root if any(root == known or root.is_relative_to(known) for known in roots) and ".." not in root.parts else None
    )


def _notes(comparison: Comparison) -> Iterator[str]:
    lines = [*comparison.notes, *(f"Not run: {reason}" for reason in comparison.left_out)]
    lines += [f"Not counted: {failure.path}: {failure.reason}" for failure in comparison.failed[:20]]
    if lines:
        yield "<h2>Notes</h2>" + "".join(f'<p class="ck-line">{safe(line)}</p>' for line in lines)


def _named(method: str, shots: Shots) -> str:
    labels = "1 label" if shots == 1 else f"{said_shots(shots)} labels"
    return "zero-shot" if method == ZERO_SHOT else f"{safe(method)}, {labels} a class"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
