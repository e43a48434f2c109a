"""Adapt section of the Compare tab: a model tuned to one's own pictures beside the page, and its table."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from clipkit.core.html import Markup
from clipkit.core.text import printable
from clipkit.errors import ClipkitError
from clipkit.learn.adaptation import Adaptation

from .. import html
from ..server.runs import CommandRun, Look
from ..server.state import Page
from ..theme import PRIVATE, piece

NAME = "adapt"  # among the page's runs; no library has this key
RECIPES = (("words: indexes stay valid", "words"), ("projection: indexes stay valid", "projection"))
SECONDS = 1.0  # between two looks at a run
MOST_LINES = 20  # reasons and notes that are shown
OURS = ("seen", "notice", "now", "shown", "stop", "timer")


class AdaptRun(CommandRun):
    """`clipkit adapt` beside the page; what it writes stays."""

    def __init__(self, dataset: Path, out: Path, recipe: str, model: str) -> None:
        self.out = out
        self._begin(["adapt", "--out", str(out), "--recipe", recipe, "--base", model, "--", str(dataset)])


class _Screen(NamedTuple):
    dataset: gr.Textbox
    out: gr.Textbox
    recipe: gr.Radio


def section(page: Page, here: gr.Tab) -> None:
    """Build the components and tie them to the actions; only for who is at this machine, and owns its disk."""
    if not page.shelf.is_local:
        return
    with gr.Accordion("Adapt: tune a model to your own pictures and words", open=False, elem_id="ck-adapt"):
        hint = "A quarter of the pictures is kept for the test. The model is written only if it is proven better there."
        piece(html.line(hint), elem_id="ck-adapt-hint")
        with gr.Row():
            screen = _Screen(
                gr.Textbox(label="Captions", info="A CSV image,caption, or a folder with one folder per class.",
                           max_length=4096, min_width=260, elem_id="ck-adapt-dataset"),
                gr.Textbox(label="Model folder", info="A new folder; or one that clipkit adapt wrote, to open it.",
                           max_length=4096, min_width=260, elem_id="ck-adapt-out"),
                gr.Radio(list(RECIPES), value="words", label="What learns", elem_id="ck-adapt-recipe"),
            )  # fmt: skip
        with gr.Row():
            start = gr.Button("Adapt", variant="primary", scale=0, min_width=130, elem_id="ck-adapt-start")
            stop = gr.Button("Stop", visible=False, scale=0, min_width=110, elem_id="ck-adapt-stop")
            show = gr.Button("Open", scale=0, min_width=110, elem_id="ck-adapt-open")
        notice, now = piece(elem_id="ck-adapt-notice"), piece(elem_id="ck-adapt-now")
        shown = piece(elem_id="ck-adapted")
    seen, timer = gr.State(0), gr.Timer(SECONDS, active=False)
    outputs = [seen, notice, now, shown, stop, timer]
    actions = AdaptActions(page, dict(zip(OURS, outputs, strict=True)))
    start.click(actions.start, list(screen), outputs, **PRIVATE)
    stop.click(actions.stop, None, outputs, **PRIVATE)
    show.click(actions.open, [screen.out], outputs, **PRIVATE)
    timer.tick(actions.tick, [seen], outputs, **PRIVATE)
    here.select(actions.tick, [seen], outputs, **PRIVATE)


class AdaptActions:
    """What the section does. Each returns what changes, by component."""

    def __init__(self, page: Page, screen: dict[str, Any]) -> None:
        self._page, self._screen = page, screen
        self._number = 0
        self._settled: AdaptRun | None = None
        self._view, self._trouble = "", ""

    def start(self, dataset: str, out: str, recipe: str) -> dict[Any, Any]:
        """Begin, in a process of its own."""

        def work() -> dict[Any, Any]:
            source, place = _full_path(dataset, "dataset"), _full_path(out, "model folder")
            if not os.path.exists(source):
                raise ClipkitError(f"{source} is not there", hint="a CSV image,caption, say")
            with self._page.lock:
                if (run := self._run) is not None and run.look().is_running:
                    raise ClipkitError("a model is being adapted already", hint="wait for it, or press Stop")
                kind = recipe if recipe in dict(RECIPES).values() else "words"
                self._page.runs[NAME] = AdaptRun(source, place, kind, self._page.shelf.model or "starter")
            self._trouble = ""
            return self._now()

        return self._safely(work)

    def stop(self) -> dict[Any, Any]:
        """Ask the run to end; its last checkpoint stays."""
        if self._run is not None:
            self._run.stop()
        return self._safely(self._now)

    def open(self, out: str) -> dict[Any, Any]:
        """Show what was found before."""
        return self._safely(lambda: {self._screen["shown"]: view(Adaptation.load(_full_path(out, "model folder")))})

    def tick(self, seen: int) -> dict[Any, Any]:
        """Look at the run; show its result to a browser that has not got it."""
        changed = self._now()
        if self._view and seen != self._number:
            changed |= {self._screen["shown"]: self._view, self._screen["seen"]: self._number}
        return changed

    @property
    def _run(self) -> AdaptRun | None:
        found = self._page.runs.get(NAME)
        return found if isinstance(found, AdaptRun) else None

    def _now(self) -> dict[Any, Any]:
        run, screen = self._run, self._screen
        look = run.look() if run else None
        if run and look and not look.is_running and self._settled is not run:
            self._settle(run, look)
        is_running = look is not None and look.is_running
        notice = {screen["notice"]: self._trouble} if self._trouble else {}
        return notice | {
            screen["now"]: _progress(look) if look else "",
            screen["stop"]: gr.Button("Stopping ..." if look and look.is_stopping else "Stop", visible=is_running),
            screen["timer"]: gr.Timer(active=is_running),
        }

    def _settle(self, run: AdaptRun, look: Look) -> None:
        """A run that was refused has a report too; one that was stopped or that failed has none of its own."""
        self._settled = run
        if look.was_stopped:
            return
        errors = [line.removeprefix("error: ") for line in look.lines if line.startswith("error: ")]
        is_refused = bool(errors) and "got no model" in errors[-1]
        if look.code == 0 or is_refused:
            try:
                self._view, self._number = view(Adaptation.load(run.out)), self._number + 1
                return
            except ClipkitError as error:
                errors = [error.message]
        hints = [line.partition(": ")[2] for line in look.lines if line.startswith("  try: ")]
        message = errors[-1] if errors else f"the run ended with code {look.code}"
        self._trouble = html.note(printable(message), printable(hints[-1]) if hints else "", kind="error")

    def _safely(self, work: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
        try:
            return {self._screen["notice"]: "", **work()}
        except ClipkitError as error:
            return {self._screen["notice"]: html.note(*self._page.shelf.explained(error), kind="error")}


def view(found: Adaptation) -> Markup:
    """The table before and after, and what follows from it."""
    rows = [
        (one.way, one.measure, f"{one.before:.3f}", f"{one.after:.3f}", f"{one.gain:+.3f}",
         f"{one.low:+.3f} to {one.high:+.3f}", f"{one.n:,}")
        for one in (*found.changes, found.general)
    ]  # fmt: skip
    lines = [*(f"Not proven: {reason}." for reason in found.reasons), *found.notes]
    if found.needed:
        lines.append(f"Pictures for a proof: {found.needed}.")
    if found.is_written:
        words = ["clipkit", "index", "FOLDER", "--model", str(found.folder)]
        lines.append(f"Use it: {shlex.join(words if found.keeps_indexes else [*words, '--rebuild'])}")
    shown = [printable(line) for line in lines[:MOST_LINES]]
    return html.render("adapted", found=found, name=found.folder.name, rows=rows, lines=shown)


def _full_path(text: str, what: str) -> Path:
    if not isinstance(text, str) or not text.strip():
        raise ClipkitError(f"the {what} is not named", hint="a full path, which begins with / or ~")
    place = Path(text.strip()).expanduser()
    if not place.is_absolute():
        raise ClipkitError(f"the {what} is not named by its full path", hint="begin with / or ~")
    return place


def _progress(look: Look) -> str:
    if look.is_running:
        state = f"{look.done:,} of {look.total:,}" if look.total else "the model is being loaded"
        return html.progress(look.done, look.total, state=state, path="")
    if look.was_stopped:
        rest = " Finished epochs are kept: press Adapt to continue from there."
        return html.render("ended", kind="ck-line", state="Stopped.", rest=rest, lines=())
    return html.render("ended", kind="ck-line", state="Finished.", rest="", lines=()) if look.code is not None else ""
