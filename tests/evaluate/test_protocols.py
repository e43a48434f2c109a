"""Measuring on a dataset: what is kept between runs, what is written, what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.classify.head import Head
from clipkit.datasets.embed import embed_once, embed_pictures
from clipkit.datasets.load import load_dataset
from clipkit.errors import ClipkitError, DatasetError
from clipkit.evaluate.zeroshot import (
    evaluate_retrieval,
    evaluate_zeroshot,
    load_labelled,
    rejection_quality,
    validation_split,
)
from clipkit.metrics import bootstrap
from clipkit.output.figures import confusion_png
from tests.cli.test_classify_and_evaluate import ColourPhrases
from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three pictures, and one file that is none."""
    for i in range(3):
        paint(tmp_path / "set" / "red" / f"{i}.png", (200 + i, 0, 0))
        paint(tmp_path / "set" / "blue" / f"{i}.png", (0, 0, 200 + i))
    (tmp_path / "set" / "blue" / "bad.png").write_bytes(b"nothing")
    return tmp_path / "set"


def head_of(count: int, width: int = 8) -> tuple[Head, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, width)).astype(np.float32)
    weight = rng.normal(size=(count, width)).astype(np.float32)
    return Head(tuple(f"c{i}" for i in range(count)), weight, np.zeros(count, np.float32), 2.0, "m", "f"), rows


def test_a_second_evaluation_opens_no_picture_and_says_the_same(folder: Path) -> None:
    encoder = ColourEncoder()
    first = embed_once(load_dataset(folder), encoder)
    assert encoder.encoded == 6
    again = embed_once(load_dataset(folder), encoder)
    assert encoder.encoded == 6
    assert np.array_equal(again.embeddings, first.embeddings)
    assert again.dataset == first.dataset
    assert [Path(failure.path).name for failure in again.dataset.failed] == ["bad.png"]
    fresh = embed_pictures(load_dataset(folder), encoder)
    assert np.array_equal(fresh.embeddings, first.embeddings)
    assert fresh.dataset == first.dataset


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Testing"), ("train", "validation")])
def test_folders_of_splits_are_measured_on_the_last_of_them(tmp_path: Path, names: tuple[str, str]) -> None:
    for split, count in zip(names, (3, 2), strict=True):
        for label in ("red", "blue"):
            for i in range(count):
                paint(tmp_path / split / label / f"{i}.png", COLOURS[label])
    result = evaluate_zeroshot(load_labelled(tmp_path), ColourEncoder(), templates=["{}"])
    assert (result.dataset, result.classes) == (str(tmp_path / names[1]), ("blue", "red"))
    assert (result.metrics["n"], result.metrics["acc1"]) == (4, 1.0)
    assert validation_split(tmp_path)[0] in names


@pytest.mark.parametrize("change", ["bytes", "model", "pixels", "damage"])
def test_what_was_kept_is_not_taken_for_something_else(folder: Path, private_cache: Path, change: str) -> None:
    embed_once(load_dataset(folder), ColourEncoder())
    other = ColourEncoder(fingerprint="aa" * 32 if change == "model" else "c0" * 32, exact=change == "pixels")
    if change == "bytes":
        paint(folder / "red" / "0.png", COLOURS["green"])
    if change == "damage":
        (kept,) = (private_cache / "pictures").iterdir()
        kept.write_bytes(kept.read_bytes()[:-1] + b"\x7f")
    found = embed_once(load_dataset(folder), other)
    assert other.encoded == 6
    assert np.array_equal(found.embeddings, embed_pictures(load_dataset(folder), other).embeddings)


def test_pictures_moved_elsewhere_are_still_known(folder: Path) -> None:
    embed_once(load_dataset(folder), ColourEncoder())
    moved = folder.rename(folder.with_name("elsewhere"))
    encoder = ColourEncoder()
    found = embed_once(load_dataset(moved), encoder)
    assert encoder.encoded == 0
    assert all(file.startswith(str(moved)) for file in found.dataset.files)


def test_a_result_is_written_with_the_keys_of_clip_benchmark(folder: Path) -> None:
    result = evaluate_zeroshot(load_dataset(folder), ColourEncoder(), templates="plain")
    record = json.loads(result.to_json())
    assert {"dataset", "model", "task", "metrics", "language"} <= set(record)
    assert {"acc1", "acc5", "mean_per_class_recall", "ece", "ci95", "confusion", "n"} <= set(record["metrics"])
    assert record["per_class"] == [
        {"name": "blue", "n": 3, "recall": 1.0, "precision": 1.0},
        {"name": "red", "n": 3, "recall": 1.0, "precision": 1.0},
    ]
    again = evaluate_zeroshot(load_dataset(folder), ColourEncoder(), templates="plain")
    assert again.to_json() == result.to_json()


def test_the_order_of_classes_changes_no_number(folder: Path) -> None:
    classes = ["red", "green", "blue", "white"]
    one = evaluate_zeroshot(load_dataset(folder), ColourEncoder(), classes=classes, templates="plain")
    two = evaluate_zeroshot(load_dataset(folder), ColourEncoder(), classes=classes[::-1], templates="plain")
    for key in ("n", "acc1", "mean_per_class_recall"):
        assert one.metrics[key] == two.metrics[key]
    assert one.metrics["ece"] == pytest.approx(two.metrics["ece"])


def test_a_dataset_of_the_wrong_kind_is_refused(folder: Path, photos: Path) -> None:
    (photos / "captions.csv").write_text("image,caption\nred.png,red\n")
    with pytest.raises(DatasetError, match="has captions, no labels"):
        load_labelled(photos)
    with pytest.raises(DatasetError, match="has no captions"):
        evaluate_retrieval(load_dataset(folder), ColourEncoder())
    with pytest.raises(DatasetError, match="there is nothing to reject"):
        evaluate_zeroshot(load_dataset(folder), ColourPhrases(), templates="plain", unknown=True)
    with pytest.raises(DatasetError, match=r"no label of .* is one of the classes"):
        evaluate_zeroshot(load_dataset(folder), ColourPhrases(), classes="cyan", templates="plain", unknown=True)
    with pytest.raises(DatasetError, match="2 WordNet ids are not the 1000"):
        load_labelled(folder, classes="imagenet")


def test_quality_of_a_cut_by_hand() -> None:
    quality = rejection_quality([0.9, 0.8, 0.3, 0.7, 0.1], np.array([True, True, True, False, False]), 0.5)
    assert quality == pytest.approx({"f1_known": 2 * 2 / 6, "f1_unknown": 2 * 1 / 4, "macro_f1": (2 / 3 + 1 / 2) / 2})


def test_draws_without_both_kinds_do_not_count() -> None:
    assert bootstrap(lambda rows: 0.25 if rows[0] else np.nan, 2) == (0.25, 0.25)


@pytest.mark.parametrize("k", [1, 3, 7, 99])
def test_ranks_are_those_of_a_full_sort(k: int) -> None:
    head, rows = head_of(7)
    places, sure = head.ranked(rows, k)
    logits = 2 * rows.astype(np.float64) @ head.weight.T.astype(np.float64)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.array_equal(places, expected)
    assert sure == pytest.approx(np.take_along_axis(shares, expected, axis=1), abs=1e-5)
    assert np.array_equal(places[:, 0], head.best(rows))


def test_equal_classes_are_ranked_by_name_first_then_in_their_order() -> None:
    weight = np.tile(np.array([[1, 0]], np.float32), (4, 1))
    head = Head(("d", "c", "a", "b"), weight, np.zeros(4, np.float32), 1.0, "m", "f")
    places, sure = head.ranked(np.array([[1, 0]], np.float32), 3)
    assert places.tolist() == [[2, 0, 1]]
    assert sure == pytest.approx(0.25)


def test_a_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    names = ["red $1$", "blue", "never met"]
    confusion_png(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), names, tmp_path / "c.png", title="two $ and two")
    with Image.open(tmp_path / "c.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 200 * 200
    is_blue = (pixels[:, 2] > pixels[:, 0].astype(int) + 60).mean()
    assert 0.05 < is_blue < 0.9
    many = np.eye(80, dtype=np.int64)
    confusion_png(many, [str(i) for i in range(80)], tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 1000
    with pytest.raises(ClipkitError, match="no pictures"):
        confusion_png(np.zeros((2, 2)), ["a", "b"], tmp_path / "none.png")
    with pytest.raises(ClipkitError, match="cannot be written"):
        confusion_png(many, [str(i) for i in range(80)], tmp_path / "nowhere" / "c.png")
