"""Sampling of labelled pictures: few-shot draws and validation parts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import IntArray
from clipkit.core.text import counted
from clipkit.datasets.load import Dataset
from clipkit.errors import DatasetError, ShapeError

MAX_VALIDATION = 4  # pictures of a class that are kept for validation: min(4, shots), as CoOp does
HELD_BACK = 5  # of this many pictures of a class one is held back, where nobody gave a validation part

Labels = Sequence[Hashable] | npt.NDArray[Any]

VALIDATION = 0.1  # of each class, at least one picture, where the caller has no validation pictures


@dataclass(frozen=True)
class Draw:
    """Pictures that `draw_shots` drew.

    Attributes
    ----------
    train : ndarray of shape (n,), int64
        Positions of the pictures to learn from, ascending.
    validation : ndarray of shape (m,), int64
        Positions of the pictures to choose settings on, ascending.
    """

    train: IntArray
    validation: IntArray


def draw_shots(labels: Labels, shots: int | None, *, seed: int) -> Draw:
    """A few pictures of each class to learn from, and some more to choose settings on, as CoOp draws them.

    With one seed, a draw of more shots holds that of fewer.

    Parameters
    ----------
    labels : sequence or ndarray of shape (n,)
        One a picture.
    shots : int or None
        Pictures a class to learn from, and min(shots, 4) more to choose on. None: all but those to choose on, of which
        there are at most 4 and at most half of a class.
    seed : int
        Of the random generator.

    Returns
    -------
    Draw
        `train` and `validation`: ascending positions, int64.

    Raises
    ------
    DatasetError
        Names the class that has too few pictures.

    References
    ----------
    .. [1] K. Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.

    Examples
    --------
    >>> from clipkit.datasets import draw_shots
    >>> draw = draw_shots(["cat"] * 8 + ["dog"] * 8, shots=2, seed=0)
    >>> len(draw.train), len(draw.validation)
    (4, 4)
    """
    if shots is not None and shots < 1:
        raise DatasetError(f"{shots} shots are nothing to learn from", hint="1 or more, or all")
    classes, targets = class_targets(labels, len(labels))
    rng = np.random.default_rng(seed)
    train, validation = [], []
    for place, name in enumerate(classes.tolist()):
        mine = rng.permutation(np.flatnonzero(targets == place))
        held = min(MAX_VALIDATION, len(mine) // 2 if shots is None else shots)
        wanted = max(len(mine) - held, 1) if shots is None else shots
        if len(mine) < wanted + max(held, 1):
            say = "2 are needed" if shots is None else f"{shots} shots need {wanted} and {held} more to choose on"
            hint = "more pictures of it" if shots is None else "fewer of them: --shots 1"
            raise DatasetError(f"{name!r} has {counted(len(mine), 'picture')}, and {say}", hint=hint)
        train.append(mine[held:] if shots is None else mine[:shots])
        validation.append(mine[:held] if shots is None else mine[shots : shots + held])
    return Draw(np.sort(np.concatenate(train)), np.sort(np.concatenate(validation)))


def held_back(labels: Labels, *, seed: int) -> tuple[IntArray, IntArray]:
    """Positions to learn from, and positions to choose settings on.

    Held back is a fifth of each class, one of two to four pictures, none of one.

    Parameters
    ----------
    labels : sequence or ndarray of shape (n,)
        One a picture.
    seed : int
        Of the random generator.

    Returns
    -------
    tuple of ndarray, int64
        (to learn from, to choose on), ascending.

    Raises
    ------
    DatasetError
        If every class has one picture.

    Examples
    --------
    >>> from clipkit.datasets import held_back
    >>> train, validation = held_back(["cat"] * 10 + ["dog"] * 10, seed=0)
    >>> len(train), len(validation)
    (16, 4)
    """
    classes, targets = class_targets(labels, len(labels))
    rng = np.random.default_rng(seed)
    is_held = np.zeros(len(targets), dtype=bool)
    for place in range(len(classes)):
        mine = rng.permutation(np.flatnonzero(targets == place))
        is_held[mine[: max(len(mine) // HELD_BACK, int(len(mine) > 1))]] = True
    if not is_held.any():
        raise DatasetError("every class has one picture: there is none to choose on", hint="more pictures a class")
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def class_targets(labels: Labels, count: int) -> tuple[npt.NDArray[Any], IntArray]:
    if len(labels) != count:
        raise ShapeError(
            f"{count} embeddings and {len(labels)} labels", hint="one label for each embedding, in their order"
        )
    if not count:
        raise DatasetError("there are no labels to learn from", hint="a folder of class folders, or a CSV image,label")
    names = np.asarray(labels)
    if names.ndim != 1 or _has_gap(names):
        raise DatasetError(
            "a label is missing, NaN or infinite, or there is more than one a picture",
            hint="one word or number for each picture",
        )
    try:
        classes, targets = np.unique(names, return_inverse=True)
    except TypeError as error:
        raise DatasetError(f"labels of several kinds: {error}", hint="words alone, or numbers alone") from error
    return classes, np.asarray(targets.ravel(), dtype=np.int64)


def split_validation(dataset: Dataset, *, share: float = VALIDATION, seed: int = 42) -> tuple[Dataset, Dataset]:
    """Hold out a share of each class.

    Parameters
    ----------
    dataset : Dataset
        With labels.
    share : float, default 0.1
        Of each class, and at least one picture; a class of one picture stays whole in the rest.
    seed : int, default 42
        Of the random generator.

    Returns
    -------
    tuple of Dataset
        (the rest, the pictures held out).

    Examples
    --------
    >>> from clipkit.datasets import split_validation
    >>> rest, validation = split_validation(clipkit.load_dataset("animals"))
    >>> len(rest), len(validation)
    (8, 2)
    """
    rng = np.random.default_rng(seed)
    labels = np.array(dataset.labels)
    chosen: list[int] = []
    for name in dataset.classes:
        mine = rng.permutation(np.flatnonzero(labels == name))
        count = min(max(1, round(share * len(mine))), len(mine) - 1)
        chosen += mine[: max(0, count)].tolist()
    is_chosen = np.isin(np.arange(len(dataset)), chosen)
    return only(dataset, np.flatnonzero(~is_chosen)), replace(only(dataset, np.flatnonzero(is_chosen)), failed=())


def only(dataset: Dataset, places: npt.NDArray[Any]) -> Dataset:
    files, labels = (tuple(row[i] for i in places.tolist()) for row in (dataset.files, dataset.labels))
    return replace(dataset, files=files, labels=labels, captions=())


def _has_gap(names: npt.NDArray[Any]) -> bool:
    if names.dtype.kind == "f":
        return not np.isfinite(names).all()
    return names.dtype == object and any(name is None or name != name for name in names.tolist())
