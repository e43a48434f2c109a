"""Names and stamps as disks have them: pairs that look alike, devices, hard links, clocks that are wrong."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from pathlib import Path

import pytest

import clipkit.index.scan
from clipkit.core.progress import Progress
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint, shade
from tests.support.faults import check_aligned, check_answers, indexed, spy_on_reads

YEAR_NS = 365 * 86_400 * 10**9
NFC = unicodedata.normalize("NFC", "café.png")
NFD = unicodedata.normalize("NFD", "café.png")
PAIRS = {"composed and decomposed letters": (NFC, NFD), "capitals": ("Red.PNG", "red.png"), "ß": ("ß.png", "SS.png")}


def paint_pair(folder: Path, one: str, other: str) -> None:
    paint(folder / one, (200, 10, 10))
    paint(folder / other, (10, 10, 200))
    if len(os.listdir(folder)) != 2:
        pytest.skip("this disk takes the two names for one")


@pytest.mark.parametrize("pair", PAIRS)
def test_two_names_that_look_alike_are_two_pictures(tmp_path: Path, encoder: ColourEncoder, pair: str) -> None:
    folder = tmp_path / "photos"
    one, other = PAIRS[pair]
    paint_pair(folder, one, other)
    index = indexed(folder, encoder)
    assert set(index.paths) == {one, other}
    assert (index.search("red", k=1)[0].path, index.search("blue", k=1)[0].path) == (one, other)
    (folder / one).unlink()
    assert index.update().missing == 1
    assert index.paths == [other]
    paint(folder / one, (200, 10, 10))
    assert (index.update().encoded, encoder.encoded) == (0, 0)
    assert set(index.paths) == {one, other}
    check_aligned(index)


@pytest.mark.parametrize("pair", PAIRS)
def test_two_names_that_look_alike_may_change_places(tmp_path: Path, encoder: ColourEncoder, pair: str) -> None:
    folder = tmp_path / "photos"
    one, other = PAIRS[pair]
    paint_pair(folder, one, other)
    index = indexed(folder, encoder)
    (folder / one).rename(folder / "between")
    (folder / other).rename(folder / one)
    (folder / "between").rename(folder / other)
    index.update()
    assert encoder.encoded == 0
    assert (index.search("red", k=1)[0].path, index.search("blue", k=1)[0].path) == (other, one)
    check_aligned(index)


def test_a_folder_in_two_spellings_is_two_folders(tmp_path: Path, encoder: ColourEncoder) -> None:
    folder = tmp_path / "photos"
    paint_pair(folder, f"{NFC}/a.png", f"{NFD}/a.png")
    index = indexed(folder, encoder)
    assert set(index.paths) == {f"{NFC}/a.png", f"{NFD}/a.png"}
    assert [hit.path for hit in index.search("red", below=NFD)] == [f"{NFD}/a.png"]
    shutil.rmtree(folder / NFC)
    index.update()
    assert index.paths == [f"{NFD}/a.png"]
    check_aligned(index)


def test_a_device_with_the_name_of_a_picture_is_no_picture(photos: Path, encoder: ColourEncoder) -> None:
    try:
        os.mknod(photos / "zero.jpg", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: reading it would never end
        os.mknod(photos / "disk.png", 0o600 | 0o060000, os.makedev(7, 250))
    except PermissionError:
        pytest.skip("only root makes devices")
    report = ImageIndex.create(photos, encoder).update()
    assert (report.found, report.failed, report.unreadable) == (len(COLOURS), (), ())


def test_a_socket_with_the_name_of_a_picture_is_no_picture(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.chdir(photos)  # the path of a socket has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("camera.jpg")
        report = ImageIndex.create(photos, encoder).update()
    assert (report.found, report.failed, report.unreadable) == (len(COLOURS), (), ())


@pytest.mark.parametrize("call", ["stat", "scandir"])
def test_a_folder_deleted_during_the_scan_stops_nothing(
    photos: Path, encoder: ColourEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    paint(photos / "album" / "deep" / "pink.png", (255, 180, 190))
    paint(photos / "zoo" / "brown.png", (120, 60, 0))
    index = indexed(photos, encoder)
    real = getattr(os, call)

    def deleting(path: str = ".", *args: object, **options: object) -> object:
        if path == str(photos / "album") and not (tmp_path / "deleted").is_symlink() and "album" in os.listdir(photos):
            os.rename(path, tmp_path / "deleted")
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(f"clipkit.index.scan.os.{call}", deleting)
        report = index.update()
    # It could not be entered: it may as well have been a disk that was pulled out, so nothing is hidden yet.
    assert [failure.path for failure in report.unreadable] == ["album"]
    assert (report.missing, "zoo/brown.png" in index.paths) == (0, True)
    assert index.update().missing == 1
    assert set(index.paths) == {*(f"{colour}.png" for colour in COLOURS), "zoo/brown.png"}
    check_answers(index)


def test_a_run_interrupted_while_it_reads_has_hidden_nothing(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    (photos / "red.png").unlink()
    for number in range(8):
        paint(photos / f"new {number}.png", shade(number))

    def interrupt(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.update(progress=interrupt)
    assert "red.png" in index.paths, "hidden before everything was read"
    assert index.update().missing == 1
    check_aligned(index)


def test_two_names_of_one_file_are_encoded_once_and_both_found(photos: Path, encoder: ColourEncoder) -> None:
    (photos / "sub").mkdir()
    os.link(photos / "red.png", photos / "sub" / "ruby.png")
    index = ImageIndex.create(photos, encoder)
    report = index.update()
    assert (report.encoded, report.reused, encoder.encoded) == (len(COLOURS), 1, len(COLOURS))
    assert {hit.path for hit in index.search("red", k=2)} == {"red.png", "sub/ruby.png"}
    (photos / "red.png").unlink()
    assert (index.update().encoded, index.search("red", k=1)[0].path) == (0, "sub/ruby.png")
    check_aligned(index)


def test_a_file_rewritten_under_one_of_its_two_names_changes_under_both(photos: Path, encoder: ColourEncoder) -> None:
    os.link(photos / "red.png", photos / "ruby.png")
    index = indexed(photos, encoder)
    paint(photos / "ruby.png", (90, 10, 10))  # in place: the same inode
    report = index.update()
    assert (report.encoded, report.reused) == (1, 1)
    assert "red.png" in index.paths
    check_aligned(index)


@pytest.mark.parametrize("years", [-60, -20, 20, 200])
def test_a_date_in_the_past_or_the_future_is_a_date(photos: Path, encoder: ColourEncoder, years: int) -> None:
    stamp = time.time_ns() + years * YEAR_NS
    os.utime(photos / "red.png", ns=(stamp, stamp))
    index = indexed(photos, encoder)
    assert index.search("red", k=1)[0].path == "red.png"
    assert index.update().unchanged == len(COLOURS)
    paint(photos / "red.png", (200, 30, 30))
    os.utime(photos / "red.png", ns=(stamp, stamp))  # as a camera whose clock stands still
    assert index.update().encoded == 1
    check_aligned(index)


@pytest.mark.parametrize("years", [-20, 20])
def test_a_clock_set_back_or_forward_between_runs_hides_no_change(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    monkeypatch.setattr("clipkit.index.scan.TICK_NS", 20_000_000)
    index = indexed(photos, encoder)
    now = time.time_ns
    monkeypatch.setattr(clipkit.index.scan.time, "time_ns", lambda: now() + years * YEAR_NS)
    opened = spy_on_reads(monkeypatch)
    paint(photos / "red.png", (200, 30, 30))
    os.utime(photos / "red.png", ns=(now() + years * YEAR_NS,) * 2)
    assert index.update().encoded == 1
    assert "red.png" in opened
    opened.clear()
    index.update()
    assert set(opened) <= {"red.png"}, "only what changed this very moment is looked at once more"
    check_aligned(index)
