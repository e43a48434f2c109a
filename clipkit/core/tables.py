"""Tables as spreadsheets write them: UTF-8 or UTF-16, comma, semicolon or tab, odd headers, empty rows."""

from __future__ import annotations

import csv
from pathlib import Path

DELIMITERS = ",;\t"
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # at the beginning of a file
Record = dict[str, str]


def read_table(file: Path) -> list[tuple[int, Record]]:
    """Each row that has a cell, with its line number, by column; names are stripped and in lower case, cells stripped.

    A row of more cells than columns keeps the rest under "". OSError where the file cannot be read, ValueError where it
    is no text or no table.
    """
    text = _text(file)
    try:
        reader = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(text))
        header = [name.strip().lower() for name in next(reader, [])]
        return [
            (reader.line_num, _record(header, [cell.strip() for cell in cells]))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def read_header(file: Path) -> list[str]:
    """The columns' names as they are written; errors as `read_table`."""
    text = _text(file)
    return next(csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(text)), [])


def _record(header: list[str], cells: list[str]) -> Record:
    record = dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=False))
    if any(cells[len(header) :]):
        record[""] = DELIMITERS[0].join(cells[len(header) :])
    return record


def _text(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode(MARKS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8 or UTF-16; save it as CSV UTF-8") from error


def _delimiter(text: str) -> str:
    """The one that the header has most of."""
    header = text.partition("\n")[0]
    return max(DELIMITERS, key=header.count)
