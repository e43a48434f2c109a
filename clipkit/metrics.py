"""Metrics with intervals: accuracy, calibration, rejection and retrieval.

- `classification_metrics`: accuracy, recall, calibration and confusion of a table of scores.
- `retrieval_metrics`: recall at k of pictures and texts that search each other.
- `acc1`: top-1 accuracy.
- `top_k_accuracy`: top-k accuracy.
- `confusion`: confusion matrix.
- `per_class`: recall and precision of each class.
- `most_confused`: the most frequent mistakes.
- `ece`: expected calibration error.
- `auroc`: area under the ROC curve.
- `f1`: F1 score.
- `wilson`: 95 % interval of a proportion.
- `balanced_size`: pictures that a mean of class recalls is worth.
- `bootstrap`: 95 % interval of any statistic.
- `ClassScore`: one class of `per_class`.
- `Confused`: one pair of `most_confused`.
"""

from __future__ import annotations

import math
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
    """Recall and precision of one class.

    Attributes
    ----------
    name : str
        The class.
    n : int
        Pictures of it.
    recall : float or None
        Share of its pictures that were named rightly; None where it has no pictures.
    precision : float or None
        Share of right ones among the pictures that were given this class; None where none was.

    Examples
    --------
    >>> from clipkit import metrics
    >>> metrics.per_class(metrics.confusion([0, 1, 1], [0, 0, 1], 2), ["cat", "dog"])[0]
    ClassScore(name='cat', n=2, recall=0.5, precision=1.0)
    """

    name: str
    n: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Confused:
    """How often pictures of one class were given another.

    Attributes
    ----------
    actual : str
        The right class.
    predicted : str
        The class that was given.
    n : int
        How often.

    Examples
    --------
    >>> from clipkit import metrics
    >>> metrics.most_confused(metrics.confusion([0, 1, 1], [0, 0, 1], 2), ["cat", "dog"])
    [Confused(actual='cat', predicted='dog', n=1)]
    """

    actual: str
    predicted: str
    n: int


def classification_metrics(
    scores: npt.ArrayLike, targets: npt.ArrayLike, *, probabilities: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """Accuracy, recall, calibration error and confusion of a table of scores, with intervals.

    The keys are those of CLIP_benchmark, and a few more.

    Parameters
    ----------
    scores : array_like of shape (n, c)
        A score for each picture and class; larger is more likely.
    targets : array_like of shape (n,), int
        Positions of the right classes.
    probabilities : array_like of shape (n, c), optional
        For the calibration error.

    Returns
    -------
    dict
        `n`, `acc1`, `acc5` (None for fewer than 5 classes), `mean_per_class_recall`, `ece` (None without
        `probabilities`), `confusion` (rows are the truth), and `ci95`: (low, high) by key, by Wilson; that of `ece`
        from a bootstrap over pictures, which leans upwards, since a resample holds the same picture twice.

    Raises
    ------
    ShapeError
        If shapes do not fit together, a target is no position of a class, or a score is NaN or infinite.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    .. [2] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall 1993.
    .. [3] E. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    Examples
    --------
    >>> from clipkit.metrics import classification_metrics
    >>> found = classification_metrics([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])
    >>> round(found["acc1"], 3), found["confusion"]
    (0.667, [[1, 0], [1, 1]])
    >>> low, high = found["ci95"]["acc1"]
    >>> low <= found["acc1"] <= high
    True
    """
    table, right = _checked(scores, targets)
    count = table.shape[1]
    hits = {k: _ranks(table, right) < k for k in (1, 5)}
    matrix = confusion(table.argmax(axis=1), right, count)
    numbers: dict[str, float | None] = {key: float(hits[k].mean()) for key, k in (("acc1", 1), ("acc5", 5))}
    numbers |= {"mean_per_class_recall": _mean_recall(hits[1], right, count), "ece": None}
    sizes = {"acc1": len(right), "acc5": len(right), "mean_per_class_recall": balanced_size(right, count)}
    if count < 5:
        numbers["acc5"] = None
    ci95 = {key: wilson(share, sizes[key]) for key, share in numbers.items() if share is not None}
    if probabilities is not None:
        sure, _ = _checked(probabilities, targets)
        confidence, is_right = sure.max(axis=1), sure.argmax(axis=1) == right
        numbers["ece"] = ece(confidence, is_right)
        ci95["ece"] = bootstrap(lambda rows: ece(confidence[rows], is_right[rows]), len(right))
    return {"n": len(right), **numbers, "ci95": ci95, "confusion": matrix.tolist()}


def retrieval_metrics(
    images: Embeddings, texts: Embeddings, owners: npt.ArrayLike, *, ks: Sequence[int] = RECALLS
) -> dict[str, Any]:
    """Recall at k of pictures and texts that search each other, with intervals.

    A picture with several texts is found by any of them, as CLIP_benchmark counts.

    Parameters
    ----------
    images : ndarray of shape (n, d), float32
        Embeddings of the pictures.
    texts : ndarray of shape (m, d), float32
        Embeddings of the texts.
    owners : array_like of shape (m,), int
        The position of the picture that each text belongs to.
    ks : sequence of int, default (1, 5, 10)
        Each k that is counted.

    Returns
    -------
    dict
        `image_retrieval_recall@k` (a text finds its picture) and `text_retrieval_recall@k` (a picture finds one of its
        texts) for each k, `n`, `n_texts`, and `ci95`: (low, high) by key, by Wilson with n: the texts of one picture
        are no questions of their own.

    Raises
    ------
    ShapeError
        If shapes do not fit together, or a picture has no text.

    Examples
    --------
    >>> from clipkit.metrics import retrieval_metrics
    >>> embeddings = np.eye(3, dtype=np.float32)
    >>> found = retrieval_metrics(embeddings, embeddings[[0, 2, 1]], [0, 1, 2], ks=[1])
    >>> round(found["image_retrieval_recall@1"], 3)
    0.333
    """
    by_text, by_image, of = _retrieval_ranks(images, texts, np.asarray(owners, dtype=np.int64))
    captions = np.bincount(of, minlength=len(images))
    shares: dict[str, float] = {}
    for k in ks:
        hits = np.bincount(of, weights=by_text < k, minlength=len(images))
        shares[f"image_retrieval_recall@{k}"] = float(hits.sum() / captions.sum())
        shares[f"text_retrieval_recall@{k}"] = float((by_image < k).mean())
    ci95 = {key: wilson(share, len(images)) for key, share in shares.items()}
    return {"n": len(images), "n_texts": len(texts), **shares, "ci95": ci95}


def acc1(scores: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Top-1 accuracy: the share of rows whose best score is the right class.

    Parameters
    ----------
    scores : array_like of shape (n, c)
        Larger is more likely; of equal scores the first counts as best.
    targets : array_like of shape (n,), int
        Positions of the right classes.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ShapeError
        As `classification_metrics`.

    Examples
    --------
    >>> from clipkit.metrics import acc1
    >>> acc1([[0.9, 0.1], [0.6, 0.4]], [0, 1])
    0.5
    """
    return top_k_accuracy(scores, targets, 1)


def top_k_accuracy(scores: npt.ArrayLike, targets: npt.ArrayLike, k: int) -> float:
    """Top-k accuracy: the share of rows whose right class is among the k best scores.

    Parameters
    ----------
    scores : array_like of shape (n, c)
        Larger is more likely; equal scores count in class order.
    targets : array_like of shape (n,), int
        Positions of the right classes.
    k : int
        How many classes count as found.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ShapeError
        As `classification_metrics`.

    Examples
    --------
    >>> from clipkit.metrics import top_k_accuracy
    >>> scores = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]
    >>> top_k_accuracy(scores, [0, 1], 1), top_k_accuracy(scores, [0, 1], 2)
    (0.5, 1.0)
    """
    return float((_ranks(*_checked(scores, targets)) < k).mean())


def confusion(predicted: npt.ArrayLike, targets: npt.ArrayLike, count: int) -> IntArray:
    """Confusion matrix: how often each class was given each class.

    Parameters
    ----------
    predicted : array_like of shape (n,), int
        Positions of the classes that were given.
    targets : array_like of shape (n,), int
        Positions of the right classes.
    count : int
        Number of classes.

    Returns
    -------
    ndarray of shape (count, count), int64
        Rows are the right classes, columns those that were given.

    Raises
    ------
    ShapeError
        If the two have other shapes, or hold what is no position of a class.

    Examples
    --------
    >>> from clipkit.metrics import confusion
    >>> confusion([0, 1, 1], [0, 0, 1], 2)
    array([[1, 1],
           [0, 1]])
    """
    right, called = np.asarray(targets, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if right.shape != called.shape or right.ndim != 1:
        raise ShapeError(f"predictions {called.shape} and targets {right.shape} are not both (n,)")
    if len(right) and (min(right.min(), called.min()) < 0 or max(right.max(), called.max()) >= count):
        raise ShapeError(f"predictions or targets are not positions of {count} classes")
    cells = right * count + called
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def per_class(matrix: IntArray, classes: Sequence[str]) -> list[ClassScore]:
    """Recall and precision of each class, from a confusion matrix.

    Parameters
    ----------
    matrix : ndarray of shape (c, c), int
        Rows are the right classes, as `confusion` makes it.
    classes : sequence of str
        The c names.

    Returns
    -------
    list of ClassScore
        In the order of `classes`.

    Examples
    --------
    >>> from clipkit.metrics import confusion, per_class
    >>> [score.recall for score in per_class(confusion([0, 1, 1], [0, 0, 1], 2), ["cat", "dog"])]
    [0.5, 1.0]
    """
    rows, columns, right = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), matrix.diagonal().tolist()
    return [
        ClassScore(name, n, hit / n if n else None, hit / given if given else None)
        for name, n, given, hit in zip(classes, rows, columns, right, strict=True)
    ]


def most_confused(matrix: IntArray, classes: Sequence[str], k: int = 10) -> list[Confused]:
    """The k most frequent mistakes, most frequent first.

    Parameters
    ----------
    matrix : ndarray of shape (c, c), int
        Rows are the right classes, as `confusion` makes it.
    classes : sequence of str
        The c names.
    k : int, default 10
        How many at most.

    Returns
    -------
    list of Confused
        Only pairs that occur; equally frequent ones in the order of the matrix.

    Examples
    --------
    >>> from clipkit.metrics import confusion, most_confused
    >>> most_confused(confusion([1, 1, 0], [0, 0, 1], 2), ["cat", "dog"], k=1)
    [Confused(actual='cat', predicted='dog', n=2)]
    """
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:k]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [Confused(classes[i], classes[j], int(wrong[i, j])) for i, j in places if wrong[i, j]]


def ece(confidence: npt.ArrayLike, is_right: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy.

    Parameters
    ----------
    confidence : array_like of shape (n,)
        Probability of the class that was given.
    is_right : array_like of shape (n,), bool
        Whether it was right.
    bins : int, default 15
        Bins of equal width, open on the left.

    Returns
    -------
    float
        From 0 (calibrated) to 1.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Examples
    --------
    >>> from clipkit.metrics import ece
    >>> ece([1.0, 1.0], [True, False])
    0.5
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are open on the left
    gaps = np.bincount(place, weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def auroc(scores: npt.ArrayLike, is_positive: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a positive scores above a negative.

    Parameters
    ----------
    scores : array_like of shape (n,)
        Larger is more likely positive; equal scores count half.
    is_positive : array_like of shape (n,), bool
        The truth.

    Returns
    -------
    float
        From 0 to 1; 0.5 is chance.

    Raises
    ------
    ShapeError
        If positives or negatives are missing.

    References
    ----------
    .. [1] J. Hanley and B. McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC)
       Curve", Radiology 1982.

    Examples
    --------
    >>> from clipkit.metrics import auroc
    >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    positive = np.asarray(is_positive, dtype=bool)
    count = int(positive.sum())
    if not 0 < count < len(positive):
        raise ShapeError("AUROC needs positives and negatives", hint="pictures of both kinds")
    _, place, sizes = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[place.ravel()]  # equal scores share the mean of their ranks
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def f1(is_accepted: npt.ArrayLike, is_positive: npt.ArrayLike) -> float:
    """F1 score: the harmonic mean of precision and recall of what was accepted.

    Parameters
    ----------
    is_accepted : array_like of shape (n,), bool
        What was accepted.
    is_positive : array_like of shape (n,), bool
        What should have been.

    Returns
    -------
    float
        From 0 to 1; 0 where nothing right was accepted.

    Raises
    ------
    ShapeError
        If the two have other shapes.

    Examples
    --------
    >>> from clipkit.metrics import f1
    >>> f1([True, True, False], [True, False, False]) == 2 / 3
    True
    """
    accepted, positive = np.asarray(is_accepted, dtype=bool), np.asarray(is_positive, dtype=bool)
    if accepted.shape != positive.shape:
        raise ShapeError(f"{accepted.shape} and {positive.shape} are not two answers for the same pictures")
    both = int((accepted & positive).sum())
    return 2 * both / int(accepted.sum() + positive.sum()) if both else 0.0


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a proportion, by Wilson.

    Where all of a few are right it stays wide; a bootstrap would be certain.

    Parameters
    ----------
    share : float
        The proportion that was seen, from 0 to 1.
    n : float
        Of how many.

    Returns
    -------
    tuple of float
        (low, high), around `share`.

    References
    ----------
    .. [1] E. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    Examples
    --------
    >>> from clipkit.metrics import wilson
    >>> low, high = wilson(1.0, 2)
    >>> round(low, 3), high
    (0.342, 1.0)
    """
    squared = 1.96**2
    middle, reach = share + squared / (2 * n), math.sqrt(squared * share * (1 - share) / n + (squared / (2 * n)) ** 2)
    low, high = ((middle + sign * reach) / (1 + squared / n) for sign in (-1, 1))
    return min(low, share), max(high, share)


def balanced_size(targets: IntArray, count: int) -> float:
    """Pictures that a mean of class recalls is worth, as the n of its interval.

    It is n where classes are of one size, and fewer where one is small: recalls have the variance p (1 - p) / n_c, and
    so the mean over c classes that of c^2 / sum(1 / n_c) pictures.

    Parameters
    ----------
    targets : ndarray of shape (n,), int
        Places of the right classes.
    count : int
        Number of classes.

    Returns
    -------
    float
        At most n.

    Examples
    --------
    >>> from clipkit.metrics import balanced_size
    >>> balanced_size(np.array([0, 0, 1, 1]), 2), round(balanced_size(np.array([0, 0, 0, 1]), 2), 6)
    (4.0, 3.0)
    """
    sizes = np.bincount(targets, minlength=count)
    sizes = sizes[sizes > 0]
    return float(len(sizes) ** 2 / (1 / sizes).sum())


def bootstrap(
    statistic: Callable[[IntArray], float], n: int, *, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic, by bootstrap.

    Parameters
    ----------
    statistic : callable
        Given positions (n,) drawn with replacement, returns a float. Draws for which it is NaN do not count.
    n : int
        Number of pictures.
    draws : int, default 1000
        How many resamples.
    seed : int, default 0
        Of the random generator.

    Returns
    -------
    tuple of float
        (low, high).

    References
    ----------
    .. [1] B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall 1993.

    Examples
    --------
    >>> from clipkit.metrics import bootstrap
    >>> is_right = np.array([True] * 90 + [False] * 10)
    >>> low, high = bootstrap(lambda rows: is_right[rows].mean(), 100)
    >>> 0.8 < low < 0.9 < high < 1
    True
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
        raise ShapeError(
            "there are scores that are NaN or infinite", hint="look for rows of NaN: np.isnan(scores).any(axis=1)"
        )
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
