"""Filters that stand in a query, `date:2023 camera:"X100V" rating:>=4 -type:png`, as ids of an index."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial, reduce

import numpy as np

from clipkit.core.arrays import IntArray
from clipkit.core.text import printable
from clipkit.errors import QueryError
from clipkit.explore.albums import ids_of_album
from clipkit.explore.choices import SHAPES
from clipkit.explore.metadata import SQUARE, kind, parse_day, parse_kinds
from clipkit.images.formats import SUFFIXES, VIDEO
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import Condition
from clipkit.store import filters
from clipkit.store.columns import Columns, Mask
from clipkit.store.filters import Filter

EXAMPLES = {
    "camera": 'camera:"X100V"',
    "height": "height:<=800",
    "place": "place:52.5,13.4,5 (latitude, longitude, kilometres)",
    "rating": "rating:>=4",
    "size": "size:>12MP or size:<=1MP",
    "tag": "tag:family",
    "text": 'text:"invoice 2023"',
    "title": "title:holiday",
    "width": "width:>=4000",
}
_NUMBER = re.compile(r"(>=|<=|>|<|=?)(\d{1,9}(?:\.\d{1,9})?)")
_SIZE = re.compile(r"(>=|<=|>|<)(\d{1,6}(?:\.\d{1,9})?)MP", re.IGNORECASE)


def ids_that_meet(index: ImageIndex, conditions: Sequence[Condition], *, words_only: bool = False) -> IntArray | None:
    """Ids (n,) of the pictures that meet all of them, ascending; None where there are none.

    words_only: the query comes from somebody else, who may name no file.
    """
    if not conditions:
        return None
    wanted = [_filter(index, one, words_only) for one in conditions]  # all are read before anything is looked up
    columns = index.columns
    met: IntArray = columns.ids[reduce(np.logical_and, [one(columns) for one in wanted])]
    return met


def filter_of(condition: Condition) -> Filter | None:
    """A condition on what the columns of metadata say; None for one that asks more: an album, a class, a glob.

    QueryError where its value makes no sense.
    """
    if condition.field == "path":
        found: Filter = filters.lies_below(condition.value.removeprefix("./"))
    elif condition.field in _FILTERS:
        found = _FILTERS[condition.field](condition.value)
    else:
        return None
    return filters.negated(found) if condition.is_excluded else found


def _filter(index: ImageIndex, condition: Condition, words_only: bool) -> Filter:
    """A condition; QueryError where its value makes no sense."""
    field, value = condition.field, condition.value
    if field == "path":
        found: Filter = partial(_below, index, value)
    elif field == "album":
        found = partial(_is_among, ids_of_album(index, value))
    elif field == "text":
        found = partial(_is_among, _ids_with_text(index, value))
    elif field == "class":
        found = partial(_is_among, _ids_of_class(index, value, words_only))
    else:
        found = _FILTERS[field](value)
    return filters.negated(found) if condition.is_excluded else found


def _below(index: ImageIndex, value: str, columns: Columns) -> Mask:
    value = value.removeprefix("./")
    if value not in ("", ".") and (met := filters.lies_below(value)(columns)).any():
        return met
    try:
        found = index.ids_in(value)  # a glob, the root, or an error
    except QueryError as error:
        raise QueryError(error.message, hint=_as_filter(error.hint or "")) from error
    return _is_among(columns.ids if found is None else found, columns)


def _as_filter(hint: str) -> str:
    """A hint on --in as one on `path:`."""
    folder = shlex.split(hint)[1] if hint.startswith("--in ") else ""
    return f'write path:"{folder}"' if folder else "leave path: out: all pictures of this index lie in its root"


def _is_among(ids: IntArray, columns: Columns) -> Mask:
    return np.isin(columns.ids, ids)


def _ids_of_class(index: ImageIndex, value: str, words_only: bool) -> IntArray:
    from clipkit.classify.head import Head
    from clipkit.classify.labels import ids_of_class

    name, _, file = value.rpartition("@")
    if words_only:
        raise QueryError("class: names a file; here it is no filter", hint="the tab Classify")
    if not name:
        raise QueryError(f"class:{printable(value)} names no classifier", hint="as in class:beagle@pets.safetensors")
    return ids_of_class(index, Head.load(file), (name,))


def _ids_with_text(index: ImageIndex, value: str) -> IntArray:
    """Pictures in which these words stand, one after the other, whatever their case."""
    texts, words = index.store.texts(), " ".join(value.casefold().split())
    if not words:
        raise _refused("text", value)
    if not texts:
        raise QueryError("text: needs the text in the pictures, which was never read", hint="clipkit index --ocr")
    return index.store.ids_with_contents({sha256.hex() for sha256, text in texts.items() if words in text.casefold()})


def _of_place(value: str) -> Filter:
    return filters.lies_near(*_parse_place(value))


def _parse_place(value: str) -> tuple[float, float, float]:
    try:
        latitude, longitude, km = (float(part) for part in value.split(","))
    except ValueError:
        raise _refused("place", value) from None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < km <= 21_000):
        raise _refused("place", value)
    return latitude, longitude, km


def _of_number(field: str, value: str) -> Filter:
    found = _NUMBER.fullmatch(value)
    if found is None or (field == "rating" and float(found[2]) > 5):
        raise _refused(field, value)
    return filters.compare(field, found[1] or "=", float(found[2]))


def _of_size(value: str) -> Filter:
    found = _SIZE.fullmatch(value)
    if found is None:
        raise _refused("size", value)
    return filters.compare_pixels(found[1], 1e6 * float(found[2]))


def _of_text(field: str, value: str) -> Filter:
    if not value.strip():
        raise _refused(field, value)
    return filters.contains(field, value.strip())


def _of_tags(value: str) -> Filter:
    tags = [tag.strip() for tag in value.split(",") if tag.strip()]
    if not tags:
        raise _refused("tag", value)
    return filters.has_tag(tags)


def _of_date(value: str) -> Filter:
    since, dots, until = value.partition("..")
    first, last = parse_day(since), parse_day(until if dots else since, is_end=True)
    if last and first > last:
        raise QueryError(f"date:{printable(value)} ends before it begins", hint=f"write date:{until}..{since}")
    return filters.taken_between(first, last)


def _of_shape(value: str) -> Filter:
    value = value.lower()
    if value not in SHAPES:
        raise QueryError(f"{printable(value)} is no shape", hint=f"shape:{SHAPES[0]}, or {' or '.join(SHAPES[1:])}")
    return filters.has_shape(value, SQUARE)


def _of_type(value: str) -> Filter:
    kinds = {one for text in value.split(",") for one in parse_kinds(text)}
    return filters.has_suffix([suffix for suffix in SUFFIXES | VIDEO if kind(f"x{suffix}") in kinds])


def _refused(field: str, value: str) -> QueryError:
    return QueryError(f"{field}:{printable(value[:40])} cannot be read", hint=f"write {EXAMPLES[field]}")


_FILTERS: dict[str, Callable[[str], Filter]] = {
    **{field: partial(_of_number, field) for field in ("width", "height", "rating")},
    **{field: partial(_of_text, field) for field in ("camera", "title")},
    "date": _of_date,
    "place": _of_place,
    "shape": _of_shape,
    "size": _of_size,
    "tag": _of_tags,
    "type": _of_type,
}
