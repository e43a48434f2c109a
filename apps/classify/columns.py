"""Columns of a sorted library as HTML: one a class, from ids, numbers and escaped text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipkit.classify.collection import NONE, Classified, Column, Matrix
from clipkit.classify.head import Head
from clipkit.core.arrays import FloatArray, IntArray
from clipkit.core.html import Markup
from clipkit.core.text import printable
from clipkit.explore.metadata import Catalogue
from clipkit.learn.corrections import Lesson

from ..html import address, line, render

CARDS = 600  # on the screen at first, shared among the columns
FEWEST, USUAL = 6, 24  # a column
MORE = 60  # that "more" adds
TOP = 5  # classes whose probability a picture carries
MOST_COLUMNS = 80
FEW_COLUMNS = 12  # up to here also classes whose pictures are all unsure have one
BINS = 40  # of a histogram: 7 pixels each where a column is narrow
SET_ASIDE = "unsure, or none of these"


@dataclass(frozen=True)
class Scores:
    """Scores of a sorted library. edges (BINS + 1,); counts (c, BINS): without what was labelled; cuts (c,).

    own: the classes whose cut was moved.
    """

    edges: FloatArray
    counts: IntArray
    cuts: FloatArray
    own: Collection[int]

    @classmethod
    def of(cls, found: Classified, cuts: FloatArray, own: Collection[int], by_hand: Mapping[int, str]) -> Scores:
        return cls(found.edges(BINS), found.histograms(len(cuts), BINS, by_hand.keys()), cuts, own)

    def histogram(self, column: Column, name: str) -> Markup:
        """The scores of one class as bars, with a line that parts what is assigned from what is unsure."""
        bins = self.counts[column.place]
        above = len(column.ids) - column.by_hand
        low, high = float(self.edges[0]), float(self.edges[-1])
        share = min(max((float(self.cuts[column.place]) - low) / max(high - low, 1e-9), 0.0), 1.0)
        heights = np.where(bins > 0, np.maximum(100 * bins / max(bins.max(), 1), 4), 0)  # one picture can be seen
        return render(
            "histogram",
            place=column.place,
            name=name,
            bins=json.dumps(bins.tolist()),
            by_hand=column.by_hand,
            share=f"{share:.4f}",
            at=round(share * BINS),
            count=BINS,
            bars="".join(f"M{x} 100V{100 - y:.0f}h1V100z" for x, y in enumerate(heights.tolist()) if y),
            split=f"{above:,} assigned, {int(bins.sum()) - above:,} unsure",
        )


@dataclass(frozen=True)
class Pile:
    """Pictures to show, and what is known of them."""

    key: str
    catalogue: Catalogue
    matrix: Matrix
    head: Head
    by_hand: Mapping[int, str]

    def cards(self, ids: Sequence[int], place: int) -> Markup:
        """One button a picture; ids that are gone are left out."""
        there, rows = self.matrix.of(ids)
        places, sure = self.head.ranked(rows, TOP) if len(rows) else (np.empty((0, 1), int), np.empty((0, 1)))
        lines = zip(there.tolist(), places.tolist(), sure.tolist(), strict=True)
        return Markup("").join(self._card(id_, where, how_sure, place) for id_, where, how_sure in lines)

    def _card(self, id_: int, places: list[int], sure: list[float], place: int) -> Markup:
        fact = self.catalogue.fact(id_)
        if fact is None:
            return Markup("")
        best = self.head.classes[places[0]]
        is_fixed = id_ in self.by_hand
        return render(
            "pick",
            fact=fact,
            name=fact.path.rpartition("/")[2],
            place=place,
            chances=",".join(f"{c}:{p:.4f}" for c, p in zip(places, sure, strict=True)),
            is_fixed=is_fixed,
            label=self.by_hand[id_] if is_fixed else f"{best}, {100 * sure[0]:.0f} percent",
            mark="by hand" if is_fixed else f"{100 * sure[0]:.0f} %",
            thumb=address(self.key, fact),
            large=address(self.key, fact, "large"),
        )


def columns(pile: Pile, found: Sequence[Column], scores: Scores, *, turn: int) -> Markup:
    """All columns that hold pictures, or would with a lower cut, and the names of those that hold none."""
    names = [printable(name) for name in pile.head.classes]
    named = [column for column in found if column.place != NONE]
    shown = _shown(named, scores)
    room = min(max(CARDS // (len(shown) + 1), FEWEST), USUAL)
    empty = [names[column.place] for column in named if not len(column.ids)]
    rest = sum(len(column.ids) > 0 for column in named) - sum(len(column.ids) > 0 for column in shown)
    sentence = f"No pictures in {_listed(empty)}." if empty else ""
    more = f" {rest:,} more classes have pictures; export them, or sort into fewer." if rest > 0 else ""
    foot = line(sentence + more, kind="ck-line ck-empty-classes") if sentence or more else ""
    aside = [column for column in found if column.place == NONE]
    drawn = [_column(pile, column, names, room, scores) for column in [*shown, *aside]]
    return render("columns", columns=drawn, classes=json.dumps(names), turn=turn, foot=foot)


def _shown(named: Sequence[Column], scores: Scores) -> list[Column]:
    """Those with pictures, or with a cut of their own; and a few whose pictures are all unsure; in their order."""
    some = [column for column in named if len(column.ids) or column.place in scores.own][:MOST_COLUMNS]
    there = {column.place for column in some}
    unsure = {one.place: int(scores.counts[one.place].sum()) for one in named if one.place not in there}
    rest = sorted((column for column in named if unsure.get(column.place)), key=lambda column: -unsure[column.place])
    return sorted([*some, *rest[: max(FEW_COLUMNS - len(some), 0)]], key=lambda column: column.place)


@dataclass(frozen=True)
class _Column:
    """A column as it is drawn. key: which key puts a picture there. rest: the button for more."""

    place: int
    name: str
    key: str
    count: int
    cards: Markup
    rest: str
    histogram: Markup

    @property
    def is_none(self) -> bool:
        return self.place == NONE


def _column(pile: Pile, column: Column, names: Sequence[str], room: int, scores: Scores) -> _Column:
    is_none = column.place == NONE
    name = SET_ASIDE if is_none else names[column.place]
    key = "0" if is_none else str(column.place + 1) if column.place < 9 else ""
    ids = column.ids[:room].tolist()
    cards = pile.cards(ids, column.place)
    bars = Markup("") if is_none else scores.histogram(column, name)
    return _Column(column.place, name, key, len(column.ids), cards, rest_of(column, len(ids)), bars)


def changed(pile: Pile, column: Column, scores: Scores) -> dict[str, object]:
    """What a column shows after its cut was moved, for the script that has it on the screen."""
    drawn = _column(pile, column, [printable(name) for name in pile.head.classes], USUAL, scores)
    return {
        "place": drawn.place,
        "count": f"{drawn.count:,}",
        "cards": drawn.cards,
        "rest": drawn.rest,
        "histogram": drawn.histogram,
    }


def rest_of(column: Column, shown: int) -> str:
    """The button below a column that has more pictures than are shown."""
    left = len(column.ids) - shown
    return render("rest", place=column.place, shown=shown, left=left) if left > 0 else ""


def summary(found: Sequence[Column], names: Sequence[str], seconds: float, lesson: Lesson | None) -> Markup:
    """How many, into how many, how fast, and by what."""
    return render(
        "summary",
        total=sum(len(column.ids) for column in found),
        named=sum(len(column.ids) for column in found if column.place != NONE),
        classes=len(names),
        by="by your corrections" if lesson and lesson.labels else "by the class names alone",
        milliseconds=max(1, round(1000 * seconds)),
    )


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most:,} more" if len(names) > most else "")
