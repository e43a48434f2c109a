"""LP++: a blend of text and picture prototypes."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.learn.base import Choice, Examples, LinearClassifier, Part, aligned, choose, learn_and_validation
from clipkit.learn.softmax_regression import Correction, correct

STRENGTHS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-4, 7))


class TextBlend(LinearClassifier):
    """LP++: a linear probe that blends text and picture prototypes.

    Logits are embeddings @ (w + a t): a learned row w and a learned share a of the text's row t for each class. The
    paper's step sizes keep it near its start; here the same logits are found by L-BFGS with a penalty on w and on
    a - 1, whose weight is chosen on validation, C = 0 being zero-shot.

    Parameters
    ----------
    zeroshot : Head, optional
        Of the same classes, for projected embeddings. Without one there is nothing to blend: a linear probe is left.
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
    coef_ : ndarray of shape (c, d), float32
        One row a class.
    intercept_ : ndarray of shape (c,), float32
        One number a class.
    scale_ : ndarray of shape (c,), float32
        The share of each text.
    choice_ : Choice
        Which C was chosen on validation.

    References
    ----------
    .. [1] Y. Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024.

    Examples
    --------
    >>> from clipkit.datasets import embed_once
    >>> from clipkit.learn import TextBlend
    >>> encoder = clipkit.load_encoder("starter")
    >>> animals = embed_once(clipkit.load_dataset("animals"), encoder)
    >>> zeroshot = clipkit.ZeroShotClassifier(encoder, ["cat", "other"]).head
    >>> blend = TextBlend(zeroshot).fit(animals.embeddings, animals.dataset.labels)
    >>> blend.predict(encoder.encode_images(["photos/chelsea.png"])).tolist()
    ['cat']
    """

    scale_: FloatArray
    choice_: Choice[float] | None

    def __init__(self, zeroshot: Head | None = None, *, normalize: bool = False, seed: int = 0) -> None:
        self.zeroshot, self.normalize, self.seed = zeroshot, normalize, seed

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803  scikit-learn's name
        y: Labels,
        *,
        validation: Part | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Learn from labelled embeddings, and choose C.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Projected embeddings of the pictures.
        y : sequence or ndarray of shape (n,)
            Two classes or more, all of them in the zero-shot head.
        validation : tuple, optional
            (embeddings, labels) to choose on; by default a fifth of each class. Learned from in the end, too.
        sample_weight : array_like of shape (n,), optional
            What each picture weighs, those of validation 1 each; one that weighs 0 is left out. By default all weigh 1.

        Returns
        -------
        TextBlend
            Itself.

        Raises
        ------
        DatasetError
            If the zero-shot head lacks a class.
        ModelMismatch
            If the zero-shot head reads other embeddings.
        """
        train, held, everything = learn_and_validation(self, X, y, validation, sample_weight)
        start = aligned(self.zeroshot, self.classes_, train.rows.shape[1])
        guess: Correction | None = None
        logits: dict[float, FloatArray] = {}
        for strength in (0.0, *STRENGTHS):
            guess = _correct(start, train, strength, guess)
            logits[strength] = _corrected(start, guess, held.rows)
        self.choice_ = choose(logits, lambda strength: logits[strength], held.targets, held.weights)
        found = _correct(start, everything, self.choice_.setting)
        self.scale_ = 1 + found.scale
        share = np.float32(start.temperature) * self.scale_
        self.intercept_ = share * start.bias + found.bias
        self.coef_ = share[:, None] * start.weight + found.weight
        return self


def _correct(start: Head, examples: Examples, strength: float, guess: Correction | None = None) -> Correction:
    given = start.logits(examples.rows)
    return correct(
        examples.rows,
        given,
        examples.targets,
        C=strength,
        with_scale=True,
        guess=guess,
        weights=examples.weights,
    )


def _corrected(start: Head, found: Correction, rows: FloatArray) -> FloatArray:
    given = start.logits(rows)
    return np.asarray(given + rows @ found.weight.T + found.bias + given * found.scale, dtype=np.float32)
