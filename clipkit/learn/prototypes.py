"""Class prototypes: the nearest mean embedding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.calibration import best_temperature
from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.learn.base import Choice, Examples, LinearClassifier, Part, one_hot


class Prototypes(LinearClassifier):
    """Class prototypes: the class whose mean embedding is nearest.

    Prototypical networks without the training. Logits are minus the squared distance to each mean, which is linear in
    the embedding; validation only sets the temperature.

    Parameters
    ----------
    space : {"projected", "backbone"}, default "projected"
        What the embeddings are; a head remembers it.
    seed : int, default 0
        Not used: nothing is drawn.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
        Labels, sorted.
    coef_ : ndarray of shape (c, d), float32
        One row a class.
    intercept_ : ndarray of shape (c,), float32
        One number a class.
    choice_ : None
        Nothing is chosen.

    References
    ----------
    .. [1] J. Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017.

    Examples
    --------
    >>> from clipkit.learn import Prototypes
    >>> embeddings = np.repeat(np.eye(2, dtype=np.float32), 2, axis=0)
    >>> prototypes = Prototypes().fit(embeddings, ["cat", "cat", "dog", "dog"])
    >>> prototypes.predict(np.eye(2)).tolist()
    ['cat', 'dog']
    """

    def __init__(self, *, space: str = "projected", seed: int = 0) -> None:
        self.space, self.seed = space, seed
        self.choice_: Choice[Any] | None = None  # nothing is chosen

    def fit(self, embeddings: npt.ArrayLike, labels: Labels, *, validation: Part | None = None) -> Self:
        """Average labelled embeddings by class.

        Parameters
        ----------
        embeddings : array_like of shape (n, d)
            Of the pictures.
        labels : sequence or ndarray of shape (n,)
            Two classes or more.
        validation : tuple, optional
            (embeddings, labels) to fit the temperature to; averaged in the end, too. Without it the temperature is 1.

        Returns
        -------
        Prototypes
            Itself.
        """
        train, held = self._take(embeddings, labels, validation)
        weight, bias = self._means(train)
        scale = np.float32(best_temperature(held.rows @ weight.T + bias, held.targets) if held else 1)
        weight, bias = self._means(train + held) if held else (weight, bias)
        self.coef_, self.intercept_ = scale * weight, scale * bias
        return self

    def _means(self, examples: Examples) -> tuple[FloatArray, FloatArray]:
        members = one_hot(examples, len(self.classes_))
        means = members.T @ examples.rows / members.sum(axis=0)[:, None]
        return 2 * means, -(means**2).sum(axis=1)  # |x - m|^2 without |x|^2, which all classes share
