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
    normalize : bool, default False
        Divide each row by its length first. Without it a row of another length than 1 is an error: it is no embedding.
    seed : int, default 0
        Not used: nothing is drawn.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
        Labels, sorted.
    n_features_in_ : int
        Width of the embeddings.
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

    choice_: Choice[Any] | None

    def __init__(self, *, space: str = "projected", normalize: bool = False, seed: int = 0) -> None:
        self.space, self.normalize, self.seed = space, normalize, seed

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803  scikit-learn's name
        y: Labels,
        *,
        validation: Part | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Average labelled embeddings by class.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Of the pictures.
        y : sequence or ndarray of shape (n,)
            Two classes or more.
        validation : tuple, optional
            (embeddings, labels) to fit the temperature to; averaged in the end, too. Without it the temperature is 1.
        sample_weight : array_like of shape (n,), optional
            What each picture weighs, those of validation 1 each; one that weighs 0 is left out. By default all weigh 1.

        Returns
        -------
        Prototypes
            Itself.
        """
        train, held = self._take(X, y, validation, sample_weight)
        weight, bias = self._means(train)
        scale = np.float32(best_temperature(held.rows @ weight.T + bias, held.targets) if held else 1)
        weight, bias = self._means(train + held) if held else (weight, bias)
        self.choice_ = None  # nothing is chosen
        self.intercept_, self.coef_ = scale * bias, scale * weight
        return self

    def _means(self, examples: Examples) -> tuple[FloatArray, FloatArray]:
        members = one_hot(examples, len(self.classes_))
        means = members.T @ examples.rows / members.sum(axis=0)[:, None]
        return 2 * means, -(means**2).sum(axis=1)  # |x - m|^2 without |x|^2, which all classes share
