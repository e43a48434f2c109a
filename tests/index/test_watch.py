"""Watching: what changes on the disk can be found, and a folder that goes away is waited for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from clipkit.errors import ClipkitError
from clipkit.index import watch
from clipkit.index.image_index import ImageIndex
from clipkit.index.watch import _filter, watch_folder
from clipkit.store.database import writing
from tests.support import waiting
from tests.support.colours import ColourEncoder, paint
from tests.support.paths import REPOSITORY

SECONDS = 30.0  # a busy machine; how long it takes on a quiet one is measured, not tested
until = partial(waiting.until, seconds=SECONDS)


class Ended(Exception):
    """What ends a watch in a test, as Ctrl-C does otherwise."""


class Watch:
    """A watch in a thread, and what it said."""

    def __init__(self, index: ImageIndex) -> None:
        self.index, self.heard, self.updates = index, list[str](), 0
        self.revisions: list[int] = []
        self.is_over = False

    def run(self) -> None:
        with suppress(Ended):
            watch_folder(self.index, self.update, notify=self.heard.append)

    def update(self) -> None:
        if self.is_over:
            raise Ended
        before = self.index.revision
        self.index.update()
        self.updates += 1
        if self.index.revision != before:
            self.revisions.append(self.index.revision - before)


@contextmanager
def watching(index: ImageIndex) -> Iterator[Watch]:
    found = Watch(index)
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        until(lambda: found.updates > 0)
        yield found
    finally:
        found.is_over = True
        if not index.root.exists():
            index.root.mkdir()
        paint(index.root / "end.png", (1, 2, 3))
        thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.fixture
def album(photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(watch, "QUIET_MS", 100)
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


def test_new_changed_moved_and_deleted_pictures_are_followed(album: ImageIndex) -> None:
    with watching(album):
        paint(album.root / "new" / "pink.png", (255, 100, 100))
        until(lambda: "new/pink.png" in album.paths)
        paint(album.root / "red.png", (0, 250, 5))
        until(lambda: album.search("green", 2)[1].path == "red.png")
        os.rename(album.root / "new", album.root / "moved.d")
        until(lambda: "moved.d/pink.png" in album.paths and "new/pink.png" not in album.paths)
        shutil.rmtree(album.root / "moved.d")
        until(lambda: "moved.d/pink.png" not in album.paths)


def test_a_burst_is_one_transaction_and_quiet_is_none(album: ImageIndex) -> None:
    with watching(album) as found:
        aside = album.root.parent / "aside"
        for number in range(2):  # with the one that changes less than a batch
            paint(aside / f"{number}.png", (number, 90, 200))
        os.remove(album.root / "blue.png")
        shutil.move(aside, album.root / "burst")
        paint(album.root / "red.png", (200, 0, 0))
        until(lambda: bool(found.revisions))
        assert found.revisions == [1]
        assert len(album.paths) == 8 - 1 + 2
        updates = found.updates
        (album.root / "notes.txt").write_text("no picture")
        time.sleep(0.6)
        assert found.updates == updates  # neither by a text nor by what the index writes itself


def test_a_folder_that_is_gone_is_waited_for(album: ImageIndex) -> None:
    with watching(album) as found:
        away = album.root.with_name("away")
        os.rename(album.root, away)
        until(lambda: any("is gone; waiting" in line for line in found.heard))
        paint(away / "meanwhile.png", (9, 9, 90))
        os.rename(away, album.root)
        until(lambda: any("is back" in line for line in found.heard))
        until(lambda: "meanwhile.png" in album.paths)
        paint(album.root / "after.png", (90, 9, 9))
        until(lambda: "after.png" in album.paths)
        assert len(found.heard) == 2


def test_another_writer_is_waited_for_and_named_once(album: ImageIndex) -> None:
    with watching(album) as found:
        with writing(album.folder):
            paint(album.root / "new.png", (9, 90, 90))
            until(lambda: bool(found.heard))
            time.sleep(0.5)
        until(lambda: "new.png" in album.paths)
        assert len(found.heard) == 1
        assert "waiting until it has ended" in found.heard[0]


def test_an_unmounted_disk_is_told_from_an_empty_folder(
    album: ImageIndex, tmp_path: Path, encoder: ColourEncoder
) -> None:
    root = tmp_path / "disk"
    paint(root / "a.png", (1, 1, 1))
    index = ImageIndex.create(root, encoder, at=tmp_path / "outside")
    watched = watch._WatchedRoot(index)
    os.remove(root / "a.png")
    assert watched.is_there()
    watched._device += 1  # as where the mount point is all there is
    assert not watched.is_there()


def test_an_error_that_stays_ends_it(album: ImageIndex) -> None:
    def fail() -> None:
        raise ClipkitError("no space left", hint="free some space")

    with pytest.raises(ClipkitError, match="no space left"):
        watch_folder(album, fail, notify=pytest.fail)


def test_only_what_an_update_would_read_wakes_it(tmp_path: Path) -> None:
    root, outside = tmp_path, tmp_path / "index-here"
    (root / "plain").mkdir()
    (root / "a.txt").touch()
    is_wanted = _filter(root, outside, include_hidden=False)
    wanted = ("a.jpg", "trip/b.HEIC", "plain", "gone.folder", "a.jpg.xmp")
    others = (".clipkit/index.db", "a.txt", ".hidden/a.jpg", "trip/.a.jpg.part", "index-here/index.db", "index-here")
    assert [is_wanted(str(root / path)) for path in wanted] == [True] * len(wanted)
    assert [is_wanted(str(root / path)) for path in others] == [False] * len(others)
    assert _filter(root, outside, include_hidden=True)(str(root / ".hidden" / "a.jpg"))
    assert not _filter(root, outside, include_hidden=True)(str(root / ".clipkit" / "index.db"))


@pytest.mark.slow
def test_the_command_watches_until_it_is_interrupted(photos: Path) -> None:
    command = [sys.executable, "-m", "clipkit", "index", str(photos), "--model", "starter", "--watch"]
    # Whoever runs the tests in the background has SIGINT ignored, and a child would inherit that.
    listening = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as child:
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        assert any("watching" in line for line in lines)
        paint(photos / "new.png", (9, 9, 90))
        assert any("1 new" in line for line in lines)
        child.send_signal(signal.SIGINT)
        started = time.monotonic()
        rest = child.stderr.read()
        assert child.wait(SECONDS) == 130
        assert time.monotonic() - started < 5
    assert "9 pictures are in the index" in rest
    assert "Traceback" not in rest
    assert len(ImageIndex.open(photos)) == 9
