"""Folders as they are: bad files, lost disks, links and odd names; and questions that are none."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from clipkit.core.progress import Failure
from clipkit.errors import ClipkitError, ImageError, IndexNotFound, QueryError, ShapeError
from clipkit.images.decode import UPRIGHT
from clipkit.images.formats import is_picture
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint, shade
from tests.support.faults import (
    BAD_FILES,
    NanEncoder,
    QuartersEncoder,
    check_aligned,
    indexed,
    paint_many,
    photo_encoder,
    running,
    spy_on_reads,
)

# bad files


@pytest.mark.parametrize("size", range(1, 9))
def test_a_bad_file_at_any_position_of_a_batch_never_shifts_a_neighbour(tmp_path: Path, size: int) -> None:
    for position in range(size):
        folder = paint_many(tmp_path / str(position), 2 * size)
        bad = f"{position:03}.png"
        (folder / bad).write_bytes(BAD_FILES[position % len(BAD_FILES)])
        index = ImageIndex.create(folder, ColourEncoder(batch_size=size))
        report = index.update()
        assert [failure.path for failure in report.failed] == [bad]
        assert index.failures() == list(report.failed)
        assert report.failed[0].reason
        assert sorted(index.paths) == [f"{n:03}.png" for n in range(2 * size) if n != position]
        check_aligned(index)


def test_a_bad_file_is_not_opened_again_until_it_changes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "bad.png").write_bytes(b"nothing")
    index = indexed(photos, ColourEncoder())
    opened = spy_on_reads(monkeypatch)
    assert index.update().failed == ()
    assert opened == []
    assert [failure.path for failure in index.update(retry_failed=True).failed] == ["bad.png"]
    assert opened == ["bad.png"]
    paint(photos / "bad.png", shade(77))
    assert index.update().encoded == 1
    assert index.failures() == []
    check_aligned(index)


def test_equal_bad_files_all_fail_with_the_reason(photos: Path, encoder: ColourEncoder) -> None:
    for name in ("1.png", "m.png", "z.png"):
        (photos / name).write_bytes(BAD_FILES[1])
    report = ImageIndex.create(photos, encoder).update()
    assert sorted(failure.path for failure in report.failed) == ["1.png", "m.png", "z.png"]
    assert len({failure.reason for failure in report.failed}) == 1


def test_a_picture_on_which_the_model_fails_does_not_cost_the_others(tmp_path: Path) -> None:
    folder = paint_many(tmp_path / "photos", 7, start=1)
    paint(folder / "003a.png", (0, 0, 0))
    shutil.copy(folder / "003a.png", folder / "twin.png")
    index = ImageIndex.create(folder, NanEncoder())
    report = index.update()
    assert sorted(failure.path for failure in report.failed) == ["003a.png", "twin.png"]
    assert sorted(index.paths) == [f"{n:03}.png" for n in range(1, 8)]
    check_aligned(index)


def test_pictures_on_which_the_model_fails_do_not_stop_a_run_where_they_fill_a_batch(tmp_path: Path) -> None:
    folder = paint_many(tmp_path / "photos", 7, start=1)
    index = indexed(folder, NanEncoder())
    paint(folder / "black.png", (0, 0, 0))
    paint(folder / "black too.png", (0, 0, 0), (17, 17))
    assert [failure.path for failure in index.update().failed] == ["black too.png", "black.png"]
    assert sorted(index.paths) == [f"{n:03}.png" for n in range(1, 8)]


def test_a_model_that_fails_on_every_picture_is_an_error_and_nothing_is_written(photos: Path) -> None:
    index = ImageIndex.create(photos, NanEncoder(everywhere=True))
    revision = index.revision
    with pytest.raises(ShapeError, match="every picture"):
        index.update()
    assert index.counts() == {"ok": 0, "missing": 0, "failed": 0}
    assert index.revision == revision


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_hostile_files_among_good_ones_cost_nobody_a_place(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = sorted((real_data / "captions" / "images").iterdir())[:200]
    hostile = sorted(file for file in (real_data / "hostile" / "files").iterdir() if is_picture(file.name))
    mixed = [*good, *hostile]
    random.Random(2).shuffle(mixed)
    names = {file: f"{number:04}-{file.name}" for number, file in enumerate(mixed)}
    for file, name in names.items():
        (tmp_path / name).write_bytes(file.read_bytes())
    with running("photos", tmp_path) as child:
        out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    result = json.loads(out)
    assert result["grown"] <= 600e6
    judge = photo_encoder()
    index = ImageIndex.open(tmp_path, encoder=judge)
    assert {names[file] for file in good} <= set(index.paths)
    check_aligned(index, judge)
    unreadable = {names[file] for file in hostile if not _is_readable(file, judge)}
    assert {failure.path for failure in index.failures()} == set(result["failed"]) == unreadable
    assert set(index.paths) == set(names.values()) - unreadable
    opened = spy_on_reads(monkeypatch)
    index.update()
    assert opened == []
    index.update(retry_failed=True)
    assert set(opened) == unreadable


def _is_readable(file: Path, judge: ColourEncoder) -> bool:
    try:
        judge.encode_images([file])
    except ImageError:
        return False
    return True


# folders that go and come back, or cannot be entered


def test_an_unplugged_folder_is_hidden_and_comes_back_unread(
    photos: Path, encoder: ColourEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(photos / "disk" / "orange.png", (255, 128, 0))
    (photos / "disk" / "bad.png").write_bytes(b"bad")
    index = indexed(photos, encoder)
    (photos / "disk").rename(tmp_path / "elsewhere")
    assert index.update().missing == 2
    assert "disk/orange.png" not in {*index.paths, *(hit.path for hit in index.search("red", k=100))}
    (tmp_path / "elsewhere").rename(photos / "disk")
    opened = spy_on_reads(monkeypatch)
    report = index.update()
    assert (report.restored, report.encoded, opened) == (2, 0, [])
    assert "disk/orange.png" in index.paths
    assert [failure.path for failure in index.failures()] == ["disk/bad.png"]
    check_aligned(index)


@contextmanager
def forbidden(monkeypatch: pytest.MonkeyPatch, call: str, folder: Path) -> Iterator[None]:
    """One folder cannot be entered; chmod would not stop root, as whom tests may run."""
    real = getattr(os, call)

    def guarded(path: str = ".", *args: object, **options: object) -> object:
        if os.path.realpath(path) == os.path.realpath(folder):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(f"clipkit.index.scan.os.{call}", guarded)
        yield


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_nothing_below_an_unreadable_folder_counts_as_gone(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    paint(photos / "private" / "deep" / "brown.png", (120, 60, 0))
    paint(photos / "private too" / "pink.png", (255, 180, 190))
    index = indexed(photos, encoder)
    before = set(index.paths)
    (photos / "red.png").unlink()
    (photos / "private too" / "pink.png").unlink()
    with forbidden(monkeypatch, call, photos / "private"):
        report = index.update()
    assert report.unreadable == (Failure("private", "Permission denied"),)
    assert set(index.paths) == before - {"red.png", "private too/pink.png"}


def test_nothing_below_a_link_that_may_not_be_followed_counts_as_gone(
    photos: Path, encoder: ColourEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "disk" / "pink.png", (255, 180, 190))
    (photos / "album").symlink_to(tmp_path / "disk")
    index = indexed(photos, encoder)

    class Guarded:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self.stat, self.is_symlink = entry.name, entry.path, entry.stat, entry.is_symlink
            self._entry = entry

        def is_dir(self) -> bool:
            if self.name == "album":
                raise PermissionError(13, "Permission denied", self.path)
            return self._entry.is_dir()

    scandir = os.scandir

    @contextmanager
    def guarded(path: str) -> Iterator[list[Guarded]]:
        with scandir(path) as entries:
            yield [Guarded(entry) for entry in entries]

    with monkeypatch.context() as patch:
        patch.setattr("clipkit.index.scan.os.scandir", guarded)
        report = index.update()
    assert [failure.path for failure in report.unreadable] == ["album"]
    assert "album/pink.png" in index.paths


def test_a_root_that_vanishes_is_an_error_and_hides_nothing(
    photos: Path, encoder: ColourEncoder, tmp_path: Path
) -> None:
    index = ImageIndex.create(photos, encoder, at=tmp_path / "kept")
    index.update()
    photos.rename(tmp_path / "away")
    with pytest.raises(ClipkitError, match="cannot read"):
        index.update()
    assert len(index.paths) == len(COLOURS)


def test_links_loops_and_pipes_neither_stop_nor_double_anything(
    photos: Path, encoder: ColourEncoder, tmp_path: Path
) -> None:
    paint(photos / "sub" / "teal.png", (0, 128, 128))
    paint(tmp_path / "outside" / "navy.png", (0, 0, 128))
    (photos / "sub" / "up").symlink_to(photos)
    (photos / "aaa").symlink_to(photos / "sub")
    (photos / "loop").symlink_to(photos / "loop")
    (photos / "ping.png").symlink_to(photos / "pong.png")
    (photos / "pong.png").symlink_to(photos / "ping.png")
    (photos / "dangling.png").symlink_to(photos / "nowhere.png")
    (photos / "linked").symlink_to(tmp_path / "outside")
    (photos / "also red.png").symlink_to(photos / "red.png")
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "x.jpg")
    index = ImageIndex.create(photos, encoder)
    report = index.update()
    names = {*(f"{colour}.png" for colour in COLOURS), "sub/teal.png", "linked/navy.png", "also red.png"}
    assert set(index.paths) == names
    assert report.failed == ()
    check_aligned(index)


def test_orientation_does_not_change_an_embedding(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "red")
    picture.paste("blue", (32, 0, 64, 64))
    picture.paste("white", (0, 32, 32, 64))
    inverse = {**UPRIGHT, 6: UPRIGHT[8], 8: UPRIGHT[6]}
    for suffix in ("png", "jpg", "webp"):
        for orientation in range(1, 9):
            stored = picture.transpose(inverse[orientation]) if orientation in inverse else picture
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            stored.save(tmp_path / f"{orientation}.{suffix}", exif=exif, quality=95)
    index = ImageIndex.create(tmp_path, QuartersEncoder())
    index.update()
    assert len(index) == 24
    expected = QuartersEncoder().encode_images([picture])
    np.testing.assert_allclose(index.embeddings, np.repeat(expected, 24, axis=0), atol=0.02)


# folders and questions that are none


def test_an_empty_folder_has_an_index_without_answers(tmp_path: Path, encoder: ColourEncoder) -> None:
    index = ImageIndex.create(tmp_path, encoder)
    report = index.update()
    assert (report.found, report.encoded, report.failed) == (0, 0, ())
    assert index.search("red") == []
    assert index.embeddings.shape == (0, 4)


def test_a_folder_that_became_empty_has_no_answers(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    for file in photos.glob("*.png"):
        file.unlink()
    assert index.update().missing == len(COLOURS)
    assert index.search("red") == ImageIndex.open(photos, encoder=encoder).search("red") == []


def test_what_is_no_folder_cannot_be_indexed(photos: Path, encoder: ColourEncoder) -> None:
    with pytest.raises(ClipkitError, match="is not there"):
        ImageIndex.create(photos / "nowhere", encoder)
    with pytest.raises(ClipkitError, match="is a file, not a folder"):
        ImageIndex.create(photos / "red.png", encoder)
    for place in (photos, photos / "nowhere", photos / "red.png"):
        with pytest.raises(IndexNotFound):
            ImageIndex.open(place)


def test_k_must_be_positive_and_is_cut_to_what_is_there(photos: Path, encoder: ColourEncoder) -> None:
    index = indexed(photos, encoder)
    for k in (0, -1):
        with pytest.raises(QueryError):
            index.search("red", k=k)
    assert {hit.path for hit in index.search("red", k=1000)} == {f"{colour}.png" for colour in COLOURS}


@pytest.mark.parametrize(
    "query",
    [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 0], [-np.inf, np.inf, 0, 0], [1, 0, 0], [2, 0, 0, 0], []],
    ids=str,
)
def test_what_is_no_embedding_is_refused(photos: Path, encoder: ColourEncoder, query: list[float]) -> None:
    index = indexed(photos, encoder)
    with pytest.raises(ShapeError):
        index.search_embeddings(np.array(query, dtype=np.float32))
    with pytest.raises(ShapeError):
        index.search_embeddings(np.array([[1, 0, 0, 0][: len(query)], query], dtype=np.float32))
