"""Metrics with intervals: accuracy, calibration, rejection and retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.errors import ShapeError

RECALLS = (1, 5, 10)
BINS = 15  # as Guo et al. 2017, and most tables since
DRAWS = 1000
SEED = 0
BLOCK_SCORES = 1 << 22  # 16 MB of float32 scores at a time

BoolArray = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassScore:
    """One class of a table. n: pictures of it. recall, precision: None where there is nothing to divide by."""

    name: str
    n: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Confused:
    """How often pictures of one class were given another."""

    actual: str
    predicted: str
    n: int


def classification_metrics(
    scores: npt.ArrayLike, targets: npt.ArrayLike, *, probabilities: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """CLIP_benchmark's keys and ours: n acc1 acc5 mean_per_class_recall ece confusion, and ci95 of the numbers.

    scores (n, c), targets (n,) positions of the right classes. acc5 is None for fewer than 5 classes, ece without
    `probabilities` (n, c). confusion: rows are the truth. ci95: bootstrap over pictures, (low, high) by key; that of
    ece leans upwards, since a resample holds the same picture twice.
    """
    table, right = _checked(scores, targets)
    count = table.shape[1]
    hits = {k: _ranks(table, right) < k for k in (1, 5)}
    matrix = confusion(table.argmax(axis=1), right, count)
    statistics: dict[str, Callable[[IntArray], float]] = {"acc1": lambda rows: float(hits[1][rows].mean())}
    if count >= 5:
        statistics["acc5"] = lambda rows: float(hits[5][rows].mean())
    statistics["mean_per_class_recall"] = lambda rows: _mean_recall(hits[1][rows], right[rows], count)
    if probabilities is not None:
        sure, _ = _checked(probabilities, targets)
        confidence, is_right = sure.max(axis=1), sure.argmax(axis=1) == right
        statistics["ece"] = lambda rows: ece(confidence[rows], is_right[rows])
    everything = np.arange(len(right))
    numbers = {key: statistic(everything) for key, statistic in statistics.items()}
    return {
        "n": len(right),
        "acc1": numbers["acc1"],
        "acc5": numbers.get("acc5"),
        "mean_per_class_recall": numbers["mean_per_class_recall"],
        "ece": numbers.get("ece"),
        "ci95": {key: bootstrap(statistic, len(right)) for key, statistic in statistics.items()},
        "confusion": matrix.tolist(),
    }


def retrieval_metrics(
    images: Embeddings, texts: Embeddings, owners: npt.ArrayLike, *, ks: Sequence[int] = RECALLS
) -> dict[str, Any]:
    """Both ways at each k: image_retrieval_recall@k (a text finds its picture), text_retrieval_recall@k; n and ci95.

    images (n, d), texts (m, d), owners (m,): the picture each text belongs to. A picture with several texts is found
    by any of them, as CLIP_benchmark counts. Intervals are over pictures, with their texts. ShapeError if a picture
    has no text.
    """
    by_text, by_image, of = _retrieval_ranks(images, texts, np.asarray(owners, dtype=np.int64))
    captions = np.bincount(of, minlength=len(images))
    statistics: dict[str, Callable[[IntArray], float]] = {}
    for k in ks:
        hits = np.bincount(of, weights=by_text < k, minlength=len(images))
        found = by_image < k
        statistics[f"image_retrieval_recall@{k}"] = _ratio(hits, captions)
        statistics[f"text_retrieval_recall@{k}"] = _ratio(found, np.ones(len(images)))
    everything = np.arange(len(images))
    return {
        "n": len(images),
        "n_texts": len(texts),
        **{key: statistic(everything) for key, statistic in statistics.items()},
        "ci95": {key: bootstrap(statistic, len(images)) for key, statistic in statistics.items()},
    }


def acc1(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """The share of rows whose best score is the right class; of equal scores the first counts as best."""
    return top_k_accuracy(scores, targets, 1)


def top_k_accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike, k: int) -> float:
    """The share of rows whose right class is among the k best scores; equal scores count in class order."""
    return float((_ranks(*_checked(scores, targets)) < k).mean())


def confusion(predicted: npt.ArrayLike, targets: npt.ArrayLike, count: int) -> IntArray:
    """How often each of `count` classes (row) was given each class (column): (count, count)."""
    cells = np.asarray(targets, dtype=np.int64) * count + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def per_class(matrix: IntArray, classes: Sequence[str]) -> list[ClassScore]:
    """Recall and precision of each class, from a confusion matrix."""
    rows, columns, right = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), matrix.diagonal().tolist()
    return [
        ClassScore(name, n, hit / n if n else None, hit / given if given else None)
        for name, n, given, hit in zip(classes, rows, columns, right, strict=True)
    ]


def most_confused(matrix: IntArray, classes: Sequence[str], k: int = 10) -> list[Confused]:
    """The k most frequent mistakes, most frequent first."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:k]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [Confused(classes[i], classes[j], int(wrong[i, j])) for i, j in places if wrong[i, j]]


def ece(confidence: npt.ArrayLike, is_right: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy, over `bins` of equal width."""
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are open on the left
    gaps = np.bincount(place, weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def auroc(scores: npt.ArrayLike, is_positive: npt.ArrayLike) -> float:
    """How often a positive scores above a negative, equal scores counting half; ShapeError without both kinds."""
    positive = np.asarray(is_positive, dtype=bool)
    count = int(positive.sum())
    if not 0 < count < len(positive):
        raise ShapeError("AUROC needs positives and negatives")
    _, place, sizes = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[place.ravel()]  # equal scores share the mean of their ranks
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def f1(is_accepted: npt.ArrayLike, is_positive: npt.ArrayLike) -> float:
    """The harmonic mean of precision and recall of what was accepted; 0 where nothing right was."""
    accepted, positive = np.asarray(is_accepted, dtype=bool), np.asarray(is_positive, dtype=bool)
    both = int((accepted & positive).sum())
    return 2 * both / int(accepted.sum() + positive.sum()) if both else 0.0


def bootstrap(
    statistic: Callable[[IntArray], float], n: int, *, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic`, which is given the positions of n rows drawn with replacement.

    Draws for which it is NaN, since they lack one of two kinds, do not count.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(draws)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _checked(scores: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[npt.NDArray[Any], IntArray]:
    table, right = np.asarray(scores), np.asarray(targets)
    if table.ndim != 2 or right.shape != (len(table),) or not len(table):
        raise ShapeError(f"scores {table.shape} and targets {right.shape} are not (n, c) and (n,)")
    if not np.issubdtype(right.dtype, np.integer) or right.min() < 0 or right.max() >= table.shape[1]:
        raise ShapeError(f"targets are not positions of {table.shape[1]} classes")
    if not np.isfinite(table).all():
        raise ShapeError("there are scores that are NaN or infinite")
    return table, right.astype(np.int64)


def _ranks(scores: npt.NDArray[Any], targets: IntArray) -> IntArray:
    """How many classes come before the right one in each row: (n,)."""
    own = scores[np.arange(len(targets)), targets][:, None]
    before = np.arange(scores.shape[1]) < targets[:, None]
    ahead: BoolArray = (scores > own) | ((scores == own) & before)
    return np.asarray(ahead.sum(axis=1), dtype=np.int64)


def _mean_recall(hits: BoolArray, targets: IntArray, count: int) -> float:
    pictures = np.bincount(targets, minlength=count)
    right = np.bincount(targets, weights=hits, minlength=count)
    return float((right[pictures > 0] / pictures[pictures > 0]).mean())


def _ratio(hits: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Callable[[IntArray], float]:
    return lambda rows: float(hits[rows].sum() / counts[rows].sum())


def _retrieval_ranks(images: Embeddings, texts: Embeddings, owners: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Pictures before each text's own (m,), texts before the best of each picture's own (n,), and the owners."""
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1] or owners.shape != (len(texts),):
        raise ShapeError(f"images {images.shape}, texts {texts.shape} and owners {owners.shape} do not fit together")
    if len(owners) == 0 or owners.min() < 0 or not np.array_equal(np.unique(owners), np.arange(len(images))):
        raise ShapeError(f"owners are not positions of {len(images)} pictures, each with a text of its own")
    by_text = np.concatenate(
        [_ranks(texts[rows] @ images.T, owners[rows]) for rows in _blocks(len(texts), len(images))]
    )
    by_image = np.concatenate(
        [_best_ranks(images[rows] @ texts.T, owners, rows.start) for rows in _blocks(len(images), len(texts))]
    )
    return by_text, by_image, owners


def _best_ranks(scores: FloatArray, owners: IntArray, start: int) -> IntArray:
    """Texts before the best of each picture's own (b,); scores (b, m)."""
    is_own = owners == np.arange(start, start + len(scores))[:, None]
    best = np.where(is_own, scores, -np.inf).argmax(axis=1)
    return _ranks(scores, best)


def _blocks(count: int, width: int) -> list[slice]:
    step = max(1, BLOCK_SCORES // max(width, 1))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
