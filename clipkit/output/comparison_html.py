"""Comparison report: one HTML page that needs nothing else, with its figures and its data in files beside it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Protocol

from clipkit.core.files import replace_file
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, ImageError
from clipkit.evaluate.results import FORMAT, ZERO_SHOT, Comparison, Interval, Mistake, Row, said_shots
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.output.figures import DARK, LIGHT, Theme, by_confusion, confusion_figure, cost_figure, curves_figure

SIZE = 192  # pixels of a thumbnail: sharp at 96, also where pixels are small
PAIRS = 8  # shown of each row
STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --line: #ddd; --ink: #1c1c1c; --faint: #62625e;
  --best: #0b4f9e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161618; --card: #212124; --line: #37373b; --ink: #ececea; --faint: #a3a3a0; --best: #8fc1ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.1rem; }
h3 { margin: 1.2rem 0 .5rem; font-size: .95rem; }
p, li { overflow-wrap: anywhere; max-width: 46rem; }
p { margin: .3rem 0; }
.faint, figcaption, caption { color: var(--faint); font-size: .88rem; }
.lead { font-size: 1.05rem; margin: .8rem 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; text-align: right; white-space: nowrap; }
thead th { color: var(--faint); font-weight: 500; font-size: .85rem; border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th[scope=row], thead th:first-child { position: sticky; left: 0; background: var(--card); text-align: left;
  font-weight: 500; }
caption { padding: .4rem .6rem 0; text-align: left; }
.short { max-width: 46rem; }
.none { text-align: center; }
.best { color: var(--best); font-weight: 700; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .4rem; }
.wide img { max-width: none; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: .7rem;
  padding: 0; list-style: none; }
.pairs li { padding: .6rem .7rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
.small { display: flex; flex-wrap: wrap; gap: .35rem; margin-top: .4rem; }
.small img { width: 80px; height: 80px; object-fit: cover; border-radius: .3rem; }
.small .like { border-left: 2px solid var(--line); padding-left: .35rem; }
summary { cursor: pointer; }
@media (max-width: 30rem) { body { padding: 1rem .6rem; font-size: 14px; } th, td { padding: .3rem .38rem; }
  .short th, .short td { padding: .3rem .24rem; font-size: .92em; }
  .small img { width: 64px; height: 64px; } }
"""


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
        raise ClipkitError(f"{place} cannot be written: {error.strerror or error}") from error
    if not is_ours:
        raise ClipkitError(f"{place} holds other things than a report; they were left as they are", hint="--out report")


def write_report(comparison: Comparison, folder: str | os.PathLike[str], *, thumbnails: bool = True) -> None:
    """results.json, index.html, curves.png, cost.png and confusion-METHOD.png for each; every file whole or not at all.

    thumbnails: whether the page shows pictures of the dataset. What an earlier report left there is replaced.
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
        raise ClipkitError(f"{place} cannot be written: {error.strerror or error}") from error


def page(comparison: Comparison, *, thumbnails: bool = True) -> str:
    """Tables, and figures for light and dark, wide and narrow screens; every text is escaped, no request is made."""
    name = _text(f"{comparison.dataset}: what labels buy")
    body = "".join(_body(comparison, thumbnails=thumbnails))
    return (
        '<!doctype html>\n<!-- clipkit comparison -->\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n{body}</body>\n</html>\n"
    )


def _body(comparison: Comparison, *, thumbnails: bool) -> Iterator[str]:
    counts = ", ".join(f"{n:,} {part}" for part, n in comparison.counts.items())
    yield f'<p class="faint">{_text(comparison.model["name"])}, {len(comparison.classes)} classes; pictures: {counts} '
    yield f"({_text(comparison.split)}); {_text(comparison.date[:10])}</p>\n"
    yield f'<p class="lead">{_lead(comparison)}</p>\n'
    yield from _accuracies(comparison)
    if any(row.shots != 0 for row in comparison.rows):
        yield "<h2>What labels buy</h2>\n"
        yield _figure(comparison, curves_figure, "Accuracy by labelled pictures a class; upright: the 95 % interval.")
    yield "<h2>What it costs</h2>\n"
    yield _figure(comparison, cost_figure, "Each method with the most labels; seconds of one run, features at hand.")
    yield from _details(comparison)
    shown = [row for row in (comparison.best, comparison.zero_shot) if row]
    shown = list(dict.fromkeys(shown))
    yield "<h2>What is confused</h2>\n"
    for row in shown:
        yield from _pairs(comparison, row, thumbnails=thumbnails)
    for row in shown:
        yield f"<h3>{_named(row)}: the whole matrix, % of each class's pictures</h3>\n"
        light, dark = (_confusion(comparison, row, theme) for theme in (LIGHT, DARK))
        about = f"Confusion matrix of {_named(row)}"
        yield f'<figure class="scroll wide">{_picture(light, dark, about)}</figure>\n'
    yield from _footer(comparison)


def _lead(comparison: Comparison) -> str:
    best, zero = comparison.best, comparison.zero_shot
    best_sentence = f"<b>{_named(best)}</b> is right about {_percent(best.acc1)} ({span(best.acc1_ci95)})"
    if zero is None or zero is best:
        return f"{best_sentence}."
    return (
        f"{best_sentence}, the classes' names alone about {_percent(zero.acc1)} ({span(zero.acc1_ci95)}){gain(best)}."
    )


def gain(row: Row) -> str:
    """What its labels bought, as the end of a sentence; "" where there is no zero-shot to compare it with."""
    if row.gain is None or row.gain_ci95 is None:
        return ""
    return f": {100 * row.gain:+.1f} points ({_points(row.gain_ci95)}) for {row.labels:,} labels"


def _accuracies(comparison: Comparison) -> Iterator[str]:
    """Methods down, shots across: what fits on a telephone."""
    steps = list(dict.fromkeys(row.shots for row in comparison.rows if row.shots != 0))
    steps.sort(key=lambda shots: (shots is None, shots or 0))
    table = {(row.method, row.shots): row for row in comparison.rows}
    best = {shots: max(row.acc1 for row in comparison.rows if row.shots == shots) for shots in steps}
    yield '<div class="scroll short"><table>'
    yield "<caption>right, %, by labelled pictures a class (best of each in bold)</caption>\n"
    yield "<thead><tr><th>method</th>" + "".join(f"<th>{said_shots(shots)}</th>" for shots in steps)
    yield "</tr></thead>\n<tbody>\n"
    for method in dict.fromkeys(row.method for row in comparison.rows):
        if method == ZERO_SHOT:
            cells = f'<td colspan="{max(len(steps), 1)}" class="none">{100 * table[method, 0].acc1:.1f}, no labels</td>'
        else:
            rows = [table.get((method, shots)) for shots in steps]
            cells = "".join(_cell(row, best) for row in rows)
        yield f'<tr><th scope="row">{_text(method)}</th>{cells}</tr>\n'
    yield "</tbody></table></div>\n"


def _cell(row: Row | None, best: dict[int | None, float]) -> str:
    if row is None:
        return "<td></td>"
    mark = ' class="best"' if row.acc1 == best[row.shots] else ""
    return f"<td{mark}>{100 * row.acc1:.1f}</td>"


def _details(comparison: Comparison) -> Iterator[str]:
    heads = ("method", "shots", "right %", "95 %", "mean per class %", "95 %", "seeds from-to %", "over zero-shot")
    yield '<h2>All rows</h2>\n<div class="scroll"><table><thead><tr>'
    yield "".join(f"<th>{head}</th>" for head in (*heads, "seeds", "seconds", "labels")) + "</tr></thead>\n<tbody>\n"
    for row in comparison.rows:
        over = "" if row.gain_ci95 is None or row.method == ZERO_SHOT else _points(row.gain_ci95)
        cells = (
            said_shots(row.shots),
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
        yield (
            f'<tr><th scope="row">{_text(row.method)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
        )
    yield "</tbody></table></div>\n"


def _pairs(comparison: Comparison, row: Row, *, thumbnails: bool) -> Iterator[str]:
    pairs = comparison.pairs_of(row)[:PAIRS]
    yield f"<h3>{_named(row)}: the pairs most often confused</h3>\n"
    if not pairs:
        yield "<p>none: every picture was named rightly</p>\n"
        return
    yield '<ul class="pairs">\n'
    for pair in pairs:
        yield f"<li><b>{_text(pair.actual)}</b> called <b>{_text(pair.predicted)}</b>: {pair.n:,} of {pair.of:,}"
        yield f" ({pair.n / max(pair.of, 1):.0%})"
        yield (_thumbnails(comparison, pair) if thumbnails else "") + "</li>\n"
    yield "</ul>\n"


def _thumbnails(comparison: Comparison, pair: Mistake) -> str:
    small = "".join(_thumbnail(comparison, file, file) for file in pair.files)
    like = comparison.references.get(pair.predicted)
    about = f"{pair.predicted}, from train"
    shown = f'<span class="like">{_thumbnail(comparison, like, about)}</span>' if like else ""
    return f'<div class="small">{small}{shown}</div>'


def _thumbnail(comparison: Comparison, file: str, about: str) -> str:
    root = Path(comparison.path)
    with suppress(ImageError, OSError):
        canvas = thumbnail((root.parent if root.is_file() else root) / file, SIZE).canvas
        data = b64encode(to_jpeg(canvas)).decode("ascii")
        return f'<img alt="{_text(about)}" title="{_text(about)}" src="data:image/jpeg;base64,{data}">'
    return ""


def _footer(comparison: Comparison) -> Iterator[str]:
    yield "<h2>How to read this</h2>\n"
    settings, seconds = comparison.settings, comparison.feature_seconds
    features = ", ".join(f"{space} {number:.1f} s" for space, number in seconds.items())
    lines = [
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
    yield '<ul class="faint">\n' + "".join(f"<li>{_text(line)}</li>\n" for line in lines) + "</ul>\n"


def _figure(comparison: Comparison, draw: _Draw, about: str) -> str:
    light, dark = draw(comparison, theme=LIGHT), draw(comparison, theme=DARK)
    small = [draw(comparison, theme=theme, narrow=True) for theme in (LIGHT, DARK)]
    return f"<figure>{_picture(light, dark, about, small)}<figcaption>{about}</figcaption></figure>\n"


class _Draw(Protocol):
    """A figure of a comparison."""

    def __call__(self, comparison: Comparison, *, narrow: bool = False, theme: Theme = LIGHT) -> bytes: ...


def _picture(light: bytes, dark: bytes, about: str, small: Sequence[bytes] = ()) -> str:
    """The picture that fits the screen and the theme; the others are never drawn."""
    conditions = ["(max-width: 30rem) and (prefers-color-scheme: dark)", "(max-width: 30rem)"]
    sources = list(zip(conditions, reversed(small), strict=False))
    sources.append(("(prefers-color-scheme: dark)", dark))
    lines = "".join(f'<source media="{media}" srcset="{png(content)} 2x">' for media, content in sources)
    return f'<picture>{lines}<img alt="{_text(about)}" srcset="{png(light)} 2x"></picture>'


def png(content: bytes) -> str:
    """A picture as an address that needs no request."""
    return f"data:image/png;base64,{b64encode(content).decode('ascii')}"


def matrix_figure(comparison: Comparison, row: Row, theme: Theme, *, title: str = "") -> bytes:
    """The row's confusion matrix as PNG, in an order that brings together what is confused."""
    matrix = comparison.confusion(row.method, row.shots)
    order = by_confusion(matrix, comparison.groups)
    names, groups = ([words[i] for i in order] for words in (comparison.classes, comparison.groups))
    return confusion_figure(matrix[order][:, order], names, groups=groups, percent=True, title=title, theme=theme)


def _confusion(comparison: Comparison, row: Row, theme: Theme) -> bytes:
    return matrix_figure(comparison, row, theme, title=f"{_title(row)}: % of each class's pictures")


def _named(row: Row) -> str:
    return _text(_title(row))


def _title(row: Row) -> str:
    return "zero-shot" if row.method == ZERO_SHOT else f"{row.method}, {said_shots(row.shots)} shots"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}&nbsp;%"


def span(interval: Interval) -> str:
    """From where to where, in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _points(interval: Interval) -> str:
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def _text(text: str) -> str:
    """Safe between tags and in quotes; control characters and undecodable bytes as backslash escapes."""
    return escape(printable(text))
