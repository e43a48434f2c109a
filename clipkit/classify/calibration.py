"""Calibration of a classifier: its temperature, and the cut below which nothing fits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TEMPERATURES = (1e-3, 1e4)


def best_temperature(logits: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """What logits (n, c) are to be multiplied by for the least negative log-likelihood of targets (n,)."""
    table = np.asarray(logits, dtype=np.float64)
    table = table - table.max(axis=1, keepdims=True)
    own = table[np.arange(len(table)), np.asarray(targets)].mean()
    low, high = np.log(TEMPERATURES)
    for _ in range(50):  # the likelihood has one peak: halve towards it
        middle = (low + high) / 2
        weights = np.exp(np.exp(middle) * table)
        slope = ((weights * table).sum(axis=1) / weights.sum(axis=1)).mean() - own
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp((low + high) / 2))


def best_cut(scores: npt.ArrayLike, is_known: npt.ArrayLike) -> float:
    """The cut with the best F1 of what is known (n,), half-way between two scores."""
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(is_known, dtype=bool)
    order = np.argsort(-values, kind="stable")
    ranked, right = values[order], np.cumsum(known[order])
    quality = 2 * right / (np.arange(1, len(ranked) + 1) + right[-1])
    quality[:-1][ranked[:-1] == ranked[1:]] = -1  # equal scores stay together
    last = int(quality.argmax())
    return float((ranked[last] + ranked[min(last + 1, len(ranked) - 1)]) / 2)


def split(scores: npt.ArrayLike) -> float:
    """The value between two groups of scores (n,) that are each as alike as can be (Otsu 1979)."""
    ranked = np.sort(np.asarray(scores, dtype=np.float64))
    below = np.arange(1, len(ranked))
    sums = np.cumsum(ranked)
    gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / (len(ranked) - below)
    place = int((below * (len(ranked) - below) * gap**2).argmax())
    return float((ranked[place] + ranked[place + 1]) / 2)
