"""HTML of the page, from the templates beside this file: the grid of pictures, notes, tables, progress."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipkit.core.text import counted
from clipkit.explore.metadata import Fact
from clipkit.explore.question import Answer, Found, Question
from clipkit.output import html
from clipkit.output.html import Markup

TEMPLATES = Path(__file__).parent / "templates"
_MONTH = re.compile(r"(\d{4})(?:-(0[1-9]|1[0-2]))?", re.ASCII)
RATIOS = (0.4, 2.8)  # of width to height: a panorama does not take a row of its own, nor a strip a sliver


def render(name: str, /, **values: Any) -> Markup:
    """The template of the page with that name; values are escaped there, Markup stays as it is."""
    return html.render(TEMPLATES / f"{name}.html", **values)


def address(key: str, fact: Fact, what: str = "thumb") -> str:
    """Where our routes serve a picture, seen from the page; it changes with the content, so a browser may keep it."""
    version = f"?v={fact.sha256[:12]}" if fact.sha256 else ""
    return f"clipkit/{what}/{key}/{int(fact.id)}{version}"


def card(key: str, one: Found, number: int) -> Markup:
    """One picture of the grid. number: its place among the answers, from 0."""
    fact, score = one.fact, float(one.hit.score)
    ratio = min(max(fact.width / fact.height, RATIOS[0]), RATIOS[1])
    return render(
        "card",
        key=key,
        fact=fact,
        name=_name(fact),
        number=number,
        score=score,
        label=one.relevance if score else "",
        ratio=ratio,
        width=int(320 * ratio),
        thumb=address(key, fact),
        large=address(key, fact, "large"),
    )


def cards(key: str, answer: Answer, *, start: int = 0, by_month: bool = False) -> Markup:
    """The pictures of an answer from `start` on. by_month: with a heading where the month is another than before."""
    months = [one.fact.taken[:7] for one in answer.found] if by_month else []
    pieces: list[Markup] = []
    for place, one in enumerate(answer.found[start:], start):
        if by_month and (place == 0 or months[place] != months[place - 1]):
            pieces.append(render("month", name=_month(months[place])))
        pieces.append(card(key, one, place))
    return Markup("").join(pieces)


def grid(answer: Answer, shown: Markup, *, turn: int, jumps: Sequence[tuple[str, int]] = ()) -> Markup:
    """A page of answers. turn: makes equal pages of two searches differ. jumps: months or years, with counts."""
    named = [(when, _month(when), count) for when, count in jumps]
    return render("grid", cards=shown, turn=turn, has_more=answer.has_more, jumps=named)


def headline(answer: Answer, question: Question) -> Markup:
    """What was found, in a sentence; and in numbers, for whoever opens them."""
    relevances = [one.relevance for one in answer.found]
    strong, likely = relevances.count("strong"), relevances.count("likely")
    is_scored = any(one.hit.score for one in answer.found)  # not by filters alone
    return render(
        "headline",
        answer=answer,
        question=question,
        pictures="picture" if answer.total == 1 else "pictures",
        taken=f"{max(1, round(1000 * answer.seconds)):,} ms" if answer.seconds < 2 else f"{answer.seconds:.1f} s",
        strong=strong,
        likely=likely,
        is_scored=is_scored,
        sentence=_found(answer, question, strong, likely) if is_scored else counted(answer.total, "picture"),
    )


def chips(key: str, question: Question, facts: Sequence[Fact]) -> str:
    """What has moved the question, each with a button that takes it back. facts: of the ids that it names."""
    shown = list(_chips(key, question, {fact.id: fact for fact in facts}))
    return render("chips", chips=shown) if shown else ""


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


@dataclass(frozen=True)
class _Chip:
    """One thing that moved the question. image: the address of its thumbnail, or ""."""

    what: str
    id: int
    label: str
    name: str
    image: str = ""


def _chips(key: str, question: Question, known: dict[int, Fact]) -> Iterator[_Chip]:
    if question.picture is not None:
        yield _Chip("picture", 0, "your picture", question.picture_name or "picture")
    for what, ids, label in (("more", question.more, "more like"), ("less", question.less, "less like")):
        for id_ in ids:
            if (fact := known.get(id_)) is not None:
                yield _Chip(what, id_, label, _name(fact), address(key, fact))
    if (fact := known.get(question.twins_of)) is not None:
        yield _Chip("twins", fact.id, "duplicates of", _name(fact))


def _found(answer: Answer, question: Question, strong: int, likely: int) -> str:
    """How many pictures fit, in words."""
    asked = f" “{question.words}”" if question.words and not question.has_pictures else ""
    sure, unsure = (
        (("shows", "show"), "may show") if asked else (("is very like it", "are very like it"), "may be like it")
    )
    end = " or more" if answer.has_more and strong + likely == len(answer.found) else ""
    if strong and likely:
        return f"{counted(strong, 'picture')} {sure[strong != 1]}{asked}; {likely:,} more{end} may"
    if strong:
        return f"{counted(strong, 'picture')}{end} {sure[strong != 1]}{asked}"
    return f"{counted(likely, 'picture')}{end} {unsure}{asked}" if likely else "These come closest"


def _month(when: str) -> str:
    """ "2024-06" as people say it; "2024" is a year, and whatever else is no date."""
    match = _MONTH.fullmatch(when)
    if match is None:
        return "Without a date"
    return f"{calendar.month_name[int(match[2])]} {match[1]}" if match[2] else when


def _name(fact: Fact) -> str:
    return fact.path.rpartition("/")[2]
