"""Softmax regression that starts from logits somebody else gave, and moves away from them only as far as labels ask."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray, IntArray

MAX_STEPS = 1000
TOLERANCE = 1e-4  # of the slope of the mean loss, as scikit-learn has it
Values = npt.NDArray[np.float64]


class Frame(NamedTuple):
    """Rows about their mean, in as few coordinates as they need: rows = mean + coordinates @ basis.

    Penalties are the same in it, because the basis keeps lengths, and fitting is quick and well conditioned: pictures
    of one model point much the same way, and a few of them span little of the space.
    """

    mean: FloatArray  # (d,)
    coordinates: FloatArray  # (n, r)
    basis: FloatArray | None  # (r, d), None for the axes themselves

    def whole(self, weight: Values) -> Values:
        """Weights (c, r) as weights (c, d)."""
        return weight if self.basis is None else weight @ self.basis


class Correction(NamedTuple):
    """What is added to given logits: rows @ weight.T + bias + given * scale. weight (c, d), bias (c,), scale (c,)."""

    weight: FloatArray
    bias: FloatArray
    scale: FloatArray


def on_one_thread() -> AbstractContextManager[object]:
    """BLAS without threads: products as small as a fit's took three times as long on two of them as on one."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits


def frame(rows: FloatArray, weights: FloatArray | None = None) -> Frame:
    """The frame of rows (n, d), about their mean by weights (n,): n coordinates where that is fewer than d."""
    mean = rows.mean(axis=0) if weights is None else np.average(rows, axis=0, weights=weights).astype(np.float32)
    centred = rows - mean
    if len(rows) >= rows.shape[1]:
        return Frame(mean, centred, None)
    basis, triangle = np.linalg.qr(centred.T)
    return Frame(mean, np.ascontiguousarray(triangle.T), np.ascontiguousarray(basis.T))


def correct(
    rows: FloatArray,
    given: FloatArray,
    targets: IntArray,
    *,
    C: float,  # noqa: N803  scikit-learn's name
    with_scale: bool = False,
    guess: Correction | None = None,
    weights: FloatArray | None = None,
) -> Correction:
    """The correction of the logits `given` (n, c) for rows (n, d) that is best for targets (n,), by L-BFGS.

    Minimised: C times the summed cross-entropy, as scikit-learn weighs it, plus half the squared length of weight, of
    bias, and of scale, which stays zero unless `with_scale`. C = 0 leaves everything as given. guess: where to begin.
    weights (n,): what each row weighs in the cross-entropy.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    count = given.shape[1]
    if C == 0:
        return Correction(np.zeros((count, rows.shape[1]), np.float32), *np.zeros((2, count), np.float32))
    place, shares = frame(rows, weights), _shares(weights, len(rows))
    width, spread = place.coordinates.shape[1], _spread(given, weights) or 1.0
    centre = given.mean(axis=0) if weights is None else (shares @ given).astype(np.float32)
    texts = ((given - centre) / spread).astype(np.float64)  # in which a scale is as heavy as a weight
    inputs = np.concatenate([place.coordinates, np.ones((len(rows), 1))], axis=1, dtype=np.float64)  # (n, r + 1)
    size = count * (width + 1)
    total = len(rows) if weights is None else float(weights.sum())
    loss = _penalised_loss(inputs, given, texts if with_scale else None, targets, shares, penalty=1 / (C * total))
    start = np.zeros(size + count * with_scale)
    if guess is not None:
        weight = guess.weight if place.basis is None else guess.weight @ place.basis.T
        bias = guess.bias + guess.weight @ place.mean + guess.scale * centre
        start[:size] = np.concatenate([weight, bias[:, None]], axis=1).ravel()
        start[size:] = spread * guess.scale if with_scale else []
    with on_one_thread():
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "gtol": TOLERANCE}).x
    weight = found[:size].reshape(count, width + 1)
    scale = found[size:] / spread if with_scale else np.zeros(count)
    rotated = place.whole(weight[:, :-1])
    bias = weight[:, -1] - rotated @ place.mean - scale * centre
    return Correction(*(part.astype(np.float32) for part in (rotated, bias, scale)))


def _penalised_loss(
    inputs: Values, given: FloatArray, texts: Values | None, targets: IntArray, shares: Values, *, penalty: float
) -> Callable[[Values], tuple[float, Values]]:
    """Mean cross-entropy of corrected logits, and its slope; shares (n,) of the mean sum to 1.

    What corrects `given` are weights on `inputs` (n, r + 1) and scales of `texts`. They come as one flat array, and
    `penalty` times half its squared length is added.
    """
    count = given.shape[1]
    size = count * inputs.shape[1]
    is_right = np.eye(count)[targets]

    def loss(flat: Values) -> tuple[float, Values]:
        logits = inputs @ flat[:size].reshape(count, -1).T + given
        if texts is not None:
            logits += texts * flat[size:]
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        sums = chances.sum(axis=1, keepdims=True)
        entropy = shares @ (np.log(sums[:, 0]) - (logits * is_right).sum(axis=1))
        wrong = (chances / sums - is_right) * shares[:, None]  # (n, c): the slope of the cross-entropy
        slope = [(wrong.T @ inputs).ravel(), (wrong * texts).sum(axis=0) if texts is not None else np.zeros(0)]
        return float(entropy + penalty * (flat @ flat) / 2), np.concatenate(slope) + penalty * flat

    return loss


def _shares(weights: FloatArray | None, count: int) -> Values:
    """What each row is of all together (n,)."""
    each = np.ones(count) if weights is None else weights.astype(np.float64)
    return np.asarray(each / each.sum())


def _spread(given: FloatArray, weights: FloatArray | None) -> float:
    """Standard deviation of all logits (n, c)."""
    if weights is None:
        return float(given.std())
    mean = np.average(given.mean(axis=1), weights=weights)
    return float(np.sqrt(np.average(((given - mean) ** 2).mean(axis=1), weights=weights)))
