"""Notebook HTML: a few thumbnails and a table, as `_repr_html_` gives them to Jupyter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clipkit.core.html import data_url, render
from clipkit.errors import ImageError
from clipkit.images.thumbnails import thumbnail, to_jpeg

TEMPLATE = Path(__file__).with_name("notebook.html")
MOST = 12  # thumbnails of one answer: a notebook keeps them in its file, 5 to 10 KB each
MOST_ROWS = 60
SIZE = 160  # pixels of the longer side


@dataclass(frozen=True)
class Captioned:
    """A picture to show. file: on this disk, which is not shown. caption: what stands below it."""

    file: str
    caption: str


@dataclass(frozen=True)
class _Shown:
    """source: a data URL, "" for a picture that cannot be read."""

    source: str
    caption: str


def notebook_html(
    title: str,
    facts: Sequence[str] = (),
    *,
    pictures: Iterable[Captioned] = (),
    columns: Sequence[str] = (),
    rows: Iterable[Sequence[object]] = (),
    more: str = "",
) -> str:
    """A heading, at most 12 thumbnails and 60 rows, and a line about the rest; every text is escaped.

    A picture that cannot be read costs a placeholder. No picture beyond the twelfth is opened.
    """
    shown = [_Shown(_source(picture.file), picture.caption) for picture in islice(pictures, MOST)]
    table = [list(row) for row in islice(rows, MOST_ROWS)]
    return str(render(TEMPLATE, title=title, facts=facts, pictures=shown, columns=columns, rows=table, more=more))


def rest(count: int, noun: str, advice: str, *, most: int = MOST) -> str:
    """The line about what is not shown; "" where all is."""
    return f"and {count - most:,} more {noun}: {advice}" if count > most else ""


def _source(file: str) -> str:
    try:
        return data_url(to_jpeg(thumbnail(file, SIZE).canvas), "image/jpeg")
    except (ImageError, OSError):
        return ""
