"""Two rows side by side: the pictures that one answers rightly and the other does not, of one comparison or of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clipkit.core.html import Markup
from clipkit.core.text import printable
from clipkit.evaluate.results import Comparison, Which, format_shots
from clipkit.output.comparison_html import InlineThumbnail

from ..html import render

SHOWN = 18  # pictures of a group
Small = Callable[[str], InlineThumbnail | None]


@dataclass(frozen=True)
class Answer:
    """One picture with its right class and what two rows said. picture: None where it may not be shown."""

    file: str
    actual: str
    first: str
    second: str
    picture: InlineThumbnail | None = None


@dataclass(frozen=True)
class Group:
    """Pictures on which two rows are right and wrong in the same way. answers: the first of them."""

    title: str
    count: int
    answers: tuple[Answer, ...]


def are_comparable(one: Comparison, other: Comparison) -> bool:
    """Whether two comparisons are of different models, and answer for the same pictures."""
    if one.predictions is None or other.predictions is None or one.model == other.model:
        return False
    return not set(one.predictions.files).isdisjoint(other.predictions.files)


def choices(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Rows whose answers are known, as a person reads them and as a browser sends them."""
    return [
        (_title(comparison, which, comparisons), f"{number} {format_shots(which[1])} {which[0]}")
        for number, comparison in enumerate(comparisons)
        for which in (comparison.predictions.predicted if comparison.predictions else ())
    ]


def first_choice(comparisons: Sequence[Comparison]) -> tuple[str | None, str | None]:
    """The best row, and beside it that of another model, or zero-shot, or whatever else there is."""
    values = [value for _, value in choices(comparisons)]
    if not values:
        return None, None
    best = comparisons[0].best
    mine = next((value for value in values if value == f"0 {format_shots(best.shots)} {best.method}"), values[0])
    same_row = mine.replace("0", "1", 1)
    order = [same_row, "0 0 zeroshot", *values]
    return mine, next((value for value in order if value in values and value != mine), mine)


def side_by_side(comparisons: Sequence[Comparison], first: str, second: str, small: Small) -> Markup:
    """Who is right where the other is wrong, and where both are; "" for rows that are not there."""
    sides = {value: answers for value, answers in _sides(comparisons) if value in (first, second)}
    if first not in sides or second not in sides:
        return Markup("")
    answers = [
        Answer(file, actual, said, sides[second][file][1])
        for file, (actual, said) in sides[first].items()
        if sides[second].get(file, ("",))[0] == actual
    ]
    names = {value: title for title, value in choices(comparisons)}
    return render(
        "sides",
        first=names[first],
        second=names[second],
        total=len(answers),
        both=sum(one.first == one.actual == one.second for one in answers),
        groups=list(_groups(answers, small)),
    )


def _groups(answers: Sequence[Answer], small: Small) -> Iterator[Group]:
    cases = {"A right, B wrong": (True, False), "B right, A wrong": (False, True), "Both wrong": (False, False)}
    for title, case in cases.items():
        found = [one for one in answers if (one.first == one.actual, one.second == one.actual) == case]
        shown = [Answer(one.file, one.actual, one.first, one.second, small(one.file)) for one in found[:SHOWN]]
        yield Group(title, len(found), tuple(shown))


def _sides(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Each row's value with the right class and the answer by file."""
    for number, comparison in enumerate(comparisons):
        if (said := comparison.predictions) is None:
            continue
        names = comparison.classes
        for (method, shots), places in said.predicted.items():
            pairs = zip(said.files, said.actual.tolist(), places.tolist(), strict=True)
            answers = {file: (names[actual], names[place]) for file, actual, place in pairs}
            yield f"{number} {format_shots(shots)} {method}", answers


def _title(comparison: Comparison, which: Which, comparisons: Sequence[Comparison]) -> str:
    method, shots = which
    row = method if shots == 0 else f"{method}, {format_shots(shots)} per class"
    model = f" ({comparison.model.get('name', '')})" if len(comparisons) > 1 else ""
    return printable(row + model)
