"""Library tab: which folders are indexed, what is in them, and runs that can be watched and stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from clipkit.core.html import Markup
from clipkit.core.text import are, counted, printable
from clipkit.doctor.checks import examine
from clipkit.errors import ClipkitError
from clipkit.explore.choices import Level
from clipkit.explore.duplicates import find_duplicates
from clipkit.explore.library import Library
from clipkit.explore.mapping import map_collection
from clipkit.explore.metadata import Fact
from clipkit.index.check import check, prune
from clipkit.models.registry import ALIASES
from clipkit.output.map_html import make_thumbnails, map_page

from .. import html
from ..server.routes import Export
from ..server.runs import Look
from ..server.state import Page
from ..theme import piece

SECONDS = 1.0  # between two looks at a run
FEW = 200  # failures listed on a card
MOST_GROUPS, MOST_SHOWN = 60, 40  # groups of duplicates, and pictures of one
MOST_CHOSEN = 5_000  # spare pictures that can be chosen at once
MOST_THUMBNAILS = 3_000  # of a map: half a minute on two cores
NO_COPIES: dict[Level, str] = {
    "exact": "have the same bytes",
    "near": "are nearly the same",
    "similar": "are of one burst",
}
NO_FOLDER = (
    "Type a folder of pictures below, and press Add and index: ~/Pictures, say.",
    "It is indexed here; nothing leaves this machine.",
)


def tab(page: Page, _: gr.Tab) -> None:
    """Build the components and tie them to the actions."""
    actions = LibraryActions(page)
    sends = "window.clipkit.panel(element, trigger); // sends 'act'"
    shelf = piece(actions.shelf(), elem_id="ck-library", on_load=sends)
    notice = piece(elem_id="ck-library-notice")
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
        doctor = gr.Button(
            "Diagnose this installation (doctor)", size="sm", scale=0, min_width=280, elem_id="ck-doctor"
        )
    findings = piece(elem_id="ck-findings")
    timer = gr.Timer(SECONDS, active=page.is_running())
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [shelf, notice, detail, timer]
    shelf.act(actions.act, None, outputs, trigger_mode="multiple", **private)  # also while the last is not answered
    add.click(actions.add, [place], outputs, **private)
    place.submit(actions.add, [place], outputs, **private)
    timer.tick(actions.tick, None, [shelf, timer], **private)
    doctor.click(actions.doctor, None, [findings], api_visibility="private", concurrency_limit=1)


class LibraryActions:
    """What the tab does. Each returns the shelf, a sentence, what was asked to be shown, and whether to look again."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def shelf(self) -> str:
        """All libraries as they are now."""
        libraries = self._page.shelf.libraries()
        if not libraries:
            return html.note("No folder yet", "clipkit shows folders of pictures that it has indexed.", steps=NO_FOLDER)
        folders = [self._folder(library) for library in libraries]
        return html.render("shelf", folders=folders, is_local=self._page.shelf.is_local)

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
            "twins": partial(self._duplicates, "exact"),
            "near": partial(self._duplicates, "near"),
            "similar": partial(self._duplicates, "similar"),
            "map": self._map,
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
        see = self._page.shelf.presentable
        rows = [(one.state, one.name, see(one.fact), see(one.advice)) for one in findings]
        return html.table(rows, ("state", "check", "found", "what to do"))

    def _answer(self, work: Callable[[], tuple[str, str]]) -> tuple[Any, ...]:
        try:
            sentence, detail = work()
            notice = html.line(sentence, kind="ck-count", is_status=True) if sentence else ""
        except ClipkitError as error:
            notice, detail = html.note(*self._page.shelf.explained(error), kind="error"), ""
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
                f"{report.rows:,} rows of {printable(library.name)} were checked; none is damaged.",
                "",
            )
        rows = [(one.path or "the index", one.what) for one in report.damage[:FEW]]
        return f"{len(report.damage):,} are damaged: clipkit check --repair", html.table(rows, ("picture", "damage"))

    def _prune(self, library: Library) -> tuple[str, str]:
        return f"{counted(len(prune(library.index)), 'missing picture')} removed from the index.", ""

    def _duplicates(self, level: Level, library: Library) -> tuple[str, str]:
        groups = find_duplicates(library.index, level=level, catalogue=library.catalogue())
        spare = sum(len(group) - 1 for group in groups)
        if not groups:
            return f"No two pictures of {printable(library.name)} {NO_COPIES[level]}.", ""
        others = [fact.id for group in groups for fact in group[1:]][:MOST_CHOSEN]
        shown = Markup("").join(
            [
                html.render("spare", key=library.key, ids=",".join(map(str, others)), count=len(others)),
                *(_group(library, group, level) for group in groups[:MOST_GROUPS]),
            ]
        )
        more = f"; the first {MOST_GROUPS} are shown" if len(groups) > MOST_GROUPS else ""
        return (
            f"{counted(len(groups), 'picture')} {are(len(groups))} there more than once: {spare:,} extra{more}.",
            shown,
        )

    def _map(self, library: Library) -> tuple[str, str]:
        found = map_collection(library.index, encoder=library.encoder)
        thumbs = make_thumbnails(found, library.place_of, most=MOST_THUMBNAILS)
        search = f"../../?library={library.key}"  # from where exports lie
        content = "".join(map_page(found, thumbs, title=printable(library.name), search=search))
        address = self._page.outbox.put(Export("map.html", "text/html; charset=utf-8", content.encode(), is_shown=True))
        text = f"{counted(len(found), 'picture')}, {counted(len(found.names), 'cluster')}"
        return f"The map of {printable(library.name)} is made.", html.render("map", address=address, text=text)

    def _remove(self, library: Library) -> tuple[str, str]:
        if not self._page.shelf.is_local:  # it would be hidden from everybody
            raise ClipkitError("folders are hidden on the machine itself", hint="clipkit ui FOLDER ...")
        self._stop(library)
        self._page.shelf.remove(library.key)
        return f"{printable(library.name)} is no longer shown here; nothing on the disk has changed.", ""

    def _folder(self, library: Library) -> _Folder:
        run = self._page.runs.get(library.key)
        look = run.look() if run else None
        try:
            inside = _inside(library) if library.is_indexed else html.line(_why_not(library, look), kind="ck-where")
        except ClipkitError as error:
            inside = html.note(*self._page.shelf.explained(error), kind="error")
        progress = _progress(look, self._page.shelf.presentable) if look else ""
        if self._page.watches is not None and self._page.watches.is_watching(library.key):
            progress = html.line("watched: what changes on the disk is indexed", kind="ck-where")
        return _Folder(library, inside, progress, tuple(_buttons(library, look, can_hide=self._page.shelf.is_local)))


@dataclass(frozen=True)
class _Button:
    """What can be done to a library. question: asked before it is done. is_off: it cannot be pressed now."""

    kind: str
    text: str
    question: str = ""
    is_off: bool = False


@dataclass(frozen=True)
class _Folder:
    """The card of a library: what is in it, how its run stands, what can be done to it."""

    library: Library
    contents: str
    progress: str
    buttons: tuple[_Button, ...]


def _buttons(library: Library, look: Look | None, *, can_hide: bool) -> Iterator[_Button]:
    if look is not None and look.is_running:
        yield _Button("stop", "Stopping ..." if look.is_stopping else "Stop", is_off=look.is_stopping)
        return
    yield _Button("update", "Update" if library.is_indexed else "Index")
    if library.is_indexed:
        yield _Button("retry", "Retry failed")
        yield _Button("check", "Check")
        yield _Button("prune", "Remove missing", "Remove pictures that are gone from the disk from the index, too?")
        yield _Button("twins", "Duplicates")
        yield _Button("near", "Near copies")
        yield _Button("similar", "Bursts")
        yield _Button("map", "Map")
    if can_hide:
        yield _Button("remove", "Hide", "Hide this folder from the page? Nothing on the disk changes.")


def _inside(library: Library) -> str:
    index = library.index
    counts = index.counts()
    failed = counts["failed"]
    rows = [(failure.path, failure.reason) for failure in index.failures()[:FEW]] if failed else []
    return html.render(
        "folder",
        numbers=(("pictures", counts["ok"]), ("missing", counts["missing"]), ("failed", failed)),
        model=index.info.model,
        facts=html.table(_model(library)),
        failed=failed,
        failures=html.table(rows, ("file", "reason")),
        more=max(failed - FEW, 0),
    )


def _model(library: Library) -> Iterator[tuple[str, str]]:
    info = library.index.info
    yield "embedding", f"{info.dim:,} values per picture"
    yield "weights", info.weights_sha256[:16]
    alias = next((alias for alias in ALIASES.values() if alias.model == info.model), None)
    if alias is not None:
        yield "for", alias.purpose
        told = [("ImageNet zero-shot", alias.imagenet), ("Flickr30k text to image R@1", alias.flickr)]
        published = [f"{name} {value:g} %" for name, value in told if value is not None]
        yield "published", ", ".join(published) or f"see {alias.source}"
    towers = getattr(library.loaded, "towers", None)
    if towers is None:
        yield "loaded", "at the first search"
    else:
        precision = str(towers.image).removeprefix("torch.")
        yield "loaded", f"on {towers.device.type} in {precision}"
    yield "made by", f"{info.created_by}, revision {info.revision:,}"


def _progress(look: Look, see: Callable[[str], str] = str) -> str:
    if not look.is_running:
        state = "stopped; what was done is kept" if look.was_stopped else "finished" if look.code == 0 else "failed"
        return html.render(
            "ended", kind="ck-where", state=state, rest="", lines=[see(line) for line in look.lines[-4:]]
        )
    left = f", {_time(look.left)} left" if look.left is not None else ""
    state = (
        f"{look.done:,} of {look.total:,}, {look.rate:.0f} pictures/s{left}" if look.total else "scanning the folder"
    )
    return html.progress(look.done, look.total, state=state, path=look.path)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _why_not(library: Library, look: Look | None) -> str:
    """Why a library has no index."""
    if not library.is_there:
        return "the folder is not there; its disk may be gone"
    is_done = look is not None and not look.is_running and look.code == 0
    return "its index is gone since it was made" if is_done else "not indexed yet"


def _group(library: Library, group: Sequence[Fact], level: Level) -> Markup:
    """Pictures of one group side by side, the one to keep first; of equal bytes one is enough to look at."""
    shown = group[:MOST_SHOWN]
    cards = html.grid(library.key, shown[: 1 if level == "exact" else None])
    paths = [fact.path for fact in shown]
    return html.render("copies", count=len(group), first=paths[0], paths=paths[1:], grid=cards)
