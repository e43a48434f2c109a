"""Search tab: one box, a grid of pictures, and from each picture on to the next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import gradio as gr

from clipkit.core.text import are, counted, printable
from clipkit.errors import ClipkitError, ImageError, QueryError
from clipkit.explore.choices import SHAPES
from clipkit.explore.library import Library
from clipkit.explore.metadata import Catalogue, Filters, parse_day
from clipkit.explore.question import MOST, MOST_MOVES, PAGE, Answer, Question, ask, clean
from clipkit.images.formats import SUFFIXES
from clipkit.output.html import Markup

from .. import html
from ..server.state import Page
from ..theme import PRIVATE, piece, signal_piece
from . import exports
from .desktop import show_folder
from .screen import SearchScreen, SearchSession
from .url_state import as_folder, as_relevance, from_address, last_day, read_filter, to_address

RELEVANCES = [("everything", "weak"), ("likely and strong", "likely"), ("strong only", "strong")]
TEACH = (
    "Add a folder in the Library tab, or start with one: clipkit ui ~/Pictures",
    "Wait while it is indexed; pictures can be found as soon as they are in.",
    "Come back here and type what you are looking for.",
)
MOST_MONTHS = 24  # to go to; of more, the years
_turns = count(1)


def tab(page: Page, _: gr.Tab) -> None:
    """Build the components and tie them to the actions."""
    box = _box()
    piece(html.render("recent"), elem_id="ck-recent", on_load="window.clipkit.showRecent();")
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            chips = piece(elem_id="ck-chips", on_load="window.clipkit.chips(element);")
            counted = piece(html.render("waiting"), elem_id="ck-count")
            grid = piece(elem_id="ck-grid", on_load="window.clipkit.grid(element, trigger, watch); // sends 'act'")
        with gr.Column(scale=1, min_width=230, elem_id="ck-side"):
            filters = _filters()
            save = _export(page)
            piece(html.render("hint"), elem_id="ck-hint")
    session = gr.State(SearchSession())
    screen = SearchScreen(session, box, chips, counted, grid, signal_piece("window.clipkit"), *filters)
    actions = SearchActions(page, screen)
    _connect(actions, screen, filters)
    save.as_csv.click(actions.csv, [session], screen.outputs, **PRIVATE)
    save.as_sheet.click(actions.sheet, [session], screen.outputs, **PRIVATE)
    save.copy.click(actions.copy, [session, save.place], screen.outputs, **PRIVATE)


class _Filters(NamedTuple):
    library: gr.Dropdown
    folder: gr.Dropdown
    since: gr.Textbox
    until: gr.Textbox
    least: gr.Radio
    shapes: gr.CheckboxGroup
    kinds: gr.CheckboxGroup


class _Export(NamedTuple):
    as_csv: gr.Button
    as_sheet: gr.Button
    place: gr.Textbox
    copy: gr.Button


def _box() -> gr.MultimodalTextbox:
    with gr.Row(elem_id="ck-ask"):
        return gr.MultimodalTextbox(
            show_label=False,
            placeholder="a dog on a beach, or drop a picture here",
            file_types=sorted(SUFFIXES),
            file_count="single",
            sources=["upload"],
            submit_btn="Search",
            max_lines=3,
            max_plain_text_length=2_000,
            autofocus=True,
            elem_id="ck-box",
        )


def _filters() -> _Filters:
    library = gr.Dropdown(label="Library", visible=False, allow_custom_value=True)
    folder = gr.Dropdown(label="Folder", allow_custom_value=True, choices=[("all", "")], value="")
    with gr.Row():
        since = gr.Textbox(label="Taken from", placeholder="2019-07", max_length=10, min_width=90)
        until = gr.Textbox(label="to", placeholder="2021", max_length=10, min_width=90)
    least = gr.Radio(RELEVANCES, value="weak", label="Relevance")
    shapes = gr.CheckboxGroup(list(SHAPES), label="Orientation")
    return _Filters(library, folder, since, until, least, shapes, gr.CheckboxGroup([], label="File type"))


def _export(page: Page) -> _Export:
    is_local = page.shelf.is_local
    with gr.Accordion("Save these results", open=False):
        return _Export(
            gr.Button("Table (CSV)", size="sm", elem_id="ck-csv"),
            gr.Button("Contact sheet (HTML)", size="sm", elem_id="ck-sheet"),
            gr.Textbox(label="Copy to a folder", placeholder="~/found", visible=is_local),
            gr.Button("Copy pictures", size="sm", visible=is_local, elem_id="ck-copy"),
        )


def _connect(actions: SearchActions, screen: SearchScreen, filters: _Filters) -> None:
    """A search begins with Enter in the box, and with each filter that changes."""
    days = (filters.since, filters.until)
    others = (filters.library, filters.folder, filters.least, filters.shapes, filters.kinds)
    asks = [
        screen.box.submit,
        *(one.input for one in others),
        *(one.submit for one in days),
        *(one.blur for one in days),
    ]
    for when in asks:
        when(actions.search, [screen.session, *screen.asked], screen.outputs, **PRIVATE)
    screen.grid.act(actions.act, [screen.session], screen.outputs, **PRIVATE)


class SearchActions:
    """What the tab does when somebody does something: each takes a session and returns what changes on the screen."""

    def __init__(self, page: Page, screen: SearchScreen) -> None:
        self._page, self._screen = page, screen

    def search(
        self,
        session: SearchSession,
        box: dict[str, Any] | None,
        library: str | None,
        folder: str | None,
        since: str | None,
        until: str | None,
        least: str | None,
        shapes: list[str] | None,
        kinds: list[str] | None,
    ) -> dict[Any, Any]:
        """Ask with the box and the filters as they are; moves stay until the words change."""

        def work() -> dict[Any, Any]:
            chosen = self._library(library or session.library)
            if chosen is None:
                return self._empty(session)
            words = clean(str((box or {}).get("text") or ""))
            file = next(iter((box or {}).get("files") or []), "")
            lost: list[str] = []
            filters = Filters(
                folder=as_folder(str(folder or ""), chosen.catalogue()) if chosen.key == session.library else "",
                since=read_filter(lambda: parse_day(str(since or "")), lost),
                until=read_filter(lambda: parse_day(str(until or ""), is_end=True), lost),
                shapes=tuple(shape for shape in SHAPES if shape in (shapes or [])),
                kinds=tuple(str(kind)[:8] for kind in (kinds or [])[:20]),
            )
            question = replace(session.question, filters=filters, least=as_relevance(str(least)), words=words)
            if words != session.question.words or file != session.file or chosen.key != session.library:
                question = replace(question, more=(), less=(), twins_of=0)
            if file != session.file:
                question = self._with_picture(chosen, question, file)
            same = (question, chosen.key, file) == (session.question, session.library, session.file)
            if same and session.turn and not lost:
                return {}  # a date field was left as it was
            filled = self._show(replace(session, library=chosen.key, question=question, file=file), chosen)
            return self._with_notes(filled, lost, "It does not narrow the search: write 2019, 2019-07 or 2019-07-31.")

        return self._safely(session, work)

    def act(self, session: SearchSession, event: gr.EventData) -> dict[Any, Any]:
        """Something was clicked in the grid, in the large view or on a chip."""
        payload = event._data if isinstance(event._data, dict) else {}
        kind, id_ = str(payload.get("kind") or ""), _number(payload.get("id"))

        def work() -> dict[Any, Any]:
            if kind == "start":
                if payload.get("again") and session.turn and not payload.get("back"):  # the first one was heard
                    return {}
                return self._start(
                    str(payload.get("search") or ""), _number(payload.get("shown")), is_back=bool(payload.get("back"))
                )
            library = self._library(session.library)
            if library is None:
                return self._empty(session)
            if kind == "page":
                return self._more(session, library)
            if kind == "reveal":
                return self._signal(session, say=show_folder(library, id_) if self._page.shelf.is_local else "")
            if kind == "words":
                question = Question(words=clean(str(payload.get("words") or "")), filters=session.question.filters)
                box = {self._screen.box: gr.MultimodalTextbox(value={"text": question.words, "files": []})}
                return {**self._show(replace(session, question=question, file=""), library), **box}
            if kind == "until":
                return self._jump(session, library, str(payload.get("when") or ""))
            return self._move(session, library, kind, id_)

        return self._safely(session, work)

    def csv(self, session: SearchSession) -> dict[Any, Any]:
        return self._safely(session, lambda: self._saved(session, lambda library, answer: exports.as_csv(answer)))

    def sheet(self, session: SearchSession) -> dict[Any, Any]:
        title = session.question.words
        make = lambda library, answer: exports.as_sheet(library, answer, title)  # noqa: E731  it is handed on
        return self._safely(session, lambda: self._saved(session, make))

    def copy(self, session: SearchSession, folder: str) -> dict[Any, Any]:
        def work() -> dict[Any, Any]:
            library = self._library(session.library)
            if library is None or not self._page.shelf.is_local:
                return {}
            copied = exports.copy_to(library, ask(library, session.question, session.shown or PAGE), folder)
            return self._signal(
                session, say=f"{counted(copied, 'picture')} {are(copied)} in {printable(folder.strip())}"
            )

        return self._safely(session, work)

    def _start(self, search: str, shown: int, *, is_back: bool) -> dict[Any, Any]:
        """The page was opened, perhaps by an address that keeps a search; or one went back to an earlier search.

        shown: how many pictures were there then.
        """
        wanted = from_address(search, None).library
        library = self._library(wanted)
        if library is None:
            return self._empty(SearchSession())
        state = from_address(search, library.catalogue())
        words, session = state.question.words, SearchSession(library.key, state.question)
        box = {self._screen.box: gr.MultimodalTextbox(value={"text": words, "files": []})} if words or is_back else {}
        filled = self._show(session, library, keep_address=True, k=max(PAGE, min(shown, MOST)))
        return {**self._with_notes(filled, state.lost, "The address names it; this filter is left out."), **box}

    def _with_notes(self, filled: dict[Any, Any], facts: Iterable[str], advice: str) -> dict[Any, Any]:
        """The screen with what was left out of the question, above the results."""
        notes = [html.note(_sentence(fact), advice, kind="error") for fact in facts]
        return {**filled, self._screen.count: Markup("").join([*notes, filled[self._screen.count]])}

    def _jump(self, session: SearchSession, library: Library, when: str) -> dict[Any, Any]:
        """Show the library from this month or year backwards; from its newest picture where there is none."""
        filters = replace(session.question.filters, since="", until=parse_day(when, is_end=True))
        question = replace(session.question, filters=filters)
        return self._show(replace(session, question=question, side=("", -1)), library)

    def _move(self, session: SearchSession, library: Library, kind: str, id_: int) -> dict[Any, Any]:
        question, box = session.question, {}
        without = {"more": _without(question.more, id_), "less": _without(question.less, id_)}
        if kind == "more":
            question = replace(question, twins_of=0, more=(*without["more"], id_)[-MOST_MOVES:], less=without["less"])
        elif kind == "less":
            question = replace(question, twins_of=0, less=(*without["less"], id_)[-MOST_MOVES:], more=without["more"])
        elif kind == "twins":
            question = replace(question, twins_of=id_)
        elif kind == "drop-more":
            question = replace(question, more=without["more"])
        elif kind == "drop-less":
            question = replace(question, less=without["less"])
        elif kind == "drop-twins":
            question = replace(question, twins_of=0)
        elif kind == "drop-picture":
            question, session = replace(question, picture=None, picture_name=""), replace(session, file="")
            box = {self._screen.box: gr.MultimodalTextbox(value={"text": question.words, "files": []})}
        else:
            return {}
        return {**self._show(replace(session, question=question), library), **box}

    def _show(
        self, session: SearchSession, library: Library, *, keep_address: bool = False, k: int = PAGE
    ) -> dict[Any, Any]:
        """Ask, and fill the whole screen."""
        answer = ask(library, session.question, k)
        catalogue, screen, question = library.catalogue(), self._screen, session.question
        is_home = _is_home(question, catalogue)
        is_new = session.side != (library.key, catalogue.revision)
        side = self._side(library, question) if is_new else {}
        session = replace(session, shown=len(answer.found), turn=next(_turns), side=(library.key, catalogue.revision))
        self._page.prepare(library, answer)
        facts = [catalogue.fact(id_) for id_ in (*question.more, *question.less, question.twins_of)]
        if not len(catalogue):
            grid = html.note("No pictures yet", f"{library.name} has an index without pictures.", steps=TEACH[:1])
        else:
            jumps = _jumps(catalogue) if is_home else ()
            grid = html.grid(answer, html.cards(library.key, answer, by_month=is_home), turn=session.turn, jumps=jumps)
        payload: dict[str, Any] = {"words": question.words, "close": True}
        if not keep_address:
            payload["url"] = to_address(library.key, question)
        return {
            screen.chips: html.chips(library.key, question, [fact for fact in facts if fact]),
            screen.count: html.headline(answer, question),
            screen.grid: grid,
            **side,
            **self._signal(session, **payload),
        }

    def _more(self, session: SearchSession, library: Library) -> dict[Any, Any]:
        """The next page of the same answer, to be put below what is there."""
        answer = ask(library, session.question, min(session.shown + PAGE, MOST))
        rest = replace(answer, found=answer.found[session.shown :])
        self._page.prepare(library, rest)
        is_home = _is_home(session.question, library.catalogue())
        added = html.cards(library.key, answer, start=session.shown, by_month=is_home)
        payload = {"append": added, "more": answer.has_more, "turn": session.turn}
        return self._signal(replace(session, shown=len(answer.found)), **payload)

    def _side(self, library: Library, question: Question) -> dict[Any, Any]:
        catalogue, screen, filters = library.catalogue(), self._screen, question.filters
        libraries = [(printable(one.name), one.key) for one in self._page.shelf.libraries() if one.is_indexed]
        folders = [("all", ""), *((printable(name), printable(name)) for name in catalogue.folders)]
        first, last = catalogue.years
        return {
            screen.library: gr.Dropdown(choices=libraries, value=library.key, visible=len(libraries) > 1),
            screen.folder: gr.Dropdown(choices=folders, value=printable(filters.folder), visible=len(folders) > 1),
            screen.since: gr.Textbox(value=filters.since, placeholder=first[:7] or "2019-07", visible=bool(first)),
            screen.until: gr.Textbox(value=last_day(filters), placeholder=last[:7] or "2021", visible=bool(first)),
            screen.least: gr.Radio(value=question.least),
            screen.shapes: gr.CheckboxGroup(value=list(filters.shapes)),
            screen.kinds: gr.CheckboxGroup(choices=catalogue.kinds, value=list(filters.kinds)),
        }

    def _saved(self, session: SearchSession, make: Callable[[Library, Answer], Any]) -> dict[Any, Any]:
        library = self._library(session.library)
        if library is None:
            return self._empty(session)
        answer = ask(library, session.question, session.shown or PAGE)
        return self._signal(session, download=self._page.outbox.put(make(library, answer)))

    def _with_picture(self, library: Library, question: Question, file: str) -> Question:
        if not file:
            return replace(question, picture=None, picture_name="")
        name = printable(str(file).rpartition("/")[2])[:80]
        encoder = library.encoder
        try:
            return replace(question, picture=encoder.encode_images([file]), picture_name=name)
        except ImageError as error:  # it names where on this machine the upload lies
            raise QueryError(
                f"{name} cannot be read as a picture", hint="drop another, or take it out of the box"
            ) from error

    def _library(self, key: str) -> Library | None:
        """The one that was asked for, if it can answer; else the first that can."""
        library = self._page.shelf.get(key)
        return library if library is not None and library.is_indexed else self._page.shelf.first()

    def _empty(self, session: SearchSession) -> dict[Any, Any]:
        screen, gone = self._screen, [one.name for one in self._page.shelf.libraries() if not one.is_there]
        if gone:
            title = f"The folder {printable(gone[0])} is not there"
            note = html.note(title, "Its disk may be gone: connect it, and come back to this tab.")
        else:
            text = "clipkit searches folders that it has indexed, on this machine."
            note = html.note("No pictures yet", text, steps=TEACH)
        return {screen.grid: note, screen.count: "", screen.chips: "", screen.session: session}

    def _signal(self, session: SearchSession, **payload: Any) -> dict[Any, Any]:
        """Something for the page's script, and the session that goes with it."""
        payload = {
            "turn": session.turn,
            **payload,
            "number": next(_turns),
        }  # a number, or an equal signal would not be seen
        return {self._screen.session: session, self._screen.signal: json.dumps(payload)}

    def _safely(self, session: SearchSession, work: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
        """An error becomes a sentence above the results, which stay."""
        try:
            return work() or {self._screen.session: session}  # Gradio takes no empty answer
        except ClipkitError as error:
            message, hint = map(_sentence, self._page.shelf.explained(error))
            return {self._screen.session: session, self._screen.count: html.note(message, hint, kind="error")}


def _is_home(question: Question, catalogue: Catalogue) -> bool:
    """Whether the library is shown by date, and not what was asked for."""
    return not question and bool(catalogue.years[0])


def _jumps(catalogue: Catalogue) -> list[tuple[str, int]]:
    """Months with how many pictures each, or years where the months are many; the newest first."""
    months = [(month, count) for month, count in catalogue.months if month]
    if len(months) <= MOST_MONTHS:
        return months
    years: Counter[str] = Counter()
    for month, number in months:
        years[month[:4]] += number
    return list(years.items())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _without(ids: tuple[int, ...], id_: int) -> tuple[int, ...]:
    return tuple(other for other in ids if other != id_)


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**62 else 0
