"""Files that belong to pictures go where these go: sidecars, RAW files, videos of live photos."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clipkit.classify.labels import LabelledPicture, ScoredLabel
from clipkit.errors import ClipkitError
from clipkit.output import copy_files
from clipkit.output.copy_files import (
    Transfer,
    beside,
    copy_hits,
    plan_copies,
    plan_moves,
    plan_transfers,
    run_transfers,
    undo_transfers,
)
from clipkit.search.hits import Hit, Hits

SHOT = ("1.jpg", "1.jpg.xmp", "1.XMP", "1.CR2", "1.CR2.xmp", "1.mov", "1.AAE")
STRANGERS = ("1.txt", "1.mp4", "10.xmp", "1b.cr2", "1.png.xmp", "2.xmp")


def write(folder: Path, *names: str) -> Path:
    """Files whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def found(*files: Path) -> Hits:
    return Hits(Hit(0.5, file.name, os.fspath(file), number) for number, file in enumerate(files))


def labelled(*pairs: tuple[Path, str]) -> list[LabelledPicture]:
    return [LabelledPicture(file.name, str(file), (ScoredLabel(name, 1.0),), (name,)) for file, name in pairs]


def test_what_belongs_to_a_picture_moves_with_it_and_comes_back(tmp_path: Path) -> None:
    root, out = write(tmp_path / "in", *SHOT, *STRANGERS), tmp_path / "out"
    steps = plan_moves(root, ["1.jpg"], out)
    assert (len(steps), beside(steps)) == (1, ", with 6 files that belong to it")
    run_transfers(steps)
    assert (tree(out), tree(root)) == (same(*SHOT), same(*STRANGERS))
    assert undo_transfers(steps) == 0
    assert tree(root) == same(*SHOT, *STRANGERS)
    assert not out.exists()


def test_it_is_copied_with_it(tmp_path: Path) -> None:
    root = write(tmp_path / "in", *SHOT, *STRANGERS)
    run_transfers(plan_copies([str(root / "1.jpg")], tmp_path / "planned"))
    assert copy_hits(found(root / "1.jpg"), tmp_path / "hits") == [tmp_path / "hits" / "1.jpg"]
    assert tree(tmp_path / "planned") == tree(tmp_path / "hits") == same(*SHOT)
    assert tree(root) == same(*SHOT, *STRANGERS)
    assert plan_copies([str(root / "1.jpg")], tmp_path / "planned") == []
    copy_hits(found(root / "1.jpg"), tmp_path / "hits")
    assert tree(tmp_path / "hits") == same(*SHOT)


def test_it_moves_into_the_folder_of_a_class_and_links_go_alone(tmp_path: Path) -> None:
    root = write(tmp_path / "in", "1.jpg", "1.xmp", "2.jpg")
    wanted = labelled((root / "1.jpg", "cat"), (root / "2.jpg", "dog"))
    assert beside(plan_transfers(wanted, tmp_path / "links", how="symlink")) == ""
    run_transfers(plan_transfers(wanted, tmp_path / "out", how="move"))
    assert set(tree(tmp_path / "out")) == {"cat/1.jpg", "cat/1.xmp", "dog/2.jpg"}


@pytest.mark.parametrize("way", ["move", "plan", "hits"])
def test_names_stay_together_and_nothing_is_overwritten(tmp_path: Path, way: str) -> None:
    a, b = write(tmp_path / "a", "1.jpg", "1.jpg.xmp", "1.CR2"), write(tmp_path / "b", "1.jpg", "1.xmp")
    (b / "1.jpg").write_text("another")
    out, files = tmp_path / "out", [a / "1.jpg", b / "1.jpg"]
    write(out, "1.CR2")
    (out / "1.CR2").write_text("somebody's")
    for _ in range(1 if way == "move" else 2):  # a second time it is all there
        if way == "hits":
            copy_hits(found(*files), out)
        elif way == "plan":
            run_transfers(plan_copies([str(file) for file in files], out))
        else:
            run_transfers(plan_transfers(labelled(*((file, "out") for file in files)), tmp_path, how="move"))
    assert tree(out) == {
        **{"1.CR2": "somebody's", "1.jpg": "another", "1.xmp": "1.xmp"},
        **{"1 (2).CR2": "1.CR2", "1 (2).jpg": "1.jpg", "1 (2).jpg.xmp": "1.jpg.xmp"},
    }


def test_a_sidecar_that_is_at_the_target_already_stays_as_it_is(tmp_path: Path) -> None:
    root, out = write(tmp_path / "in", "1.jpg", "1.xmp", "1.cr2"), tmp_path / "out"
    copy_hits(found(root / "1.jpg"), out)
    (out / "1.xmp").write_text("edited there")
    (out / "1.cr2").unlink()
    assert copy_hits(found(root / "1.jpg"), out) == [out / "1.jpg"]
    assert tree(out) == {"1.jpg": "1.jpg", "1.xmp": "edited there", "1.cr2": "1.cr2"}


def test_a_sidecar_of_two_pictures_stays_with_the_one_that_stays(tmp_path: Path) -> None:
    root, out = write(tmp_path / "in", "1.jpg", "1.png", "1.xmp"), tmp_path / "out"
    first = plan_moves(root, ["1.jpg"], out)
    run_transfers(first)
    assert tree(out) == same("1.jpg", "1.xmp")
    assert tree(root) == same("1.png", "1.xmp")
    assert undo_transfers(first) == 0
    assert tree(root) == same("1.jpg", "1.png", "1.xmp")


@pytest.mark.parametrize("order", [("1.jpg", "1.png"), ("1.png", "1.jpg")])
def test_a_sidecar_of_two_pictures_goes_with_both(tmp_path: Path, order: tuple[str, str]) -> None:
    root = write(tmp_path / "in", "1.jpg", "1.png", "1.xmp")
    run_transfers(plan_moves(root, list(order), tmp_path / "out"))
    assert tree(tmp_path / "out") == same("1.jpg", "1.png", "1.xmp")
    assert tree(root) == {}
    again = write(tmp_path / "again", "1.jpg", "1.png", "1.xmp")
    run_transfers(plan_transfers(labelled(*((again / name, name) for name in order)), tmp_path / "sorted", how="move"))
    assert {"1.jpg/1.xmp", "1.png/1.xmp"} < set(tree(tmp_path / "sorted"))
    assert tree(again) == {}


@pytest.mark.parametrize("order", [("1.jpg", "1.cr2"), ("1.cr2", "1.jpg")])
def test_a_raw_file_that_is_named_beside_its_jpeg_moves_once(tmp_path: Path, order: tuple[str, str]) -> None:
    root = write(tmp_path / "in", "1.jpg", "1.cr2", "1.xmp")
    run_transfers(plan_moves(root, list(order), tmp_path / "out"))
    assert (tree(tmp_path / "out"), tree(root)) == (same("1.jpg", "1.cr2", "1.xmp"), {})
    run_transfers(plan_copies([str(tmp_path / "out" / name) for name in order], tmp_path / "copies"))
    assert tree(tmp_path / "copies") == same("1.jpg", "1.cr2", "1.xmp")


@pytest.mark.parametrize(("change", "stays"), [("in/1.CR2", "1.CR2"), ("out/1.xmp", "1.xmp")])
def test_undo_counts_what_it_has_to_leave(tmp_path: Path, change: str, stays: str) -> None:
    root = write(tmp_path / "in", "1.jpg", "1.CR2", "1.png", "1.xmp")  # the sidecar is of both, so that it is copied
    steps = plan_moves(root, ["1.jpg"], tmp_path / "out")
    run_transfers(steps)
    (tmp_path / change).write_text("since then")
    assert undo_transfers(steps) == 1
    assert [file.name for file in (tmp_path / "out").iterdir()] == [stays]
    assert (root / "1.jpg").read_text() == "1.jpg"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_companion_that_fails_puts_its_picture_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    root, out = write(tmp_path / "in", "0.jpg", *SHOT), tmp_path / "out"
    for how in ("move", "copy"):
        real = copy_files._DO[how]

        def failing(source: str, target: Path, real=real) -> None:
            if source.endswith("1.CR2"):
                raise error
            real(source, target)

        monkeypatch.setitem(copy_files._DO, how, failing)
        steps = plan_transfers(labelled((root / "0.jpg", "x"), (root / "1.jpg", "x")), out, how=how)
        with pytest.raises((ClipkitError, KeyboardInterrupt)):
            run_transfers(steps)
        assert tree(root) == same("0.jpg", *SHOT)
        assert not out.exists()
    monkeypatch.setattr(copy_files, "_copy_step", copy_files._DO["copy"])
    with pytest.raises((ClipkitError, KeyboardInterrupt)):
        copy_hits(found(root / "0.jpg", root / "1.jpg"), out)
    assert tree(out) == same("0.jpg")


def test_links_and_folders_beside_a_picture_stay(tmp_path: Path) -> None:
    root = write(tmp_path / "in", "1.jpg", "elsewhere.txt")
    (root / "1.xmp").symlink_to(root / "elsewhere.txt")
    (root / "1.cr2").mkdir()
    (step,) = plan_moves(root, ["1.jpg"], tmp_path / "out")
    assert step == Transfer("move", str(root / "1.jpg"), tmp_path / "out" / "1.jpg")


def test_a_long_name_leaves_room_for_its_sidecar(tmp_path: Path) -> None:
    name = "é" * 123 + ".jpg"  # 250 bytes: with .xmp 254
    a, b = write(tmp_path / "a", name, f"{name}.xmp"), write(tmp_path / "b", name, f"{name}.xmp")
    (b / name).write_text("another")
    run_transfers(plan_copies([str(a / name), str(b / name)], tmp_path / "out"))
    copies = sorted(tree(tmp_path / "out"))
    assert len(copies) == 4
    assert [one for one in copies if f"{one}.xmp" in copies] == [one for one in copies if one.endswith(".jpg")]
