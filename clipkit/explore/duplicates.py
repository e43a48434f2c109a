"""Duplicates: pictures of an index with the same bytes, near copies, and bursts, in groups around the one to keep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray, IntArray
from clipkit.explore.choices import Level
from clipkit.explore.metadata import Catalogue, Fact
from clipkit.images.formats import split_frame
from clipkit.images.perceptual_hash import ALIKE, MOST_BITS, Hashes, are_near_copies, have_structure
from clipkit.index.image_index import ImageIndex
from clipkit.index.paths import filter_for

BURST, BURST_SECONDS = 0.9, 10.0  # cosine of pictures of a burst, and how long after one another they were taken
ROWS, COLUMNS = 512, 8_192  # of one block of cosines: 16 MB
UNDATED = "9999"


def find_duplicates(
    index: ImageIndex,
    *,
    level: Level = "exact",
    below: str = "",
    catalogue: Catalogue | None = None,
) -> list[tuple[Fact, ...]]:
    """Groups of two or more pictures that are there more than once, the largest group first.

    The first of each group is the one to keep: of most pixels, then the oldest. Every other is alike to that one
    itself, not only to another of the group, so that no chain of pictures runs through a folder.

    Parameters
    ----------
    index : ImageIndex
        Whose pictures are compared.
    level : {"exact", "near", "similar"}, default "exact"
        Equal bytes; or also near copies: a cosine of .7 and perceptual hashes (of the picture or its mirror image) that
        differ in at most 12 of 64 bits, or a cosine of .95 and at most 20; or also bursts: a cosine of .9, taken within
        10 seconds.
    below : str, optional
        Only in that folder, relative to the root.
    catalogue : Catalogue, optional
        Metadata that was read already.

    Returns
    -------
    list of tuple of Fact
        `id`, `path`, `width`, `height`, `taken` and `sha256` of each picture.

    Raises
    ------
    QueryError
        If no picture lies in `below`.

    References
    ----------
    .. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.

    Examples
    --------
    >>> import shutil
    >>> from clipkit.explore import find_duplicates
    >>> index = clipkit.ImageIndex.open("photos")
    >>> _ = shutil.copyfile("photos/coffee.png", "photos/coffee 2.png")
    >>> report = index.update()
    >>> [sorted(fact.path for fact in group) for group in find_duplicates(index, level="near")]
    [['coffee 2.png', 'coffee.png']]
    """
    facts = _in_order_of_worth(index, catalogue or Catalogue.read(index), below)
    groups = _equal_bytes(facts)
    if level != "exact":
        first = [facts[rows[0]] for rows in groups]  # of equal bytes one stands for all
        signs = _signs(index, first, level)
        groups = [[row for place in places for row in groups[place]] for places in _groups_around(signs, len(first))]
    found = (tuple(facts[row] for row in sorted(rows)) for rows in groups if len(rows) > 1)
    return sorted(found, key=len, reverse=True)


@dataclass(frozen=True)
class _Signs:
    """What pictures are compared by: vectors (n, d), hashes and whether they say anything, seconds (n,) or NaN.

    is_burst: whether the seconds count.
    """

    vectors: npt.NDArray[np.float16]
    hashes: Hashes
    is_hashed: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    is_burst: bool

    def pairs(self, rows: IntArray, columns: IntArray) -> tuple[IntArray, IntArray]:
        """Those of `rows` and of `columns` that are alike."""
        cosines = self.vectors[rows].astype(np.float32) @ self.vectors[columns].astype(np.float32).T
        places = np.flatnonzero(cosines >= ALIKE)
        left, right = rows[places // len(columns)], columns[places % len(columns)]
        is_alike = self._are_alike(left, right, cosines.ravel()[places])
        return left[is_alike], right[is_alike]

    def _are_alike(self, left: IntArray, right: IntArray, cosines: FloatArray) -> npt.NDArray[np.bool_]:
        different, are_hashed = self.hashes[left] ^ self.hashes[right], self.is_hashed[left] & self.is_hashed[right]
        is_alike = are_near_copies(different, cosines, are_hashed=are_hashed, most_bits=MOST_BITS)
        if self.is_burst:
            is_alike |= (cosines >= BURST) & (np.abs(self.seconds[left] - self.seconds[right]) <= BURST_SECONDS)
        return np.asarray(is_alike, dtype=np.bool_)


def _in_order_of_worth(index: ImageIndex, catalogue: Catalogue, below: str) -> list[Fact]:
    """The pictures below that folder: of most pixels first, then the oldest, by its date or by that of its file.

    Frames of videos are not among them: nobody can delete one.
    """
    is_chosen = filter_for(catalogue.paths, below)
    all_facts = (fact for id_ in catalogue.ids.tolist() if (fact := catalogue.fact(id_)) is not None)
    chosen = (fact for fact in all_facts if split_frame(fact.path) is None)
    known = index.store.known()

    def worth(fact: Fact) -> tuple[int, str, int, int]:
        changed = known[fact.path].mtime_ns if fact.path in known else 0
        return -fact.width * fact.height, fact.taken or UNDATED, changed, fact.id

    return sorted((fact for fact in chosen if is_chosen is None or is_chosen(fact.path)), key=worth)


def _equal_bytes(facts: Sequence[Fact]) -> list[list[int]]:
    """Rows of equal bytes, in the order of the first of each."""
    groups: dict[str, list[int]] = {}
    for row, fact in enumerate(facts):
        groups.setdefault(fact.sha256 or f"row {row}", []).append(row)
    return list(groups.values())


def unhashed_count(index: ImageIndex) -> int:
    """Pictures without a perceptual hash: those that were indexed before there was one."""
    return len(index) - len(index.store.hashes())


def _signs(index: ImageIndex, facts: Sequence[Fact], level: Level) -> _Signs:
    hashes = perceptual_hashes(index, facts)
    seconds = np.array([_seconds(fact.taken) for fact in facts], dtype=np.float64)
    return _Signs(_vectors(index, facts), hashes, have_structure(hashes), seconds, is_burst=level == "similar")


def perceptual_hashes(index: ImageIndex, facts: Sequence[Fact]) -> Hashes:
    """Hashes (n,) of 64 bits of these pictures; 0, which says nothing, where the index has none."""
    known = index.store.hashes()
    return np.frombuffer(b"".join(known.get(fact.id, bytes(8)) for fact in facts), dtype=">u8").astype(np.uint64)


def _vectors(index: ImageIndex, facts: Sequence[Fact]) -> npt.NDArray[np.float16]:
    """Vectors (n, d) of these pictures; zeros, which are like nothing, where one has left the index meanwhile."""
    place = {fact.id: row for row, fact in enumerate(facts)}
    vectors = np.zeros((len(facts), index.info.dim), dtype=np.float16)
    for _, ids, rows in index.store.blocks():
        known = [(number, place[id_]) for number, id_ in enumerate(ids.tolist()) if id_ in place]
        if known:
            source, target = np.array(known).T
            vectors[target] = rows[source]
    return vectors


def _seconds(taken: str) -> float:
    try:
        return datetime.fromisoformat(f"{taken}+00:00").timestamp()
    except ValueError:  # no date, or none that is one: an index may come from anybody
        return math.nan


def _groups_around(signs: _Signs, count: int) -> Iterator[list[int]]:
    """Each picture, best first, with those that are like it and like no better one (leader clustering)."""
    is_taken = np.zeros(count, dtype=np.bool_)
    for start in range(0, count, ROWS):
        rows = np.arange(start, min(start + ROWS, count))
        rows = rows[~is_taken[rows]]
        left, right = _later_pairs(signs, rows, start, is_taken)
        bounds = np.searchsorted(left, np.append(rows, count))
        for row, first, last in zip(rows.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if is_taken[row]:
                continue
            others = right[first:last]
            others = others[~is_taken[others]]
            is_taken[row] = is_taken[others] = True
            yield [row, *others.tolist()]


def _later_pairs(
    signs: _Signs, rows: IntArray, start: int, is_taken: npt.NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Pairs of these rows and what comes behind each, ascending."""
    free = start + np.flatnonzero(~is_taken[start:])
    blocks = [free[column : column + COLUMNS] for column in range(0, len(free), COLUMNS)]
    found = [signs.pairs(rows, columns) for columns in blocks] or [(rows[:0], rows[:0])]
    left, right = (np.concatenate(parts) for parts in zip(*found, strict=True))
    is_later = right > left
    left, right = left[is_later], right[is_later]
    order = np.lexsort((right, left))
    return left[order], right[order]
