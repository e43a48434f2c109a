"""Copies of what was found: every name, nothing overwritten, nothing left half."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from clipkit.errors import ClipkitError
from clipkit.output import copy_files
from clipkit.output.copy_files import copy_hits
from clipkit.search.hits import Hit, Hits


def found(*files: Path) -> Hits:
    return Hits(Hit(0.5, file.name, os.fspath(file), number) for number, file in enumerate(files))


def written(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {os.fsdecode(os.fsencode(file.name)): file.read_bytes() for file in folder.iterdir()}


def test_pictures_are_copied_with_their_names_dates_and_modes(tmp_path: Path) -> None:
    files = [written(tmp_path / "in" / name, name.encode()) for name in ("b.jpg", "a.png")]
    os.utime(files[0], ns=(10**18, 10**18 + 7))
    files[0].chmod(0o440)
    out = tmp_path / "new" / "out"
    assert copy_hits(found(*files), out) == [out / "b.jpg", out / "a.png"]
    assert contents(out) == {"a.png": b"a.png", "b.jpg": b"b.jpg"}
    status = (out / "b.jpg").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18 + 7, 0o440)


def test_two_of_one_name_are_both_kept(tmp_path: Path) -> None:
    files = [written(tmp_path / folder / "x.tar.jpg", folder.encode()) for folder in "abc"]
    copies = copy_hits(found(*files), tmp_path / "out")
    assert [copy.name for copy in copies] == ["x.tar.jpg", "x.tar (2).jpg", "x.tar (3).jpg"]
    assert [copy.read_bytes() for copy in copies] == [b"a", b"b", b"c"]


def test_what_is_there_already_is_never_overwritten(tmp_path: Path) -> None:
    file = written(tmp_path / "in" / "x.jpg", b"new")
    out = tmp_path / "out"
    written(out / "x.jpg", b"old")
    (out / "x (2).jpg").symlink_to(tmp_path / "nowhere")
    (out / "x (3).jpg").mkdir()
    assert copy_hits(found(file), out) == [out / "x (4).jpg"]
    assert (out / "x.jpg").read_bytes() == b"old"
    assert (out / "x (2).jpg").is_symlink()
    assert not (tmp_path / "nowhere").exists()
    assert (out / "x (4).jpg").read_bytes() == b"new"


def test_a_name_taken_while_the_picture_is_copied_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "in" / "x.jpg", b"ours")
    out = tmp_path / "out"
    copyfile = shutil.copyfile

    def copy_slowly(source: str, target: Path) -> object:
        written(out / "x.jpg", b"theirs")
        return copyfile(source, target)

    monkeypatch.setattr(copy_files.shutil, "copyfile", copy_slowly)
    assert copy_hits(found(file), out) == [out / "x (2).jpg"]
    assert contents(out) == {"x.jpg": b"theirs", "x (2).jpg": b"ours"}


def test_the_same_command_again_copies_nothing_twice(tmp_path: Path) -> None:
    files = [written(tmp_path / folder / "x.jpg", folder.encode()) for folder in "ab"]
    first = copy_hits(found(*files), tmp_path / "out")
    assert copy_hits(found(*files), tmp_path / "out") == first
    assert contents(tmp_path / "out") == {"x.jpg": b"a", "x (2).jpg": b"b"}


def test_a_picture_is_not_copied_onto_itself(tmp_path: Path) -> None:
    file = written(tmp_path / "x.jpg", b"itself")
    link = tmp_path / "link.jpg"
    link.symlink_to(file)
    before = file.stat()
    assert copy_hits(found(file, link), tmp_path) == [file, link]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.jpg", "x.jpg"]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_of_a_link_the_content_is_copied(tmp_path: Path) -> None:
    target = written(tmp_path / "far" / "target.jpg", b"content")
    link = tmp_path / "in.jpg"
    link.symlink_to(target)
    (copy,) = copy_hits(found(link), tmp_path / "out")
    assert (copy.name, copy.is_symlink(), copy.read_bytes()) == ("in.jpg", False, b"content")


def test_any_name_that_a_disk_holds_can_be_copied(tmp_path: Path) -> None:
    names = [
        b"caf\xe9.jpg",
        b"new\nline.jpg",
        b"-rf",
        b"z" * 251 + b".jpg",
        "xü".encode() + "ü".encode() * 123 + b".jpeg",
    ]
    pairs = []
    for folder in ("a", "b"):
        for name in names:
            pairs.append(written(tmp_path / folder / os.fsdecode(name), folder.encode()))
    copies = copy_hits(found(*pairs), tmp_path / "out")
    assert [os.fsencode(copy.name) for copy in copies] == [
        *names,
        b"caf\xe9 (2).jpg",
        b"new\nline (2).jpg",
        b"-rf (2)",
        b"z" * 247 + b" (2).jpg",
        "xü".encode() + "ü".encode() * 121 + b" (2).jpeg",  # 255 bytes would end inside a character
    ]
    assert [copy.read_bytes() for copy in copies] == [b"a"] * 5 + [b"b"] * 5


def test_a_failure_says_how_far_it_came_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [written(tmp_path / "in" / name, b"x" * 100) for name in ("1.jpg", "2.jpg", "3.jpg")]
    copyfile = shutil.copyfile

    def fill_the_disk(source: str, target: Path) -> object:
        if source.endswith("2.jpg"):
            written(target, b"half")
            raise OSError(28, "No space left on device")
        return copyfile(source, target)

    monkeypatch.setattr(copy_files.shutil, "copyfile", fill_the_disk)
    with pytest.raises(ClipkitError) as caught:
        copy_hits(found(*files), tmp_path / "out")
    assert caught.value.message == f"1 of 3 pictures were copied, then: {files[1]}: No space left on device"
    assert list(contents(tmp_path / "out")) == ["1.jpg"]


def test_an_interrupted_copy_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(part: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(copy_files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        copy_hits(found(written(tmp_path / "in" / "x.jpg", b"x")), tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe"])
def test_what_is_no_picture_file_any_more_is_said_before_anything_is_copied(tmp_path: Path, kind: str) -> None:
    good, bad = written(tmp_path / "in" / "good.jpg", b"x"), tmp_path / "in" / "bad.jpg"
    if kind == "folder":
        bad.mkdir()
    if kind == "pipe":
        os.mkfifo(bad)
    reason = "No such file or directory" if kind == "gone" else "not a regular file"
    with pytest.raises(ClipkitError) as caught:
        copy_hits(found(good, bad), tmp_path / "out")
    assert caught.value.message == f"0 of 2 pictures were copied, then: {bad}: {reason}"
    assert caught.value.hint == ("clipkit index first" if kind == "gone" else None)
    assert contents(tmp_path / "out") == {}


def test_a_disk_that_is_too_small_is_said_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    files = [written(tmp_path / "in" / name, name.encode() * 100) for name in ("1.jpg", "2.jpg")]
    out = tmp_path / "out"
    monkeypatch.setattr(copy_files.shutil, "disk_usage", lambda folder: Usage(999))
    with pytest.raises(ClipkitError, match=r"take 1,000 bytes, and .*out has 999 free; nothing was copied"):
        copy_hits(found(*files), out)
    assert contents(out) == {}
    shutil.copy(files[0], out)  # what is there already needs no room
    assert len(copy_hits(found(*files), out)) == 2


def test_a_target_that_is_no_folder_is_said(tmp_path: Path) -> None:
    picture = written(tmp_path / "x.jpg", b"x")
    with pytest.raises(ClipkitError, match=r"x\.jpg is not a folder; nothing was copied"):
        copy_hits(found(picture), picture)
    with pytest.raises(ClipkitError, match=r"0 of 1 pictures were copied, then: .*below: Not a directory") as caught:
        copy_hits(found(picture), picture / "below")
    assert caught.value.hint == "another folder: --copy-to FOLDER"
    assert picture.read_bytes() == b"x"


def test_without_pictures_no_folder_is_made(tmp_path: Path) -> None:
    assert copy_hits(Hits(), tmp_path / "out") == []
    assert not (tmp_path / "out").exists()
