"""Answers for the browser, as JSON: rows of pictures, and what is said about them in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from clipkit.core.text import counted, printable
from clipkit.explore.albums import read_albums
from clipkit.explore.library import Library
from clipkit.explore.metadata import Catalogue
from clipkit.explore.question import Answer, Found, Question

from .. import html
from .questions import Asked

MOST_MONTHS = 24  # to go to; of more, the years
JSON = dict[str, Any]


def described(library: Library, asked: Asked, answer: Answer) -> JSON:
    """The part of an answer that was asked for, and what is said above it."""
    catalogue, question = library.catalogue(), asked.question
    is_home = not question and not question.album and not question.ids and bool(catalogue.years[0])
    return {
        "library": library.key,
        "words": printable(question.words),
        "revision": catalogue.revision,
        "pictures": list(_rows(catalogue, asked, answer, is_home=is_home)),
        "next": len(answer.found),
        "has_more": answer.has_more,
        "total": answer.total,
        "is_home": is_home,
        "months": _jumps(catalogue) if is_home and not question.filters else [],
        "chips": list(_chips(library, catalogue, question)),
        "lost": list(asked.lost),
        **_headline(answer, question),
    }


def _rows(catalogue: Catalogue, asked: Asked, answer: Answer, *, is_home: bool) -> Iterator[JSON]:
    """A row a picture; of equal bytes only the first, which says how many there are."""
    seen = set[str]()
    is_stacked = asked.is_stacked and not asked.question.twins_of and not asked.question.ids
    for place, one in enumerate(answer.found):
        fact = one.fact
        if is_stacked and fact.sha256 and fact.sha256 in seen:
            continue
        seen.add(fact.sha256)
        if place >= asked.start:
            yield _row(one, catalogue.copies(fact.id) if is_stacked else 1, with_month=is_home)


def _row(one: Found, copies: int, *, with_month: bool) -> JSON:
    fact, score = one.fact, float(one.hit.score)
    row: JSON = {
        "id": fact.id,
        "name": html.file_name(fact),
        "width": fact.width,
        "height": fact.height,
        "version": fact.sha256[:12],
    }
    if score:
        row |= {"score": round(score, 4), "label": one.relevance}
    if copies > 1:
        row["copies"] = copies
    if with_month:
        row["month"] = fact.taken[:7]
    return row


def _jumps(catalogue: Catalogue) -> list[tuple[str, int]]:
    """Months with how many pictures each, or years where the months are many; the newest first."""
    months = [(month, count) for month, count in catalogue.months if month]
    if len(months) <= MOST_MONTHS:
        return months
    years: Counter[str] = Counter()
    for month, number in months:
        years[month[:4]] += number
    return list(years.items())


def _chips(library: Library, catalogue: Catalogue, question: Question) -> Iterator[JSON]:
    """What has moved the question, each to be taken back."""
    if question.picture is not None:
        yield {"kind": "picture", "id": 0, "label": "your picture", "name": question.picture_name or "picture"}
    moves = (("more", question.more, "more like"), ("less", question.less, "less like"))
    twins = (question.twins_of,) if question.twins_of else ()
    for kind, ids, label in (*moves, ("twins", twins, "duplicates of")):
        for id_ in ids:
            if (fact := catalogue.fact(id_)) is not None:
                image = html.address(library.key, fact)
                yield {"kind": kind, "id": id_, "label": label, "name": html.file_name(fact), "image": image}


def _headline(answer: Answer, question: Question) -> JSON:
    """What was found, in a sentence; and in numbers, for whoever opens them."""
    relevances = [one.relevance for one in answer.found]
    strong, likely = relevances.count("strong"), relevances.count("likely")
    is_scored = any(one.hit.score for one in answer.found)  # not by filters alone
    taken = f"{max(1, round(1000 * answer.seconds)):,} ms" if answer.seconds < 2 else f"{answer.seconds:.1f} s"
    shown = f"{len(answer.found):,}{'+' if answer.has_more else ''} shown, {counted(answer.total, 'picture')}"
    numbers = f"{strong:,} strong, {likely:,} likely of {shown}" if is_scored else shown
    return {
        "sentence": _sentence(answer, question, strong, likely) if is_scored else counted(answer.total, "picture"),
        "numbers": f"{numbers} searched in {taken}" if question else "",
        "notes": list(answer.notes),
        "verdict": answer.verdict,
        "warning": _warning(answer, question),
    }


def _warning(answer: Answer, question: Question) -> str:
    """What has to be known before the pictures are looked at; "" where they fit."""
    if not answer.found and (question.filters or answer.verdict != "fits"):
        return "No picture matches the filters. Relax one of them."
    if answer.verdict == "fits" or question.twins_of:
        return ""
    if answer.verdict == "unsure":
        return "Not sure that any of these shows what you asked for. They come closest:"
    what = f"“{question.words}”" if question.words else "this"
    return f"Nothing here seems to show {what}. These come closest:"


def _sentence(answer: Answer, question: Question, strong: int, likely: int) -> str:
    """How many pictures fit, in words."""
    if question.twins_of:
        return f"{len(answer.found):,} identical or nearly identical, of {counted(answer.total, 'picture')}"
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


def library_facts(library: Library) -> JSON:
    """What the page offers of a library: filters, albums, saved searches."""
    facts: JSON = {
        "key": library.key,
        "name": printable(library.name),
        "is_there": library.is_there,
        "is_indexed": library.is_indexed,
    }
    if not library.is_indexed:
        return facts
    catalogue = library.catalogue()
    newest: Sequence[int] = catalogue.newest_first(catalogue.ids)[:1].tolist()
    cover = catalogue.fact(newest[0]) if newest else None
    first, last = catalogue.years
    return {
        **facts,
        "revision": catalogue.revision,
        "count": len(catalogue),
        "cover": html.address(library.key, cover) if cover else "",
        "folders": [printable(folder) for folder in catalogue.folders],
        "kinds": catalogue.kinds,
        "first": first[:7],
        "last": last[:7],
        "albums": [{"name": name, "count": len(one.contents)} for name, one in read_albums(library.index).items()],
        "searches": [{"name": name, "query": query} for name, query in sorted(library.info.searches)],
    }
