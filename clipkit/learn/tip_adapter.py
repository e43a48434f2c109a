"""What a few labelled pictures a class buy: neighbours, prototypes, Tip-Adapter and text blended with pictures.

The protocol is CoOp's (Zhou et al. 2022, "Learning to prompt for vision-language models"): a few pictures a class to
learn from, min(4, shots) more to choose on. What is chosen there is then made once more from both, so that every
method has used the same labels. Where a method starts from a zero-shot head, that head itself is among the choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.classify.zeroshot import best_temperature
from clipkit.errors import NotFittedError
from clipkit.learn.base import (
    Choice,
    Examples,
    Labels,
    Learner,
    Part,
    Shots,
    aligned,
    choose,
    draw_shots,
    hold_back,
    linear_head,
)
from clipkit.learn.softmax_regression import Correction, correct
from clipkit.store.records import FloatArray

if TYPE_CHECKING:
    from clipkit.models.openclip import Encoder

__all__ = ["NearestNeighbours", "Prototypes", "Shots", "TextBlend", "TipAdapter", "TipAdapterF", "draw_shots"]

NEIGHBOURS = (1, 3, 5, 9, 15, 25)
SHARPNESSES = (0.0, 10.0, 30.0, 100.0)  # a vote weighs exp(sharpness * cosine)
ALPHAS = (0.0, *(float(f"{10 ** (third / 3):.3g}") for third in range(-3, 8)))  # 0, and 0.1 to 215
BETAS = (1.0, 3.0, 5.5, 10.0, 20.0, 40.0, 80.0)  # 5.5 is the paper's; the starter's cosines lie closer together
STRENGTHS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-4, 7))
STEPS, RATE = 100, 1e-3  # of Tip-Adapter-F's AdamW; the rate is the paper's
LOOKS = (10, 25, 50, 100)
QUERIES = 256  # the paper's batch; at least so many train the keys at a time, all of them up to 2,048 pictures
BLOCK_SCORES = 1 << 22  # 16 MB of cosines at a time, whatever the number of pictures
_TINY = 1e-6


class NearestNeighbours(Learner):
    """Votes of the k nearest pictures, each weighing exp(sharpness * cosine): Cover and Hart 1967, Wu et al. 2018.

    Attributes:
        classes_: labels (c,), sorted. choice_: which (k, sharpness) was chosen.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._known: Examples | None = None
        self.choice_: Choice[tuple[int, float]] | None = None

    def fit(self, embeddings: npt.ArrayLike, labels: Labels, *, validation: Part | None = None) -> Self:
        """Keep embeddings (n, d) and labels (n,); choose on `validation`, or on a fifth of each class."""
        train, held, self._known = _parts(self, embeddings, labels, validation)
        near = _nearest(held.rows, train.rows, max(NEIGHBOURS))
        settings = [pair for pair in product(NEIGHBOURS, SHARPNESSES) if pair[0] <= len(train)]
        self.choice_ = choose(settings, lambda pair: self._votes(near, train, *pair), held.targets)
        return self

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803  scikit-learn's name
        """The logarithm of each class's share of the votes (n, c)."""
        rows = self._rows(X, self._known.rows.shape[1] if self._known else None)
        assert self._known is not None
        assert self.choice_ is not None
        k, sharpness = self.choice_.setting
        return self._votes(_nearest(rows, self._known.rows, k), self._known, k, sharpness)

    def _votes(self, near: _Near, known: Examples, k: int, sharpness: float) -> FloatArray:
        cosines, places = near.cosines[:, :k], known.targets[near.places[:, :k]]
        weights = np.exp(sharpness * (cosines - cosines[:, :1]))
        votes = np.zeros((len(places), len(self.classes_)), np.float32)
        np.add.at(votes, (np.arange(len(places))[:, None], places), weights)
        return np.asarray(np.log(votes / votes.sum(axis=1, keepdims=True) + _TINY), dtype=np.float32)


class Prototypes(Learner):
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
        members = _one_hot(examples, len(self.classes_))
        means = members.T @ examples.rows / members.sum(axis=0)[:, None]
        return 2 * means, -(means**2).sum(axis=1)  # |x - m|^2 without |x|^2, which all classes share


class TipAdapter(Learner):
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
        train, held, everything = _parts(self, embeddings, labels, validation)
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
        train, held, everything = _parts(self, embeddings, labels, validation)
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


class TextBlend(Learner):
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
        train, held, everything = _parts(self, embeddings, labels, validation)
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


class _Near(NamedTuple):
    """The nearest of each row, nearest first: both (n, k)."""

    cosines: FloatArray
    places: npt.NDArray[np.int64]


def affinity(rows: FloatArray, known: Examples, start: Head, beta: float) -> FloatArray:
    """Tip-Adapter's cache: the sum of exp(-beta (1 - cosine)) over the keys of each class (n, c)."""
    members = _one_hot(known, len(start.classes))
    sums = np.empty((len(rows), len(start.classes)), np.float32)
    for block in _blocks(len(rows), len(known)):
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
    targets, members = torch.from_numpy(train.targets), torch.from_numpy(_one_hot(train, len(start.classes)))
    given = torch.from_numpy(start.logits(train.rows))
    keys = rows.clone().requires_grad_()
    optimiser = torch.optim.AdamW([keys], lr=RATE, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    dice = np.random.default_rng(0)
    for step in range(1, last + 1):
        optimiser.zero_grad()
        asked = torch.from_numpy(np.sort(dice.permutation(len(rows))[: max(QUERIES, BLOCK_SCORES // len(rows))]))
        near = torch.exp(-beta * (1 - rows[asked] @ keys.T)).scatter(1, asked[:, None], 0.0)  # not its own key
        loss = torch.nn.functional.cross_entropy(given[asked] + alpha * near @ members, targets[asked])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step in LOOKS:
            yield step, Examples(keys.detach().numpy().copy(), train.targets)


def _corrected(start: Head, found: Correction, rows: FloatArray) -> FloatArray:
    given = start.logits(rows)
    return np.asarray(given + rows @ found.weight.T + found.bias + given * found.scale, dtype=np.float32)


def _parts(
    learner: Any, embeddings: npt.ArrayLike, labels: Labels, validation: Part | None
) -> tuple[Examples, Examples, Examples]:
    """(to learn from, to choose on, both)."""
    train, held = learner._take(embeddings, labels, validation)
    if held is None:
        everything, (train, held) = train, hold_back(train, seed=learner.seed)
        return train, held, everything
    return train, held, train + held


def _nearest(rows: FloatArray, known: FloatArray, k: int) -> _Near:
    k = min(k, len(known))
    near = _Near(np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64))
    for block in _blocks(len(rows), len(known)):
        cosines = rows[block] @ known.T
        chosen = np.sort(np.argpartition(-cosines, k - 1, axis=1)[:, :k], axis=1)  # equal ones in order of the rows
        order = np.argsort(-np.take_along_axis(cosines, chosen, axis=1), axis=1, kind="stable")
        near.places[block] = np.take_along_axis(chosen, order, axis=1)
        near.cosines[block] = np.take_along_axis(cosines, near.places[block], axis=1)
    return near


def _blocks(count: int, width: int) -> list[slice]:
    step = max(1, BLOCK_SCORES // width)
    return [slice(start, start + step) for start in range(0, count, step)]


def _one_hot(examples: Examples, count: int) -> FloatArray:
    members = np.zeros((len(examples), count), np.float32)
    members[np.arange(len(examples)), examples.targets] = 1
    return members
