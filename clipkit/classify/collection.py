"""Classified libraries: each picture's best class from stored embeddings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import UNKNOWN, Head
from clipkit.core.arrays import Embeddings, FloatArray, IntArray

NONE = -1  # the place of the column "unsure, or none of these"
USUAL = 50.0  # where the slider stands for the cut that the head brings
ROWS = 8_192  # embeddings at a time: float16 is widened in pieces


@dataclass(frozen=True)
class Matrix:
    """All embeddings of a library at one revision. ids (n,) ascending; rows (n, d) float16."""

    revision: int
    ids: IntArray
    rows: npt.NDArray[np.float16]

    def of(self, ids: Sequence[int] | IntArray) -> tuple[IntArray, Embeddings]:
        """Those of `ids` that are there (m,), in their order, and their embeddings (m, d)."""
        wanted = np.asarray(ids, dtype=np.int64)
        if not len(self.ids) or not len(wanted):
            return np.empty(0, np.int64), np.empty((0, self.rows.shape[1]), np.float32)
        places = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        is_there = self.ids[places] == wanted
        return wanted[is_there], self.rows[places[is_there]].astype(np.float32)


@dataclass(frozen=True)
class Column:
    """Pictures of one class, those put there by hand first, then the surest. place: of the class, or NONE."""

    place: int
    ids: IntArray
    by_hand: int


@dataclass(frozen=True)
class Classified:
    """Every picture and its best class.

    ids (n,) ascending. places (n,): of the best class. sure (n,): its probability among the classes. known (n,): by
    which "none of these" is decided. usual: below which it is, where the head knows; None: `known` is `sure`.
    """

    ids: IntArray
    places: IntArray
    sure: FloatArray
    known: FloatArray
    usual: float | None

    def cut(self, strictness: float) -> float:
        """The least `known` that is not set aside, for a slider from 0 (nothing is) over 50 (as usual) to 100."""
        share = min(max(strictness, 0.0), 100.0) / 100
        if self.usual is None or not len(self.known):
            return share
        low, high = min(float(self.known.min()), self.usual), max(float(self.known.max()), self.usual)
        if share <= 0.5:
            return low + (self.usual - low) * 2 * share
        return self.usual + (high - self.usual) * (2 * share - 1)

    def edges(self, bins: int) -> FloatArray:
        """Of the bins of `known` (bins + 1,), from the least to just above the greatest, the same for every class."""
        if not len(self.known):
            return np.linspace(0, 1, bins + 1, dtype=np.float32)
        low, high = self.known.min(), np.nextafter(self.known.max(), np.float32(np.inf))
        edges = np.linspace(low, high, bins + 1, dtype=np.float32)
        edges[[0, -1]] = low, high  # as they are: linspace rounds
        return edges

    def histograms(self, count: int, bins: int, without: Collection[int] = ()) -> IntArray:
        """How many pictures of each best class lie in each bin of `edges`, less those ids: (count, bins)."""
        found = np.searchsorted(self.edges(bins), self.known, side="right") - 1
        cells = self.places * bins + np.clip(found, 0, bins - 1)
        if without:
            cells = cells[~np.isin(self.ids, list(without))]
        return np.bincount(cells, minlength=count * bins).reshape(count, bins)

    def columns(self, classes: Sequence[str], cut: float | FloatArray, by_hand: Mapping[int, str]) -> list[Column]:
        """One a class, in their order, and last what is set aside. by_hand: names by id, UNKNOWN for none.

        cut: the least `known` that is not set aside, one for all or one a class (c,).
        """
        count = len(classes)
        cuts = np.broadcast_to(np.asarray(cut, np.float32), count)
        where = np.where(self.known < cuts[self.places], count, self.places)
        fixed = np.zeros(len(self.ids), dtype=np.bool_)
        spot = {name: place for place, name in enumerate(classes)} | {UNKNOWN: count}
        for id_, name in by_hand.items():
            row = int(np.searchsorted(self.ids, id_))
            if row < len(self.ids) and self.ids[row] == id_ and name in spot:
                where[row], fixed[row] = spot[name], True
        sure = np.where(where == count, self.known, self.sure)
        order = np.lexsort((-self.known, -sure, ~fixed, where))  # at a large temperature many are 1 in float32
        ends = np.searchsorted(where[order], np.arange(count + 1), side="right")
        starts = [0, *ends[:-1].tolist()]
        return [
            Column(NONE if place == count else place, self.ids[order[a:b]], int(fixed[order[a:b]].sum()))
            for place, (a, b) in enumerate(zip(starts, ends.tolist(), strict=True))
        ]

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Where each id stands."""
        return {id_: row for row, id_ in enumerate(self.ids.tolist())}


def classify(matrix: Matrix, head: Head, *, judge: Head) -> Classified:
    """As `Sorter.sort`, of embeddings at hand."""
    count = len(matrix.ids)
    places, sure = np.empty(count, np.int64), np.empty(count, np.float32)
    rule = judge.rejection
    known = np.empty(count, np.float32) if rule else sure
    for start in range(0, count, ROWS):
        block = slice(start, start + ROWS)
        rows = matrix.rows[block].astype(np.float32)
        best, probabilities = head.ranked(rows)
        places[block], sure[block] = best[:, 0], probabilities[:, 0]
        if rule:
            known[block] = judge.known(rows)
    return Classified(matrix.ids, places, sure, known, rule.cut if rule else None)
