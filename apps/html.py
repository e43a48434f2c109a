"""HTML of the page: made of ids, numbers and escaped text, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from clipkit.core.text import printable
from clipkit.explore.metadata import Fact
from clipkit.explore.question import Answer, Found, Question

RATIOS = (0.4, 2.8)  # of width to height: a panorama does not take a row of its own, nor a strip a sliver


def safe(text: str) -> str:
    """Text between tags and in quotes; control, bidi and undecodable characters as backslash escapes."""
    return escape(printable(text))


def address(key: str, fact: Fact, what: str = "thumb") -> str:
    """Where our routes serve a picture; it changes with the content, so that a browser may keep it."""
    version = f"?v={fact.sha256[:12]}" if fact.sha256 else ""
    return f"/clipkit/{safe(what)}/{safe(key)}/{int(fact.id)}{safe(version)}"


def card(key: str, one: Found, number: int) -> str:
    """One picture of the grid. number: its place among the answers, from 0."""
    fact, score = one.fact, float(one.hit.score)
    ratio = min(max(fact.width / fact.height, RATIOS[0]), RATIOS[1])
    name = fact.path.rpartition("/")[2]
    shown = f'<span class="ck-score">{score:.3f}</span>' if score else ""
    label = one.relevance if score else ""
    return (
        f'<button type="button" class="ck-card ck-{label or "plain"}" style="--r:{ratio:.3f}" data-id="{int(fact.id)}" '
        f'data-library="{safe(key)}" data-number="{int(number)}" data-score="{score:.4f}" data-label="{label}" '
        f'data-large="{address(key, fact, "large")}" aria-label="{safe(name)}{f", {label}" if label else ""}" '
        f'tabindex="{0 if number == 0 else -1}">'
        f'<img src="{address(key, fact)}" alt="{safe(name)}" loading="{"eager" if number < 12 else "lazy"}" '
        f'decoding="async" width="{int(320 * ratio)}" height="320">'
        f'<span class="ck-name">{safe(name)}</span>'
        f'<span class="ck-marks">{f"<i>{label}</i>" if label else ""}{shown}</span></button>'
    )


def grid(key: str, answer: Answer, *, number: int, turn: int) -> str:
    """Cards of a page of answers, the first of which has `number`; `turn` makes equal pages of two searches differ."""
    cards = "".join(card(key, one, number + place) for place, one in enumerate(answer.found))
    end = '<div class="ck-end" data-more="1" aria-hidden="true"></div>' if answer.has_more else ""
    return f'<div class="ck-grid" data-turn="{int(turn)}" role="list">{cards}</div>{end}'


def headline(answer: Answer, question: Question) -> str:
    """How many, how fast, and whether anything fits at all."""
    taken = f"{max(1, round(1000 * answer.seconds)):,} ms" if answer.seconds < 2 else f"{answer.seconds:.1f} s"
    pictures = "picture" if answer.total == 1 else "pictures"
    if not question:
        return (
            f'<p class="ck-count"><b>{answer.total:,}</b> {pictures}. Ask for one, or click one to go on from it.</p>'
        )
    nothing = (
        "" if not answer.is_empty_handed else f'<p class="ck-nothing" role="status">{_nothing(answer, question)}</p>'
    )
    strong = sum(one.relevance == "strong" for one in answer.found)
    likely = sum(one.relevance == "likely" for one in answer.found)
    plus = "+" if answer.has_more else ""
    fit = (
        f"{strong:,} strong, {likely:,} likely of {len(answer.found):,}{plus} shown, " if not question.twins_of else ""
    )
    if question.twins_of:
        fit = f"{len(answer.found):,} with the same bytes, or nearly the same to look at, "
    return f'{nothing}<p class="ck-count">{fit}{answer.total:,} {pictures} asked in {taken}</p>'


def chips(key: str, question: Question, facts: Sequence[Fact]) -> str:
    """What has moved the question, each with a button that takes it back. facts: of the ids that it names."""
    known = {fact.id: fact for fact in facts}
    parts = []
    if question.picture is not None:
        parts.append(_chip("picture", 0, "your picture", safe(question.picture_name) or "picture", ""))
    for what, ids, label in (("more", question.more, "more like"), ("less", question.less, "less like")):
        for id_ in ids:
            if (fact := known.get(id_)) is not None:
                image = f'<img src="{address(key, fact)}" alt="" width="28" height="28">'
                parts.append(_chip(what, id_, label, safe(fact.path.rpartition("/")[2]), image))
    if (fact := known.get(question.twins_of)) is not None:
        parts.append(_chip("twins", fact.id, "duplicates of", safe(fact.path.rpartition("/")[2]), ""))
    return f'<div class="ck-chips">{"".join(parts)}</div>' if parts else ""


def note(title: str, text: str, *, kind: str = "empty", steps: Iterable[str] = ()) -> str:
    """A place that has nothing to show, and says what to do. kind: "empty", "error"."""
    listed = "".join(f"<li>{safe(step)}</li>" for step in steps)
    body = f"<ol>{listed}</ol>" if listed else ""
    return f'<div class="ck-note ck-{safe(kind)}" role="status"><h3>{safe(title)}</h3><p>{safe(text)}</p>{body}</div>'


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Cells of escaped text."""
    top = f"<thead><tr>{''.join(f'<th>{safe(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    lines = "".join(f"<tr>{''.join(f'<td>{safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="ck-scroll"><table class="ck-table">{top}<tbody>{lines}</tbody></table></div>'


def _chip(what: str, id_: int, label: str, name: str, image: str) -> str:
    return (
        f'<span class="ck-chip ck-{what}">{image}<span><em>{label}</em> {name}</span>'
        f'<button type="button" data-act="drop-{what}" data-id="{int(id_)}" aria-label="remove: {label} {name}">'
        "&times;</button></span>"
    )


def _nothing(answer: Answer, question: Question) -> str:
    if not answer.found:
        return "No picture passes the filters. Loosen one of them."
    asked = f"“{safe(question.words)}”" if question.words else "this"
    return f"Nothing here seems to show {asked}. These come closest:"
