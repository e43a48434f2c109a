"""Base of every classifier that learns from labels: scikit-learn's methods, checks, choosing on validation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import sklearn.exceptions
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from clipkit.classify.head import Head, Hidden, as_decision, softmax
from clipkit.core.arrays import Embeddings, FloatArray, IntArray, check_embeddings, finite_rows, unit_rows
from clipkit.datasets.sampling import Labels, class_targets, held_back
from clipkit.errors import DatasetError, ModelMismatch, NotFittedError, ShapeError

if TYPE_CHECKING:
    from clipkit.models.encoder import Encoder


Part = tuple[npt.ArrayLike, Labels]
Setting = TypeVar("Setting")
BLOCK_SCORES = 1 << 22  # 16 MB of cosines at a time, whatever the number of pictures


class NotFitted(NotFittedError, sklearn.exceptions.NotFittedError):  # type: ignore[misc]  # sklearn is untyped
    """An estimator was asked before it was fitted: ours and scikit-learn's error in one."""


@dataclass(frozen=True)
class Examples:
    """Embeddings (n, d), where each label stands in `classes` (n,), and what each weighs (n,); None: all the same."""

    rows: Embeddings
    targets: IntArray
    weights: FloatArray | None = None

    def __add__(self, other: Examples) -> Examples:
        weights = None
        if self.weights is not None or other.weights is not None:
            weights = np.concatenate([self.each, other.each])
        return Examples(np.concatenate([self.rows, other.rows]), np.concatenate([self.targets, other.targets]), weights)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def each(self) -> FloatArray:
        """What each weighs (n,), as numbers."""
        return np.ones(len(self), np.float32) if self.weights is None else self.weights

    @property
    def weight(self) -> float:
        """Of all together: their number, where none weighs more than another."""
        return float(len(self) if self.weights is None else self.weights.sum())

    def at(self, places: IntArray) -> Examples:
        """Some of them."""
        weights = None if self.weights is None else self.weights[places]
        return Examples(self.rows[places], self.targets[places], weights)


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


class EmbeddingClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Base of the classifiers on embeddings: scikit-learn's estimator over a subclass's `logits`.

    Attributes
    ----------
    classes_ : ndarray of shape (c,)
        Labels, sorted.
    n_features_in_ : int
        Width of the embeddings.
    """

    classes_: npt.NDArray[Any]
    n_features_in_: int
    normalize: bool
    _learned = "coef_"  # the attribute that `fit` sets last

    def logits(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803  scikit-learn's name
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
        raise NotImplementedError

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Logits of the classes, of two of them by how much the second is above the first.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.

        Returns
        -------
        ndarray of shape (n, c), or of shape (n,) for two classes, float32
            In the order of `classes_`.
        """
        return as_decision(self.logits(X))

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
        return softmax(self.logits(X))

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
        best = self.logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: npt.ArrayLike, y: Labels, sample_weight: npt.ArrayLike | None = None) -> float:  # noqa: N803
        """Share of right answers.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Embeddings.
        y : sequence or ndarray of shape (n,)
            Right labels.
        sample_weight : array_like of shape (n,), optional
            What each answer weighs.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ShapeError
            If there are not as many labels as embeddings.
        """
        found, right = self.predict(X), np.asarray(y)
        if right.shape[1:] == (1,):  # a column would be compared with every answer
            right = right[:, 0]
        if right.shape != found.shape:
            said = f"{len(right)} labels" if right.ndim == 1 else f"labels of shape {right.shape}"
            raise ShapeError(f"{len(found)} embeddings and {said}", hint="one label for each embedding, in their order")
        return float(np.average(found == right, weights=checked_weights(sample_weight, len(found))))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, self._learned)

    def _take(
        self, embeddings: npt.ArrayLike, labels: Labels, validation: Part | None, weights: npt.ArrayLike | None = None
    ) -> tuple[Examples, Examples | None]:
        """The checked parts; `classes_` is set. DatasetError or ShapeError for what cannot be learned from.

        What weighs nothing is left out, as if it had not been given.
        """
        self.__dict__.pop(self._learned, None)  # a fit that fails leaves nothing that answers with other classes
        rows, names = self._checked(embeddings, is_first=True), _as_labels(labels)
        self.classes_, targets = class_targets(names, len(rows))
        each = checked_weights(weights, len(rows))
        if each is not None:
            counts = each > 0
            rows, each = rows[counts], each[counts]
            self.classes_, targets = class_targets(names[counts], len(rows))
        if len(self.classes_) < 2:
            raise DatasetError(
                f"every label is {self.classes_.tolist()[0]!r}: with 1 class there is nothing to tell apart",
                hint="labels of two classes at least",
            )
        train = Examples(rows, targets, each)
        return train, None if validation is None else self._held(validation)

    def _held(self, validation: Part) -> Examples:
        held = self._checked(validation[0])
        names = _as_labels(validation[1]).tolist()
        if len(names) != len(held):
            raise ShapeError(
                f"{len(held)} validation embeddings and {len(names)} labels",
                hint="one label for each embedding, in their order",
            )
        place = {name: i for i, name in enumerate(self.classes_.tolist())}
        strange = sorted({str(name) for name in names if name not in place})
        if strange:
            raise DatasetError(
                f"no picture to learn {strange[0]!r} from, which the validation part has",
                hint="add some to what is learned from, or take them out of validation",
            )
        return Examples(held, np.array([place[name] for name in names], int))

    def _rows(self, embeddings: npt.ArrayLike) -> Embeddings:
        """What is asked, checked; NotFittedError before `fit`."""
        self._check_fitted()
        return self._checked(embeddings)

    def _check_fitted(self) -> None:
        try:
            check_is_fitted(self)
        except sklearn.exceptions.NotFittedError as error:
            name = type(self).__name__
            raise NotFitted(f"this {name} has learned nothing yet", hint="fit(embeddings, labels)") from error

    def _checked(self, embeddings: npt.ArrayLike, *, is_first: bool = False) -> Embeddings:
        """Rows of length 1, float32, of the width that was learned; is_first: which is learned now."""
        numbers: dict[str, Any] = {"dtype": np.float32, "order": "C", "ensure_all_finite": False}
        try:
            rows = validate_data(self, embeddings, reset=is_first, ensure_min_samples=int(is_first), **numbers)
        except ValueError as error:
            width = "d" if is_first else self.n_features_in_
            shape = f"embeddings of shape {np.shape(embeddings)}" if hasattr(embeddings, "shape") else "embeddings"
            reason = re.sub(r"\s+", " ", re.sub(r"array=.*(?=Reshape)", "", str(error), flags=re.DOTALL))
            raise ShapeError(
                f"{shape} are not (n, {width}): {reason}", hint="rows as encode_images and encode_texts give them"
            ) from error
        if self.normalize:
            return unit_rows(rows)
        try:
            return check_embeddings(rows, rows.shape[1])
        except ShapeError:
            finite_rows(rows)  # says more of what is no number
            raise


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
        self._check_fitted()
        return linear_head(self.classes_, self.coef_, self.intercept_, encoder, space=self.space, hidden=self._hidden)


def hold_back(examples: Examples, *, seed: int) -> tuple[Examples, Examples]:
    """The examples in the two parts of `held_back`."""
    train, held = held_back(examples.targets, seed=seed)
    return examples.at(train), examples.at(held)


def choose(
    settings: Iterable[Setting],
    logits: Callable[[Setting], FloatArray],
    targets: IntArray,
    weights: FloatArray | None = None,
) -> Choice[Setting]:
    """The setting whose logits (n, c) are right most often; of equal ones that with the least cross-entropy.

    Of a few dozen pictures many settings get the same number right, and how sure they were says more than their order.
    weights (n,): what each picture weighs in both.
    """
    best: tuple[float, float] | None = None
    chosen: tuple[Setting, npt.NDArray[np.bool_]] | None = None
    tried = []
    for setting in settings:
        table = logits(setting)
        is_right = table.argmax(axis=1) == targets
        quality = (float(np.average(is_right, weights=weights)), -cross_entropy(table, targets, weights))
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


def aligned(zeroshot: Head | None, classes: npt.NDArray[Any], width: int) -> Head:
    """The zero-shot head with its classes in the order of `classes` (c,), without those that are not among them.

    None: a head that prefers none of them, for a method that starts without words.
    """
    if zeroshot is None:
        return without_words(len(classes), width)
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


def without_words(count: int, width: int) -> Head:
    """A head that prefers none of `count` classes: what a method starts from where it has no words."""
    names = tuple(str(place) for place in range(count))
    zeros = np.zeros(count, np.float32)
    return Head(names, np.zeros((count, width), np.float32), zeros, 1.0, model="", fingerprint="")


def checked_weights(weights: npt.ArrayLike | None, count: int) -> FloatArray | None:
    """What each of `count` pictures weighs; ShapeError where that is another number of them, or no weight at all."""
    if weights is None:
        return None
    each = np.asarray(weights, dtype=np.float32)
    if each.shape != (count,):
        raise ShapeError(f"sample_weight of shape {each.shape} for {count} embeddings", hint="one number for each")
    if not np.isfinite(each).all() or (each < 0).any() or not each.any():
        raise ShapeError(
            "sample_weight has negative or infinite numbers, or every weight is zero", hint="0 or more, not all 0"
        )
    return each


def cross_entropy(logits: npt.ArrayLike, targets: IntArray, weights: FloatArray | None = None) -> float:
    """Mean of -log of the probability of the right class."""
    table = np.asarray(logits, dtype=np.float64)
    table = table - table.max(axis=1, keepdims=True)
    own = table[np.arange(len(table)), targets]
    return float(np.average(np.log(np.exp(table).sum(axis=1)) - own, weights=weights))


def learn_and_validation(
    learner: Any,
    embeddings: npt.ArrayLike,
    labels: Labels,
    validation: Part | None,
    weights: npt.ArrayLike | None = None,
) -> tuple[Examples, Examples, Examples]:
    """(to learn from, to choose on, both)."""
    train, held = learner._take(embeddings, labels, validation, weights)
    if held is None:
        everything, (train, held) = train, hold_back(train, seed=learner.seed)
        return train, held, everything
    return train, held, train + held


def row_blocks(count: int, width: int) -> list[slice]:
    step = max(1, BLOCK_SCORES // width)
    return [slice(start, start + step) for start in range(0, count, step)]


def one_hot(examples: Examples, count: int) -> FloatArray:
    members = np.zeros((len(examples), count), np.float32)
    members[np.arange(len(examples)), examples.targets] = examples.each
    return members


def _as_labels(labels: Labels) -> npt.NDArray[Any]:
    """Labels (n,) as an array; DatasetError for what is no label of a class, such as a measured number."""
    if labels is None:
        raise DatasetError("a classifier requires y to be passed, but the target y is None", hint="fit(X, y)")
    names = np.asarray(labels)
    if names.ndim == 2 and names.shape[1] == 1:
        names = column_or_1d(names, warn=True)
    if names.dtype.kind == "f" and names.size and np.isfinite(names).all() and names.ndim == 1:
        try:
            check_classification_targets(names)
        except ValueError as error:
            raise DatasetError(str(error).partition("\n")[0], hint="a word or a whole number for each class") from error
    return names
