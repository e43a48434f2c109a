"""Trials: one method run once on one draw, its predictions cached on disk."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipkit.classify.head import Head
from clipkit.classify.prompts import Templates
from clipkit.classify.words import class_prompts, head_from_words
from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.files import replace_file
from clipkit.core.text import counted
from clipkit.datasets.load import Dataset
from clipkit.datasets.sampling import MAX_VALIDATION, Draw, draw_shots
from clipkit.errors import ClipkitError, DatasetError
from clipkit.evaluate.results import Shots, Value
from clipkit.learn.methods import METHODS, Estimator, Method
from clipkit.models.encoder import Encoder
from clipkit.models.load import as_open_clip
from clipkit.models.onnx import OnnxEncoder
from clipkit.models.openclip import OpenClipEncoder

if TYPE_CHECKING:
    from clipkit.learn.trainer import Recipe


LIBRARIES = ("scipy.optimize", "sklearn.linear_model", "torch.optim")  # loading one is no method's time
Tick = Callable[[], None]

FORMAT = "clipkit attempt 1"


@dataclass(frozen=True)
class Features:
    """Embeddings in one space. validation: None where the dataset has no such part of its own."""

    train: Embeddings
    validation: Embeddings | None
    test: Embeddings


@dataclass
class Task:
    """All that a method is given: labels of train and validation, and of test nothing but the pictures."""

    encoder: Encoder
    classes: tuple[str, ...]
    train: Dataset
    validation: Dataset | None
    test: Dataset
    features: Mapping[str, Features]
    templates: Templates
    recipe: Recipe | None = None

    @cached_property
    def zeroshot(self) -> Head:
        """Classes from their names alone."""
        return head_from_words(self.encoder, self.classes, templates=self.templates).head

    @property
    def source(self) -> Dataset:
        """Where validation pictures come from: a part of their own, or train."""
        return self.validation or self.train

    def draw(self, shots: Shots, seed: int) -> Draw:
        """`shots` a class to fit and at most 4 more to choose; None: all that there are. DatasetError if too few.

        Positions in `train`, and in `source` those to choose on.
        """
        if self.validation is None:
            return draw_shots(self.train.labels, shots, seed=seed)
        rng = np.random.default_rng(seed)
        train = _some(self.train, shots, rng)
        return Draw(train, _some(self.validation, shots and min(shots, MAX_VALIDATION), rng))


@dataclass(frozen=True)
class Trial:
    """What a method answered for every test picture, after it had seen some labels; how good that is, nobody knows yet.

    shots: labelled pictures a class, 0 for none, None for all. seed: of the draw. predicted: positions of classes, one
    a test picture. seconds: choosing, fitting and answering. labels: how many were used, to fit or to choose.
    chosen: hyperparameters that were not given but found.
    """

    method: str
    shots: Shots
    seed: int
    predicted: tuple[int, ...]
    seconds: float
    labels: int
    chosen: Mapping[str, Value]


def check_methods(names: Sequence[str], encoder: Encoder) -> tuple[str, ...]:
    """The methods, each once; ClipkitError for one that there is not, or that needs a model that reads words."""
    if not names:
        raise ClipkitError("which methods?", hint=f"--methods {','.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise ClipkitError(f"there is no method {name!r}", hint=f"--methods {','.join(METHODS)}")
        if METHODS[name].needs_words and not hasattr(encoder, "encode_texts"):
            able = [other for other, method in METHODS.items() if not method.needs_words]
            raise ClipkitError(f"{name} needs a model that reads words", hint=f"--methods {','.join(able)}")
        if METHODS[name].space is None and not isinstance(encoder, OpenClipEncoder | OnnxEncoder):
            able = [other for other, method in METHODS.items() if method.space]
            raise ClipkitError(f"{name} needs a model of open_clip", hint=f"--methods {','.join(able)}")
    return tuple(dict.fromkeys(names))


def answer(name: str, task: Task, shots: Shots, seed: int, tick: Tick | None = None) -> Trial:
    """What the method called `name` says of every test picture; `tick` is called now and then, and may raise."""
    method = METHODS[name]
    for library in LIBRARIES:
        import_module(library)
    if name == "zeroshot":
        return _trial(name, 0, seed, task.classes, 0, lambda: _from_words(task))
    draw = task.draw(shots, seed)
    used = len(draw.train) + len(draw.validation)
    if method.space is None:
        return _trial(name, shots, seed, task.classes, used, lambda: _finetuned(task, draw, seed, tick))
    return _trial(name, shots, seed, task.classes, used, lambda: _fitted(method, task, draw, seed))


def settings_of(name: str, task: Task) -> str:
    """What changes the answers of a method besides its pictures."""
    method, settings = METHODS[name], {}
    if method.needs_words:  # the words themselves: a file of templates may change
        settings["prompts"] = json.dumps(class_prompts(task.classes, task.templates).prompts)
    if method.space is None:
        settings["recipe"] = json.dumps(asdict(_recipe(task)), default=str)
    return json.dumps(settings, sort_keys=True)


def _trial(
    name: str,
    shots: Shots,
    seed: int,
    classes: Sequence[str],
    labels: int,
    work: Callable[[], tuple[Sequence[str], Mapping[str, Value]]],
) -> Trial:
    place = {label: i for i, label in enumerate(classes)}
    started = time.perf_counter()
    answers, chosen = work()
    seconds = time.perf_counter() - started
    return Trial(name, shots, seed, tuple(place[str(label)] for label in answers), seconds, labels, chosen)


def _from_words(task: Task) -> tuple[Sequence[str], Mapping[str, Value]]:
    return task.zeroshot.predict(task.features["projected"].test).tolist(), {}


def _fitted(method: Method, task: Task, draw: Draw, seed: int) -> tuple[Sequence[str], Mapping[str, Value]]:
    assert method.space is not None
    features = task.features[method.space]
    source = features.train if features.validation is None else features.validation
    zeroshot = task.zeroshot if method.needs_words else None
    estimator = method.make(space=method.space, seed=seed, zeroshot=zeroshot).fit(
        features.train[draw.train],
        [task.train.labels[i] for i in draw.train],
        validation=(source[draw.validation], [task.source.labels[i] for i in draw.validation]),
    )
    return estimator.predict(features.test).tolist(), _chosen(estimator)


def _finetuned(task: Task, draw: Draw, seed: int, tick: Tick | None) -> tuple[Sequence[str], Mapping[str, Value]]:
    from clipkit.learn.fine_tuning import finetune

    tuned = finetune(
        as_open_clip(task.encoder),
        _part(task.train, draw.train),
        recipe=replace(_recipe(task), seed=seed),
        validation=_part(task.source, draw.validation),
        progress=(lambda _: tick()) if tick else None,
    )
    chosen = {"epoch": tuned.best_epoch}
    if tuned.head is not None and "backbone" in task.features:  # the same answers, and no picture is read again
        return tuned.head.predict(task.features["backbone"].test).tolist(), chosen
    return tuned.predict(task.test.files).tolist(), chosen


def _recipe(task: Task) -> Recipe:
    from clipkit.learn.trainer import Recipe

    return task.recipe or Recipe()


def _chosen(estimator: Estimator) -> dict[str, Value]:
    """What was chosen and how good it was on validation; and every finite number whose name ends in an underscore."""
    found = {name[:-1]: value for name, value in vars(estimator).items() if name[-1:] == "_" and np.ndim(value) == 0}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}
    numbers: dict[str, Value] = {
        name: value for name, value in plain.items() if isinstance(value, int | float) and math.isfinite(value)
    }
    choice = estimator.choice_
    if choice is None:
        return numbers
    parts = choice.setting if isinstance(choice.setting, tuple) else (choice.setting,)
    return {**numbers, "setting": ", ".join(f"{part:g}" for part in parts), "validation_acc1": choice.accuracy}


def _some(dataset: Dataset, shots: Shots, rng: np.random.Generator) -> IntArray:
    labels = np.array(dataset.labels)
    if shots is None:
        return np.arange(len(labels))
    chosen = []
    for name in dict.fromkeys(dataset.labels):
        mine = np.flatnonzero(labels == name)
        if len(mine) < shots:
            raise DatasetError(f"{name} has {counted(len(mine), 'picture')} in {dataset.name}, fewer than {shots}")
        chosen.append(rng.permutation(mine)[:shots])
    return np.sort(np.concatenate(chosen))


def _part(dataset: Dataset, places: IntArray) -> Dataset:
    files, labels = (tuple(row[i] for i in places) for row in (dataset.files, dataset.labels))
    return replace(dataset, files=files, labels=labels, failed=())


class TrialCache:
    """Attempts of one task in a folder; `key` says the task: pictures, labels, model, settings and versions.

    A file that is absent, damaged or of another task is no attempt: it is made again. All may be deleted at any moment.
    """

    def __init__(self, folder: Path, key: str, *, count: int, classes: int) -> None:
        self._folder, self._key = folder, key
        self._count, self._classes = count, classes

    def get(self, method: str, shots: Shots, seed: int) -> Trial | None:
        """The attempt that was kept, or None."""
        try:
            record = json.loads(self._file(method, shots, seed).read_bytes())
            checksum = record.pop("sha256")
            if record.pop("format") != FORMAT or checksum != _checksum(record) or record.pop("key") != self._key:
                return None
            attempt = Trial(**{**record, "predicted": tuple(record["predicted"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        is_whole = len(attempt.predicted) == self._count and all(0 <= i < self._classes for i in attempt.predicted)
        is_asked = (attempt.method, attempt.shots, attempt.seed) == (method, shots, seed)
        return attempt if is_whole and is_asked and math.isfinite(attempt.seconds) else None

    def put(self, attempt: Trial) -> None:
        """Keep it; where the folder cannot be written, an interrupted comparison only starts from the beginning."""
        record = {"key": self._key, **asdict(attempt)}
        content = json.dumps({"format": FORMAT, **record, "sha256": _checksum(record)})
        with suppress(OSError):
            replace_file(self._file(attempt.method, attempt.shots, attempt.seed), content.encode())

    def _file(self, method: str, shots: Shots, seed: int) -> Path:
        name = hashlib.sha256(json.dumps([self._key, method, shots, seed]).encode()).hexdigest()
        return self._folder / f"{name[:40]}.json"


def _checksum(record: Mapping[str, object]) -> str:
    plain = {name: value for name, value in record.items() if name not in ("format", "sha256")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
