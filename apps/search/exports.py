"""Exports of search results: a table, a contact sheet, or copies in a folder, of what the page may show."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

from clipkit.core.text import FORMULA_STARTS, printable
from clipkit.errors import ClipkitError
from clipkit.explore.library import Library
from clipkit.explore.question import Answer
from clipkit.output.contact_sheet import write_sheet
from clipkit.output.copy_files import copy_hits
from clipkit.search.hits import Hit, Hits

from ..server.routes import Export

MOST_ON_A_SHEET = 500  # each is decoded, and 20 KB of the file


def as_csv(answer: Answer) -> Export:
    """score, relevance, path, width, height, taken; safe for spreadsheets."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["score", "relevance", "path", "width", "height", "taken"])
    for one in answer.found:
        path = printable(one.fact.path)
        safe = f"'{path}" if path.startswith(FORMULA_STARTS) else path
        taken = printable(one.fact.taken)
        fact = one.fact
        table.writerow([f"{one.hit.score:.6f}", one.relevance, safe, fact.width, fact.height, taken])
    return Export("clipkit.csv", "text/csv; charset=utf-8", stream.getvalue().encode())


def as_sheet(library: Library, answer: Answer, title: str) -> Export:
    """One HTML file that needs no other."""
    hits = Hits(shown(library, answer)[:MOST_ON_A_SHEET])
    with TemporaryDirectory(prefix="clipkit-") as folder:
        file = Path(folder) / "sheet.html"
        write_sheet(hits, file, title=title or library.name)
        return Export("clipkit.html", "text/html; charset=utf-8", file.read_bytes())


def copy_to(library: Library, answer: Answer, folder: str) -> int:
    """How many pictures are now in the folder, which is on the machine of the page."""
    if not folder.strip():
        raise ClipkitError("no folder is named", hint="write where the copies should go: ~/found")
    place = Path(folder.strip()).expanduser()
    if not place.is_absolute():
        raise ClipkitError("the folder is not a full path", hint="begin with / or ~")
    return len(copy_hits(Hits(shown(library, answer)), place))


def shown(library: Library, answer: Answer) -> list[Hit]:
    """The hits whose content may leave: not those that links lead out of the library, nor those that are gone."""
    files = ((one.hit, library.file_of(one.hit.id)) for one in answer.found)
    return [Hit(hit.score, hit.path, str(file), hit.id) for hit, file in files if file is not None]
