"""Actions of the Classify tab: sort, label, learn, export."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeAlias

import gradio as gr
import numpy as np

from clipkit.classify.collection import NONE, USUAL, Classified, Column
from clipkit.classify.head import UNKNOWN, Head
from clipkit.classify.labels import LabelledPicture
from clipkit.core.arrays import FloatArray
from clipkit.core.html import Markup
from clipkit.core.text import are, counted, printable
from clipkit.errors import ClipkitError
from clipkit.explore.library import Library
from clipkit.explore.question import Answer, plain
from clipkit.learn import corrections
from clipkit.learn.corrections import Lesson
from clipkit.output.copy_files import run_transfers

from .. import html
from ..server.state import Page
from ..server.visitor import visitor_of
from . import columns, exports
from .columns import BINS, Pile, Scores
from .inputs import OWN, sent_classes, sent_head, typed_classes, typed_templates, words_head
from .session import ClassifySession
from .sorter import Sorter

NO_LIBRARY = ("Add a folder in the Library tab, or start with one: clipkit ui ~/Pictures",)
_turns = count(1)
Changes: TypeAlias = dict[Any, Any]  # by component


@dataclass(frozen=True)
class _Sorted:
    """A library by class. cuts (c,): below which its pictures are unsure."""

    found: Classified
    columns: list[Column]
    cuts: FloatArray


@dataclass(frozen=True)
class ClassifyScreen:
    """The components that actions change."""

    session: gr.State
    words: gr.Textbox
    templates: gr.Dropdown
    own: gr.Textbox
    library: gr.Dropdown
    notice: gr.HTML
    count: gr.HTML
    columns: gr.HTML
    signal: gr.HTML
    strict: gr.Slider
    learned: gr.HTML
    plan: gr.HTML
    tools: gr.Column
    copy: gr.Button

    @property
    def outputs(self) -> list[Any]:
        return list(vars(self).values())


class ClassifyActions:
    """What the tab does: each takes a session and returns what changes on the screen."""

    def __init__(self, page: Page, screen: ClassifyScreen, sorter: Sorter) -> None:
        self._page, self._screen, self._sorter = page, screen, sorter
        self._memory = page.memory

    def sort(
        self,
        session: ClassifySession,
        words: str,
        templates: str,
        own: str,
        library: str | None,
        request: gr.Request | None = None,
    ) -> Changes:
        """By words."""

        def make(chosen: Library) -> Head:
            return words_head(chosen, typed_classes(_text(words)), typed_templates(_text(templates), _text(own)))

        typed = ClassifySession(words=_text(words), templates=_text(templates), own=_text(own))
        return self._safely(session, lambda: self._begin(session, library, make, visitor_of(request), typed))

    def load(
        self,
        session: ClassifySession,
        file: str,
        templates: str,
        own: str,
        library: str | None,
        request: gr.Request | None = None,
    ) -> Changes:
        """By a file of classes, or a saved head."""

        def make(chosen: Library) -> Head:
            if not _text(file):
                raise ClipkitError("no file came", hint="a .txt, .csv or .json of classes, or a saved head")
            if file.endswith(".safetensors"):
                return sent_head(file)
            return words_head(chosen, sent_classes(file), typed_templates(_text(templates), _text(own)))

        typed = ClassifySession(templates=_text(templates), own=_text(own))
        return self._safely(session, lambda: self._begin(session, library, make, visitor_of(request), typed))

    def arrive(
        self, session: ClassifySession, words: str, library: str | None, request: gr.Request | None = None
    ) -> Changes:
        """The tab is opened: libraries may have come; a window that was loaded again goes on where the visitor was."""
        last = self._memory.last(visitor_of(request))
        if session.head is not None or _text(words).strip() or last.head is None:
            return self.libraries(library)
        screen = self._screen
        typed = {
            screen.words: last.words,
            screen.templates: last.templates,
            screen.own: gr.Textbox(value=last.own, visible=last.templates == OWN),
        }
        if self._page.shelf.get(last.library) is None:
            return {**typed, **self.libraries(library)}
        learned = self._learned(last.lesson) if last.lesson else ""
        again = self._safely(session, lambda: {**self._show(last), screen.learned: learned})
        return {**typed, **again, **self.libraries(last.library)}

    def act(self, session: ClassifySession, event: gr.EventData) -> Changes:
        """Something was done to a picture, or a column shall show more. The columns themselves are left as they are."""
        payload = event._data if isinstance(event._data, dict) else {}
        kind, id_, place = str(payload.get("kind") or ""), _number(payload.get("id")), _number(payload.get("place"))

        def work() -> Changes:
            library = self._page.shelf.get(session.library)
            if library is None or session.head is None:
                return {}
            labels = self.labels(library, session.head, session.visitor)
            if kind == "cut":
                return self._cut(session, library, place, payload.get("at"))
            if kind == "more":
                return self._more(session, library, place, max(_number(payload.get("shown")), 0))
            if library.catalogue().fact(id_) is None or not NONE <= place < len(session.head.classes):
                raise ClipkitError("the picture, or its class, is no longer there", hint="sort again")
            if kind == "fix":
                labels[id_] = UNKNOWN if place == NONE else session.head.classes[place]
            elif kind == "undo":
                labels.pop(id_, None)
            return self._signal(labels=len(labels))

        try:
            return work() or {self._screen.signal: gr.skip()}  # Gradio takes no empty answer
        except ClipkitError as error:
            return self._signal(say=_sentence(*self._page.shelf.explained(error)))

    def set_aside(self, session: ClassifySession, strict: float) -> Changes:
        """One cut for all classes; those that single classes had are gone."""

        def work() -> Changes:
            library, _, _ = self._at_hand(session)
            self._cuts_by_hand(session, library).clear()
            return self._show(replace(session, strict=_share(strict), plan=()))

        return self._safely(session, work)

    def learn(self, session: ClassifySession) -> Changes:
        """Fit a head to what was labelled by hand, and sort anew."""

        def work() -> Changes:
            library, start, judge = self._at_hand(session)
            labels = dict(self.labels(library, start, session.visitor))
            matrix, found = self._sorter.matrix(library), self._sorter.sort(library, start, judge=judge)
            old = self._sorted(session, library).found
            lesson = corrections.teach(start, judge, library.encoder, matrix, found, labels)
            strict = USUAL if lesson.judge is not judge else session.strict
            told = replace(session, head=lesson.head, judge=lesson.judge, lesson=lesson, strict=strict, plan=())
            shown, new = self._show(told), self._sorted(told, library).found
            moved = int((old.places != new.places).sum()) if len(old.ids) == len(new.ids) else 0
            rest = f"{moved:,} of {len(new.ids):,} pictures have another class than before."
            return {**shown, self._screen.learned: self._learned(lesson, rest)}

        return self._safely(session, work)

    def forget(self, session: ClassifySession) -> Changes:
        """All labels of these classes, and what was learned from them."""

        def work() -> Changes:
            library, start, judge = self._at_hand(session)
            self.labels(library, start, session.visitor).clear()
            return self._show(replace(session, head=start, judge=judge, lesson=None, strict=USUAL, plan=()))

        return self._safely(session, work)

    def csv(self, session: ClassifySession) -> Changes:
        def work() -> Changes:
            library, _, _ = self._at_hand(session)
            fixed = [library.catalogue().fact(id_) for id_ in self.labels(library, _head(session), session.visitor)]
            made = exports.as_csv(self._labelled(session, library), {fact.path for fact in fixed if fact})
            return self._signal(download=self._page.outbox.put(made))

        return self._safely(session, work)

    def save(self, session: ClassifySession) -> Changes:
        def work() -> Changes:
            library, _, _ = self._at_hand(session)
            head = _head(session)
            made = exports.as_head(head, self._sorted(session, library).cuts)
            told = "Use it with clipkit classify --head clipkit-head.safetensors."
            if head.rejection is None:
                told += " It gives every picture a class: what is left out as uncertain on this page is not part of it."
            return self._signal(download=self._page.outbox.put(made), say=told)

        return self._safely(session, work)

    def plan(self, session: ClassifySession, folder: str) -> Changes:
        """What would be copied where; nothing is."""

        def work() -> Changes:
            library, _, _ = self._at_hand(session)
            if not self._page.shelf.is_local:
                raise ClipkitError(
                    "pictures are copied on the machine itself",
                    hint="clipkit classify PHOTOS --classes A,B --copy-to FOLDER",
                )
            pictures = self._labelled(session, library)
            steps = exports.plan(library, pictures, _text(folder))
            screen = self._screen
            return {
                screen.session: replace(session, plan=tuple(steps)),
                screen.plan: exports.shown_plan(steps, folder, len(pictures)),
                screen.copy: gr.Button(visible=bool(steps)),
            }

        return self._safely(session, work)

    def copy(self, session: ClassifySession) -> Changes:
        """Carry out the plan that was shown."""

        def work() -> Changes:
            if not self._page.shelf.is_local or not session.plan:
                return {}
            run_transfers(session.plan)
            screen, told = self._screen, f"{counted(len(session.plan), 'picture')} {are(len(session.plan))} copied."
            return {
                screen.session: replace(session, plan=()),
                screen.plan: html.line(told, is_status=True),
                screen.copy: gr.Button(visible=False),
            }

        return self._safely(session, work)

    def labels(self, library: Library, head: Head, visitor: str = "") -> dict[int, str]:
        """What a visitor labelled by hand for these classes."""
        return self._memory.labels(visitor, library, head)

    def _learned(self, lesson: Lesson, rest: str = "") -> Markup:
        return html.line(f"{corrections.describe(lesson)} {rest}".strip(), kind="ck-lesson", is_status=True)

    def _begin(
        self,
        session: ClassifySession,
        chosen: str | None,
        make: Callable[[Library], Head],
        visitor: str,
        typed: ClassifySession,
    ) -> Changes:
        library = self._page.shelf.get(chosen or session.library) or self._page.shelf.first()
        if library is None or not library.is_indexed:
            return {self._screen.columns: self._nothing_to_sort()}
        head = make(library)
        strict = USUAL if head.rejection else 0.0
        fresh = replace(typed, library=library.key, visitor=visitor, strict=strict, start=head, head=head, judge=head)
        if (rule := head.rejection) and rule.cuts is not None and not (kept := self._cuts_by_hand(fresh, library)):
            kept.update(enumerate(rule.cuts.tolist()))
        return {**self._show(fresh), self._screen.learned: "", **self.libraries(library.key)}

    def _nothing_to_sort(self) -> Markup:
        there = self._page.shelf.libraries()
        if not there:
            return html.note("No pictures yet", "There is no library to sort.", steps=NO_LIBRARY)
        names = ", ".join(printable(library.name) for library in there)
        said = f"{names} {are(len(there))} not indexed yet: press Index in the Library tab, and sort again."
        return html.note("No pictures yet", said)

    def _show(self, session: ClassifySession) -> Changes:
        """Sort, and fill the whole screen."""
        started = time.monotonic()
        library, _, _ = self._at_hand(session)
        head, screen = _head(session), self._screen
        now = self._sorted(session, library)
        session = replace(session, turn=next(_turns))
        self._memory.keep(session)
        pile = self._pile(session, library)
        first = [id_ for column in now.columns[:24] for id_ in column.ids[:6].tolist()]
        scores = Scores.of(now.found, now.cuts, self._cuts_by_hand(session, library), pile.by_hand)
        self._page.prepare(library, _answer(library, first))
        seconds = time.monotonic() - started
        notes = Markup("").join(html.line(note) for note in head.notes)
        return {
            screen.session: session,
            screen.notice: notes,
            screen.count: columns.summary(now.columns, head.classes, seconds, session.lesson),
            screen.columns: columns.columns(pile, now.columns, scores, turn=session.turn),
            screen.strict: gr.Slider(value=session.strict, info=_usual(now.found)),
            screen.tools: gr.Column(visible=True),
            screen.plan: "",
            screen.copy: gr.Button(visible=False),
            **self._signal(labels=len(pile.by_hand)),
        }

    def _more(self, session: ClassifySession, library: Library, place: int, shown: int) -> Changes:
        column = next((one for one in self._sorted(session, library).columns if one.place == place), None)
        if column is None:
            return {}
        ids = column.ids[shown : shown + columns.MORE].tolist()
        rest = columns.rest_of(column, shown + len(ids))
        added = self._pile(session, library).cards(ids, place)
        return self._signal(turn=session.turn, place=place, pile=added, rest=rest)

    def _cut(self, session: ClassifySession, library: Library, place: int, at: object) -> Changes:
        """A class gets a cut of its own: at one of the edges of its histogram, or None for that of all."""
        started, kept = time.monotonic(), self._cuts_by_hand(session, library)
        if not 0 <= place < len(_head(session).classes):
            return {}
        kept.pop(place, None)
        if isinstance(at, int) and 0 <= at <= BINS:
            kept[place] = float(self._sorted(session, library).found.edges(BINS)[at])
        now, pile = self._sorted(session, library), self._pile(session, library)
        scores = Scores.of(now.found, now.cuts, self._cuts_by_hand(session, library), pile.by_hand)
        changed = [columns.changed(pile, column, scores) for column in now.columns if column.place in (place, NONE)]
        seconds = time.monotonic() - started
        said = columns.summary(now.columns, _head(session).classes, seconds, session.lesson)
        return {self._screen.count: said, **self._signal(turn=session.turn, columns=changed)}

    def _sorted(self, session: ClassifySession, library: Library) -> _Sorted:
        head, judge = _head(session), session.judge or _head(session)
        found = self._sorter.sort(library, head, judge=judge)
        cuts = np.full(len(head.classes), found.cut(session.strict), np.float32)
        for place, cut in self._cuts_by_hand(session, library).items():
            cuts[place] = cut
        by_hand = self.labels(library, head, session.visitor)
        return _Sorted(found, found.columns(head.classes, cuts, by_hand), cuts)

    def _cuts_by_hand(self, session: ClassifySession, library: Library) -> dict[int, float]:
        return self._memory.cuts(session.visitor, library, session.judge or _head(session))

    def _labelled(self, session: ClassifySession, library: Library) -> list[LabelledPicture]:
        head, now = _head(session), self._sorted(session, library)
        by_hand = self.labels(library, head, session.visitor)
        return exports.labelled(library, now.found, now.columns, head.classes, by_hand)

    def _pile(self, session: ClassifySession, library: Library) -> Pile:
        head = _head(session)
        by_hand = self.labels(library, head, session.visitor)
        return Pile(library.key, library.catalogue(), self._sorter.matrix(library), head, by_hand)

    def _at_hand(self, session: ClassifySession) -> tuple[Library, Head, Head]:
        """The library that is sorted, the head it began with, and who set aside then."""
        library = self._page.shelf.get(session.library)
        if library is None or session.start is None:
            raise ClipkitError("nothing is sorted yet", hint="type classes, and press Sort")
        return library, session.start, session.start

    def libraries(self, chosen: str | None) -> Changes:
        """Those that can be sorted now."""
        there = self._page.shelf.choices([one for one in self._page.shelf.libraries() if one.is_indexed])
        keys = [key for _, key in there]
        value = chosen if chosen in keys else next(iter(keys), None)
        return {self._screen.library: gr.Dropdown(choices=there, value=value, visible=len(there) > 1)}

    def _signal(self, **payload: Any) -> Changes:
        return {self._screen.signal: json.dumps({**payload, "number": next(_turns)})}

    def _safely(self, session: ClassifySession, work: Callable[[], Changes]) -> Changes:
        """An error becomes a sentence above the columns, which stay."""
        try:
            return {self._screen.notice: "", **work()}
        except ClipkitError as error:
            return {self._screen.notice: html.note(*self._page.shelf.explained(error), kind="error")}


def _answer(library: Library, ids: list[int]) -> Answer:
    return Answer(plain(library, library.catalogue(), ids), len(ids), 0.0)


def _head(session: ClassifySession) -> Head:
    assert session.head is not None  # `_at_hand` was asked first
    return session.head


def _usual(found: Classified) -> str:
    if found.usual is None:
        return "0 leaves nothing out; 60, what is less than 60 % likely."
    return "0 leaves nothing out, 50 what is probably none of these, 100 all but the most certain."


def _sentence(message: str, hint: str) -> str:
    return printable(f"{message}; {hint}" if hint else message)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) else USUAL


def _number(value: object) -> int:
    return value if isinstance(value, int) and -1 <= value < 2**62 else NONE
