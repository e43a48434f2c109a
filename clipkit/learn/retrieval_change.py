"""Change of retrieval: recall before and after on the same pictures, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray
from clipkit.metrics import RECALLS, BoolArray, bootstrap

WAYS = ("words to pictures", "pictures to words")
SUMMARY = "mean"
BLOCK = 512  # rows of scores at a time


@dataclass(frozen=True)
class Change:
    """One number before and after, on the same pictures.

    Attributes
    ----------
    way : str
        Who searches: "words to pictures" or "pictures to words"; "general" for what had nothing to do with it.
    measure : str
        "R@1", "R@5", "R@10", or "mean", which is the mean of the three.
    before, after : float
        From 0 to 1.
    low, high : float
        The 95 % interval of the difference: a paired bootstrap over pictures.
    n : int
        Pictures.

    Examples
    --------
    >>> from clipkit.learn import Change
    >>> round(Change("words to pictures", "R@1", before=0.25, after=0.5, low=0.1, high=0.4, n=100).gain, 2)
    0.25
    """

    way: str
    measure: str
    before: float
    after: float
    low: float
    high: float
    n: int

    @property
    def gain(self) -> float:
        """After minus before."""
        return self.after - self.before


def hits(images: Embeddings, texts: Embeddings, right: BoolArray, ks: Sequence[int] = RECALLS) -> FloatArray:
    """For each way, k and picture, the share of its searches that succeed: (2, len(ks), n).

    images (n, d), texts (m, d), right (n, m). What is also right does not stand in the way: a search succeeds where
    fewer than k wrong answers score as high as the right one. With one text a picture that is recall at k as usual.
    """
    limits = np.array(ks)[:, None]
    by_words = np.zeros((len(ks), len(images)))
    for start in range(0, len(texts), BLOCK):
        scores, mine = texts[start : start + BLOCK] @ images.T, right[:, start : start + BLOCK].T
        wrong = np.sort(np.where(mine, -np.inf, scores), axis=1)
        for row, own, is_right in zip(wrong, scores, mine, strict=True):
            ahead = len(row) - np.searchsorted(row, own[is_right], side="left")
            by_words[:, is_right] += ahead < limits
    by_words /= right.sum(axis=1)
    by_pictures = []
    for start in range(0, len(images), BLOCK):
        scores, mine = images[start : start + BLOCK] @ texts.T, right[start : start + BLOCK]
        best = np.where(mine, scores, -np.inf).max(axis=1, keepdims=True)
        by_pictures.append((~mine & (scores >= best)).sum(axis=1) < limits)
    return np.stack([by_words, np.concatenate(by_pictures, axis=1)]).astype(np.float32)


def changes(before: FloatArray, after: FloatArray) -> tuple[Change, ...]:
    """Every measure of what `hits` gave, and for each way their mean."""
    found = []
    for way, first, last in zip(WAYS, before, after, strict=True):
        names = [f"R@{k}" for k in RECALLS]
        rows = [*zip(names, first, last, strict=True), (SUMMARY, first.mean(axis=0), last.mean(axis=0))]
        found += [change(way, name, one, other) for name, one, other in rows]
    return tuple(found)


def read_change(record: Mapping[str, Any]) -> Change:
    """As JSON has it; ValueError where a number is none that could have been found."""
    numbers = {name: float(record[name]) for name in ("before", "after", "low", "high")}
    if not all(-1 <= value <= 1 for value in numbers.values()):
        raise ValueError(f"shares outside of 0 to 1: {numbers}")
    return Change(str(record["way"]), str(record["measure"]), **numbers, n=int(record["n"]))


def change(way: str, measure: str, before: FloatArray, after: FloatArray) -> Change:
    """Of values (n,) of the same pictures."""
    difference = after.astype(np.float64) - before
    low, high = bootstrap(lambda rows: float(difference[rows].mean()), len(difference))
    return Change(way, measure, float(before.mean()), float(after.mean()), low, high, len(before))
