"""What every classifier that learns from labels does alike: its methods, its checks, and choosing on validation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head, softmax
from clipkit.errors import DatasetError, ModelMismatch, NotFittedError, ShapeError
from clipkit.learn.mlp import Hidden
from clipkit.models.openclip import check_embeddings
from clipkit.store.records import Embeddings, FloatArray, IntArray

if TYPE_CHECKING:
    from clipkit.models.openclip import Encoder

MAX_VALIDATION = 4  # pictures of a class that are kept for validation: min(4, shots), as CoOp does
HELD_BACK = 5  # of this many pictures of a class one is held back, where nobody gave a validation part

Labels = Sequence[Hashable] | npt.NDArray[Any]
Part = tuple[npt.ArrayLike, Labels]
Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Shots:
    """Positions of the pictures to learn from, and of those to choose on, both ascending."""

    train: IntArray
    validation: IntArray


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
    """What was chosen on validation. is_right: of each picture there (n,). tried: accuracy by setting, in order."""

    setting: Setting
    is_right: npt.NDArray[np.bool_]
    tried: tuple[tuple[Setting, float], ...]

    @property
    def accuracy(self) -> float:
        return float(self.is_right.mean())


class Learner:
    """scikit-learn's methods over `decision_function`, which a subclass has.

    Attributes:
        classes_: labels (c,), sorted.
    """

    classes_: npt.NDArray[Any]

    def decision_function(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803  scikit-learn's name
        """Logits (n, c), also for two classes."""
        raise NotImplementedError

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:  # noqa: N803
        """Probabilities (n, c)."""
        return softmax(self.decision_function(X))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Labels (n,)."""
        best = self.decision_function(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: npt.ArrayLike, y: Labels) -> float:  # noqa: N803
        """The share of right answers."""
        found = self.predict(X)
        if len(y) != len(found):
            raise ShapeError(f"{len(found)} embeddings and {len(y)} labels")
        return float(np.mean(found == np.asarray(y)))

    def _take(
        self, embeddings: npt.ArrayLike, labels: Labels, validation: Part | None
    ) -> tuple[Examples, Examples | None]:
        """The checked parts; `classes_` is set. DatasetError or ShapeError for what cannot be learned from."""
        rows = as_embeddings(embeddings)
        self.classes_, targets = _classes(labels, len(rows))
        if len(self.classes_) < 2:
            raise DatasetError(f"every label is {self.classes_.tolist()[0]!r}: there is nothing to tell apart")
        if validation is None:
            return Examples(rows, targets), None
        held = check_embeddings(validation[0], rows.shape[1])
        if len(validation[1]) != len(held):
            raise ShapeError(f"{len(held)} validation embeddings and {len(validation[1])} labels")
        place = {name: i for i, name in enumerate(self.classes_.tolist())}
        strange = sorted({str(name) for name in _plain(validation[1]) if name not in place})
        if strange:
            raise DatasetError(f"no picture to learn {strange[0]!r} from, which the validation part has")
        return Examples(rows, targets), Examples(held, np.array([place[name] for name in _plain(validation[1])], int))

    def _rows(self, embeddings: npt.ArrayLike, width: int | None) -> Embeddings:
        if width is None:
            raise NotFittedError(f"this {type(self).__name__} has learned nothing yet", hint="fit(embeddings, labels)")
        return check_embeddings(embeddings, width)


def draw_shots(labels: Labels, shots: int | None, *, seed: int) -> Shots:
    """`shots` pictures of each class to learn from and min(shots, 4) more to choose on, as CoOp (Zhou et al. 2022).

    None: all but those to choose on, of which there are at most 4 and at most half. With one seed, more shots hold the
    fewer. DatasetError names the class that has too few pictures.
    """
    if shots is not None and shots < 1:
        raise DatasetError(f"{shots} shots are nothing to learn from", hint="1 or more, or all")
    classes, targets = _classes(labels, len(labels))
    dice = np.random.default_rng(seed)
    train, validation = [], []
    for place, name in enumerate(classes.tolist()):
        mine = dice.permutation(np.flatnonzero(targets == place))
        held = min(MAX_VALIDATION, len(mine) // 2 if shots is None else shots)
        wanted = max(len(mine) - held, 1) if shots is None else shots
        if len(mine) < wanted + max(held, 1):
            say = "2 are needed" if shots is None else f"{shots} shots need {wanted} and {held} more to choose on"
            hint = "more pictures of it" if shots is None else "fewer --shots"
            raise DatasetError(f"{name!r} has {len(mine)} pictures, and {say}", hint=hint)
        train.append(mine[held:] if shots is None else mine[:shots])
        validation.append(mine[:held] if shots is None else mine[shots : shots + held])
    return Shots(np.sort(np.concatenate(train)), np.sort(np.concatenate(validation)))


def held_back(labels: Labels, *, seed: int) -> tuple[IntArray, IntArray]:
    """Positions (to learn from, to choose on): of a class every fifth picture, one of two to four, none of one."""
    classes, targets = _classes(labels, len(labels))
    dice = np.random.default_rng(seed)
    is_held = np.zeros(len(targets), dtype=bool)
    for place in range(len(classes)):
        mine = dice.permutation(np.flatnonzero(targets == place))
        is_held[mine[: max(len(mine) // HELD_BACK, int(len(mine) > 1))]] = True
    if not is_held.any():
        raise DatasetError("every class has one picture: there is none to choose on", hint="more pictures a class")
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


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
        raise ModelMismatch(f"this learned from embeddings of width {width}, not those of {encoder.model}")
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
        raise DatasetError(f"the zero-shot head has no class {missing[0]!r}")
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


def _classes(labels: Labels, count: int) -> tuple[npt.NDArray[Any], IntArray]:
    if len(labels) != count:
        raise ShapeError(f"{count} embeddings and {len(labels)} labels")
    if not count:
        raise DatasetError("there are no labels to learn from")
    names = np.asarray(labels)
    if names.ndim != 1 or (names.dtype.kind == "f" and not np.isfinite(names).all()) or None in labels:
        raise DatasetError("a label is missing, NaN or infinite, or there is more than one a picture")
    classes, targets = np.unique(names, return_inverse=True)
    return classes, np.asarray(targets.ravel(), dtype=np.int64)


def _plain(labels: Labels) -> list[Any]:
    return list(np.asarray(labels).tolist())
