"""HTML of the page, from the templates beside this file: pictures, notes, tables, progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clipkit.core import html
from clipkit.core.html import Markup
from clipkit.core.text import printable
from clipkit.explore.metadata import Fact

TEMPLATES = Path(__file__).parent / "templates"
RATIOS = (0.4, 2.8)  # of width to height: a panorama does not take a row of its own, nor a strip a sliver


def render(name: str, /, **values: Any) -> Markup:
    """The template of the page with that name; values are escaped there, Markup stays as it is."""
    return html.render(TEMPLATES / f"{name}.html", **values)


def address(key: str, fact: Fact, what: str = "thumb") -> str:
    """Where our routes serve a picture, seen from the page; it changes with the content, so a browser may keep it."""
    version = f"?v={fact.sha256[:12]}" if fact.sha256 else ""
    return f"clipkit/{what}/{key}/{int(fact.id)}{version}"


def card(key: str, fact: Fact) -> Markup:
    """One picture, small."""
    ratio = min(max(fact.width / fact.height, RATIOS[0]), RATIOS[1])
    return render("card", name=file_name(fact), ratio=ratio, width=int(320 * ratio), thumb=address(key, fact))


def grid(key: str, facts: Iterable[Fact]) -> Markup:
    """Pictures side by side."""
    return render("grid", cards=Markup("").join(card(key, fact) for fact in facts))


def note(title: str, text: str, *, kind: str = "empty", steps: Iterable[str] = ()) -> Markup:
    """A place that has nothing to show, and says what to do. kind: "empty", "error"."""
    return render("note", title=title, text=text, kind=kind, steps=list(steps))


def line(text: str, *, kind: str = "ck-line", is_status: bool = False) -> Markup:
    """A sentence. kind: its CSS classes. is_status: screen readers say it when it comes."""
    return render("line", text=text, kind=kind, is_status=is_status)


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> Markup:
    """Cells of text."""
    return render("table", rows=list(rows), head=head)


def progress(done: int, total: int, *, state: str, path: str) -> Markup:
    """A bar, how far a run is in words, and what it works on."""
    return render("progress", share=100 * done / total if total else 0, state=state, path=path)


def file_name(fact: Fact) -> str:
    """A picture's name without its folders, as it may be shown."""
    return printable(fact.path.rpartition("/")[2])
