"""Metrics: scikit-learn's numbers, hand-made cases, and intervals that can be repeated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as oracle

from clipkit.core.arrays import Embeddings
from clipkit.errors import ShapeError
from clipkit.metrics import (
    acc1,
    auroc,
    bootstrap,
    classification_metrics,
    confusion,
    ece,
    f1,
    most_confused,
    per_class,
    retrieval_metrics,
    top_k_accuracy,
    wilson,
)

CLASSES = 7


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, CLASSES)).astype(np.float32)


@pytest.fixture
def targets() -> np.ndarray:
    return np.random.default_rng(1).integers(0, CLASSES - 1, 200)  # the last class has no picture


def unit(rows: np.ndarray) -> Embeddings:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_accuracies_are_those_of_scikit_learn(scores: np.ndarray, targets: np.ndarray) -> None:
    labels = np.arange(CLASSES)
    predicted = scores.argmax(axis=1)
    assert acc1(scores, targets) == oracle.accuracy_score(targets, predicted)
    assert top_k_accuracy(scores, targets, 5) == oracle.top_k_accuracy_score(targets, scores, k=5, labels=labels)
    matrix = confusion(predicted, targets, CLASSES)
    assert np.array_equal(matrix, oracle.confusion_matrix(targets, predicted, labels=labels))


def test_equal_scores_count_in_class_order() -> None:
    assert [top_k_accuracy(np.zeros((1, 3)), [target], 1) for target in range(3)] == [1, 0, 0]
    assert [top_k_accuracy(np.zeros((1, 3)), [target], 2) for target in range(3)] == [1, 1, 0]


def test_auroc_and_f1_are_those_of_scikit_learn(scores: np.ndarray, targets: np.ndarray) -> None:
    one, positive = np.round(scores[:, 0], 1), targets < 3  # rounded: with ties
    assert auroc(one, positive) == pytest.approx(oracle.roc_auc_score(positive, one))
    assert f1(one > 0, positive) == pytest.approx(oracle.f1_score(positive, one > 0))
    assert f1(one > 100, positive) == 0
    with pytest.raises(ShapeError, match="positives and negatives"):
        auroc(one, np.ones(200))


def test_ece_of_a_hand_made_case() -> None:
    # Bin (.8, .867]: confidence .85, two of four right: gap .35. Bin (.533, .6]: .6, all of one right: gap .4.
    assert ece([0.85, 0.85, 0.85, 0.85, 0.6], [1, 1, 0, 0, 1]) == pytest.approx((4 * 0.35 + 0.4) / 5)
    assert ece([1.0, 1.0], [1, 1]) == 0
    assert ece([0.0], [0]) == 0


def test_the_table_and_the_mistakes_have_names() -> None:
    matrix = np.array([[3, 1, 0], [4, 0, 0], [0, 0, 0]])
    cat, dog, hen = per_class(matrix, ["cat", "dog", "hen"])
    assert (cat.name, cat.n, cat.recall, cat.precision) == ("cat", 4, 0.75, 3 / 7)
    assert (dog.recall, dog.precision, hen.n, hen.recall, hen.precision) == (0, 0, 0, None, None)
    wrong = [(pair.actual, pair.predicted, pair.n) for pair in most_confused(matrix, ["cat", "dog", "hen"])]
    assert wrong == [("dog", "cat", 4), ("cat", "dog", 1)]


def test_the_interval_is_that_of_a_share_and_the_same_every_time() -> None:
    hits = np.arange(400) < 300
    low, high = bootstrap(lambda rows: float(hits[rows].mean()), 400)
    spread = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.008)
    assert bootstrap(lambda rows: float(hits[rows].mean()), 400) == (low, high)
    assert bootstrap(lambda rows: float(hits[rows].mean()), 400, seed=1) != (low, high)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (2, 2), (7, 10), (300, 400)])
def test_the_interval_of_a_proportion_is_scipys(right: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    interval = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((interval.low, interval.high), abs=1e-4)


def test_few_that_are_all_right_are_not_certain() -> None:
    scores = np.eye(2)[[0, 1]]
    found = classification_metrics(scores, [0, 1])
    assert found["acc1"] == found["mean_per_class_recall"] == 1
    assert found["ci95"]["acc1"] == found["ci95"]["mean_per_class_recall"] == pytest.approx((0.342, 1.0), abs=1e-3)
    retrieved = retrieval_metrics(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), [0, 1], ks=[1])
    assert retrieved["ci95"]["image_retrieval_recall@1"] == pytest.approx((0.342, 1.0), abs=1e-3)


def test_all_numbers_of_a_classification_come_together(scores: np.ndarray, targets: np.ndarray) -> None:
    weights = np.exp(scores)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    found = classification_metrics(scores, targets, probabilities=probabilities)
    keys = ["n", "acc1", "acc5", "mean_per_class_recall", "ece", "ci95", "confusion"]
    assert list(found) == keys
    assert found["n"] == 200
    assert found["acc1"] == acc1(scores, targets)
    labels = np.arange(CLASSES)
    assert found["acc5"] == oracle.top_k_accuracy_score(targets, scores, k=5, labels=labels)
    recall = oracle.recall_score(targets, scores.argmax(axis=1), labels=labels[:-1], average="macro")
    assert found["mean_per_class_recall"] == pytest.approx(recall)
    right = scores.argmax(axis=1) == targets
    assert found["ece"] == ece(probabilities.max(axis=1), right)
    assert np.array_equal(found["confusion"], confusion(scores.argmax(axis=1), targets, CLASSES))
    assert list(found["ci95"]) == ["acc1", "acc5", "mean_per_class_recall", "ece"]
    assert all(low <= found[key] <= high for key, (low, high) in found["ci95"].items() if key != "ece")
    assert json.loads(json.dumps(found, allow_nan=False))["n"] == 200


def test_top_five_of_three_classes_is_no_number() -> None:
    found = classification_metrics(np.eye(3), [0, 1, 2])
    assert (found["acc1"], found["acc5"], found["ece"]) == (1, None, None)
    assert list(found["ci95"]) == ["acc1", "mean_per_class_recall"]


@pytest.mark.parametrize(
    ("table", "right"),
    [
        (np.eye(3), [0, 1]),
        (np.eye(3), [0, 1, 3]),
        (np.eye(3), [0, 1, -1]),
        (np.eye(3), [0.0, 1.0, 2.0]),
        (np.zeros((0, 3)), []),
        (np.full((1, 3), np.nan), [0]),
    ],
)
def test_scores_and_targets_that_do_not_fit_are_refused(table: np.ndarray, right: list[int]) -> None:
    with pytest.raises(ShapeError):
        classification_metrics(table, np.array(right))


def test_retrieval_counts_as_a_full_sort_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.metrics.BLOCK_SCORES", 64)  # several blocks each way
    rng = np.random.default_rng(2)
    images = unit(rng.normal(size=(30, 8)))
    owners = np.concatenate([np.arange(30), rng.integers(0, 30, 50)])
    texts = unit(images[owners] + 0.6 * rng.normal(size=(80, 8)))
    found = retrieval_metrics(images, texts, owners)
    by_image, by_text = np.argsort(-images @ texts.T, axis=1), np.argsort(-texts @ images.T, axis=1)
    for k in (1, 5, 10):
        text_finds = np.mean([owner in row[:k] for owner, row in zip(owners, by_text, strict=True)])
        image_finds = np.mean([np.isin(owners[row[:k]], i).any() for i, row in enumerate(by_image)])
        assert found[f"image_retrieval_recall@{k}"] == pytest.approx(text_finds)
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(image_finds)
        low, high = found["ci95"][f"image_retrieval_recall@{k}"]
        assert low <= text_finds <= high
    assert (found["n"], found["n_texts"]) == (30, 80)


@pytest.mark.parametrize("owners", [[0, 0], [0, 2], [0], [-1, 1]])
def test_every_picture_needs_a_text(owners: list[int]) -> None:
    with pytest.raises(ShapeError):
        retrieval_metrics(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), owners)


def test_a_confusion_of_what_is_no_class_is_refused() -> None:
    for predicted, targets in (([2], [0]), ([-1], [0]), ([0], [2]), ([0, 1], [0]), ([[0]], [[0]])):
        with pytest.raises(ShapeError):
            confusion(predicted, targets, 2)


def test_f1_of_answers_for_other_pictures_is_refused() -> None:
    with pytest.raises(ShapeError):
        f1([True], [True, True])
