"""`clipkit ui --watch`: the page's folders are followed by processes that give way to its runs and end with it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from clipkit_apps.server import watching
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.runs import CommandRun
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails

from clipkit.explore.library import Library
from clipkit.index.image_index import ImageIndex
from clipkit.models.openclip import OpenClipEncoder
from clipkit.store.database import writing
from tests.support import waiting
from tests.support.colours import paint

SECONDS = 60.0  # a busy machine
until = partial(waiting.until, seconds=SECONDS)


@pytest.fixture
def library(tmp_path: Path, starter: OpenClipEncoder) -> Library:
    paint(tmp_path / "photos" / "red.png", (250, 0, 0))
    ImageIndex.create(tmp_path / "photos", starter).update()
    return Library(tmp_path / "photos", lambda *_: starter)


@pytest.fixture
def page(library: Library, tmp_path: Path, starter: OpenClipEncoder) -> Iterator[Page]:
    shelf = Shelf(lambda *_: starter)
    shelf.add(library.root)
    made = Page(shelf, Thumbnails(tmp_path / "thumbs"))
    yield made
    made.end()


def test_what_changes_is_found_and_a_run_by_hand_does_not_collide(page: Page, library: Library) -> None:
    heard: list[str] = []
    page.watch(heard.append)
    assert page.watches is not None
    paint(library.root / "green.png", (0, 250, 0))
    until(lambda: "green.png" in library.index.paths)
    assert page.watches.is_watching(library.key)
    assert not page.is_running()  # no run by hand
    paint(library.root / "blue.png", (0, 0, 250))
    assert page.start(library, "--retry-failed")
    until(lambda: not page.is_running())
    assert page.runs[library.key].look().code == 0
    assert "blue.png" in library.index.paths
    paint(library.root / "pink.png", (250, 90, 90))
    until(lambda: "pink.png" in library.index.paths)  # it is watched again
    assert heard == []
    page.end()
    assert not page.watches.is_watching(library.key)
    with writing(library.folder):  # nobody holds the index any more
        pass


def test_a_watch_that_cannot_begin_is_said_once_and_tried_again(
    page: Page, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.5)
    heard: list[str] = []
    with writing(library.folder):
        page.watch(heard.append)
        until(lambda: bool(heard))
        paint(library.root / "green.png", (0, 250, 0))
    until(lambda: "green.png" in library.index.paths)
    assert len(heard) == 1
    assert "photos is not watched, and tried again each minute: error: another clipkit is writing" in heard[0]


def test_a_folder_that_is_hidden_from_the_page_is_watched_no_longer(page: Page, library: Library) -> None:
    page.watch(lambda _: None)
    watches = page.watches
    assert watches is not None
    until(lambda: watches.is_watching(library.key))
    page.shelf.remove(library.key)
    until(lambda: not watches.is_watching(library.key))


def test_a_watch_ends_where_the_page_is_killed(library: Library) -> None:
    run = CommandRun(library.root, options=("--watch",))
    until(lambda: any(line.startswith("watching ") for line in run.look().lines))
    assert run._process.stdin is not None
    run._process.stdin.close()  # as the system does when the page's process is gone
    until(lambda: not run.look().is_running)
    with writing(library.folder):
        pass
