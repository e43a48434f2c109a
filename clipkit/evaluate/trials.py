"""The methods that can be compared, and one attempt of one: it sees labelled training pictures, and test pictures."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.classify.prompts import Templates
from clipkit.classify.zeroshot import ZeroShotClassifier, class_prompts
from clipkit.datasets.load import Dataset
from clipkit.errors import ClipkitError, DatasetError
from clipkit.evaluate.attempts import Attempt, Shots, Value
from clipkit.learn.base import MAX_VALIDATION, draw_shots
from clipkit.learn.mlp import UNITS
from clipkit.models.openclip import Encoder, OpenClipEncoder
from clipkit.store.records import Embeddings, IntArray

if TYPE_CHECKING:
    from clipkit.learn.trainer import Recipe

LIBRARIES = ("scipy.optimize", "sklearn.linear_model", "torch.optim")  # loading one is no method's time
Tick = Callable[[], None]


class Estimator(Protocol):
    """What a method is made of: scikit-learn's words."""

    def fit(
        self, embeddings: Embeddings, labels: Sequence[str], *, validation: tuple[Embeddings, Sequence[str]] | None
    ) -> Self: ...
    def predict(self, embeddings: Embeddings) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Features:
    """Embeddings in one space. validation: None where the dataset has no such part of its own."""

    train: Embeddings
    validation: Embeddings | None
    test: Embeddings


@dataclass(frozen=True)
class Draw:
    """Which labelled pictures one attempt may see: positions in train, and in the part that validation comes from."""

    train: IntArray
    validation: IntArray


@dataclass
class Material:
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
        return ZeroShotClassifier(self.encoder, self.classes, templates=self.templates).head

    @property
    def source(self) -> Dataset:
        """Where validation pictures come from: a part of their own, or train."""
        return self.validation or self.train

    def draw(self, shots: Shots, seed: int) -> Draw:
        """`shots` a class to fit and at most 4 more to choose; None: all that there are. DatasetError if too few."""
        if self.validation is None:
            drawn = draw_shots(self.train.labels, shots, seed=seed)
            return Draw(drawn.train, drawn.validation)
        dice = np.random.default_rng(seed)
        train = _some(self.train, shots, dice)
        return Draw(train, _some(self.validation, shots and min(shots, MAX_VALIDATION), dice))


@dataclass(frozen=True)
class Method:
    """One way to name classes. space: of the features it reads, None where it reads the pictures themselves.

    make: an estimator for a seed, or None for those that `answer` treats by name. most_seeds: more would take hours.
    """

    about: str
    space: str | None = "projected"
    make: Callable[[Material, int], Estimator] | None = None
    needs_words: bool = False
    most_seeds: int | None = None


def answer(name: str, material: Material, shots: Shots, seed: int, tick: Tick | None = None) -> Attempt:
    """What the method called `name` says of every test picture; `tick` is called now and then, and may raise."""
    method = METHODS[name]
    for library in LIBRARIES:
        import_module(library)
    if name == "zeroshot":
        return _attempt(name, 0, seed, material.classes, 0, lambda: _from_words(material))
    draw = material.draw(shots, seed)
    used = len(draw.train) + len(draw.validation)
    make, space = method.make, method.space
    if make is None or space is None:
        return _attempt(name, shots, seed, material.classes, used, lambda: _finetuned(material, draw, seed, tick))
    return _attempt(
        name, shots, seed, material.classes, used, lambda: _fitted(make(material, seed), material, space, draw)
    )


def settings_of(name: str, material: Material) -> str:
    """What changes the answers of a method besides its pictures."""
    method, said = METHODS[name], {}
    if method.needs_words:  # the words themselves: a file of templates may change
        said["prompts"] = json.dumps(class_prompts(material.classes, material.templates).prompts)
    if method.make is None and method.space is None:
        said["recipe"] = json.dumps(asdict(_recipe(material)), default=str)
    return json.dumps(said, sort_keys=True)


def _probe(space: str, **options: Any) -> Callable[[Material, int], Estimator]:
    def make(material: Material, seed: int) -> Estimator:
        from clipkit.learn.linear_probe import LinearProbe

        return LinearProbe(space=space, seed=seed, **options)

    return make


def _few(name: str, *, needs_words: bool = False) -> Callable[[Material, int], Estimator]:
    def make(material: Material, seed: int) -> Estimator:
        from clipkit.learn import tip_adapter

        kind = getattr(tip_adapter, name)
        estimator: Estimator = kind(material.zeroshot) if needs_words else kind()
        return estimator

    return make


METHODS: dict[str, Method] = {
    "zeroshot": Method("the classes' names alone", needs_words=True),
    "probe": Method("logistic regression on embeddings", make=_probe("projected")),
    "probe-backbone": Method("logistic regression before the projection", "backbone", _probe("backbone")),
    "text-probe": Method(
        "logistic regression that starts from the names", make=_probe("projected", init="text"), needs_words=True
    ),
    "gelu": Method("two layers with a GELU before the projection", "backbone", _probe("backbone", hidden=UNITS)),
    "knn": Method("the nearest training pictures vote", make=_few("NearestNeighbours")),
    "prototypes": Method("the nearest class mean", make=_few("Prototypes")),
    "tip-adapter": Method("names and a cache of pictures", make=_few("TipAdapter", needs_words=True), needs_words=True),
    "tip-adapter-f": Method("the same, its keys trained", make=_few("TipAdapterF", needs_words=True), needs_words=True),
    "blend": Method("a blend of names and class means", make=_few("TextBlend", needs_words=True), needs_words=True),
    "finetune": Method("a new head by gradient descent, pictures augmented", None, most_seeds=1),
}


def _attempt(
    name: str,
    shots: Shots,
    seed: int,
    classes: Sequence[str],
    labels: int,
    work: Callable[[], tuple[Sequence[str], Mapping[str, Value]]],
) -> Attempt:
    place = {label: i for i, label in enumerate(classes)}
    started = time.perf_counter()
    said, chosen = work()
    seconds = time.perf_counter() - started
    return Attempt(name, shots, seed, tuple(place[str(label)] for label in said), seconds, labels, chosen)


def _from_words(material: Material) -> tuple[Sequence[str], Mapping[str, Value]]:
    return material.zeroshot.predict(material.features["projected"].test).tolist(), {}


def _fitted(
    estimator: Estimator, material: Material, space: str, draw: Draw
) -> tuple[Sequence[str], Mapping[str, Value]]:
    features = material.features[space]
    source = features.train if features.validation is None else features.validation
    ways: dict[str, Any] = {"zeroshot": material.zeroshot} if getattr(estimator, "init", None) == "text" else {}
    estimator.fit(
        features.train[draw.train],
        [material.train.labels[i] for i in draw.train],
        validation=(source[draw.validation], [material.source.labels[i] for i in draw.validation]),
        **ways,
    )
    return estimator.predict(features.test).tolist(), _chosen(estimator)


def _finetuned(
    material: Material, draw: Draw, seed: int, tick: Tick | None
) -> tuple[Sequence[str], Mapping[str, Value]]:
    from clipkit.learn.fine_tuning import finetune

    assert isinstance(material.encoder, OpenClipEncoder)  # check_methods has seen to it
    tuned = finetune(
        material.encoder,
        _part(material.train, draw.train),
        recipe=replace(_recipe(material), seed=seed),
        validation=_part(material.source, draw.validation),
        progress=(lambda _: tick()) if tick else None,
    )
    chosen = {"epoch": tuned.best_epoch}
    if tuned.head is not None and "backbone" in material.features:  # the same answers, and no picture is read again
        return tuned.head.predict(material.features["backbone"].test).tolist(), chosen
    return tuned.predict(material.test.files).tolist(), chosen


def _recipe(material: Material) -> Recipe:
    from clipkit.learn.trainer import Recipe

    return material.recipe or Recipe()


def _chosen(estimator: Estimator) -> dict[str, Value]:
    """What was chosen and how good it was on validation; and every finite number whose name ends in an underscore."""
    found = {name[:-1]: value for name, value in vars(estimator).items() if name[-1:] == "_" and np.ndim(value) == 0}
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}
    numbers: dict[str, Value] = {
        name: value for name, value in plain.items() if isinstance(value, int | float) and math.isfinite(value)
    }
    choice = getattr(estimator, "choice_", None)
    if choice is None:
        return numbers
    parts = choice.setting if isinstance(choice.setting, tuple) else (choice.setting,)
    return {**numbers, "setting": ", ".join(f"{part:g}" for part in parts), "validation_acc1": choice.accuracy}


def _some(dataset: Dataset, shots: Shots, dice: np.random.Generator) -> IntArray:
    labels = np.array(dataset.labels)
    if shots is None:
        return np.arange(len(labels))
    chosen = []
    for name in dict.fromkeys(dataset.labels):
        mine = np.flatnonzero(labels == name)
        if len(mine) < shots:
            raise DatasetError(f"{name} has {len(mine)} pictures in {dataset.name}, fewer than {shots}")
        chosen.append(dice.permutation(mine)[:shots])
    return np.sort(np.concatenate(chosen))


def _part(dataset: Dataset, places: IntArray) -> Dataset:
    files, labels = (tuple(row[i] for i in places) for row in (dataset.files, dataset.labels))
    return replace(dataset, files=files, labels=labels, failed=())


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
        if METHODS[name].space is None and not isinstance(encoder, OpenClipEncoder):
            able = [other for other, method in METHODS.items() if method.space]
            raise ClipkitError(f"{name} needs a model of open_clip", hint=f"--methods {','.join(able)}")
    return tuple(dict.fromkeys(names))
