"""Disks that are read-only or full, caches and indexes of strangers, and the order in which bytes become safe."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import clipkit.search.vectors
from clipkit.core.arrays import Embeddings
from clipkit.errors import ClipkitError
from clipkit.index.image_index import ImageIndex
from tests.reliability.test_crash import leave_journal, other_weights
from tests.support.colours import COLOURS, ColourEncoder, paint, shade
from tests.support.faults import (
    cache_files,
    check_aligned,
    check_answers,
    check_sound,
    indexed,
    paint_many,
    rows_of,
    run_cli,
)
from tests.support.sweeps import IS_FULL

SIZES_KB = range(0, 400, 20 if IS_FULL else 95)  # free space: 20 sizes, from nothing to nearly enough
IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root mounts disks and gives files away")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB that can be filled and made read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def set_read_only(disk: Path, *, to: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if to else 'rw'}", disk], check=True)


# read-only


@needs_root
@pytest.mark.parametrize("journal", [None, "unsynced", "empty"])
def test_a_read_only_folder_is_searched_and_index_says_what_to_type(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], journal: str | None
) -> None:
    folder = paint_many(disk / "photos", 6)
    index = indexed(folder)
    before = index.embeddings
    paint(folder / "new.png", shade(77))
    if journal:
        leave_journal(index, journal)
    set_read_only(disk, to=True)
    check_answers(ImageIndex.open(folder))
    np.testing.assert_array_equal(ImageIndex.open(folder).embeddings, before)
    for options in ("", " --rebuild", " --checksum"):
        assert run_cli(monkeypatch, f"clipkit index {folder}{options}", ColourEncoder()) == 1
        said = capsys.readouterr().err
        assert said.splitlines() == [
            f"error: cannot write in {folder}/.clipkit: Read-only file system",
            f"  try: clipkit index {folder} --index FOLDER",
        ]
    assert run_cli(monkeypatch, f"clipkit index {folder} --index {tmp_path / 'kept'}", ColourEncoder()) == 0
    assert len(ImageIndex.open(folder, at=tmp_path / "kept")) == 7


@needs_root
def test_a_hot_journal_that_cannot_be_rolled_back_is_an_error_whose_hint_helps(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = paint_many(disk / "photos", 6)
    index = indexed(folder)
    before = index.embeddings
    leave_journal(index, "hot")
    set_read_only(disk, to=True)
    for command in (f"search red {folder}", f"index {folder}", f"index {folder} --rebuild"):
        assert run_cli(monkeypatch, f"clipkit {command}", ColourEncoder()) == 1
        out, said = capsys.readouterr()
        assert (out, said.count("\n")) == ("", 2), "no answers out of half a transaction"
        assert "--index" in said
    shutil.copytree(index.folder, tmp_path / "copy")  # what the hint says
    copy = ImageIndex.open(folder, at=tmp_path / "copy", encoder=ColourEncoder())
    np.testing.assert_array_equal(copy.embeddings, before)
    set_read_only(disk, to=False)
    np.testing.assert_array_equal(ImageIndex.open(folder).embeddings, before)


def test_a_cache_folder_that_cannot_be_written_costs_no_answer(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CLIPKIT_CACHE", str(tmp_path / "file" / "below a file"))
    index = indexed(photos)
    check_answers(index)
    check_answers(ImageIndex.open(photos))


# full


class WideEncoder(ColourEncoder):
    """Vectors of 2,048 values, so that a few pictures fill a disk: a colour, repeated."""

    dim = 2048

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        return np.tile(super().encode_pixels(pixels, space=space), 512) / np.float32(512**0.5)


@needs_root
@pytest.mark.parametrize("rebuild", [False, True], ids=["update", "rebuild"])
@pytest.mark.parametrize("free_kb", SIZES_KB)
def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_there(
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    free_kb: int,
    rebuild: bool,
) -> None:
    monkeypatch.setenv("CLIPKIT_CACHE", str(disk / "cache"))
    folder = paint_many(disk / "photos", 12)
    old = indexed(folder, WideEncoder())
    before = dict(zip(old.paths, old.embeddings, strict=True))
    paint_many(folder, 60, start=12)
    fill(disk, free_kb)
    command = f"clipkit index {folder}{' --rebuild' if rebuild else ''}"
    code = run_cli(monkeypatch, command, WideEncoder())
    said = capsys.readouterr().err
    assert code in ((0, 1) if free_kb > 300 else (1,)), said
    assert said.startswith("error: no space left") == (code == 1), said
    assert said.count("\n") <= 2, said
    index = ImageIndex.open(folder)
    after = dict(zip(index.paths, index.embeddings, strict=True))
    assert before.keys() <= after.keys()
    assert all((after[path] == vector).all() for path, vector in before.items())
    check_sound(index)
    check_aligned(index, WideEncoder())
    check_answers(index)
    (disk / "filler").unlink()
    assert run_cli(monkeypatch, f"clipkit index {folder}", WideEncoder()) == 0
    check_aligned(index, WideEncoder())
    assert (len(index), sorted(os.listdir(index.folder))) == (72, ["index.db", "lock"])
    info = index.info
    assert {file.name.split(".")[0] for file in cache_files(disk / "cache")} == {
        f"{info.index_id}-{info.revision}-{info.token}"
    }


def fill(disk: Path, free_kb: int) -> None:
    """Leave that much space."""
    state = os.statvfs(disk)
    with open(disk / "filler", "wb") as file:
        file.write(bytes(max(0, state.f_bavail * state.f_bsize - free_kb * 1024)))


# of strangers


@needs_root
@pytest.mark.parametrize("suffix", ["faiss", "ids", "json", "*"])
def test_a_search_cache_of_another_user_is_never_opened(
    photos: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    index = indexed(photos)
    files = cache_files(private_cache, suffix)
    assert files
    for file in files:
        os.chown(file, 12345, 12345)
    opened = []
    read = clipkit.search.vectors.import_faiss().read_index

    def spy(name: str, *options: int) -> object:
        opened.append(os.stat(name).st_uid)
        return read(name, *options)

    monkeypatch.setattr(clipkit.search.vectors.import_faiss(), "read_index", spy)
    check_answers(ImageIndex.open(photos))
    assert set(opened) <= {os.getuid()}
    assert index.search("red", k=1)[0].path == "red.png"


HUGE = {
    "a width of a thousand million": "UPDATE meta SET value = '1000000000' WHERE key = 'dim'",
    "a negative width": "UPDATE meta SET value = '-4' WHERE key = 'dim'",
    "pictures of endless size": f"UPDATE images SET width = {2**62}, height = {2**63 - 1}",
    "a negative picture": "UPDATE images SET width = -1, height = 0",
    "files of endless size": f"UPDATE images SET size = {2**63 - 1}, mtime_ns = {-(2**63)}",
    "the last revision there can be": f"UPDATE revisions SET revision = {2**63 - 1} WHERE revision = 2",
    "a negative revision": "UPDATE revisions SET revision = -revision",
    "rows of the future": f"UPDATE images SET revision = {2**63 - 1}",
    "the last id there can be": f"UPDATE images SET id = {2**63 - 1} WHERE id = 3",
    "a negative id": "UPDATE images SET id = -7 WHERE id = 3",
    "a checksum that is text": "UPDATE images SET sha256 = 'abc'",
    "a checksum without end": "UPDATE images SET sha256 = zeroblob(1000000)",
    "a reason that is bytes": "UPDATE images SET state = 'failed', error = x'ff00', embedding = NULL WHERE id = 3",
    "a date that is a number": "UPDATE images SET taken_at = 1e300",
    "a size that is text": "UPDATE images SET size = 'large', inode = 'x'",
    "a model that is bytes": "UPDATE meta SET value = x'ff' WHERE key = 'model'",
    "pixels that are bytes": "UPDATE meta SET value = x'ff' WHERE key = 'pixel_recipe'",
    "another model source": "UPDATE meta SET value = '/etc/passwd' WHERE key = 'model_source'",
    "a date that is bytes": "UPDATE images SET taken_at = zeroblob(9)",
    "a fact too many": "INSERT INTO meta VALUES ('extra', 'x')",
    "a root elsewhere": "INSERT INTO meta VALUES ('root', '/etc')",
    "exclusions without end": f"INSERT OR REPLACE INTO meta VALUES ('excluded', '{'[' * 100_000}')",
    "exclusions that are numbers": "INSERT OR REPLACE INTO meta VALUES ('excluded', '[1, 2]')",
    "exclusions that are one number": "INSERT OR REPLACE INTO meta VALUES ('excluded', '7')",
    "a token that climbs": "UPDATE revisions SET token = '../../x'",
}
COMMANDS = ("search red {}", "info {}", "info --failed {}", "check {}", "index {}", "prune {}", "export {}-vectors {}")


@pytest.mark.parametrize("forged", HUGE)
def test_a_forged_index_gives_an_answer_or_a_sentence_and_never_more_than_the_folder(
    photos: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch, forged: str
) -> None:
    index = indexed(photos)
    rows_of(index, HUGE[forged])
    shutil.rmtree(private_cache / "faiss")
    for colour in ("red", "blue"):
        paint(photos / f"{colour}.png", (9, 9, 9))  # so that `index` has rows to replace
    for command in COMMANDS:
        code = run_cli(monkeypatch, "clipkit " + command.replace("{}", str(photos)), ColourEncoder())
        assert code in (0, 1, 3), command  # whatever is no ClipkitError would have come out here
    try:
        found = ImageIndex.open(photos)
        assert len(found.paths) == len(found.embeddings), "names and vectors slipped apart"
        assert set(found.paths) <= {f"{colour}.png" for colour in COLOURS}
    except ClipkitError:
        pass


# what is safe when


def record_syncs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """From now on: ("sync", path) and ("rename", goal, by way of its old name), in order."""
    events: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    def rename(old: str | Path, new: str | Path) -> None:
        events.append(("from", str(old)))
        events.append(("to", str(new)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    return events


def check_synced_before_renamed(photos: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Each file is synced under its old name before it gets the new one; for the truth, then the folder too."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("/proc says which file a handle is of")
    with monkeypatch.context() as patch:
        events = record_syncs(patch)
        act()
    renamed = [number for number, (what, _) in enumerate(events) if what == "from"]
    assert len(renamed) >= 4, "the index, and three files of the cache"
    for number in renamed:
        assert ("sync", events[number][1]) in events[:number], f"{events[number][1]} was renamed before it was synced"
        if events[number + 1][1].endswith("index.db"):
            assert ("sync", str(photos / ".clipkit")) in events[number:], "its folder was never synced"


def rebuild(photos: Path) -> None:
    ImageIndex.create(photos, other_weights(), rebuild=True).update()


@pytest.mark.parametrize("act", [indexed, rebuild])
def test_what_is_renamed_was_synced_before_and_its_folder_after(
    photos: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    check_synced_before_renamed(photos, monkeypatch, lambda: act(photos))
