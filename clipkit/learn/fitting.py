"""Fitting a head to labelled pictures: one method, its settings chosen on pictures held back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.classify.prompts import Templates
from clipkit.classify.words import head_from_words
from clipkit.core.arrays import IntArray
from clipkit.core.progress import Failure, Progress
from clipkit.core.requirements import missing_packages_named
from clipkit.core.text import counted, described, short_name
from clipkit.datasets.embed import EmbeddedDataset, embed_once
from clipkit.datasets.load import TEST, Dataset, load_dataset, pets_root
from clipkit.datasets.sampling import draw_shots, held_back
from clipkit.datasets.splits import TWO_CLASSES, own_parts
from clipkit.errors import DatasetError, QueryError
from clipkit.learn.methods import HEAD_METHODS, METHODS, Estimator, HeadEstimator
from clipkit.metrics import wilson
from clipkit.models.encoder import SPACES, Encoder

AUTO = "auto"

Show = Callable[[Progress], None] | None


@dataclass(frozen=True)
class Fitted:
    """A head, and how it was found.

    Attributes
    ----------
    head : Head
        Learned from all n pictures in the end.
    dataset, method : str
        Names.
    chosen : str
        The setting in words, "" where there was none to choose.
    accuracy : float
        On the validation pictures, before the last fit.
    ci95 : tuple of float
        95 % interval of the accuracy, by Wilson.
    by_space : dict of str to float
        Validation accuracy by space.
    n : int
        Pictures the head has learned from in the end, those of validation among them.
    n_validation : int
        Pictures held back.
    failed : tuple of Failure
        Pictures left out.
    """

    head: Head
    dataset: str
    method: str
    chosen: str
    accuracy: float
    ci95: tuple[float, float]
    by_space: dict[str, float]
    n: int
    n_validation: int
    failed: tuple[Failure, ...]

    def __repr__(self) -> str:
        low, high = self.ci95
        learned = f"{self.method} on {short_name(self.dataset)}", self.chosen, counted(self.n, "picture")
        return described(self, *learned, f"accuracy {self.accuracy:.3f} ({low:.3f} to {high:.3f})", repr(self.head))


@dataclass(frozen=True)
class _Try:
    """One method in one space, fitted. is_right: of each picture that was held back. n: pictures it learned from."""

    estimator: HeadEstimator
    is_right: npt.NDArray[np.bool_]
    n: int
    failed: tuple[Failure, ...]


@dataclass(frozen=True)
class _Labelled:
    """Embeddings (n, d), their labels (n,), positions to learn from and to choose on, and pictures left out."""

    rows: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    train: IntArray
    held: IntArray
    failed: tuple[Failure, ...]


@missing_packages_named()
def fit_head(
    path: str | os.PathLike[str],
    encoder: Encoder,
    *,
    method: str = "probe",
    space: str = AUTO,
    C: float | None = None,  # noqa: N803  scikit-learn's name
    shots: int | None = None,
    seed: int = 0,
    split: str | None = None,
    templates: Templates | None = None,
    progress: Show = None,
) -> Fitted:
    """Fit a head to the training part of a dataset; nothing of its test part is opened.

    Parameters
    ----------
    path : str or path
        As for `load_dataset`.
    encoder : Encoder
        The head reads its embeddings.
    method : {"probe", "text-probe", "gelu", "prototypes", "blend"}, default "probe"
        A key of `METHODS` whose result is a head.
    space : {"auto", "projected", "backbone"}, default "auto"
        "auto" takes the one that is better on validation, the projected one where they are equal.
    C : float, optional
        Inverse of the regularisation, for the methods that have one; None chooses it.
    shots : int, optional
        Pictures a class, and min(4, shots) more to choose on. None takes all, and chooses on the dataset's own
        validation part or on a fifth of each class.
    seed : int, default 0
        Of the draws.
    split : str, optional
        The part to learn from; by default the dataset's own train, or else all of it.
    templates : str, path or sequence of str, optional
        As for `ZeroShotClassifier`, where a method starts from words; by default "pets" for Oxford-IIIT Pet, else
        "simple".
    progress : callable, optional
        Given a `Progress` after each batch of pictures.

    Returns
    -------
    Fitted
        `head`; `accuracy` on the `n_validation` pictures held back, with `ci95` by Wilson; `by_space`; `chosen`, the
        setting in words; `n`, the number of pictures learned from; `failed`, the pictures left out.

    Raises
    ------
    DatasetError
        If there is nothing to learn from or nothing to tell apart.
    QueryError
        If the method does not exist, or has no such setting.

    References
    ----------
    .. [1] E. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    Examples
    --------
    >>> from clipkit.learn import fit_head
    >>> fitted = fit_head("animals", clipkit.load_encoder("starter"), space="projected")
    >>> fitted.head.classes, fitted.n, fitted.n_validation
    (('cat', 'other'), 10, 2)
    >>> fitted.head.save("animals.safetensors")
    """
    _check(method, space, C)
    train, held = _parts(path, split)
    if len(train.classes) < 2:
        raise DatasetError(f"every label is {train.classes[0]!r}: there is nothing to tell apart", hint=TWO_CLASSES)
    if shots is not None:
        held = None  # what is chosen on is drawn, too
        draw_shots(train.labels, shots, seed=seed)  # a class that is too small is said before anything is encoded
    needs_words = METHODS[method].needs_words  # and these are in the projected space only
    spaces = ("projected",) if needs_words else SPACES if space == AUTO else (space,)
    zeroshot = None
    if needs_words:
        words = templates or ("pets" if pets_root(path) else "simple")
        zeroshot = head_from_words(encoder, train.classes, templates=words).head
    tries = {}
    for name in spaces:
        learned = embed_once(train, encoder, space=name, progress=progress)
        asked = embed_once(held, encoder, space=name, progress=progress) if held else None
        make = partial(METHODS[method].make, space=name, seed=seed, zeroshot=zeroshot, C=C)
        tries[name] = _try(make, _gathered(learned, asked, shots, seed))
    best = max(spaces, key=lambda name: float(tries[name].is_right.mean()))
    return _fitted(tries, best, method, train.name, encoder)


def training_part(path: str | os.PathLike[str], split: str | None = None) -> Dataset:
    """The labelled pictures of `part_to_learn_from`; DatasetError where they have captions."""
    return _labelled(part_to_learn_from(path, split))


def part_to_learn_from(path: str | os.PathLike[str], split: str | None = None) -> Dataset:
    """What may be learned from: trainval of Pets, a dataset's own train, or else all of it; DatasetError for test."""
    if split and split.lower() in TEST:
        raise DatasetError(f"{split} is for measuring, not for learning", hint="--split train")
    if split or pets_root(path):
        return load_dataset(path, split=split or "trainval")
    train, validation, test = own_parts(Path(path))
    if test and not train:
        raise DatasetError(f"{path} has a {test} part and none to learn from", hint="--split NAME, of another part")
    if train and not (validation or test):  # a part, or a class of that name beside others
        with suppress(DatasetError):
            return load_dataset(path, split=train)
        train = None
    return load_dataset(path, split=train)


def _check(method: str, space: str, strength: float | None) -> None:
    if method not in HEAD_METHODS:
        raise QueryError(f"there is no method {method!r}", hint=", ".join(HEAD_METHODS))
    if strength is not None and "C" not in METHODS[method].takes:
        raise QueryError(f"{method} has no C", hint="--method probe")
    if space == "backbone" and METHODS[method].needs_words:
        raise QueryError(f"{method} starts from words, which have no backbone features", hint="--space projected")


def _parts(path: str | os.PathLike[str], split: str | None) -> tuple[Dataset, Dataset | None]:
    train = training_part(path, split)
    own, name, _ = (None,) * 3 if split or pets_root(path) else own_parts(Path(path))
    if not (own and name):
        return train, None
    held = _labelled(load_dataset(path, split=name))
    return train, None if set(held.files) & set(train.files) else held


def _labelled(dataset: Dataset) -> Dataset:
    if not dataset.labels:
        raise DatasetError(f"{dataset.name} has captions, no labels", hint="a CSV image,label")
    return dataset


def _gathered(learned: EmbeddedDataset, asked: EmbeddedDataset | None, shots: int | None, seed: int) -> _Labelled:
    """All rows and labels, and which of them to learn from and to choose on."""
    rows, labels = learned.embeddings, np.array(learned.dataset.labels)
    failed = learned.dataset.failed + (asked.dataset.failed if asked else ())
    if not len(rows):
        raise DatasetError(
            f"{learned.dataset.name} has no picture that can be read",
            hint="a folder of class folders with pictures, or a CSV image,label",
        )
    if gone := sorted(set(learned.dataset.classes) - set(learned.dataset.labels)):
        raise DatasetError(f"no picture of {gone[0]} can be read", hint="take the class out, or mend its pictures")
    if shots is not None:
        drawn = draw_shots(labels, shots, seed=seed)
        return _Labelled(rows, labels, drawn.train, drawn.validation, failed)
    if asked is None or not len(asked.embeddings):
        return _Labelled(rows, labels, *held_back(labels, seed=seed), failed)
    count = len(rows)
    both = np.concatenate([labels, np.array(asked.dataset.labels)])
    rows = np.concatenate([rows, asked.embeddings])
    return _Labelled(rows, both, np.arange(count), np.arange(count, len(both)), failed)


def _try(make: Callable[[], Estimator], given: _Labelled) -> _Try:
    rows, labels, train, held = given.rows, given.labels, given.train, given.held
    estimator = make().fit(rows[train], labels[train], validation=(rows[held], labels[held]))
    if estimator.choice_ is not None:
        is_right = estimator.choice_.is_right
    else:  # nothing was chosen: as good as one that has not seen what was held back
        alone = make().fit(rows[train], labels[train], validation=None)
        is_right = np.asarray(alone.predict(rows[held]) == labels[held])
    return _Try(cast("HeadEstimator", estimator), is_right, len(train) + len(held), given.failed)


def _fitted(tries: dict[str, _Try], best: str, method: str, dataset: str, encoder: Encoder) -> Fitted:
    chosen = tries[best]
    choice = chosen.estimator.choice_
    word = "steps" if method == "gelu" else "C"
    return Fitted(
        head=chosen.estimator.head(encoder),
        dataset=dataset,
        method=method,
        chosen=f"{word} = {choice.setting:g}" if choice else "",
        accuracy=float(chosen.is_right.mean()),
        ci95=wilson(float(chosen.is_right.mean()), len(chosen.is_right)),
        by_space={name: float(tried.is_right.mean()) for name, tried in tries.items()},
        n=chosen.n,
        n_validation=len(chosen.is_right),
        failed=chosen.failed,
    )
