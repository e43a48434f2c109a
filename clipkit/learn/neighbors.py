"""k-nearest-neighbour classification on embeddings."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.learn.base import Choice, EmbeddingClassifier, Examples, Part, choose, learn_and_validation, row_blocks

NEIGHBOURS = (1, 3, 5, 9, 15, 25)
SHARPNESSES = (0.0, 10.0, 30.0, 100.0)  # a vote weighs exp(sharpness * cosine)
_TINY = 1e-6


class NearestNeighbours(EmbeddingClassifier):
    """k-nearest neighbours: votes of the k nearest pictures, each weighing exp(sharpness * cosine).

    Parameters
    ----------
    normalize : bool, default False
        Divide each row by its length first. Without it a row of another length than 1 is an error: it is no embedding.
    seed : int, default 0
        Of the pictures held back.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
        Labels, sorted.
    n_features_in_ : int
        Width of the embeddings.
    choice_ : Choice
        Which (k, sharpness) was chosen on validation.

    References
    ----------
    .. [1] T. Cover and P. Hart, "Nearest Neighbor Pattern Classification", IEEE Trans. Information Theory 1967.
    .. [2] Z. Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.

    Examples
    --------
    >>> from clipkit.learn import NearestNeighbours
    >>> embeddings = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    >>> knn = NearestNeighbours().fit(embeddings, ["cat"] * 5 + ["dog"] * 5)
    >>> knn.predict(np.eye(2)).tolist()
    ['cat', 'dog']
    """

    choice_: Choice[tuple[int, float]] | None
    _known: Examples
    _learned = "_known"

    def __init__(self, *, normalize: bool = False, seed: int = 0) -> None:
        self.normalize, self.seed = normalize, seed

    def fit(self, X: npt.ArrayLike, y: Labels, *, validation: Part | None = None) -> Self:  # noqa: N803
        """Store labelled embeddings, and choose k and sharpness.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Of the pictures.
        y : sequence or ndarray of shape (n,)
            Two classes or more.
        validation : tuple, optional
            (embeddings, labels) to choose on; by default a fifth of each class. Votes in the end, too.

        Returns
        -------
        NearestNeighbours
            Itself.
        """
        train, held, everything = learn_and_validation(self, X, y, validation)
        near = _nearest(held.rows, train.rows, max(NEIGHBOURS))
        settings = [pair for pair in product(NEIGHBOURS, SHARPNESSES) if pair[0] <= len(train)]
        self.choice_ = choose(settings, lambda pair: self._votes(near, train, *pair), held.targets)
        self._known = everything
        return self

    def logits(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803  scikit-learn's name
        """Logarithm of each class's share of the votes.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        rows = self._rows(X)
        assert self.choice_ is not None
        k, sharpness = self.choice_.setting
        return self._votes(_nearest(rows, self._known.rows, k), self._known, k, sharpness)

    def _votes(self, near: _Near, known: Examples, k: int, sharpness: float) -> FloatArray:
        cosines, places = near.cosines[:, :k], known.targets[near.places[:, :k]]
        weights = np.exp(sharpness * (cosines - cosines[:, :1]))
        votes = np.zeros((len(places), len(self.classes_)), np.float32)
        np.add.at(votes, (np.arange(len(places))[:, None], places), weights)
        return np.asarray(np.log(votes / votes.sum(axis=1, keepdims=True) + _TINY), dtype=np.float32)


class _Near(NamedTuple):
    """The nearest of each row, nearest first: both (n, k)."""

    cosines: FloatArray
    places: npt.NDArray[np.int64]


def _nearest(rows: FloatArray, known: FloatArray, k: int) -> _Near:
    k = min(k, len(known))
    near = _Near(np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64))
    for block in row_blocks(len(rows), len(known)):
        cosines = rows[block] @ known.T
        chosen = np.sort(np.argpartition(-cosines, k - 1, axis=1)[:, :k], axis=1)  # equal ones in order of the rows
        order = np.argsort(-np.take_along_axis(cosines, chosen, axis=1), axis=1, kind="stable")
        near.places[block] = np.take_along_axis(chosen, order, axis=1)
        near.cosines[block] = np.take_along_axis(cosines, near.places[block], axis=1)
    return near
