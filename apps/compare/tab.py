"""Compare tab: how accuracy grows with labels, measured beside the page, and earlier results opened again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from clipkit.errors import ClipkitError
from clipkit.evaluate.results import Comparison, load_comparison
from clipkit.learn.methods import METHODS
from clipkit.output.comparison_html import InlineThumbnail
from clipkit.output.comparison_html import page as report_page
from clipkit.output.figures import warm_up

from .. import html
from ..server.routes import Export
from ..server.runs import Look
from ..server.state import Page
from ..theme import PRIVATE, piece, signal_piece
from .adapting import section as adapt_section
from .runs import MOST_SEEDS, SHOTS, Arena, checked, wish_of
from .sides import are_comparable, choices, first_choice, side_by_side
from .view import allowed_root, small_picture, view

SECONDS = 1.0  # between two looks at a run
FIRST_METHODS = ("zeroshot", "probe", "text-probe", "knn", "prototypes")
FIRST_SHOTS = ("1", "4", "16", "all")
TEACH = (
    "Choose labelled pictures: a folder with one folder per class, a CSV file with the columns image,label, or the "
    "folder that holds oxford-iiit-pet.",
    "Choose methods, and how many labelled pictures per class they may learn from. Press Compare.",
    "Stop at any time: finished steps are kept, and the same comparison continues from there.",
)


def tab(page: Page, here: gr.Tab) -> None:
    """Build the components and tie them to the actions."""
    arena = Arena(page)
    plan = _plan(page)
    start, stop, upload, place = _buttons(page)
    notice = piece(elem_id="ck-compare-notice")
    now = piece(elem_id="ck-compare-now")
    sides = _sides()
    shown = piece(
        html.note("How much would labels help?", "Measure it on your own pictures.", steps=TEACH),
        elem_id="ck-comparison",
    )
    with gr.Row(visible=False) as away:
        as_json = gr.Button("results.json", size="sm", scale=0, min_width=150, elem_id="ck-results-json")
        as_page = gr.Button("Report (HTML)", size="sm", scale=0, min_width=150, elem_id="ck-results-html")
    signal = signal_piece("window.clipkit")
    seen, mine, other = gr.State(0), gr.State(None), gr.State(None)
    timer = gr.Timer(SECONDS, active=arena.is_running)
    outputs = [seen, mine, other, notice, now, shown, away, stop, timer, plan.dataset, *sides]
    actions = CompareActions(page, arena, dict(zip(NAMES, outputs, strict=True)))
    slow = {**PRIVATE, "show_progress": "minimal", "show_progress_on": [shown]}  # figures are drawn
    start.click(actions.start, list(plan), outputs, **PRIVATE)
    stop.click(actions.stop, None, outputs, **PRIVATE)
    upload.upload(actions.sent, [upload, mine], outputs, **slow)
    place.submit(actions.named, [place, mine], outputs, **slow)
    timer.tick(actions.tick, [seen, mine], outputs, **PRIVATE)
    here.select(actions.arrive, [seen, mine], outputs, **PRIVATE)
    asked = {**PRIVATE, "show_progress": "minimal", "show_progress_on": [sides.view]}
    for when in (sides.place.expand, sides.first.input, sides.second.input):
        when(actions.beside, [mine, other, sides.first, sides.second], [sides.view], **asked)
    as_json.click(actions.json, [mine], [signal], **PRIVATE)
    as_page.click(actions.html, [mine], [signal], **slow)
    adapt_section(page, here)


class _Plan(NamedTuple):
    dataset: gr.Dropdown
    methods: gr.CheckboxGroup
    shots: gr.CheckboxGroup
    seeds: gr.Slider


class _Sides(NamedTuple):
    """Two rows beside each other. place: what is unfolded to see them."""

    place: gr.Accordion
    first: gr.Dropdown
    second: gr.Dropdown
    view: gr.HTML


def _sides() -> _Sides:
    with gr.Accordion("Side by side: where two methods disagree", open=False, visible=False, elem_id="ck-versus") as at:
        hint = "Open the results.json of another model on the same pictures, and its rows can be chosen here too."
        piece(html.line(hint), elem_id="ck-versus-hint")
        with gr.Row():
            first = gr.Dropdown([], label="A", min_width=220, elem_id="ck-side-a")
            second = gr.Dropdown([], label="B", min_width=220, elem_id="ck-side-b")
        view = piece(elem_id="ck-sides")
    return _Sides(at, first, second, view)


def _plan(page: Page) -> _Plan:
    with gr.Row(elem_id="ck-compare-row"):
        dataset = gr.Dropdown(
            page.shelf.choices(page.shelf.libraries()),
            value=next((library.key for library in page.shelf.libraries()), None),
            label="Labelled pictures",
            info="A library, or the path of a folder or a CSV on this machine." if page.shelf.is_local else None,
            allow_custom_value=page.shelf.is_local,
            scale=5,
            min_width=260,
            elem_id="ck-dataset",
        )
        label = "Random seeds"
        seeds = gr.Slider(1, MOST_SEEDS, 3, step=1, label=label, scale=1, min_width=150, elem_id="ck-seeds")
    names = [(f"{name}: {method.about}", name) for name, method in METHODS.items()]
    methods = gr.CheckboxGroup(names, value=list(FIRST_METHODS), label="Methods", elem_id="ck-methods")
    label = "Labelled pictures per class"
    return _Plan(
        dataset, methods, gr.CheckboxGroup(list(SHOTS), value=list(FIRST_SHOTS), label=label, elem_id="ck-shots"), seeds
    )


def _buttons(page: Page) -> tuple[gr.Button, gr.Button, gr.UploadButton, gr.Textbox]:
    with gr.Row():
        return (
            gr.Button("Compare", variant="primary", scale=0, min_width=130, elem_id="ck-compare"),
            gr.Button("Stop", visible=False, scale=0, min_width=110, elem_id="ck-compare-stop"),
            gr.UploadButton(
                "Open results.json", file_types=[".json"], scale=0, min_width=170, elem_id="ck-open-results"
            ),
            gr.Textbox(
                show_label=False,
                placeholder="or the path of results.json, or of its folder",
                max_length=4096,
                visible=page.shelf.is_local,
                min_width=220,
                elem_id="ck-results-path",
            ),
        )


OURS = ("seen", "mine", "other", "notice", "now", "shown", "away", "stop", "timer", "dataset")
NAMES = (*OURS, "versus", "first", "second", "sides")


class CompareActions:
    """What the tab does. Each returns what changes, by component."""

    def __init__(self, page: Page, arena: Arena, screen: dict[str, Any]) -> None:
        self._page, self._arena, self._screen = page, arena, screen
        self._drawn: tuple[int, str] = (0, "")
        self._is_warm = False

    def arrive(self, seen: int, mine: Comparison | None = None) -> dict[Any, Any]:
        """The tab is opened: libraries may have come, a comparison may run or have ended.

        Nothing is chosen: somebody may have typed a path meanwhile, and a value would replace it.
        """
        if not self._is_warm:
            self._is_warm = True
            threading.Thread(target=warm_up, daemon=True, name="clipkit-figures").start()
        there = self._page.shelf.choices(self._page.shelf.libraries())
        return {**self.tick(seen, mine), self._screen["dataset"]: gr.Dropdown(choices=there)}

    def start(self, dataset: str | None, methods: list[str], shots: list[str], seeds: float) -> dict[Any, Any]:
        def work() -> dict[Any, Any]:
            model = self._page.shelf.model
            self._arena.start(
                wish_of(self._place(str(dataset or "")), methods or (), shots or (), int(seeds or 1), model)
            )
            return self._now()

        return self._safely(work)

    def stop(self) -> dict[Any, Any]:
        self._arena.stop()
        return self._safely(self._now)

    def tick(self, seen: int, mine: Comparison | None = None) -> dict[Any, Any]:
        """Look at the run; show its result to a browser that has not got it."""
        changed = self._now()
        number, result = self._arena.number, self._arena.latest()
        if result is None or number == seen:
            return changed
        if self._drawn[0] != number:
            self._drawn = (number, self._view(result))
        return {**changed, **self._show(result, self._drawn[1], mine), self._screen["seen"]: number}

    def sent(self, file: str, mine: Comparison | None = None) -> dict[Any, Any]:
        """An uploaded results.json; its pictures are shown only to who could look at them anyway."""
        return self._safely(lambda: self._open(Path(str(file)), mine, name=Path(str(file)).name))

    def named(self, place: str, mine: Comparison | None = None) -> dict[Any, Any]:
        """results.json on the machine of the page."""

        def work() -> dict[Any, Any]:
            if not self._page.shelf.is_local:
                raise ClipkitError("files are opened by their path on the machine itself", hint="upload it")
            if not isinstance(place, str) or not place.strip():
                raise ClipkitError(
                    "no file is named", hint="the folder that this wrote: clipkit compare DATASET --out FOLDER"
                )
            return self._open(Path(place.strip()).expanduser(), mine, name=place.strip())

        return self._safely(work)

    def beside(self, mine: Comparison | None, other: Comparison | None, first: str, second: str) -> str:
        """Where two rows disagree, with pictures of datasets that this page may show."""
        comparisons = [one for one in (mine, other) if one is not None]
        root = allowed_root(comparisons[0], self._roots_for(comparisons[0])) if comparisons else None

        def small(file: str) -> InlineThumbnail | None:
            return small_picture(root, file, file) if root else None

        return side_by_side(comparisons, str(first), str(second), small)

    def json(self, mine: Comparison | None) -> Any:
        return self._export(mine, "results.json", "application/json", lambda found: found.to_json())

    def html(self, mine: Comparison | None) -> Any:
        """The report that `clipkit compare --out` writes; with pictures where it was made here."""

        def make(found: Comparison) -> str:
            return report_page(found, thumbnails=mine is self._arena.latest())

        return self._export(mine, "comparison.html", "text/html; charset=utf-8", make)

    def _open(self, place: Path, mine: Comparison | None, *, name: str) -> dict[Any, Any]:
        try:
            found = checked(load_comparison(place))
        except ClipkitError as error:
            raise ClipkitError(error.message.replace(str(place), name), hint=error.hint) from error
        return {**self._show(found, self._view(found), mine), self._screen["seen"]: self._arena.number}

    def _show(self, found: Comparison, html: str, before: Comparison | None) -> dict[Any, Any]:
        """All of a comparison; the one before it stays beside, where it is of another model on the same pictures."""
        screen = self._screen
        other = before if before is not None and are_comparable(before, found) else None
        both = [one for one in (found, other) if one is not None]
        rows, (first, second) = choices(both), first_choice(both)
        return {
            screen["mine"]: found,
            screen["other"]: other,
            screen["shown"]: html,
            screen["away"]: gr.Row(visible=True),
            screen["versus"]: gr.Accordion(visible=len(rows) > 1, open=False),
            screen["first"]: gr.Dropdown(choices=rows, value=first),
            screen["second"]: gr.Dropdown(choices=rows, value=second),
            screen["sides"]: "",
        }

    def _view(self, found: Comparison) -> str:
        return view(found, self._roots_for(found))

    def _roots_for(self, found: Comparison) -> set[Path]:
        """Folders whose pictures may be shown: to others than this machine's users only of what was compared here."""
        if found is not self._arena.latest() and not self._page.shelf.is_local:
            return set()
        return {library.root for library in self._page.shelf.libraries()} | self._arena.datasets

    def _place(self, chosen: str) -> Path:
        """A library by its key; on this machine also any path."""
        library = self._page.shelf.get(chosen)
        if library is not None:
            return library.root
        if not self._page.shelf.is_local:
            raise ClipkitError("there is no such library here", hint="clipkit ui FOLDER ...")
        if not chosen.strip():
            raise ClipkitError("no pictures are named", hint="a folder with one folder per class, say")
        place = Path(chosen.strip()).expanduser()
        if not place.is_absolute():
            raise ClipkitError("that is no library here, and not a full path", hint="begin with / or ~")
        return place

    def _now(self) -> dict[Any, Any]:
        look = self._arena.look()
        is_running = look is not None and look.is_running
        trouble, screen = self._arena.trouble, self._screen
        changed = {
            screen["now"]: _progress(look) if look else "",
            screen["stop"]: gr.Button("Stopping ..." if look and look.is_stopping else "Stop", visible=is_running),
            screen["timer"]: gr.Timer(active=is_running),
        }
        if trouble is not None:
            changed[screen["notice"]] = html.note(*self._page.shelf.explained(trouble), kind="error")
        return changed

    def _export(self, mine: Comparison | None, name: str, kind: str, make: Callable[[Comparison], str]) -> Any:
        if mine is None:
            return json.dumps({"say": "There is no comparison to export."})
        content = make(mine if self._page.shelf.is_local else _without_place(mine))
        address = self._page.outbox.put(Export(name, kind, content.encode()))
        return json.dumps({"download": address})

    def _safely(self, work: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
        try:
            return {self._screen["notice"]: "", **work()}
        except ClipkitError as error:
            return {self._screen["notice"]: html.note(*self._page.shelf.explained(error), kind="error")}


def _without_place(found: Comparison) -> Comparison:
    """The same, and nothing of where the dataset lies on this machine."""
    return replace(found, path="", dataset=found.dataset.rpartition("/")[2])


def _progress(look: Look) -> str:
    if look.is_running:
        state = f"{look.done:,} of {look.total:,}" if look.total else "the model is being loaded"
        return html.progress(look.done, look.total, state=state, path=look.path.rpartition("/")[2])
    if look.was_stopped:
        when = f"after {look.done:,} of {look.total:,} steps" if look.total else "at the start"
        return _ended("Stopped", f" {when}. Finished steps are kept: press Compare to continue from there.")
    return _ended("Finished.") if look.code == 0 else ""


def _ended(state: str, rest: str = "") -> str:
    return html.render("ended", kind="ck-line", state=state, rest=rest, lines=())
