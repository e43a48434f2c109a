"""LP++: a blend of text and picture prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.errors import NotFittedError
from clipkit.learn.base import Choice, EmbeddingClassifier, Part, aligned, choose, learn_and_validation, linear_head
from clipkit.learn.softmax_regression import Correction, correct

if TYPE_CHECKING:
    from clipkit.models.encoder import Encoder


STRENGTHS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-4, 7))


class TextBlend(EmbeddingClassifier):
    """Logits are embeddings @ (w + a t): a learned row and a learned share of the text's row for each class.

    LP++ (Huang et al., CVPR 2024, "A surprisingly strong linear probe for few-shot CLIP"). There the optimiser's step
    sizes hold it back; here the same logits are found by L-BFGS with a penalty on w and on a - 1, whose weight is
    chosen on validation, C = 0 being zero-shot.

    Attributes:
        classes_: labels (c,), sorted. coef_: (c, d). intercept_: (c,). scale_: (c,), the share of each text.
        choice_: which C was chosen.
    """

    coef_: FloatArray
    intercept_: FloatArray
    scale_: FloatArray

    def __init__(self, zeroshot: Head, *, seed: int = 0) -> None:
        self.zeroshot, self.seed = zeroshot, seed
        self.choice_: Choice[float] | None = None
        self._width: int | None = None

    def fit(self, embeddings: npt.ArrayLike, labels: Labels, *, validation: Part | None = None) -> Self:
        """Learn from embeddings (n, d) and labels (n,); choose on `validation`, or on a fifth of each class."""
        train, held, everything = learn_and_validation(self, embeddings, labels, validation)
        start = aligned(self.zeroshot, self.classes_, train.rows.shape[1])
        given = start.logits(train.rows)
        guess: Correction | None = None
        logits: dict[float, FloatArray] = {}
        for strength in (0.0, *STRENGTHS):
            guess = correct(train.rows, given, train.targets, C=strength, with_scale=True, guess=guess)
            logits[strength] = _corrected(start, guess, held.rows)
        self.choice_ = choose(logits, lambda strength: logits[strength], held.targets)
        best = self.choice_.setting
        found = correct(everything.rows, start.logits(everything.rows), everything.targets, C=best, with_scale=True)
        self.scale_ = 1 + found.scale
        share = np.float32(start.temperature) * self.scale_
        self.coef_ = share[:, None] * start.weight + found.weight
        self.intercept_ = share * start.bias + found.bias
        self._width = self.coef_.shape[1]
        return self

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Logits (n, c), also for two classes."""
        return np.asarray(self._rows(X, self._width) @ self.coef_.T + self.intercept_, dtype=np.float32)

    def head(self, encoder: Encoder) -> Head:
        """The classifier as a file can keep it, for the embeddings of `encoder`."""
        if self._width is None:
            raise NotFittedError("this TextBlend has learned nothing yet", hint="fit(embeddings, labels)")
        return linear_head(self.classes_, self.coef_, self.intercept_, encoder, space="projected")


def _corrected(start: Head, found: Correction, rows: FloatArray) -> FloatArray:
    given = start.logits(rows)
    return np.asarray(given + rows @ found.weight.T + found.bias + given * found.scale, dtype=np.float32)
