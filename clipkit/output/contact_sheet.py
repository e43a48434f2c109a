"""Contact sheet: search results as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipkit.core.files import replacing
from clipkit.core.html import data_url, stream
from clipkit.errors import ClipkitError, ImageError
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.search.hits import Hit, Hits

TEMPLATES = Path(__file__).parent / "templates"
SIZE = 320  # pixels of the longer side: sharp at the 220 or so that a column has, also where pixels are small
HEAD = "<!doctype html>\n<!-- clipkit contact sheet -->\n"  # how a sheet of ours is known


@dataclass(frozen=True)
class _Picture:
    """One picture of a sheet: small, with its size in words, or why it cannot be shown."""

    rank: int
    score: str
    path: str
    source: str = ""
    about: str = ""
    trouble: str = ""


def write_sheet(hits: Hits, file: Path, *, title: str) -> None:
    """Write hits as one HTML file that needs nothing else.

    Each picture is shown small, with its score and its path, best first; one that cannot be read, with its reason.

    Parameters
    ----------
    hits : Hits
        What a search gave.
    file : Path
        An earlier sheet is replaced, in one step; anything else of that name is left as it is.
    title : str
        Of the page.

    Raises
    ------
    ClipkitError
        If the file cannot be written, or is something else than a sheet.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.output import write_sheet
    >>> hits = clipkit.ImageIndex.open("photos").search("a cat", k=2)
    >>> write_sheet(hits, Path("cats.html"), title="a cat")
    >>> "chelsea.png" in Path("cats.html").read_text()
    True
    """
    file = Path(os.path.realpath(file))  # the sheet that a link points to, not the link
    try:
        refuse_to_overwrite(file, HEAD, "contact sheet", "another name: --html sheet.html")
        with replacing(file) as part:
            with open(part, "x", encoding="utf-8", newline="\n") as stream:
                stream.writelines(_pieces(hits, title))
            refuse_to_overwrite(file, HEAD, "contact sheet", "another name: --html sheet.html")  # pictures take a while
    except OSError as error:
        raise ClipkitError(
            f"{file} cannot be written: {error.strerror or error}", hint="another place: --html FILE"
        ) from error


def refuse_to_overwrite(file: Path, head: str, what: str, hint: str) -> None:
    """ClipkitError where `file` is there and does not begin as one of ours."""
    with suppress(FileNotFoundError):
        is_ours = stat.S_ISREG(file.stat().st_mode) and _begins_with(file, head)
        if not is_ours:
            raise ClipkitError(f"{file} is there already, and no {what}; it was left as it is", hint=hint)


def _begins_with(file: Path, head: str) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(head)) == head.encode()


def _pieces(hits: Hits, title: str) -> Iterator[str]:
    """The sheet, a few characters to a picture at a time: it is not held in memory, however many pictures there are."""
    pictures = (_picture(hit, rank) for rank, hit in enumerate(hits, 1))
    return stream(TEMPLATES / "contact_sheet.html", title=title, count=len(hits), pictures=pictures)


def _picture(hit: Hit, rank: int) -> _Picture:
    score = f"{hit.score:.4f}"
    try:
        small = thumbnail(hit.file, SIZE)
    except ImageError as error:
        return _Picture(rank, score, hit.path, trouble=error.message.removeprefix(f"{hit.file}: "))
    about = f"{small.width:,} x {small.height:,} pixels"
    return _Picture(rank, score, hit.path, data_url(to_jpeg(small.canvas), "image/jpeg"), about)
