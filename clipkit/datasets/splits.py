"""Train, validation and test splits: pictures apart, and test labels held back until the last prediction."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipkit.core.arrow import SUFFIXES
from clipkit.core.files import digest
from clipkit.core.text import are, counted, described, short_name, some
from clipkit.datasets.load import (
    Dataset,
    layout_splits,
    load_dataset,
    name_splits,
    pets_root,
    table_in,
    table_rows,
)
from clipkit.errors import DatasetError

HELD_OUT = 0.3  # of each class, where the dataset has no split of its own
TWO_CLASSES = "two folders of pictures at least, one a class; or a CSV image,label"
SEED = 0  # of the hold-out; the seeds of a comparison draw from what is left


class Answers:
    """The labels of the test pictures, which nobody who chooses or fits anything may hold.

    `classes` says which names occur; `open` is the scoring step, and comes after the last prediction.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)

    def classes(self, files: Iterable[str]) -> frozenset[str]:
        """The names that occur among these pictures; not which picture has which."""
        return frozenset(self._labels[file] for file in files)

    def open(self, files: Iterable[str]) -> tuple[str, ...]:
        """The label of each."""
        return tuple(self._labels[file] for file in files)


@dataclass(frozen=True)
class Split:
    """A dataset in parts, whose test labels are held apart.

    Attributes
    ----------
    name : str
        Of the dataset.
    description : str
        Where the parts come from, in a sentence.
    train : Dataset
        To learn from.
    validation : Dataset or None
        To choose settings on; None where the dataset has none of its own.
    test : Dataset
        To measure on; without labels.
    answers : Answers
        The test labels; `answers.open(files)` gives them, and comes after the last prediction.
    classes : tuple of str
        Names of the training labels, sorted.
    groups : tuple of str
        For each class the group it belongs to, or "".
    notes : tuple of str
        What a reader should know, a sentence each.

    Examples
    --------
    >>> from clipkit.datasets import read_split
    >>> split = read_split("animals")
    >>> split.test.labels
    ()
    >>> sorted(split.answers.open(split.test.files))
    ['cat', 'cat', 'other', 'other']
    """

    name: str
    description: str
    train: Dataset
    validation: Dataset | None
    test: Dataset
    answers: Answers
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = (f"{name} {len(part):,}" for name, part in self.parts.items())
        return described(
            self, repr(short_name(self.name)), *counts, f"{counted(len(self.classes), 'class')}: {some(self.classes)}"
        )

    @property
    def parts(self) -> dict[str, Dataset]:
        """The parts that there are, by name: train, validation, test."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def having(self, parts: Mapping[str, Dataset]) -> Split:
        """The same with other parts.

        Parameters
        ----------
        parts : mapping of str to Dataset
            "train" and "test", perhaps "validation".

        Returns
        -------
        Split
            A copy.
        """
        return replace(self, train=parts["train"], validation=parts.get("validation"), test=parts["test"])

    def digest(self) -> str:
        """SHA-256 of the bytes of every picture and of all labels but those of test.

        Returns
        -------
        str
            In hex.
        """
        parts = [(_digests(part.files), part.labels) for part in self.parts.values()]
        return hashlib.sha256(repr((self.classes, parts)).encode("utf-8", "surrogateescape")).hexdigest()


def read_split(path: str | os.PathLike[str]) -> Split:
    """A dataset in train, validation and test.

    Its own parts (folders, or the column `split` of its table); else a hold-out of 30 % of each class, fixed by a seed,
    where pictures with the same bytes stay on one side.

    Parameters
    ----------
    path : str or path
        As for `load_dataset`.

    Returns
    -------
    Split
        Test labels are in `answers`.

    Raises
    ------
    DatasetError
        If a part is missing, has no labels, or is of one class only.

    Examples
    --------
    >>> from clipkit.datasets import read_split
    >>> split = read_split("animals")
    >>> split.description
    'a hold-out of 30% of each class, seed 0'
    >>> len(split.train), len(split.test)
    (6, 4)
    """
    place = Path(path)
    if root := pets_root(place):
        parts = [_labelled(root, part) for part in ("trainval", "test")]
        groups = {label: _species(file) for part in parts for file, label in zip(part.files, part.labels, strict=True)}
        split = _apart("Oxford-IIIT Pet", "its own trainval and test", parts[0], None, parts[1])
        return replace(split, groups=tuple(groups[name] for name in split.classes))
    train, validation, test = own_parts(place)
    own, test = (validation, test) if test else (None, validation)
    if train and test:
        description = f"its own {train}{f', {own}' if own else ''} and {test}"
        parts = [_labelled(place, part) for part in (train, test)]
        return _apart(str(place), description, parts[0], _labelled(place, own) if own else None, parts[1])
    whole = _labelled(place, None)
    if len(whole.classes) < 2:
        raise _one_class(whole.name, whole.classes)
    description = f"a hold-out of {HELD_OUT:.0%} of each class, seed {SEED}"
    return _apart(str(place), description, *_held_out(whole))


def check_classes(split: Split) -> Split:
    """The same with a note on classes that are not measured; DatasetError for one that nobody can learn."""
    if not len(split.train) or not len(split.test):
        raise DatasetError(
            f"{split.name} has no picture to {'measure on' if len(split.train) else 'learn from'}", hint=TWO_CLASSES
        )
    learned, asked = set(split.train.labels), split.answers.classes(split.test.files)
    if len(learned) < 2:
        raise _one_class(split.name, learned)
    if unknown := sorted(asked - learned):
        raise DatasetError(
            f"{split.name}: {_named(unknown)} in test but not in train: nobody could learn it",
            hint="add pictures of it to train, or take it out of test",
        )
    if strange := sorted(set(split.validation.labels if split.validation else ()) - learned):
        raise DatasetError(
            f"{split.name}: {_named(strange)} in validation but not in train",
            hint="add pictures of it to train, or take it out of validation",
        )
    if gone := sorted(set(split.classes) - learned - asked):
        note = f"{_named(gone)} without a picture that can be read: neither learned nor measured"
        split = replace(split, notes=(*split.notes, note))
    if unmeasured := sorted(learned - asked):
        note = f"{_named(unmeasured)} in train but not in test: learned, not measured"
        return replace(split, notes=(*split.notes, note))
    return split


def own_parts(place: Path) -> tuple[str | None, str | None, str | None]:
    """What a dataset calls its train, validation and test; None for what it has not."""
    if found := layout_splits(place):
        return name_splits(found)
    table = table_in(place)
    found = _folders(place) if place.is_dir() and not table else _values(table or place)
    return name_splits(found)


def _folders(place: Path) -> set[str]:
    return {entry.name for entry in place.iterdir() if entry.is_dir()}


def _values(table: Path) -> set[str]:
    if table.suffix in SUFFIXES:
        return set()
    try:
        return {row.get("split", "") for _, row in table_rows(table)}
    except (OSError, ValueError):
        return set()  # load_dataset says what is wrong with it


def _labelled(place: Path, part: str | None) -> Dataset:
    dataset = load_dataset(place, split=part)
    if not dataset.labels:
        raise DatasetError(f"{dataset.name} has captions, no labels", hint=f"clipkit evaluate retrieval {place}")
    return dataset


def _held_out(whole: Dataset) -> tuple[Dataset, None, Dataset]:
    """A share of each class, at least one; pictures with the same bytes stay on one side."""
    rng = np.random.default_rng(SEED)
    digests, labels = np.array(_digests(whole.files)), np.array(whole.labels)
    chosen: list[int] = []
    for name in whole.classes:
        mine = np.flatnonzero(labels == name)
        contents = rng.permutation(np.unique(digests[mine]))
        if len(contents) < 2:
            raise DatasetError(
                f"{whole.name}: {name} has {len(contents)} picture, and none would be left to learn from",
                hint="two pictures a class at least",
            )
        asked = contents[: max(1, round(HELD_OUT * len(contents)))]
        chosen += mine[np.isin(digests[mine], asked)].tolist()
    is_test = np.isin(np.arange(len(whole)), chosen)
    return _only(whole, ~is_test), None, replace(_only(whole, is_test), failed=())


def _apart(name: str, description: str, train: Dataset, validation: Dataset | None, test: Dataset) -> Split:
    answers = Answers(dict(zip(test.files, test.labels, strict=True)))
    learned = set(_digests(train.files)) | set(_digests(validation.files) if validation else ())
    twice = sum(digest in learned for digest in _digests(test.files))
    notes = (f"{counted(twice, 'test picture')} {are(twice)} also learned from, byte by byte",) if twice else ()
    sealed = replace(test, labels=())
    classes = tuple(sorted(set(train.labels)))
    return check_classes(
        Split(name, description, train, validation, sealed, answers, classes, ("",) * len(classes), notes)
    )


def _only(dataset: Dataset, chosen: np.ndarray) -> Dataset:
    places = np.flatnonzero(chosen).tolist()
    files, labels = (tuple(row[i] for i in places) for row in (dataset.files, dataset.labels))
    return replace(dataset, files=files, labels=labels)


def _digests(files: Sequence[str]) -> list[str]:
    return [digest(file) or f"unreadable {file}" for file in files]


def _species(file: str) -> str:
    return "cats" if Path(file).name[:1].isupper() else "dogs"  # how the set's authors name their files


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


def _one_class(name: str, classes: Iterable[str]) -> DatasetError:
    only = next(iter(classes), "none at all")
    return DatasetError(f"{name} has one class only, {only}: there is nothing to tell apart", hint=TWO_CLASSES)
