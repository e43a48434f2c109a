"""Content is what counts: moved, copied, swapped and replaced files, also while they are read; places and names."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from clipkit.core.progress import Progress
from clipkit.errors import IndexNotFound
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint, shade
from tests.support.faults import (
    after_the_scan,
    check_aligned,
    check_answers,
    indexed,
    paint_many,
    rows_of,
    spy_on_reads,
    unseen,
)

# content is what counts


def test_renaming_encodes_nothing(tmp_path: Path, encoder: ColourEncoder) -> None:
    folder = paint_many(tmp_path / "photos", 100)
    index = indexed(folder, encoder)
    (folder / "new").mkdir()
    for number in range(100):
        (folder / f"{number:03}.png").rename(folder / "new" / f"{number * 37 % 100:03}.png")
    report = index.update()
    assert (report.encoded, report.reused, report.missing, encoder.encoded) == (0, 100, 0, 0)
    assert sorted(index.paths) == [f"new/{n:03}.png" for n in range(100)]
    check_aligned(index)


def test_swapped_names_encode_nothing(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    _swap(photos / "red.png", photos / "blue.png")
    assert index.update().encoded == 0
    assert index.search("blue", k=1)[0].path == "red.png"
    assert index.search("red", k=1)[0].path == "blue.png"
    check_aligned(index)


@pytest.mark.parametrize("step", [1, -1])
def test_a_shift_of_all_names_encodes_nothing(tmp_path: Path, encoder: ColourEncoder, step: int) -> None:
    folder = paint_many(tmp_path / "photos", 20, start=10)
    index = indexed(folder, encoder)
    for number in sorted(range(10, 30), reverse=step > 0):
        (folder / f"{number:03}.png").rename(folder / f"{number + step:03}.png")
    report = index.update()
    assert (report.encoded, report.missing) == (0, 1)
    assert sorted(index.paths) == [f"{n + step:03}.png" for n in range(10, 30)]
    check_aligned(index)


def test_copies_encode_nothing_and_answer_too(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    shutil.copytree(photos, photos / "copy", ignore=shutil.ignore_patterns(".clipkit"))
    report = index.update()
    assert (report.encoded, report.reused) == (0, len(COLOURS))
    assert [hit.path for hit in index.search("red", k=2)] == ["red.png", "copy/red.png"]
    check_aligned(index)


def test_only_the_new_content_is_encoded_where_the_old_one_moved_away(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    (photos / "red.png").rename(photos / "zed.png")
    paint(photos / "red.png", (90, 10, 10))
    report = index.update()
    assert (report.encoded, report.reused, encoder.encoded) == (1, 1, 1)
    check_aligned(index)


def test_equal_bytes_in_one_run_are_encoded_once(photos: Path, encoder: ColourEncoder) -> None:
    for number in range(20):
        shutil.copy(photos / "red.png", photos / f"{number}.png")
    report = ImageIndex.create(photos, encoder).update()
    assert (report.encoded, report.reused, encoder.encoded) == (len(COLOURS), 20, len(COLOURS))


@pytest.mark.parametrize("seed", range(6))
def test_after_any_shuffle_and_interrupt_only_unseen_contents_are_encoded(
    tmp_path: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("clipkit.index.update.COMMIT_ROWS", 2)
    chance = random.Random(seed)
    index = indexed(paint_many(tmp_path / "photos", 10), encoder)
    for turn in range(5):
        for _ in range(chance.randrange(1, 8)):
            _disturb(index.root, chance, turn)
        if chance.random() < 0.5:
            with suppress(KeyboardInterrupt):  # nothing to read, nothing to interrupt
                index.update(progress=_interrupt)
        before, expected = encoder.encoded, unseen(index)
        report = index.update()
        assert encoder.encoded - before == report.encoded == expected
        on_disk = {file.relative_to(index.root).as_posix() for file in index.root.rglob("*.png")}
        assert set(index.paths) == on_disk
        assert index.counts()["failed"] == 0
        assert rows_of(index, "SELECT path FROM images WHERE state = 'replaced'") == [], "replaced and left there"
        check_aligned(index)
    check_answers(index, seed)


def _interrupt(progress: Progress) -> None:
    if progress.done == (progress.total + 1) // 2:
        raise KeyboardInterrupt


def _disturb(root: Path, chance: random.Random, turn: int) -> None:
    files = sorted(root.rglob("*.png"))
    one, other = chance.choice(files), chance.choice(files)
    fresh = root / chance.choice(["", "sub"]) / f"{chance.randrange(100)}.png"
    fresh.parent.mkdir(exist_ok=True)
    match chance.randrange(6):
        case 0:
            one.rename(fresh)
        case 1:
            _swap(one, other)
        case 2:
            shutil.copyfile(one, other) if one != other else None
        case 3:
            shutil.copyfile(one, fresh) if one != fresh else None
        case 4 if len(files) > 3:
            one.unlink()
        case _:
            paint(fresh, shade(1000 * turn + chance.randrange(900)))
    os.utime(root, None)


def _swap(one: Path, other: Path) -> None:
    if one != other:
        one.rename(one.with_suffix(".tmp"))
        other.rename(one)
        one.with_suffix(".tmp").rename(other)


# places and names


def test_an_index_may_lie_outside_a_folder_that_is_not_written_to(
    photos: Path, encoder: ColourEncoder, tmp_path: Path
) -> None:
    before = sorted(os.listdir(photos))
    ImageIndex.create(photos, encoder, at=tmp_path / "deep" / "index").update()
    assert sorted(os.listdir(photos)) == before
    index = ImageIndex.open(photos, at=tmp_path / "deep" / "index", encoder=encoder)
    assert index.search("cyan", k=1)[0].file == str(photos / "cyan.png")
    with pytest.raises(IndexNotFound):
        ImageIndex.open(photos)


def test_a_moved_folder_still_answers(photos: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    indexed(photos, encoder)
    photos.rename(tmp_path / "moved")
    index = ImageIndex.open(tmp_path / "moved", encoder=encoder)
    assert index.search("green", k=1)[0].file == str(tmp_path / "moved" / "green.png")
    assert (index.update().encoded, encoder.encoded) == (0, 0)


def test_names_that_are_not_utf_8_or_odd_or_long_are_names(photos: Path, encoder: ColourEncoder) -> None:
    odd = [b"\xff\xfe.png", b"a\nb\r\t\x1b[31m.png", b"x" * 251 + b".png", b"-rf 'a' \"b\".png", "é😀.PNG".encode()]
    names = {os.fsdecode(name): (3 * n + 1, 80 * n % 256, 200) for n, name in enumerate(odd)}
    for name, colour in names.items():
        shutil.move(paint(photos / "new.png", colour), photos / name)
    index = ImageIndex.create(photos, encoder)
    assert index.update().failed == ()
    assert set(names) < set(index.paths)
    check_aligned(index)
    for name in names:
        hit = index.search_image(photos / name, k=1)[0]
        assert (hit.path, os.path.exists(hit.file)) == (name, True)
        (photos / name).rename(photos / f"z{name[1:]}")
    assert index.update().reused == len(odd)


# files that change while they are read


@pytest.mark.parametrize("other_size", [True, False])
def test_a_file_replaced_after_the_scan_is_as_it_was_read_and_looked_at_again(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, other_size: bool
) -> None:
    index = indexed(photos, encoder)
    paint(photos / "new.png", (10, 20, 30))
    size = (200, 200) if other_size else (16, 16)
    with monkeypatch.context() as patch:
        after_the_scan(patch, lambda: paint(photos / "new.png", (200, 20, 130), size))
        assert index.update().encoded == 1
    check_aligned(index)
    opened = spy_on_reads(monkeypatch)
    index.update()
    assert opened == ["new.png"]
    check_aligned(index)


def test_a_file_deleted_after_the_scan_is_gone_and_no_failure(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = indexed(photos, encoder)
    paint(photos / "new.png", (10, 20, 30))
    os.utime(photos / "red.png", ns=(1, 1))

    def delete() -> None:
        (photos / "new.png").unlink()
        (photos / "red.png").unlink()

    after_the_scan(monkeypatch, delete)
    assert index.update().failed == ()
    assert set(index.paths) == {f"{colour}.png" for colour in COLOURS} - {"red.png"}
    assert index.failures() == []


def test_a_file_renamed_after_the_scan_costs_no_encoding(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = indexed(photos, encoder)
    os.utime(photos / "red.png", ns=(1, 1))
    with monkeypatch.context() as patch:
        after_the_scan(patch, lambda: (photos / "red.png").rename(photos / "ruby.png"))
        index.update()
    assert index.update().encoded == 0
    assert index.search("red", k=1)[0].path == "ruby.png"


def test_checksum_finds_other_bytes_behind_an_unchanged_stamp(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    paint(photos / "red.png", (254, 0, 0))
    info = (photos / "red.png").stat()
    stamp = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
    columns = "size = ?, mtime_ns = ?, ctime_ns = ?, inode = ?"
    rows_of(index, f"UPDATE images SET {columns} WHERE path = CAST('red.png' AS BLOB)", *stamp)
    assert index.update().unchanged == len(COLOURS)
    report = index.update(checksum=True)
    assert (report.encoded, report.reused) == (1, len(COLOURS) - 1)
    check_aligned(index)
