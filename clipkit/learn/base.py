"""Base of every classifier that learns from labels: scikit-learn's methods, checks, choosing on validation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head, Hidden, softmax
from clipkit.core.arrays import Embeddings, FloatArray, IntArray, check_embeddings
from clipkit.core.text import counted, described, some
from clipkit.datasets.sampling import Labels, class_targets, held_back
from clipkit.errors import DatasetError, ModelMismatch, NotFittedError, ShapeError

if TYPE_CHECKING:
    from clipkit.models.encoder import Encoder


Part = tuple[npt.ArrayLike, Labels]
Setting = TypeVar("Setting")
BLOCK_SCORES = 1 << 22  # 16 MB of cosines at a time, whatever the number of pictures


@dataclass(frozen=True)
class Examples:
    """Embeddings (n, d) and where each label stands in `classes` (n,)."""

    rows: Embeddings
    targets: IntArray

    def __add__(self, other: Examples) -> Examples:
        return Examples(np.concatenate([self.rows, other.rows]), np.concatenate([self.targets, other.targets]))

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Choice(Generic[Setting]):
    """What was chosen on validation pictures.

    Attributes
    ----------
    setting
        The best one.
    is_right : ndarray of shape (n,), bool
        Whether it was right about each validation picture.
    tried : tuple of (setting, accuracy)
        In the order in which they were tried.
    """

    setting: Setting
    is_right: npt.NDArray[np.bool_]
    tried: tuple[tuple[Setting, float], ...]

    @property
    def accuracy(self) -> float:
        """Of the best setting."""
        return float(self.is_right.mean())


class EmbeddingClassifier:
    """Base of the classifiers on embeddings: scikit-learn's methods over a subclass's `decision_function`.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
        Labels, sorted.
    """

    classes_: npt.NDArray[Any]

    def __repr__(self) -> str:
        known = getattr(self, "classes_", None)
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        learned = "not fitted" if known is None else f"{counted(len(known), 'class')}: {some([str(n) for n in known])}"
        return described(self, *(f"{name}={getattr(self, name)!r}" for name in names), learned)

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803  scikit-learn's name
        """Logits of the classes, also for two of them.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        raise NotImplementedError

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Probabilities of the classes.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        return softmax(self.decision_function(X))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Labels of the likeliest classes.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.

        Returns
        -------
        ndarray of shape (n,)
            Of the type of the labels that were learned.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ShapeError
            If the rows are no embeddings of the width that was learned.
        """
        best = self.decision_function(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: npt.ArrayLike, y: Labels) -> float:  # noqa: N803
        """Share of right answers.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.
        y : sequence or ndarray of shape (n,)
            Right labels.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ShapeError
            If there are not as many labels as embeddings.
        """
        found = self.predict(X)
        if len(y) != len(found):
            raise ShapeError(
                f"{len(found)} embeddings and {len(y)} labels", hint="one label for each embedding, in their order"
            )
        return float(np.mean(found == np.asarray(y)))

    def _take(
        self, embeddings: npt.ArrayLike, labels: Labels, validation: Part | None
    ) -> tuple[Examples, Examples | None]:
        """The checked parts; `classes_` is set. DatasetError or ShapeError for what cannot be learned from."""
        rows = as_embeddings(embeddings)
        self.classes_, targets = class_targets(labels, len(rows))
        if len(self.classes_) < 2:
            raise DatasetError(
                f"every label is {self.classes_.tolist()[0]!r}: there is nothing to tell apart",
                hint="labels of two classes at least",
            )
        if validation is None:
            return Examples(rows, targets), None
        held = check_embeddings(validation[0], rows.shape[1])
        if len(validation[1]) != len(held):
            raise ShapeError(
                f"{len(held)} validation embeddings and {len(validation[1])} labels",
                hint="one label for each embedding, in their order",
            )
        place = {name: i for i, name in enumerate(self.classes_.tolist())}
        strange = sorted({str(name) for name in _plain(validation[1]) if name not in place})
        if strange:
            raise DatasetError(
                f"no picture to learn {strange[0]!r} from, which the validation part has",
                hint="add some to what is learned from, or take them out of validation",
            )
        return Examples(rows, targets), Examples(held, np.array([place[name] for name in _plain(validation[1])], int))

    def _rows(self, embeddings: npt.ArrayLike, width: int | None) -> Embeddings:
        if width is None:
            raise NotFittedError(f"this {type(self).__name__} has learned nothing yet", hint="fit(embeddings, labels)")
        return check_embeddings(embeddings, width)


class LinearClassifier(EmbeddingClassifier):
    """Base of the classifiers whose logits are linear in the embeddings, or in a hidden layer of them.

    Attributes
    ----------
    coef_ : ndarray of shape (c, d), float32
        One row a class.
    intercept_ : ndarray of shape (c,), float32
        One number a class.
    """

    coef_: FloatArray
    intercept_: FloatArray
    space = "projected"
    _hidden: Hidden | None = None

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Logits of the classes, also for two of them.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        rows = self._rows(X, self._width)
        inputs = self._hidden.apply(rows) if self._hidden else rows
        return np.asarray(inputs @ self.coef_.T + self.intercept_, dtype=np.float32)

    def head(self, encoder: Encoder) -> Head:
        """The classifier as a file can hold it.

        Parameters
        ----------
        encoder : Encoder
            The model of the embeddings that were learned from.

        Returns
        -------
        Head
            With the same answers.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ModelMismatch
            If the encoder makes embeddings of another width.
        """
        self._rows(np.empty((0, self._width or 0)), self._width)
        return linear_head(self.classes_, self.coef_, self.intercept_, encoder, space=self.space, hidden=self._hidden)

    @property
    def _width(self) -> int | None:
        if not hasattr(self, "coef_"):
            return None
        return self._hidden.dim if self._hidden else self.coef_.shape[1]


def hold_back(examples: Examples, *, seed: int) -> tuple[Examples, Examples]:
    """The examples in the two parts of `held_back`."""
    parts = [Examples(examples.rows[at], examples.targets[at]) for at in held_back(examples.targets, seed=seed)]
    return parts[0], parts[1]


def choose(settings: Iterable[Setting], logits: Callable[[Setting], FloatArray], targets: IntArray) -> Choice[Setting]:
    """The setting whose logits (n, c) are right most often; of equal ones that with the least cross-entropy.

    Of a few dozen pictures many settings get the same number right, and how sure they were says more than their order.
    """
    best: tuple[float, float] | None = None
    chosen: tuple[Setting, npt.NDArray[np.bool_]] | None = None
    tried = []
    for setting in settings:
        table = logits(setting)
        is_right = table.argmax(axis=1) == targets
        quality = (float(is_right.mean()), -cross_entropy(table, targets))
        tried.append((setting, quality[0]))
        if best is None or quality > best:
            best, chosen = quality, (setting, is_right)
    assert chosen is not None
    return Choice(*chosen, tuple(tried))


def linear_head(
    classes: npt.NDArray[Any],
    weight: FloatArray,
    bias: FloatArray,
    encoder: Encoder,
    *,
    space: str,
    hidden: Hidden | None = None,
) -> Head:
    """Logits embeddings @ weight.T + bias as a Head: the temperature is the longest row, so that no weight is large."""
    width = hidden.dim if hidden else weight.shape[1]
    if space == "projected" and width != encoder.dim:
        raise ModelMismatch(
            f"this learned from embeddings of width {width}, not those of {encoder.model}",
            hint="give the encoder that made the embeddings",
        )
    scale = float(np.linalg.norm(weight, axis=1).max()) or 1.0
    return Head(
        classes=tuple(str(name) for name in classes.tolist()),
        weight=np.ascontiguousarray(weight / scale, dtype=np.float32),
        bias=np.asarray(bias / scale, dtype=np.float32),
        temperature=scale,
        model=encoder.model,
        fingerprint=encoder.fingerprint,
        space=space,
        hidden=hidden,
    )


def aligned(zeroshot: Head, classes: npt.NDArray[Any], width: int) -> Head:
    """The zero-shot head with its classes in the order of `classes` (c,), without those that are not among them."""
    if zeroshot.space != "projected" or zeroshot.dim != width:
        raise ModelMismatch(
            f"the zero-shot head reads {zeroshot.space} features of width {zeroshot.dim}, and these have {width}",
            hint='embeddings in space="projected", where texts are',
        )
    place = {name: i for i, name in enumerate(zeroshot.classes)}
    names = [str(name) for name in classes.tolist()]
    missing = [name for name in names if name not in place]
    if missing:
        raise DatasetError(
            f"the zero-shot head has no class {missing[0]!r}",
            hint="a head of the same classes: ZeroShotClassifier(encoder, classes).head",
        )
    order = [place[name] for name in names]
    return Head(
        classes=tuple(names),
        weight=zeroshot.weight[order],
        bias=zeroshot.bias[order],
        temperature=zeroshot.temperature,
        model=zeroshot.model,
        fingerprint=zeroshot.fingerprint,
    )


def as_embeddings(embeddings: npt.ArrayLike) -> Embeddings:
    """The same, checked at whatever width it has."""
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2 or not len(rows):
        raise ShapeError(f"embeddings of shape {rows.shape} are not (n, d) with a row or more")
    return check_embeddings(rows, rows.shape[1])


def cross_entropy(logits: npt.ArrayLike, targets: IntArray) -> float:
    """Mean of -log of the probability of the right class."""
    table = np.asarray(logits, dtype=np.float64)
    table = table - table.max(axis=1, keepdims=True)
    own = table[np.arange(len(table)), targets]
    return float((np.log(np.exp(table).sum(axis=1)) - own).mean())


def _plain(labels: Labels) -> list[Any]:
    return list(np.asarray(labels).tolist())


def learn_and_validation(
    learner: Any, embeddings: npt.ArrayLike, labels: Labels, validation: Part | None
) -> tuple[Examples, Examples, Examples]:
    """(to learn from, to choose on, both)."""
    train, held = learner._take(embeddings, labels, validation)
    if held is None:
        everything, (train, held) = train, hold_back(train, seed=learner.seed)
        return train, held, everything
    return train, held, train + held


def row_blocks(count: int, width: int) -> list[slice]:
    step = max(1, BLOCK_SCORES // width)
    return [slice(start, start + step) for start in range(0, count, step)]


def one_hot(examples: Examples, count: int) -> FloatArray:
    members = np.zeros((len(examples), count), np.float32)
    members[np.arange(len(examples)), examples.targets] = 1
    return members
