"""Filters that stand in a query, `path:trip/2024 date:2023-05..2023-08 -type:png`, as ids of an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipkit.core.arrays import IntArray
from clipkit.core.text import printable
from clipkit.errors import QueryError
from clipkit.explore.choices import SHAPES
from clipkit.explore.metadata import Filters, choose_ids, parse_day, parse_kind
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import Condition


def ids_that_meet(index: ImageIndex, conditions: Sequence[Condition], *, words_only: bool = False) -> IntArray | None:
    """Ids (n,) of the pictures that meet all of them, ascending; None where there are none.

    words_only: the query comes from somebody else, who may name no file.
    """
    if not conditions:
        return None
    _, paths = index.store.paths()
    ids = np.sort(np.fromiter(paths, dtype=np.int64, count=len(paths)))
    for condition in conditions:
        found = _ids_of(index, condition, words_only)
        ids = (np.setdiff1d if condition.is_excluded else np.intersect1d)(ids, found)
    return ids


def _ids_of(index: ImageIndex, condition: Condition, words_only: bool) -> IntArray:
    """Ids of the pictures that a condition names, whether they are wanted or not."""
    if condition.field == "class":
        return _ids_of_class(index, condition.value, words_only)
    found = choose_ids(index, _filters(condition))
    assert found is not None, "the filters are not empty"
    return found


def _filters(condition: Condition) -> Filters:
    value = condition.value
    if condition.field == "path":
        return Filters(folder=value)
    if condition.field == "type":
        return Filters(kinds=tuple(parse_kind(kind) for kind in value.split(",")))
    if condition.field == "date":
        since, dots, until = value.partition("..")
        return Filters(since=parse_day(since), until=parse_day(until if dots else since, is_end=True))
    if value not in SHAPES:
        raise QueryError(f"{printable(value)} is no shape", hint=f"shape:{SHAPES[0]}, or {' or '.join(SHAPES[1:])}")
    return Filters(shapes=(value,))


def _ids_of_class(index: ImageIndex, value: str, words_only: bool) -> IntArray:
    from clipkit.classify.head import Head
    from clipkit.classify.labels import ids_of_class

    name, _, file = value.rpartition("@")
    if words_only:
        raise QueryError("class: names a file; here it is no filter", hint="the tab Classify")
    if not name:
        raise QueryError(f"class:{printable(value)} names no classifier", hint="as in class:beagle@pets.safetensors")
    return ids_of_class(index, Head.load(file), (name,))
