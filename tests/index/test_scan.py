"""Walking and comparing, against folders made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipkit.errors import ClipkitError
from clipkit.index.scan import UNSETTLED, compare, find_images
from clipkit.store.records import Known, ScannedFile
from tests.support.colours import paint

PHOTO = ScannedFile("a.jpg", 10, 1, 2, 3)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def names(root: Path, **options: object) -> list[str]:
    return [found.path for found in find_images(str(root), **options).found]  # type: ignore[arg-type]


def known(found: ScannedFile, *, id_: int = 1, state: str = "ok", is_embedded: bool = True) -> dict[str, Known]:
    return {found.path: Known(id_, found.path, *found.stamp, b"h" * 32, state, is_embedded)}


def test_pictures_are_found_in_order_whatever_their_suffix_looks_like(tmp_path: Path) -> None:
    touch(tmp_path, "b/two.JPG", "a.Tif", "b/one.jpeg", "notes.txt", "jpg", "c.webp.part", "z.heic")
    assert names(tmp_path) == ["a.Tif", "b/one.jpeg", "b/two.JPG", "z.heic"]


def test_hidden_and_system_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", ".thumbs/c.jpg", "@eaDir/d.jpg", "node_modules/e.jpg", ".clipkit/f.jpg")
    assert names(tmp_path) == ["a.jpg"]
    assert names(tmp_path, include_hidden=True) == [".b.jpg", ".thumbs/c.jpg", "a.jpg"]


def test_folders_are_excluded_by_name_or_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "2020/raw/a.jpg", "2021/raw/b.jpg", "2021/c.jpg")
    assert names(tmp_path, exclude_dirs=["raw/"]) == ["2021/c.jpg"]
    assert names(tmp_path, exclude_dirs=["2021/raw"]) == ["2020/raw/a.jpg", "2021/c.jpg"]


def test_links_are_followed_once_and_real_names_win(tmp_path: Path) -> None:
    touch(tmp_path, "photos/zoo/a.jpg", "elsewhere/b.jpg")
    root = tmp_path / "photos"
    (root / "again").symlink_to(root / "zoo")
    (root / "up").symlink_to(tmp_path)
    (root / "zoo" / "loop").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "not there")
    (root / "file.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    assert names(root) == ["file.jpg", "up/elsewhere/b.jpg", "zoo/a.jpg"]


def test_a_pipe_with_the_name_of_a_picture_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    touch(tmp_path, "folder.jpg/a.jpg")
    assert names(tmp_path) == ["folder.jpg/a.jpg"]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="cannot read"):
        find_images(str(tmp_path / "not there"))


def test_a_file_with_the_same_stamp_is_unchanged() -> None:
    changes = compare([PHOTO], known(PHOTO))
    assert (changes.read, changes.restored, changes.gone, changes.unchanged) == ([], [], [], 1)


@pytest.mark.parametrize("field", ["size_bytes", "mtime_ns", "ctime_ns"])
def test_any_other_stamp_is_read(field: str) -> None:
    other = PHOTO._replace(**{field: 99})
    assert compare([other], known(PHOTO)).read == [other]


def test_another_inode_alone_is_no_change_but_where_nothing_is_proven_yet() -> None:
    renumbered = PHOTO._replace(inode=99)
    assert compare([renumbered], known(PHOTO)).unchanged == 1
    unsettled = PHOTO._replace(inode=UNSETTLED)
    assert compare([unsettled], known(PHOTO)).read == [unsettled]
    assert compare([PHOTO], known(unsettled)).read == [PHOTO]


def test_checksum_reads_everything() -> None:
    assert compare([PHOTO], known(PHOTO), checksum=True).read == [PHOTO]


def test_a_failed_file_is_left_alone_until_it_changes() -> None:
    failed = known(PHOTO, state="failed", is_embedded=False)
    assert compare([PHOTO], failed).unchanged == 1
    assert compare([PHOTO], failed, retry_failed=True).read == [PHOTO]
    assert compare([PHOTO], known(PHOTO), retry_failed=True).read == []


def test_what_is_not_found_is_gone_and_what_is_found_again_is_restored() -> None:
    assert [row.path for row in compare([], known(PHOTO)).gone] == ["a.jpg"]
    missing = known(PHOTO, state="missing")
    assert compare([], missing).gone == []
    assert [row.path for row in compare([PHOTO], missing).restored] == ["a.jpg"]


def test_a_file_that_changed_just_now_is_read_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes within one tick of the clock have one stamp; the second must not be missed."""
    monkeypatch.setattr("clipkit.index.scan.TICK_NS", 60_000_000_000)
    touch(tmp_path, "a.jpg")
    (first,) = find_images(str(tmp_path)).found
    assert compare([first], known(first)).read == [first]
    monkeypatch.setattr("clipkit.index.scan.TICK_NS", 0)
    (later,) = find_images(str(tmp_path)).found
    assert compare([later], known(first)).read == [later]
    assert compare([later], known(later)).unchanged == 1


def test_nothing_below_an_unreadable_folder_is_gone() -> None:
    rows = {}
    for number, path in enumerate(["disk/a.jpg", "disk", "disk2/b.jpg"]):
        rows.update(known(PHOTO._replace(path=path), id_=number))
    assert [row.path for row in compare([], rows, unreadable=["disk"]).gone] == ["disk2/b.jpg"]


# --- folders that are left out ---


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/{a,raw/b,2020/raw/c,caf\u00e9/d}.png, seen from the folder above."""
    for name in ("a", "raw/b", "2020/raw/c", "cafe\u0301/d"):
        paint(tmp_path / "photos" / f"{name}.png", (9, 9, 9))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


ALL = ["2020/raw/c.png", "a.png", "cafe\u0301/d.png", "raw/b.png"]


@pytest.mark.parametrize(
    ("typed", "without"),
    [
        ("raw", {"2020/raw/c.png", "raw/b.png"}),
        ("ra*", {"2020/raw/c.png", "raw/b.png"}),
        ("raw/", {"2020/raw/c.png", "raw/b.png"}),
        ("./photos/raw", {"raw/b.png"}),
        ("photos/raw", {"raw/b.png"}),
        ("photos/raw/", {"raw/b.png"}),
        ("{root}/raw", {"raw/b.png"}),
        ("2020/raw", {"2020/raw/c.png"}),
        ("20*/raw", {"2020/raw/c.png"}),
        ("caf\u00e9", {"cafe\u0301/d.png"}),
        ("./photos/caf\u00e9", {"cafe\u0301/d.png"}),
    ],
)
def test_a_folder_is_left_out_however_it_is_named(typed: str, without: set[str], raw: Path) -> None:
    scan = find_images(str(raw), exclude_dirs=[typed.format(root=raw)])
    assert [found.path for found in scan.found] == [path for path in ALL if path not in without]
    assert scan.unmatched == ()


@pytest.mark.parametrize("typed", ["rwa", "./raw", "photos/a", "/elsewhere/raw", "2021/raw"])
def test_what_leaves_nothing_out_is_named(typed: str, raw: Path) -> None:
    scan = find_images(str(raw), exclude_dirs=[typed, "raw"])
    assert len(scan.unmatched) == 1
    assert len(scan.found) == 2


def test_from_inside_the_folder_a_path_is_from_here(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(raw / "2020")
    assert [found.path for found in find_images(str(raw), exclude_dirs=["./raw"]).found] == [ALL[1], ALL[2], ALL[3]]


def test_what_is_no_picture_by_its_suffix_is_counted(raw: Path) -> None:
    for name in ("x.PSD", "y.psd", "z.jxl", "notes.txt", "a.xmp", "Makefile"):
        (raw / name).write_bytes(b"")
    assert find_images(str(raw)).skipped == {".psd": 2, ".jxl": 1}


def test_a_raw_file_beside_the_camera_s_own_picture_counts_with_it(tmp_path: Path) -> None:
    touch(tmp_path, "IMG_1.CR2", "IMG_1.JPG", "IMG_2.CR2", "IMG_3.cr2", "IMG_3.png", "sub/IMG_2.JPG", "IMG_4.CR2.jpg")
    touch(tmp_path, "p.DNG", "p.HEIC", "img_1.nef", "a.b.arw", "a.b.jpg", "IMG_4.CR2")
    scan = find_images(str(tmp_path))
    assert [found.path for found in scan.found] == [
        *("IMG_1.JPG", "IMG_2.CR2", "IMG_3.cr2", "IMG_3.png", "IMG_4.CR2", "IMG_4.CR2.jpg", "a.b.jpg", "img_1.nef"),
        *("p.HEIC", "sub/IMG_2.JPG"),
    ]
    assert scan.paired == 3


def test_the_video_of_a_live_photo_counts_with_it_and_other_videos_are_of_no_kind(tmp_path: Path) -> None:
    touch(tmp_path, "IMG_1.HEIC", "IMG_1.MOV", "IMG_2.JPG", "IMG_2.mov", "IMG_3.MOV", "IMG_4.JPG", "IMG_4.MP4", "5.MOV")
    scan = find_images(str(tmp_path))
    assert [found.path for found in scan.found] == ["IMG_1.HEIC", "IMG_2.JPG", "IMG_4.JPG"]
    assert (scan.paired, scan.skipped) == (2, {".mov": 2, ".mp4": 1})


def test_without_the_extra_raw_files_are_counted_and_are_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.nef", "b.nef", "c.jpg", "c.nef")
    before = known(ScannedFile("a.nef", 1, 1, 1, 1))
    monkeypatch.setattr("clipkit.index.scan.can_read_raw", lambda: False)
    scan = find_images(str(tmp_path))
    assert (names(tmp_path), scan.unread_raws, scan.skipped) == (["c.jpg"], ["a.nef", "b.nef"], {})
    assert compare(scan.found, before, unreadable=scan.out_of_sight).gone == []
    (tmp_path / "a.nef").unlink()
    scan = find_images(str(tmp_path))
    assert [row.path for row in compare(scan.found, before, unreadable=scan.out_of_sight).gone] == ["a.nef"]
