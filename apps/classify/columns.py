"""Columns of a sorted library as HTML: one a class, from ids, numbers and escaped text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from clipkit.classify.collection import NONE, Column, Matrix
from clipkit.classify.head import Head
from clipkit.core.text import printable
from clipkit.explore.metadata import Catalogue
from clipkit.learn.corrections import Lesson

from ..html import address, safe

CARDS = 600  # on the screen at first, shared among the columns
FEWEST, USUAL = 6, 24  # a column
MORE = 60  # that "more" adds
TOP = 5  # classes whose probability a picture carries
MOST_COLUMNS = 80
SET_ASIDE = "unsure, or none of these"


@dataclass(frozen=True)
class Pile:
    """Pictures to show, and what is known of them."""

    key: str
    catalogue: Catalogue
    matrix: Matrix
    head: Head
    by_hand: Mapping[int, str]

    def cards(self, ids: Sequence[int], place: int) -> str:
        """One button a picture; ids that are gone are left out."""
        there, rows = self.matrix.of(ids)
        places, sure = self.head.ranked(rows, TOP) if len(rows) else (np.empty((0, 1), int), np.empty((0, 1)))
        lines = zip(there.tolist(), places.tolist(), sure.tolist(), strict=True)
        return "".join(self._card(id_, where, how_sure, place) for id_, where, how_sure in lines)

    def _card(self, id_: int, places: list[int], sure: list[float], place: int) -> str:
        fact = self.catalogue.fact(id_)
        if fact is None:
            return ""
        name = safe(fact.path.rpartition("/")[2])
        best = safe(self.head.classes[places[0]])
        chances = ",".join(f"{int(c)}:{float(p):.4f}" for c, p in zip(places, sure, strict=True))
        is_fixed = id_ in self.by_hand
        label = safe(self.by_hand[id_]) if is_fixed else f"{best}, {100 * sure[0]:.0f} percent"
        mark = "by hand" if is_fixed else f"{100 * sure[0]:.0f} %"
        return (
            f'<button type="button" class="ck-pick{" ck-fixed" if is_fixed else ""}" data-id="{int(id_)}" '
            f'data-place="{int(place)}" data-from="{int(place)}" data-chances="{chances}" '
            f'data-large="{address(self.key, fact, "large")}" aria-label="{name}: {label}" tabindex="-1">'
            f'<img src="{address(self.key, fact)}" alt="{name}" loading="lazy" decoding="async" '
            f'width="160" height="160">'
            f'<span class="ck-chance">{mark}</span></button>'
        )


def columns(pile: Pile, found: Sequence[Column], *, turn: int) -> str:
    """All columns that hold pictures, and the names of those that hold none."""
    names = [printable(name) for name in pile.head.classes]
    filled = [column for column in found if len(column.ids) or column.place == NONE]
    shown = [*[column for column in filled if column.place != NONE][:MOST_COLUMNS], *filled[-1:]]
    room = min(max(CARDS // max(len(shown), 1), FEWEST), USUAL)
    empty = [names[column.place] for column in found if not len(column.ids) and column.place != NONE]
    rest = len(filled) - len(shown)
    parts = [_column(pile, column, names, room) for column in shown]
    sentence = f"No picture yet: {_listed(empty)}." if empty else ""
    more = f" {rest:,} more classes have pictures; export them, or sort by fewer." if rest > 0 else ""
    foot = f'<p class="ck-line ck-empty-classes">{safe(sentence + more)}</p>' if sentence or more else ""
    spoken = escape(json.dumps(names), quote=True)
    return f'<div class="ck-columns" data-turn="{int(turn)}" data-classes="{spoken}">{"".join(parts)}</div>{foot}'


def _column(pile: Pile, column: Column, names: Sequence[str], room: int) -> str:
    is_none = column.place == NONE
    name = SET_ASIDE if is_none else names[column.place]
    key = "0" if is_none else str(column.place + 1) if column.place < 9 else ""
    hint = f"<kbd>{key}</kbd>" if key else ""
    ids = column.ids[:room].tolist()
    return (
        f'<section class="ck-column{" ck-none" if is_none else ""}" data-place="{column.place}" '
        f'aria-label="{safe(name)}">'
        f'<header><h3 title="{safe(name)}">{safe(name)}</h3>{hint}<b class="ck-many">{len(column.ids):,}</b></header>'
        f'<div class="ck-pile">{pile.cards(ids, column.place)}</div>{rest_of(column, len(ids))}</section>'
    )


def rest_of(column: Column, shown: int) -> str:
    """The button below a column that has more pictures than are shown."""
    left = len(column.ids) - shown
    if left <= 0:
        return ""
    return (
        f'<button type="button" class="ck-button ck-rest" data-act="more" data-place="{column.place}" '
        f'data-shown="{shown}">{left:,} more</button>'
    )


def summary(found: Sequence[Column], names: Sequence[str], seconds: float, lesson: Lesson | None) -> str:
    """How many, into how many, how fast, and by what."""
    total = sum(len(column.ids) for column in found)
    named = sum(len(column.ids) for column in found if column.place != NONE)
    by = "by what was learned" if lesson and lesson.labels else "by the words alone"
    milliseconds = max(1, round(1000 * seconds))
    return (
        f'<p class="ck-line"><b>{named:,}</b> of {total:,} pictures in {len(names):,} '
        f"{'class' if len(names) == 1 else 'classes'} {by}, {total - named:,} set aside, in {milliseconds:,} ms</p>"
    )


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most:,} more" if len(names) > most else "")
