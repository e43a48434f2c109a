"""Labels of a whole index, and pictures in class folders: every plan, nothing overwritten, everything put back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.classify.head import UNKNOWN, Head, Rejection
from clipkit.classify.labels import LabelledPicture, ScoredLabel, label, label_index
from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.errors import ClipkitError, ModelMismatch, QueryError
from clipkit.index.image_index import ImageIndex
from clipkit.output import copy_files
from clipkit.output.copy_files import Transfer, plan_transfers, run_transfers
from tests.support.colours import COLOURS, ColourEncoder, paint

PRIMARY = ["red", "green", "blue"]


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder) -> ImageIndex:
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


def head(*classes: str, **ways: Any) -> Head:
    return ZeroShotClassifier(ColourEncoder(), list(classes or PRIMARY), templates="plain", **ways).head


def hand_made(**ways: Any) -> Head:
    """Two classes along the axes."""
    weight = np.eye(2, dtype=np.float32)
    return Head(("x", "y"), weight, np.zeros(2, np.float32), 2.0, "m", "f", **ways)


def called(*pairs: tuple[Path, str]) -> list[LabelledPicture]:
    return [LabelledPicture(file.name, str(file), (ScoredLabel(name, 1.0),), (name,)) for file, name in pairs]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_every_picture_of_an_index_is_named_and_none_is_opened(index: ImageIndex, photos: Path) -> None:
    for file in photos.glob("*.png"):
        file.unlink()
    found = label_index(index, head(*COLOURS))
    assert [picture.path for picture in found] == sorted(f"{name}.png" for name in COLOURS)
    assert all(picture.answers[0].label == Path(picture.path).stem for picture in found)
    assert found[0].file == str(photos / "blue.png")


def test_labels_are_those_of_the_classifier_itself(index: ImageIndex) -> None:
    classifier = ZeroShotClassifier(ColourEncoder(), PRIMARY, templates="plain")
    found = {picture.path: picture for picture in label_index(index, classifier.head, top_k=3)}
    expected = classifier.predict_proba(index.embeddings)
    for path, row in zip(index.paths, expected, strict=True):
        order = np.argsort(-row, kind="stable")
        assert found[path].answers[0].label == classifier.predict(row_of(index, path))[0]
        assert [answer.probability for answer in found[path].answers] == pytest.approx(row[order].tolist())
        assert found[path].labels == (found[path].answers[0].label,)


def row_of(index: ImageIndex, path: str) -> np.ndarray:
    return index.embeddings[[index.paths.index(path)]]


def test_probabilities_of_a_hand_made_case() -> None:
    ((first, second),) = label(hand_made(), np.array([[0.6, 0.8]], np.float32), top_k=5)
    assert (first.label, second.label) == ("y", "x")
    assert first.probability == pytest.approx(1 / (1 + np.exp(-0.4)), abs=1e-6)
    assert second.probability == pytest.approx(1 - 1 / (1 + np.exp(-0.4)), abs=1e-6)


def test_what_is_rejected_is_unknown_first_and_has_no_probability() -> None:
    rule = Rejection(np.zeros(2, np.float32), np.zeros(2, np.float32), 0.9)
    rows = np.array([[1, 0], [0.6, 0.8]], np.float32)
    sure, torn = label(hand_made(rejection=rule), rows, top_k=2)
    assert [answer.label for answer in sure] == ["x", "y"]
    assert [answer.label for answer in torn] == [UNKNOWN, "y"]
    assert torn[0].probability is None
    assert label(hand_made(rejection=rule), rows)[1] == (ScoredLabel(UNKNOWN, None),)


def test_questions_of_their_own_have_several_answers_or_none() -> None:
    bias = np.full(2, -0.5, np.float32)
    several = Head(("x", "y"), np.eye(2, dtype=np.float32), bias, 10.0, "m", "f", multi_label=True)
    rows = np.array([[0.6, 0.8], [-1, 0], [1, 0]], np.float32)
    assert [[answer.label for answer in row] for row in label(several, rows, top_k=2)] == [["y", "x"], [], ["x"]]
    assert [len(row) for row in label(several, rows)] == [1, 0, 1]


def test_only_pictures_below_a_folder(photos: Path, encoder: ColourEncoder) -> None:
    paint(photos / "trip" / "sea.png", COLOURS["blue"])
    paint(photos / "tripod.png", COLOURS["blue"])
    index = ImageIndex.create(photos, encoder)
    index.update()
    assert [picture.path for picture in label_index(index, head(), below="trip")] == ["trip/sea.png"]
    with pytest.raises(QueryError, match="no pictures are indexed in nowhere") as caught:
        label_index(index, head(), below="nowhere")
    assert caught.value.hint == "--in trip"


def test_a_head_of_another_model_is_refused(index: ImageIndex) -> None:
    with pytest.raises(ModelMismatch, match="was made with m, not colour"):
        label_index(index, hand_made())
    with pytest.raises(QueryError, match="0 answers"):
        label_index(index, head(), top_k=0)


def test_an_index_that_changes_meanwhile_gives_no_wrong_name(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = index.store.paths, []

    def names(*arguments: Any) -> Any:
        found = real(*arguments)
        calls.append(1)
        if len(calls) == 1:  # between the names and the vectors
            (photos / "red.png").rename(photos / "a.png")
            paint(photos / "green.png", COLOURS["blue"])
            ImageIndex.open(photos, encoder=ColourEncoder()).update(checksum=True)
        return found

    monkeypatch.setattr(index.store, "paths", names)
    found = {picture.path: picture.labels[0] for picture in label_index(index, head(*COLOURS))}
    assert len(calls) == 2
    assert found == {f"{name}.png": name for name in COLOURS if name not in ("red", "green")} | {
        "a.png": "red",
        "green.png": "blue",
    }


def test_each_class_gets_a_folder(tmp_path: Path) -> None:
    cat, dog = paint(tmp_path / "in" / "1.png", (1, 2, 3)), paint(tmp_path / "in" / "2.png", (4, 5, 6))
    for how in ("copy", "symlink", "move"):
        steps = plan_transfers(called((cat, "cat"), (dog, "dog")), tmp_path / how, how=how)
        assert [step.target for step in steps] == [tmp_path / how / "cat" / "1.png", tmp_path / how / "dog" / "2.png"]
        assert not (tmp_path / how).exists()
        before = tree(tmp_path / "in")
        run_transfers(steps)
        assert {Path(name).name: data for name, data in tree(tmp_path / how).items()} == before
        assert tree(tmp_path / "in") == ({} if how == "move" else before)
    assert os.readlink(tmp_path / "symlink" / "cat" / "1.png") == str(cat)


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    cat = paint(tmp_path / "in" / "1.png", (1, 2, 3))
    for how in ("copy", "symlink"):
        run_transfers(plan_transfers(called((cat, "cat")), tmp_path / how, how=how))
        assert plan_transfers(called((cat, "cat")), tmp_path / how, how=how) == []
    run_transfers(plan_transfers(called((cat, "cat")), tmp_path / "in", how="move"))
    assert plan_transfers(called((tmp_path / "in" / "cat" / "1.png", "cat")), tmp_path / "in", how="move") == []


def test_nothing_is_overwritten_and_a_twin_is_not_taken_for_the_picture(tmp_path: Path) -> None:
    a, b = paint(tmp_path / "a" / "1.png", (1, 2, 3)), paint(tmp_path / "b" / "1.png", (9, 9, 9))
    twin = paint(tmp_path / "out" / "cat" / "1.png", (1, 2, 3))
    mine = twin.read_bytes()
    steps = plan_transfers(called((a, "cat"), (b, "cat")), tmp_path / "out", how="move")
    assert [step.target.name for step in steps] == ["1 (2).png", "1 (3).png"]  # a twin is no reason to delete one
    run_transfers(steps)
    assert twin.read_bytes() == mine
    assert (tmp_path / "out" / "cat" / "1 (3).png").exists()


def test_what_came_after_the_plan_is_not_overwritten(tmp_path: Path) -> None:
    a, b = paint(tmp_path / "a.png", (1, 2, 3)), paint(tmp_path / "b.png", (4, 5, 6))
    for how in ("copy", "symlink", "move"):
        steps = plan_transfers(called((a, "cat"), (b, "cat")), tmp_path / "out", how=how)
        other = tmp_path / "out" / "cat" / "b.png"
        other.parent.mkdir(parents=True)
        other.write_bytes(b"somebody's")
        with pytest.raises(ClipkitError, match=r"b\.png: File exists; everything was put back"):
            run_transfers(steps)
        assert other.read_bytes() == b"somebody's"
        assert sorted(os.listdir(other.parent)) == ["b.png"]
        assert a.exists()
        assert b.exists()
        other.unlink()
        other.parent.rmdir()
        other.parent.parent.rmdir()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("how", ["copy", "move", "symlink"])
def test_a_failure_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, error: BaseException
) -> None:
    files = [paint(tmp_path / "in" / f"{i}.png", (i, i, i)) for i in range(5)]
    before = tree(tmp_path / "in")
    steps = plan_transfers(
        called(*((file, f"class {i % 2}") for i, file in enumerate(files))), tmp_path / "out", how=how
    )
    real, calls = copy_files._DO[how], []

    def failing(source: str, target: Path) -> None:
        calls.append(source)
        if len(calls) == 4:
            raise error
        real(source, target)

    monkeypatch.setitem(copy_files._DO, how, failing)
    with pytest.raises((ClipkitError, KeyboardInterrupt)):
        run_transfers(steps)
    assert tree(tmp_path / "in") == before
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_put_back_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = paint(tmp_path / "a.png", (1, 2, 3)), paint(tmp_path / "b.png", (4, 5, 6))
    steps = plan_transfers(called((a, "cat"), (b, "cat")), tmp_path / "out", how="move")
    real = copy_files._move_step

    def failing(source: str, target: Path) -> None:
        if source == str(b):
            monkeypatch.setattr(copy_files, "_move_step", broken)
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    def broken(source: str, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setitem(copy_files._DO, "move", failing)
    with pytest.raises(ClipkitError, match=r"b\.png: Input/output error; 1 could not be put back"):
        run_transfers(steps)
    assert (tmp_path / "out" / "cat" / "a.png").exists()


def test_a_move_to_another_disk_copies_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = paint(tmp_path / "a.png", (1, 2, 3))
    content, stamp = file.read_bytes(), file.stat().st_mtime_ns
    real = os.replace

    def other_disk(source: Any, target: Any) -> None:
        if os.fspath(source) == str(file):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", other_disk)
    run_transfers(plan_transfers(called((file, "cat")), tmp_path / "out", how="move"))
    target = tmp_path / "out" / "cat" / "a.png"
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (content, stamp)
    assert not file.exists()
    assert os.listdir(target.parent) == ["a.png"]


def test_names_of_classes_become_safe_names_of_folders(tmp_path: Path) -> None:
    names = ["AC/DC", "..", " a ", "x\ny", "c" * 300]
    files = [paint(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(len(names))]
    steps = plan_transfers(called(*zip(files, names, strict=True)), tmp_path / "out", how="copy")
    folders = [step.target.parent.name for step in steps]
    assert folders == ["AC_DC", "_", "a", "x_y", "c" * 255]
    assert all(step.target.parent.parent == tmp_path / "out" for step in steps)
    with pytest.raises(QueryError, match="would share a folder"):
        plan_transfers(called((files[0], "a/b"), (files[1], "A_b")), tmp_path / "out", how="copy")


def test_what_cannot_be_moved_is_said_before_anything_moves(tmp_path: Path) -> None:
    file, gone = paint(tmp_path / "a.png", (1, 2, 3)), tmp_path / "gone.png"
    with pytest.raises(ClipkitError, match="1 picture is not there any more"):
        plan_transfers(called((file, "cat"), (gone, "cat")), tmp_path / "out", how="move")
    link = tmp_path / "link.png"
    link.symlink_to(file)
    with pytest.raises(ClipkitError, match="is a link"):
        plan_transfers(called((link, "cat")), tmp_path / "out", how="move")
    both = [LabelledPicture("a.png", str(file), (ScoredLabel("cat", 0.9), ScoredLabel("dog", 0.8)), ("cat", "dog"))]
    with pytest.raises(QueryError, match="cannot be moved to all of them"):
        plan_transfers(both, tmp_path / "out", how="move")
    assert [step.target.parent.name for step in plan_transfers(both, tmp_path / "out", how="copy")] == ["cat", "dog"]


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    file, block = paint(tmp_path / "a.png", (1, 2, 3)), tmp_path / "out"
    block.write_text("x")
    with pytest.raises(ClipkitError, match="everything was put back"):
        run_transfers([Transfer("move", str(file), block / "cat" / "a.png")])
    assert file.exists()
    assert block.read_text() == "x"
