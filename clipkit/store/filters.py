"""Filters of rows as SQL: comparisons of numbers, texts, dates, shapes and file types."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

OPERATORS = (">=", "<=", ">", "<", "=")
PIXELS = "width * height"
_NUMBERS = ("width", "height", "rating", "latitude", "longitude", PIXELS)
_TEXTS = ("camera", "title")


@dataclass(frozen=True)
class Filter:
    """A condition on a picture's row; `sql` names its columns, and `parameters` stand for its question marks."""

    sql: str
    parameters: tuple[object, ...] = ()

    def negated(self) -> Filter:
        """Rows that do not meet it, those among them that say nothing about it."""
        return Filter(f"NOT coalesce({self.sql}, 0)", self.parameters)


def compare(column: str, operator: str, value: float) -> Filter:
    """Rows whose number stands so to `value`."""
    if column not in _NUMBERS or operator not in OPERATORS:
        raise ValueError(f"{column} {operator}")
    return Filter(f"{column} {operator} ?", (value,))


def contains(column: str, text: str) -> Filter:
    """Rows whose text has `text` in it, in whatever case."""
    if column not in _TEXTS:
        raise ValueError(column)
    return _contains(column, text)


def has_tag(tags: Sequence[str]) -> Filter:
    """Rows with one of these tags, in whatever case. A tag has no quotation marks, so that they tell where it ends."""
    quoted = [_contains("tags", json.dumps(tag.replace('"', "'"), ensure_ascii=False)) for tag in tags]
    return Filter(_any_of(one.sql for one in quoted), tuple(value for one in quoted for value in one.parameters))


def taken_between(since: str, until: str) -> Filter:
    """Rows with a date from `since` to `until`, each a day or "" for no bound."""
    return Filter("taken_at BETWEEN ? AND ?", (since, f"{until}T99" if until else "9999-99"))


def has_shape(shape: str, tolerance: float) -> Filter:
    """Rows of that shape: sides that differ by less than the factor `tolerance` are equal. Unknown sizes are square."""
    wide, tall = "coalesce(width > ? * height, 0)", "coalesce(height > ? * width, 0)"
    shapes = {"landscape": wide, "portrait": tall, "square": f"NOT ({wide} OR {tall})"}
    sql = shapes[shape]
    return Filter(sql, (tolerance,) * sql.count("?"))


def lies_below(folder: str) -> Filter:
    """Rows whose path begins with that folder, spelled just so."""
    prefix = os.fsencode(folder.rstrip("/") + "/")
    return Filter(f"substr(path, 1, {len(prefix)}) = ?", (prefix,))


def has_suffix(suffixes: Collection[str]) -> Filter:
    """Rows whose path ends in one of these, ".jpg" for instance, in whatever case."""
    ordered = sorted(suffixes, key=len)
    parts = [
        f"lower(CAST(substr(path, -{length}) AS TEXT)) IN ({', '.join('?' for _ in same)})"
        for length, same in ((length, list(same)) for length, same in groupby(ordered, key=len))
    ]
    return Filter(_any_of(parts), tuple(ordered))


def casefold(value: object) -> str | None:
    """Of the text of a column, for letters that SQLite's own `lower` does not know."""
    return value.casefold() if isinstance(value, str) else None


def _contains(column: str, text: str) -> Filter:
    folded = "lower" if text.isascii() else "casefold"
    return Filter(f"instr({folded}({column}), ?) > 0", (text.lower() if text.isascii() else text.casefold(),))


def _any_of(parts: Iterable[str]) -> str:
    return f"({' OR '.join(parts)})"
