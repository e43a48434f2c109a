"""Linear probe: logistic regression on embeddings, its strength chosen on pictures held back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from numbers import Integral, Real
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.core.arrays import FloatArray
from clipkit.datasets.sampling import Labels
from clipkit.errors import QueryError
from clipkit.learn.base import Choice, Examples, LinearClassifier, Part, aligned, choose, hold_back
from clipkit.learn.mlp import EVERY, TwoLayers, train_two_layers
from clipkit.learn.softmax_regression import Correction, correct, frame, on_one_thread

STRENGTHS = tuple(float(f"{10 ** (half / 2):.3g}") for half in range(-2, 7))  # 0.1 to 1,000: below and above, flat
MAX_ITER = 1000  # none of the features tried needed 100
STEPS = 200  # of a hidden layer, at most: how many is chosen, and accuracy was flat from 100 on


class _Linear(NamedTuple):
    """Logits are rows @ weight.T + bias."""

    weight: FloatArray  # (c, d)
    bias: FloatArray  # (c,)


_Fitter: TypeAlias = Callable[[Examples, float], _Linear]


class LinearProbe(LinearClassifier):
    """Linear probe: logistic regression on embeddings, its strength chosen on pictures held back.

    Parameters
    ----------
    space : {"projected", "backbone"}, default "projected"
        What the embeddings are; a head remembers it.
    C : float, optional
        Inverse of the regularisation, as scikit-learn has it. None chooses it on validation, and then fits once more on
        everything.
    zeroshot : Head, optional
        A head of the same classes to start from, for projected embeddings. The distance from its weights is penalised,
        not that from zero, so that C = 0, which is among the choices, is zero-shot itself.
    hidden : int, optional
        A layer of that many units with GELU before the classes, trained by AdamW; the number of steps is chosen on
        validation, and C means nothing then.
    normalize : bool, default False
        Divide each row by its length first. Without it a row of another length than 1 is an error: it is no embedding.
    seed : int, default 0
        Of the pictures held back, and of the hidden layer's weights.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
        Labels, sorted.
    n_features_in_ : int
        Width of the embeddings.
    coef_ : ndarray of shape (c, d), float32
        Also for two classes; (c, hidden) with a hidden layer.
    intercept_ : ndarray of shape (c,), float32
        One number a class.
    C_ : float
        Chosen or given; NaN with a hidden layer.
    choice_ : Choice or None
        How C, or the number of steps, was chosen: `setting`, `accuracy`, `tried`. None where C was given.

    See Also
    --------
    fit_head : From a dataset on disk.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
       appendix A.3.
    .. [2] X. Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.
    .. [3] J. Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models",
       CVPR 2024.

    Examples
    --------
    >>> from clipkit.datasets import embed_once
    >>> encoder = clipkit.load_encoder("starter")
    >>> embedded = embed_once(clipkit.load_dataset("animals"), encoder)
    >>> probe = clipkit.LinearProbe().fit(embedded.embeddings, embedded.dataset.labels)
    >>> probe.score(embedded.embeddings, embedded.dataset.labels)
    1.0
    >>> probe.predict(encoder.encode_images(["photos/chelsea.png"])).tolist()
    ['cat']
    >>> probe.head(encoder).save("animals.safetensors")
    """

    C_: float
    choice_: Choice[float] | None

    def __init__(
        self,
        *,
        space: str = "projected",
        C: float | None = None,  # noqa: N803  scikit-learn's name
        zeroshot: Head | None = None,
        hidden: int | None = None,
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        self.space, self.C, self.zeroshot, self.hidden = space, C, zeroshot, hidden
        self.normalize, self.seed = normalize, seed

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803  scikit-learn's name
        y: Labels,
        *,
        validation: Part | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Learn from labelled embeddings, and choose C or the number of steps.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Of the pictures.
        y : sequence or ndarray of shape (n,)
            Two classes or more.
        validation : tuple, optional
            (embeddings, labels) to choose on; by default a fifth of each class. Learned from in the end, too.
        sample_weight : array_like of shape (n,), optional
            What each picture weighs, those of validation 1 each; one that weighs 0 is left out. By default all weigh 1.

        Returns
        -------
        LinearProbe
            Itself.

        Raises
        ------
        DatasetError
            If there is one class only, or validation has a class that is not learned.
        ShapeError
            If the rows are no embeddings, or not as many as the labels.
        QueryError
            If C, `hidden` and `zeroshot` do not go together.
        """
        self._check_options()
        train, held = self._take(X, y, validation, sample_weight)
        everything = train + held if held else train
        fitter = self._fitter(train.rows.shape[1])
        self.choice_ = None
        if self.C is not None:
            return self._keep(fitter()(everything, self.C), self.C)
        if held is None:
            train, held = hold_back(train, seed=self.seed)
        if self.hidden:
            return self._fit_hidden(train, held, everything)
        settings = (0.0, *STRENGTHS) if self.zeroshot else STRENGTHS
        learn = fitter()
        fits = {strength: learn(train, strength) for strength in settings}
        self.choice_ = choose(settings, lambda strength: _logits(fits[strength], held.rows), held.targets, held.weights)
        return self._keep(fitter()(everything, self.choice_.setting), self.choice_.setting)

    def _check_options(self) -> None:
        if self.zeroshot is not None and self.hidden:
            raise QueryError(
                "a probe with a hidden layer cannot begin from a zero-shot head",
                hint="leave hidden out, or the head to begin from",
            )
        if not all(_is_number(value, kind) for value, kind in ((self.C, Real), (self.hidden, Integral))):
            raise QueryError(f"C = {self.C!r} and hidden = {self.hidden!r} are no numbers", hint="LinearProbe(C=10)")
        if isinstance(self.seed, Integral) and self.seed < 0:
            raise QueryError(f"the seed is {self.seed}", hint="seed=0, or another whole number above")
        if self.C is not None and not ((0 if self.zeroshot else 1e-12) <= self.C < np.inf):
            raise QueryError(f"C is {self.C}, not a positive number", hint="--C 10, or none: it is chosen")
        if self.hidden is not None and (self.hidden < 1 or self.C is not None):
            raise QueryError(f"a hidden layer of {self.hidden} units, with C = {self.C}", hint="hidden=256, without C")

    def _fitter(self, width: int) -> Callable[[], _Fitter]:
        """Makes what fits, beginning where it ended the last time."""
        count = len(self.classes_)
        if self.zeroshot is None:
            return lambda: _Logistic(count)
        start = aligned(self.zeroshot, self.classes_, width)
        return lambda: _FromText(start)

    def _fit_hidden(self, train: Examples, held: Examples, everything: Examples) -> Self:
        tried = list(self._trained(train))
        counts = [float(EVERY * (i + 1)) for i in range(len(tried))]
        self.choice_ = choose(
            counts, lambda steps: _logits(tried[int(steps) // EVERY - 1], held.rows), held.targets, held.weights
        )
        steps = int(self.choice_.setting)
        return self._keep(next(islice(self._trained(everything), steps // EVERY - 1, None)), np.nan)

    def _trained(self, examples: Examples) -> Iterator[TwoLayers]:
        assert self.hidden is not None
        count = len(self.classes_)
        return train_two_layers(
            examples.rows,
            examples.targets,
            classes=count,
            units=self.hidden,
            steps=STEPS,
            seed=self.seed,
            weights=examples.weights,
        )

    def _keep(self, layers: _Linear | TwoLayers, strength: float) -> Self:
        self._hidden = layers.hidden if isinstance(layers, TwoLayers) else None
        self.intercept_, self.C_ = layers.bias, strength
        self.coef_ = layers.weight
        return self


class _Logistic:
    """scikit-learn's logistic regression, in the rows' own frame and at unit spread, with C in proportion.

    The answer is that for the rows as they are, and is reached in a third of the steps.
    """

    def __init__(self, count: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self._count = count
        self._model = LogisticRegression(max_iter=MAX_ITER, warm_start=True)

    def __call__(self, examples: Examples, strength: float) -> _Linear:
        place = frame(examples.rows, examples.weights)
        spread = float(np.sqrt(np.average((place.coordinates**2).sum(axis=1), weights=examples.weights))) or 1.0
        self._model.set_params(C=strength * spread**2)
        with on_one_thread(), warnings.catch_warnings():  # it takes one picture a class for a regression
            warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
            self._model.fit(place.coordinates / np.float32(spread), examples.targets, sample_weight=examples.weights)
        weight, bias = place.whole(self._model.coef_) / spread, self._model.intercept_
        if self._count == 2:  # one row there: the logit of the second class
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        bias = bias - weight @ place.mean
        return _Linear(np.asarray(weight, dtype=np.float32), np.asarray(bias, dtype=np.float32))


class _FromText:
    """The zero-shot head, corrected."""

    def __init__(self, start: Head) -> None:
        self._start = start
        self._last: Correction | None = None

    def __call__(self, examples: Examples, strength: float) -> _Linear:
        start = self._start
        given = start.logits(examples.rows)
        self._last = correct(
            examples.rows, given, examples.targets, C=strength, guess=self._last, weights=examples.weights
        )
        scale = np.float32(start.temperature)
        return _Linear(scale * start.weight + self._last.weight, scale * start.bias + self._last.bias)


def _is_number(value: object, kind: type) -> bool:
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _logits(layers: _Linear | TwoLayers, rows: FloatArray) -> FloatArray:
    inputs = layers.hidden.apply(rows) if isinstance(layers, TwoLayers) else rows
    return np.asarray(inputs @ layers.weight.T + layers.bias, dtype=np.float32)
