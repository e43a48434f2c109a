"""The order in which classes that are confused stand side by side, so that a matrix can be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipkit.store.records import IntArray

MOST = 400  # classes whose best order is searched for; its cost grows with the cube


def by_confusion(matrix: IntArray, groups: Sequence[str] = ()) -> IntArray:
    """Positions of classes (c,): groups in order of appearance, and in each of them classes that are confused together.

    matrix (c, c): how often each class (row) was called each other. A hierarchy of shares of confusion (average
    linkage), its leaves turned so that neighbours are as close as they can be.
    """
    count = len(matrix)
    names = list(groups) or [""] * count
    pictures = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = matrix / pictures
    closeness = (shares + shares.T) / 2
    parts = [np.flatnonzero([name == group for name in names]) for group in dict.fromkeys(names)]
    return np.concatenate([part[_leaves(closeness[np.ix_(part, part)])] for part in parts]).astype(np.int64)


def _leaves(closeness: np.ndarray) -> IntArray:
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering  # type: ignore[import-untyped]

    if len(closeness) < 3:
        return np.arange(len(closeness))
    apart = 1 - closeness[np.triu_indices(len(closeness), 1)]
    tree = linkage(apart, "average")
    if len(closeness) <= MOST:
        tree = optimal_leaf_ordering(tree, apart)
    return np.asarray(leaves_list(tree), dtype=np.int64)
