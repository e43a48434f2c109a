"""Library tab: which folders are indexed, what is in them, and runs that can be watched and stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from clipkit.core.text import printable
from clipkit.doctor.checks import examine
from clipkit.errors import ClipkitError
from clipkit.explore.library import Library
from clipkit.explore.metadata import Catalogue
from clipkit.explore.question import Answer, plain
from clipkit.index.check import check, prune
from clipkit.models.registry import ALIASES

from .. import html
from ..server.runs import Look
from ..server.state import Page
from ..theme import piece

SECONDS = 1.0  # between two looks at a run
FEW = 200  # failures listed on a card
MOST_GROUPS = 60  # of duplicates
NO_FOLDER = (
    "Type a folder of pictures below, and press Add: ~/Pictures, say.",
    "It is indexed here; nothing leaves this machine.",
)


def tab(page: Page, _: gr.Tab) -> None:
    """Build the components and tie them to the actions."""
    actions = Actions(page)
    sends = "window.clipkit.panel(element, trigger); // sends 'act'"
    shelf = piece(actions.shelf(), elem_id="ck-library", on_load=sends)
    notice = piece(elem_id="ck-said")
    with gr.Row(visible=page.shelf.is_local):
        place = gr.Textbox(
            show_label=False,
            placeholder="a folder on this machine: ~/Pictures",
            max_length=4096,
            scale=5,
            elem_id="ck-place",
        )
        add = gr.Button("Add and index", variant="primary", scale=1, min_width=140, elem_id="ck-add")
    detail = piece(elem_id="ck-detail")
    with gr.Row():
        doctor = gr.Button("Examine this installation (doctor)", size="sm", scale=0, min_width=280, elem_id="ck-doctor")
    findings = piece(elem_id="ck-findings")
    timer = gr.Timer(SECONDS, active=page.is_running())
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [shelf, notice, detail, timer]
    shelf.act(actions.act, None, outputs, **private)
    add.click(actions.add, [place], outputs, **private)
    place.submit(actions.add, [place], outputs, **private)
    timer.tick(actions.tick, None, [shelf, timer], **private)
    doctor.click(actions.doctor, None, [findings], api_visibility="private", concurrency_limit=1)


class Actions:
    """What the tab does. Each returns the shelf, a sentence, what was asked to be shown, and whether to look again."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def shelf(self) -> str:
        """All libraries as they are now."""
        libraries = self._page.shelf.libraries()
        if not libraries:
            return html.note("No folder yet", "clipkit shows folders of pictures that it has indexed.", steps=NO_FOLDER)
        return f'<div class="ck-shelf">{"".join(self._card(library) for library in libraries)}</div>'

    def tick(self) -> tuple[str, Any]:
        return self.shelf(), gr.Timer(active=self._page.is_running())

    def add(self, folder: str) -> tuple[Any, ...]:
        def work() -> tuple[str, str]:
            if not self._page.shelf.is_local:
                raise ClipkitError("folders are added on the machine itself", hint="clipkit ui FOLDER ...")
            if not folder.strip():
                raise ClipkitError("no folder is named", hint="type one: ~/Pictures")
            library = self._page.shelf.add(folder.strip())
            return ("" if self._page.start(library) else "It is being indexed already."), ""

        return self._answer(work)

    def act(self, event: gr.EventData) -> tuple[Any, ...]:
        payload = event._data if isinstance(event._data, dict) else {}
        kind, library = str(payload.get("kind") or ""), self._page.shelf.get(str(payload.get("key") or ""))
        actions: dict[str, Callable[[Library], tuple[str, str]]] = {
            "update": lambda library: self._run(library),
            "retry": lambda library: self._run(library, "--retry-failed"),
            "stop": self._stop,
            "check": self._check,
            "prune": self._prune,
            "twins": self._twins,
            "remove": self._remove,
        }
        if kind == "look":
            return self.shelf(), gr.skip(), gr.skip(), gr.Timer(active=self._page.is_running())
        if library is None or kind not in actions:
            return self._answer(lambda: ("", ""))
        return self._answer(lambda: actions[kind](library))

    def doctor(self) -> str:
        """What `clipkit doctor` says, for the first library."""
        first = self._page.shelf.first()
        findings = examine(first.root if first else None, at=first.at if first else None)
        rows = [(one.state, one.name, one.fact, one.advice) for one in findings]
        return html.table(rows, ("state", "what", "found", "to do"))

    def _answer(self, work: Callable[[], tuple[str, str]]) -> tuple[Any, ...]:
        try:
            sentence, detail = work()
            notice = f'<p class="ck-count" role="status">{html.safe(sentence)}</p>' if sentence else ""
        except ClipkitError as error:
            notice, detail = html.note(error.message, error.hint or "", kind="error"), ""
        return self.shelf(), notice, detail, gr.Timer(active=self._page.is_running())

    def _run(self, library: Library, *options: str) -> tuple[str, str]:
        return ("" if self._page.start(library, *options) else "It is running already."), ""

    def _stop(self, library: Library) -> tuple[str, str]:
        run = self._page.runs.get(library.key)
        if run is not None:
            run.stop()
        return "", ""

    def _check(self, library: Library) -> tuple[str, str]:
        report = check(library.index)
        if not report.damage:
            return (
                f"{report.rows:,} rows of {printable(library.name)} were looked at; all are as clipkit wrote them.",
                "",
            )
        rows = [(one.path or "the index", one.what) for one in report.damage[:FEW]]
        return f"{len(report.damage):,} are damaged: clipkit check --repair", html.table(rows, ("picture", "damage"))

    def _prune(self, library: Library) -> tuple[str, str]:
        return f"{len(prune(library.index)):,} missing pictures are forgotten.", ""

    def _twins(self, library: Library) -> tuple[str, str]:
        catalogue = library.catalogue()
        groups = catalogue.duplicates()
        spare = sum(len(ids) - 1 for ids in groups)
        if not groups:
            return f"No two pictures of {printable(library.name)} have the same bytes.", ""
        shown = "".join(_group(library, catalogue, ids) for ids in groups[:MOST_GROUPS])
        more = f"; the first {MOST_GROUPS} are shown" if len(groups) > MOST_GROUPS else ""
        return f"{len(groups):,} pictures are there more than once, {spare:,} copies to spare{more}.", shown

    def _remove(self, library: Library) -> tuple[str, str]:
        self._stop(library)
        self._page.shelf.remove(library.key)
        return f"{printable(library.name)} is no longer shown here; nothing on the disk has changed.", ""

    def _card(self, library: Library) -> str:
        run = self._page.runs.get(library.key)
        look = run.look() if run else None
        parts = [
            f"<h3>{html.safe(library.name)}</h3>",
            f'<p class="ck-where">{html.safe(str(library.root))}</p>' if self._page.shelf.is_local else "",
        ]
        try:
            parts += _inside(library) if library.is_indexed else ['<p class="ck-where">not indexed yet</p>']
        except ClipkitError as error:
            parts.append(html.note(error.message, error.hint or "", kind="error"))
        if look is not None:
            parts.append(_progress(look))
        parts.append(f'<div class="ck-row">{"".join(self._buttons(library, look))}</div>')
        return f'<section class="ck-folder" data-key="{html.safe(library.key)}">{"".join(parts)}</section>'

    def _buttons(self, library: Library, look: Look | None) -> Iterator[str]:
        if look is not None and look.is_running:
            yield _button("stop", library, "Stopping ..." if look.is_stopping else "Stop", is_off=look.is_stopping)
            return
        yield _button("update", library, "Update" if library.is_indexed else "Index")
        if library.is_indexed:
            yield _button("retry", library, "Retry failed")
            yield _button("check", library, "Check")
            yield _button("prune", library, "Forget missing", ask="Forget the pictures that are gone from the disk?")
            yield _button("twins", library, "Duplicates")
        yield _button("remove", library, "Hide", ask="Show this folder here no longer? Nothing on the disk changes.")


def _inside(library: Library) -> Iterator[str]:
    index = library.index
    counts, info = index.counts(), index.info
    numbers = (("pictures", counts["ok"]), ("missing", counts["missing"]), ("failed", counts["failed"]))
    cells = "".join(f"<div><dt>{name}</dt><dd>{number:,}</dd></div>" for name, number in numbers)
    yield f'<dl class="ck-numbers">{cells}</dl>'
    yield f"<details><summary>model: {html.safe(info.model)}</summary>{html.table(_model(library))}</details>"
    if counts["failed"]:
        rows = [(failure.path, failure.reason) for failure in index.failures()[:FEW]]
        more = f"<p>and {counts['failed'] - FEW:,} more</p>" if counts["failed"] > FEW else ""
        summary = f"{counts['failed']:,} could not be read"
        yield f"<details><summary>{summary}</summary>{html.table(rows, ('file', 'reason'))}{more}</details>"


def _model(library: Library) -> Iterator[tuple[str, str]]:
    info = library.index.info
    yield "width", f"{info.dim:,} values a picture"
    yield "weights", info.weights_sha256[:16]
    alias = next((alias for alias in ALIASES.values() if alias.model == info.model), None)
    if alias is not None:
        yield "for", alias.purpose
        told = [("ImageNet zero-shot", alias.imagenet), ("Flickr30k text to image R@1", alias.flickr)]
        published = [f"{name} {value:g} %" for name, value in told if value is not None]
        yield "published", ", ".join(published) or f"see {alias.source}"
    towers = getattr(library.loaded, "towers", None)
    if towers is None:
        yield "runs", "when the first question comes"
    else:
        precision = str(towers.image).removeprefix("torch.")
        yield "runs", f"on {towers.device.type} in {precision}"
    yield "made by", f"{info.created_by}, revision {info.revision:,}"


def _progress(look: Look) -> str:
    lines = "".join(f"<br>{html.safe(line)}" for line in look.lines[-4:])
    if not look.is_running:
        state = "stopped; what was done is kept" if look.was_stopped else "finished" if look.code == 0 else "failed"
        return f'<p class="ck-where" role="status"><b>{state}</b>{lines}</p>'
    share = 100 * look.done / look.total if look.total else 0
    left = f", {_time(look.left)} left" if look.left is not None else ""
    state = (
        f"{look.done:,} of {look.total:,}, {look.rate:.0f} pictures/s{left}" if look.total else "looking at the folder"
    )
    return (
        f'<div class="ck-bar" role="progressbar" aria-valuenow="{share:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{share:.1f}%"></i></div><p class="ck-now"><b>{state}</b></p>'
        f'<p class="ck-now">{html.safe(look.path) or "&nbsp;"}</p>'
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _button(kind: str, library: Library, text: str, *, ask: str = "", is_off: bool = False) -> str:
    question = f' data-ask="{html.safe(ask)}"' if ask else ""
    return (
        f'<button type="button" class="ck-button" data-act="{kind}" data-key="{html.safe(library.key)}"{question}'
        f"{' disabled' if is_off else ''}>{html.safe(text)}</button>"
    )


def _group(library: Library, catalogue: Catalogue, ids: list[int]) -> str:
    found = plain(library, catalogue, ids[:40])
    names = "".join(f"<br>{html.safe(one.fact.path)}" for one in found)
    answer = Answer(found[:1], len(ids), 0.0)
    return (
        f'<p class="ck-copies"><b>{len(ids):,} copies</b>{names}</p>{html.grid(library.key, answer, number=0, turn=0)}'
    )
