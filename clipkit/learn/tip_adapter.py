"""Tip-Adapter and Tip-Adapter-F: a cache of labelled pictures beside the text classifier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.errors import QueryError
from clipkit.learn.base import (
    BLOCK_SCORES,
    Choice,
    EmbeddingClassifier,
    Examples,
    Part,
    aligned,
    choose,
    learn_and_validation,
    one_hot,
    row_blocks,
)

ALPHAS = (0.0, *(float(f"{10 ** (third / 3):.3g}") for third in range(-3, 8)))  # 0, and 0.1 to 215
BETAS = (1.0, 3.0, 5.5, 10.0, 20.0, 40.0, 80.0)  # 5.5 is the paper's; the starter's cosines lie closer together
STEPS, RATE = 100, 1e-3  # of Tip-Adapter-F's AdamW; the rate is the paper's
LOOKS = (10, 25, 50, 100)
QUERIES = 256  # the paper's batch; at least so many train the keys at a time, all of them up to 2,048 pictures


class TipAdapter(EmbeddingClassifier):
    """Tip-Adapter: zero-shot logits and a cache of labelled pictures.

    Logits are those of zero-shot plus alpha times the sum of exp(-beta (1 - cosine)) over the pictures of each class.

    Parameters
    ----------
    zeroshot : Head, optional
        Of the same classes, for projected embeddings. Without one the cache of pictures answers alone.
    alpha : float, optional
        Weight of the cache; 0 is zero-shot.
    beta : float, optional
        Sharpness. What is not given is chosen on validation.
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
    alpha_, beta_ : float
        What is used. A chosen alpha shrinks as much as the number of keys grows when validation pictures join them.
    choice_ : Choice or None
        Which (alpha, beta) was chosen on validation; None where both were given.

    References
    ----------
    .. [1] R. Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022.

    Examples
    --------
    >>> from clipkit.datasets import embed_once
    >>> from clipkit.learn import TipAdapter
    >>> encoder = clipkit.load_encoder("starter")
    >>> animals = embed_once(clipkit.load_dataset("animals"), encoder)
    >>> zeroshot = clipkit.ZeroShotClassifier(encoder, ["cat", "other"]).head
    >>> adapter = TipAdapter(zeroshot, alpha=1.0, beta=5.5).fit(animals.embeddings, animals.dataset.labels)
    >>> adapter.predict(encoder.encode_images(["photos/chelsea.png"])).tolist()
    ['cat']
    """

    alpha_: float
    beta_: float
    choice_: Choice[Any] | None
    _known: Examples
    _learned = "_known"

    def __init__(
        self,
        zeroshot: Head | None = None,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        self.zeroshot, self.alpha, self.beta, self.normalize, self.seed = zeroshot, alpha, beta, normalize, seed

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803  scikit-learn's name
        y: Labels,
        *,
        validation: Part | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Store labelled embeddings as keys, and choose alpha and beta.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Projected embeddings of the pictures.
        y : sequence or ndarray of shape (n,)
            Two classes or more, all of them in the zero-shot head.
        validation : tuple, optional
            (embeddings, labels) to choose on; by default a fifth of each class. Keys in the end, too.
        sample_weight : array_like of shape (n,), optional
            What each picture weighs, those of validation 1 each; one that weighs 0 is left out. By default all weigh 1.

        Returns
        -------
        TipAdapter
            Itself.

        Raises
        ------
        DatasetError
            If the zero-shot head lacks a class.
        ModelMismatch
            If the zero-shot head reads other embeddings.
        QueryError
            If alpha is 0 and there is no zero-shot head: nothing would be left.
        """
        if self.zeroshot is None and self.alpha == 0:
            raise QueryError("alpha = 0 leaves zero-shot alone, and there is no head of it", hint="give zeroshot")
        if self.alpha is not None and self.beta is not None:
            train, held = self._take(X, y, validation, sample_weight)
            self.choice_ = None
            return self._set(train + held if held else train, self.alpha, self.beta)
        train, held, everything = learn_and_validation(self, X, y, validation, sample_weight)
        self._align(train)
        self.choice_ = choose_mixture(self._start, train, held, alpha=self.alpha, beta=self.beta)
        alpha, beta = self.choice_.setting
        shrink = 1.0 if self.alpha is not None else train.weight / everything.weight
        return self._set(everything, alpha * shrink, beta)

    def logits(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Logits of the classes, a column for each.

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
        return self._start.logits(rows) + np.float32(self.alpha_) * affinity(rows, self._known, self._start, self.beta_)

    def _align(self, known: Examples) -> None:
        self._start = aligned(self.zeroshot, self.classes_, known.rows.shape[1])

    def _set(self, known: Examples, alpha: float, beta: float) -> Self:
        self._align(known)
        self.alpha_, self.beta_, self._known = alpha, beta, known
        return self


class TipAdapterF(TipAdapter):
    """Tip-Adapter-F: Tip-Adapter whose keys are trained.

    AdamW on all pictures at once, of more than 2,048 on a part drawn for each step. The paper trains on augmented
    views; with fixed embeddings a picture would only ever ask itself, so each is classified by the keys of the others.
    The number of steps, alpha and beta are chosen on validation; no steps at all, or alpha = 0, is among the choices.

    Parameters
    ----------
    zeroshot : Head, optional
        Of the same classes, for projected embeddings. Without one the cache of pictures answers alone.
    alpha, beta : None
        Refused: both are always chosen.
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
    alpha_, beta_ : float
        What is used.
    choice_ : Choice
        Which (steps, alpha, beta) was chosen on validation.

    References
    ----------
    .. [1] R. Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022.

    Examples
    --------
    >>> from clipkit.datasets import embed_once
    >>> from clipkit.learn import TipAdapterF
    >>> encoder = clipkit.load_encoder("starter")
    >>> animals = embed_once(clipkit.load_dataset("animals"), encoder)
    >>> zeroshot = clipkit.ZeroShotClassifier(encoder, ["cat", "other"]).head
    >>> adapter = TipAdapterF(zeroshot).fit(animals.embeddings, animals.dataset.labels)
    >>> adapter.predict(encoder.encode_images(["photos/chelsea.png"])).tolist()
    ['cat']
    """

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803  scikit-learn's name
        y: Labels,
        *,
        validation: Part | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Train keys from labelled embeddings, and choose the number of steps, alpha and beta.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Projected embeddings of the pictures.
        y : sequence or ndarray of shape (n,)
            Two classes or more, all of them in the zero-shot head.
        validation : tuple, optional
            (embeddings, labels) to choose on; by default a fifth of each class. Keys in the end, too.
        sample_weight : array_like of shape (n,), optional
            What each picture weighs, those of validation 1 each; one that weighs 0 is left out. By default all weigh 1.

        Returns
        -------
        TipAdapterF
            Itself.

        Raises
        ------
        QueryError
            If alpha or beta was given.
        """
        if self.alpha is not None or self.beta is not None:
            raise QueryError("TipAdapterF chooses alpha and beta itself", hint="TipAdapter, which takes them")
        train, held, everything = learn_and_validation(self, X, y, validation, sample_weight)
        self._align(train)
        start, untrained = self._start, choose_mixture(self._start, train, held)
        alpha, beta = max((rated for rated in untrained.tried if rated[0][0] > 0), key=lambda rated: rated[1])[0]
        keys = {0: train, **dict(_trained_keys(start, train, alpha, beta))}
        choices = {steps: choose_mixture(start, known, held) for steps, known in keys.items()}
        given = {steps: _mixed(start, keys[steps], held, *choice.setting) for steps, choice in choices.items()}
        best = choose(keys, lambda steps: given[steps], held.targets, held.weights)
        chosen = [(steps, *choices[steps].setting) for steps in keys]
        tried = tuple((setting, rated[1]) for setting, rated in zip(chosen, best.tried, strict=True))
        self.choice_ = Choice((best.setting, *choices[best.setting].setting), best.is_right, tried)
        shrink = train.weight / everything.weight
        final = {0: everything, **dict(_trained_keys(start, everything, alpha * shrink, beta, last=best.setting))}
        _, alpha, beta = self.choice_.setting
        return self._set(final[best.setting], alpha * shrink, beta)


def affinity(rows: FloatArray, known: Examples, start: Head, beta: float) -> FloatArray:
    """Tip-Adapter's cache: the sum of exp(-beta (1 - cosine)) over the keys of each class (n, c)."""
    members = one_hot(known, len(start.classes))
    sums = np.empty((len(rows), len(start.classes)), np.float32)
    for block in row_blocks(len(rows), len(known)):
        sums[block] = np.exp(np.float32(-beta) * (1 - rows[block] @ known.rows.T)) @ members
    return sums


def choose_mixture(
    start: Head, known: Examples, held: Examples, *, alpha: float | None = None, beta: float | None = None
) -> Choice[tuple[float, float]]:
    """The best (alpha, beta) for the pictures in `held`, or the better one of those beside the one that is given.

    Zero-shot, alpha = 0, is asked first where alpha is to be chosen.
    """
    betas = BETAS if beta is None else (beta,)
    sums = {beta: affinity(held.rows, known, start, beta) for beta in betas}
    given = start.logits(held.rows)
    settings = list(product((alpha,), betas)) if alpha is not None else [(0.0, betas[0]), *product(ALPHAS[1:], betas)]
    return choose(settings, lambda pair: given + np.float32(pair[0]) * sums[pair[1]], held.targets, held.weights)


def _mixed(start: Head, known: Examples, held: Examples, alpha: float, beta: float) -> FloatArray:
    return start.logits(held.rows) + np.float32(alpha) * affinity(held.rows, known, start, beta)


def _trained_keys(
    start: Head, train: Examples, alpha: float, beta: float, *, last: int = STEPS
) -> Iterator[tuple[int, Examples]]:
    """(steps, examples whose rows are the trained keys) at each of LOOKS up to `last`."""
    import torch

    rows = torch.from_numpy(train.rows)
    targets, members = torch.from_numpy(train.targets), torch.from_numpy(one_hot(train, len(start.classes)))
    each = torch.from_numpy(train.each)
    given = torch.from_numpy(start.logits(train.rows))
    keys = rows.clone().requires_grad_()
    optimiser = torch.optim.AdamW([keys], lr=RATE, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    rng = np.random.default_rng(0)
    for step in range(1, last + 1):
        optimiser.zero_grad()
        asked = torch.from_numpy(np.sort(rng.permutation(len(rows))[: max(QUERIES, BLOCK_SCORES // len(rows))]))
        near = torch.exp(-beta * (1 - rows[asked] @ keys.T)).scatter(1, asked[:, None], 0.0)  # not its own key
        loss = torch.nn.functional.cross_entropy(
            given[asked] + alpha * near @ members, targets[asked], reduction="none"
        )
        ((loss * each[asked]).sum() / each[asked].sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step in LOOKS:
            yield step, Examples(keys.detach().numpy().copy(), train.targets, train.weights)
