"""Exports of pictures: a table, a contact sheet, or the files themselves in one archive."""

from __future__ import annotations

import csv
import io
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from clipkit.core.text import FORMULA_STARTS, printable
from clipkit.errors import ClipkitError
from clipkit.explore.library import Library
from clipkit.explore.question import Found
from clipkit.images.formats import file_of
from clipkit.output.contact_sheet import write_sheet
from clipkit.search.hits import Hit, Hits

from ..server.routes import Export, Outbox

MOST_ON_A_SHEET = 500  # each is decoded, and 20 KB of the file
MOST_BYTES = 4 * 10**9  # of an archive
SPARE_BYTES = 10**9  # that stay free on the disk


def as_csv(found: Sequence[Found]) -> Export:
    """score, relevance, path, width, height, taken; safe for spreadsheets."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["score", "relevance", "path", "width", "height", "taken"])
    for one in found:
        path = printable(one.fact.path)
        safe = f"'{path}" if path.startswith(FORMULA_STARTS) else path
        taken = printable(one.fact.taken)
        fact = one.fact
        table.writerow([f"{one.hit.score:.6f}", one.relevance, safe, fact.width, fact.height, taken])
    return Export("clipkit.csv", "text/csv; charset=utf-8", stream.getvalue().encode())


def as_sheet(library: Library, found: Sequence[Found], title: str) -> Export:
    """One HTML file that needs no other."""
    hits = Hits(shown(library, found)[:MOST_ON_A_SHEET])
    with TemporaryDirectory(prefix="clipkit-") as folder:
        file = Path(folder) / "sheet.html"
        write_sheet(hits, file, title=title or library.name)
        return Export("clipkit.html", "text/html; charset=utf-8", file.read_bytes())


def as_zip(library: Library, found: Sequence[Found], outbox: Outbox) -> Export:
    """The files as they are, in one archive, which lies on the disk until it has been taken or others come.

    Of frames of a video the video, once.
    """
    hits = list({file_of(hit.file): _whole(hit) for hit in shown(library, found)}.values())
    size = sum(os.stat(hit.file).st_size for hit in hits)
    folder = outbox.folder()
    most = min(MOST_BYTES, shutil.disk_usage(folder).free - SPARE_BYTES)
    if size > most:
        fact = f"these pictures take {size / 1e9:.1f} GB; {max(most, 0) / 1e9:.1f} GB fit into one archive"
        raise ClipkitError(fact, hint="choose fewer, or copy them to a folder")
    file = outbox.new_file(".zip")
    with zipfile.ZipFile(
        file, "w", zipfile.ZIP_STORED, strict_timestamps=False
    ) as archive:  # pictures are compressed already
        for hit, name in zip(hits, _names(hits), strict=True):
            archive.write(hit.file, name)
    return Export("clipkit.zip", "application/zip", file=file)


def shown(library: Library, found: Sequence[Found]) -> list[Hit]:
    """The hits whose content may leave: not those that links lead out of the library, nor those that are gone."""
    files = ((one.hit, library.file_of(one.hit.id)) for one in found)
    return [Hit(hit.score, hit.path, str(file), hit.id) for hit, file in files if file is not None]


def _whole(hit: Hit) -> Hit:
    return replace(hit, path=file_of(hit.path), file=file_of(hit.file))


def _names(hits: Sequence[Hit]) -> Iterator[str]:
    """Names within the archive: paths below the library, which no program takes for a place outside."""
    for hit in hits:
        yield printable(hit.path).replace("\\", "_").lstrip("/")
