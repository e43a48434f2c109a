"""Filters of pictures by metadata columns: comparisons of numbers, texts, dates, shapes, places and file types."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Collection, Sequence

import numpy as np

from clipkit.store.columns import Columns, Mask, Numbers

Filter = Callable[[Columns], Mask]  # rows (n,) that meet it; what a picture does not say meets nothing
OPERATORS: dict[str, Callable[[Numbers, float], Mask]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
EARTH_KM = 6371.0088  # mean radius


def negated(one: Filter) -> Filter:
    """Pictures that do not meet it, those among them that say nothing about it."""
    return lambda columns: ~one(columns)


def compare(column: str, sign: str, value: float) -> Filter:
    """Pictures whose number stands so to `value`."""
    return lambda columns: OPERATORS[sign](columns.numbers[column], value)


def compare_pixels(sign: str, value: float) -> Filter:
    """Pictures whose width times height stands so to `value`."""
    return lambda columns: OPERATORS[sign](_pixels(columns), value)


def contains(column: str, text: str) -> Filter:
    """Pictures whose text has `text` in it, in whatever case."""
    return _contains_any(column, (text,))


def has_tag(tags: Sequence[str]) -> Filter:
    """Pictures with one of these tags, in whatever case. A tag has no quotation marks: they tell where it ends."""
    return _contains_any("tags", [json.dumps(tag.replace('"', "'"), ensure_ascii=False) for tag in tags])


def taken_between(since: str, until: str) -> Filter:
    """Pictures with a date from `since` to `until`, each a day or "" for no bound."""
    return lambda columns: columns.texts["day"].where(lambda day: bool(day) and since <= day <= (until or "9999-99"))


def has_shape(shape: str, tolerance: float) -> Filter:
    """Pictures of that shape: sides that differ by less than a factor are equal, and so are unknown ones."""

    def mask(columns: Columns) -> Mask:
        width, height = columns.numbers["width"], columns.numbers["height"]
        wide, tall = width > tolerance * height, height > tolerance * width
        return {"landscape": wide, "portrait": tall, "square": ~(wide | tall)}[shape]

    return mask


def lies_below(folder: str) -> Filter:
    """Pictures in that folder or below, spelled just so."""
    above = folder.rstrip("/")
    return lambda columns: columns.texts["folder"].where(lambda at: at == above or at.startswith(f"{above}/"))


def has_suffix(suffixes: Collection[str]) -> Filter:
    """Pictures whose name ends in one of these, ".jpg" for instance, in whatever case."""
    return lambda columns: columns.texts["suffix"].where(suffixes.__contains__)


def lies_near(latitude: float, longitude: float, km: float) -> Filter:
    """Pictures taken at most so many kilometres from there."""

    def mask(columns: Columns) -> Mask:
        north = columns.numbers["latitude"]
        met: Mask = np.abs(north - latitude) <= math.degrees(km / EARTH_KM)
        rows = np.flatnonzero(met)
        here = np.radians([latitude, longitude])
        there = np.radians(np.stack([north[rows], columns.numbers["longitude"][rows]], axis=1))  # (m, 2)
        half = np.sin((there - here) / 2) ** 2
        haversine = half[:, 0] + np.cos(here[0]) * np.cos(there[:, 0]) * half[:, 1]
        met[rows] = 2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(haversine, 1))) <= km
        return met

    return mask


def _contains_any(column: str, texts: Sequence[str]) -> Filter:
    folded = [text.casefold() for text in texts]
    return lambda columns: columns.texts[column].where(lambda said: any(one in said.casefold() for one in folded))


def _pixels(columns: Columns) -> Numbers:
    width = columns.numbers["width"].astype(np.float64)  # in float32 a product is off by 1 from 16 megapixels on
    pixels: Numbers = width * columns.numbers["height"]
    return pixels
