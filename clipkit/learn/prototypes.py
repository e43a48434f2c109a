"""Class prototypes: the nearest mean embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.calibration import best_temperature
from clipkit.classify.head import Head
from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.learn.base import Choice, EmbeddingClassifier, Examples, Part, linear_head, one_hot

if TYPE_CHECKING:
    from clipkit.models.encoder import Encoder


class Prototypes(EmbeddingClassifier):
    """The class whose mean picture is nearest: prototypical networks without the training (Snell et al. 2017).

    Logits are minus the squared distance to each mean, which is linear in the embedding; validation only says how sure
    they are, so that there is nothing to choose.

    Attributes:
        classes_: labels (c,), sorted. coef_: (c, d). intercept_: (c,).
    """

    coef_: FloatArray
    intercept_: FloatArray

    def __init__(self, *, space: str = "projected", seed: int = 0) -> None:
        self.space, self.seed = space, seed
        self.choice_: Choice[Any] | None = None  # nothing is chosen
        self._width: int | None = None

    def fit(self, embeddings: npt.ArrayLike, labels: Labels, *, validation: Part | None = None) -> Self:
        """Average embeddings (n, d) by labels (n,); the temperature is that of `validation`, if given."""
        train, held = self._take(embeddings, labels, validation)
        weight, bias = self._means(train)
        scale = np.float32(best_temperature(held.rows @ weight.T + bias, held.targets) if held else 1)
        weight, bias = self._means(train + held) if held else (weight, bias)
        self.coef_, self.intercept_, self._width = scale * weight, scale * bias, weight.shape[1]
        return self

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Logits (n, c), also for two classes."""
        return np.asarray(self._rows(X, self._width) @ self.coef_.T + self.intercept_, dtype=np.float32)

    def head(self, encoder: Encoder) -> Head:
        """The classifier as a file can keep it, for the embeddings of `encoder`."""
        self._rows(np.empty((0, self._width or 0)), self._width)
        return linear_head(self.classes_, self.coef_, self.intercept_, encoder, space=self.space)

    def _means(self, examples: Examples) -> tuple[FloatArray, FloatArray]:
        members = one_hot(examples, len(self.classes_))
        means = members.T @ examples.rows / members.sum(axis=0)[:, None]
        return 2 * means, -(means**2).sum(axis=1)  # |x - m|^2 without |x|^2, which all classes share
