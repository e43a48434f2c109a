"""Text for terminals and spreadsheets: control characters escaped, paths from where the user stands."""

from __future__ import annotations

import os
from collections.abc import Sequence

LONG = 40  # characters of a name in a `repr`
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def printable(text: str) -> str:
    """The text on one line and safe for a terminal: control characters and undecodable bytes as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def readable(text: str) -> str:
    """The text as a model reads it: undecodable bytes as Latin-1, the commonest form of names that are not UTF-8."""
    if text.isascii():
        return text
    return "".join(_latin(char) if "\ud800" <= char <= "\udfff" else char for char in text)


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 picture", "1,234 pictures", "2 classes"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def described(item: object, *facts: str) -> str:
    """The `repr` of an object on one line: its class, and what tells it apart; empty facts are left out."""
    return f"{type(item).__name__}({', '.join(printable(fact) for fact in facts if fact)})"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and dots where there are more; long ones are cut."""
    shown = [name if len(name) <= LONG else f"{name[: LONG - 1]}…" for name in names[:most]]
    return ", ".join([*shown, *["..."] * (len(names) > most)])


def short_name(name: str) -> str:
    """The last part of a name that may be a path: where something lies on the disk is nobody's matter."""
    return name.rstrip("/").rpartition("/")[2] or name


def are(number: int) -> str:
    """The verb after `counted`."""
    return "is" if number == 1 else "are"


def near(file: str) -> str:
    """The path from where the user stands, or the whole one if it lies elsewhere."""
    here = os.getcwd()
    return os.path.relpath(file, here) if file.startswith(here.rstrip("/") + os.sep) else file


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def _latin(surrogate: str) -> str:
    return chr(ord(surrogate) - 0xDC00) if "\udc80" <= surrogate <= "\udcff" else "\ufffd"
