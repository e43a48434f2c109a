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
    """Zero-shot logits plus alpha times the sum of exp(-beta (1 - cosine)) over the pictures of each class.

    Tip-Adapter, Zhang et al., ECCV 2022. alpha (0 is zero-shot) and beta are chosen on validation, unless both are
    given; with the pictures to choose on among the keys in the end, alpha shrinks as much as their number grows.

    Attributes:
        classes_: labels (c,), sorted. alpha_, beta_: what is used. choice_: which (alpha, beta) was chosen.
    """

    alpha_: float
    beta_: float

    def __init__(self, zeroshot: Head, *, alpha: float | None = None, beta: float | None = None, seed: int = 0) -> None:
        self.zeroshot, self.alpha, self.beta, self.seed = zeroshot, alpha, beta, seed
        self.choice_: Choice[Any] | None = None
        self._known: Examples | None = None

    def fit(self, embeddings: npt.ArrayLike, labels: Labels, *, validation: Part | None = None) -> Self:
        """Keep embeddings (n, d) and labels (n,) as keys; choose on `validation`, or on a fifth of each class."""
        if self.alpha is not None and self.beta is not None:
            train, held = self._take(embeddings, labels, validation)
            self._set(train + held if held else train, self.alpha, self.beta)
            return self
        train, held, everything = learn_and_validation(self, embeddings, labels, validation)
        self._set(train, 0.0, 1.0)
        self.choice_ = choose_mixture(self._start, train, held)
        alpha, beta = self.choice_.setting
        self._set(everything, alpha * len(train) / len(everything), beta)
        return self

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Logits (n, c), also for two classes."""
        rows = self._rows(X, self._known.rows.shape[1] if self._known else None)
        assert self._known is not None
        return self._start.logits(rows) + np.float32(self.alpha_) * affinity(rows, self._known, self._start, self.beta_)

    def _set(self, known: Examples, alpha: float, beta: float) -> None:
        self._start = aligned(self.zeroshot, self.classes_, known.rows.shape[1])
        self._known, self.alpha_, self.beta_ = known, alpha, beta


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained: Tip-Adapter-F of the same paper.

    AdamW on all pictures at once, of more than 2,048 on a part drawn for each step. The paper trains on augmented
    views; with fixed embeddings a picture would only ever ask itself, so each is classified by the keys of the others.
    How many steps, alpha and beta are chosen on validation; no steps at all, or alpha = 0, is among the choices.

    Attributes:
        As TipAdapter. choice_: which (steps, alpha, beta) was chosen.
    """

    def fit(self, embeddings: npt.ArrayLike, labels: Labels, *, validation: Part | None = None) -> Self:
        """Train keys from embeddings (n, d) and labels (n,); choose on `validation`, or on a fifth of each class."""
        train, held, everything = learn_and_validation(self, embeddings, labels, validation)
        self._set(train, 0.0, 1.0)
        start, untrained = self._start, choose_mixture(self._start, train, held)
        alpha, beta = max((rated for rated in untrained.tried if rated[0][0] > 0), key=lambda rated: rated[1])[0]
        keys = {0: train, **dict(_trained_keys(start, train, alpha, beta))}
        choices = {steps: choose_mixture(start, known, held) for steps, known in keys.items()}
        given = {steps: _mixed(start, keys[steps], held, *choice.setting) for steps, choice in choices.items()}
        best = choose(keys, lambda steps: given[steps], held.targets)
        chosen = [(steps, *choices[steps].setting) for steps in keys]
        tried = tuple((setting, rated[1]) for setting, rated in zip(chosen, best.tried, strict=True))
        self.choice_ = Choice((best.setting, *choices[best.setting].setting), best.is_right, tried)
        shrink = len(train) / len(everything)
        final = {0: everything, **dict(_trained_keys(start, everything, alpha * shrink, beta, last=best.setting))}
        self._set(final[best.setting], choices[best.setting].setting[0] * shrink, choices[best.setting].setting[1])
        return self


def affinity(rows: FloatArray, known: Examples, start: Head, beta: float) -> FloatArray:
    """Tip-Adapter's cache: the sum of exp(-beta (1 - cosine)) over the keys of each class (n, c)."""
    members = one_hot(known, len(start.classes))
    sums = np.empty((len(rows), len(start.classes)), np.float32)
    for block in row_blocks(len(rows), len(known)):
        sums[block] = np.exp(np.float32(-beta) * (1 - rows[block] @ known.rows.T)) @ members
    return sums


def choose_mixture(start: Head, known: Examples, held: Examples) -> Choice[tuple[float, float]]:
    """The best (alpha, beta) for the pictures in `held`; zero-shot, alpha = 0, is asked first."""
    sums = {beta: affinity(held.rows, known, start, beta) for beta in BETAS}
    given = start.logits(held.rows)
    settings = [(0.0, BETAS[0]), *product(ALPHAS[1:], BETAS)]
    return choose(settings, lambda pair: given + np.float32(pair[0]) * sums[pair[1]], held.targets)


def _mixed(start: Head, known: Examples, held: Examples, alpha: float, beta: float) -> FloatArray:
    return start.logits(held.rows) + np.float32(alpha) * affinity(held.rows, known, start, beta)


def _trained_keys(
    start: Head, train: Examples, alpha: float, beta: float, *, last: int = STEPS
) -> Iterator[tuple[int, Examples]]:
    """(steps, examples whose rows are the trained keys) at each of LOOKS up to `last`."""
    import torch

    rows = torch.from_numpy(train.rows)
    targets, members = torch.from_numpy(train.targets), torch.from_numpy(one_hot(train, len(start.classes)))
    given = torch.from_numpy(start.logits(train.rows))
    keys = rows.clone().requires_grad_()
    optimiser = torch.optim.AdamW([keys], lr=RATE, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    rng = np.random.default_rng(0)
    for step in range(1, last + 1):
        optimiser.zero_grad()
        asked = torch.from_numpy(np.sort(rng.permutation(len(rows))[: max(QUERIES, BLOCK_SCORES // len(rows))]))
        near = torch.exp(-beta * (1 - rows[asked] @ keys.T)).scatter(1, asked[:, None], 0.0)  # not its own key
        loss = torch.nn.functional.cross_entropy(given[asked] + alpha * near @ members, targets[asked])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step in LOOKS:
            yield step, Examples(keys.detach().numpy().copy(), train.targets)
