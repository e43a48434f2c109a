"""Training data for fine-tuning: features computed once or views made anew each epoch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import softmax
from clipkit.core.arrays import FloatArray, IntArray
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.files import digest
from clipkit.core.progress import Failure, Progress
from clipkit.datasets.load import Dataset
from clipkit.errors import DatasetError, ImageError
from clipkit.images.augment import random_view, read_canvas, rng_for
from clipkit.images.recipe import PixelRecipe
from clipkit.learn.trainer import Batch, Recipe, Trainee, TrainingData, order
from clipkit.metrics import classification_metrics
from clipkit.models.trainable import Tunable

if TYPE_CHECKING:
    import torch


FORM = "clipkit views 1"
BLOCK = 32  # pictures a file of the cache: a killed run loses a few seconds


@dataclass(frozen=True)
class Prediction:
    """The prediction for one picture.

    Attributes
    ----------
    file : str
        The picture.
    actual : str
        Its label.
    label : str
        The likeliest class.
    probability : float
        Of that class.
    """

    file: str
    actual: str
    label: str
    probability: float


class FinetuneData:
    """The pictures as batches: features computed once, or views of them made anew for every epoch."""

    def __init__(
        self,
        source: Tunable,
        recipe: Recipe,
        pictures: Dataset,
        held_out: Dataset,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.source, self.recipe = source, recipe
        self._seen = self._known = None
        self.pictures, self.held_out = pictures, held_out
        if recipe.is_frozen:
            known = view_features(held_out.files, source, views=0, smallest=recipe.smallest, progress=progress)
            self.held_out, self._known = held_out.without(known.failed), known.rows
        else:
            self.held_out = _readable(held_out, source, progress)
        if recipe.is_frozen and recipe.views is not None:
            seen = view_features(
                pictures.files, source, views=recipe.views, smallest=recipe.smallest, progress=progress
            )
            self.pictures, self._seen = pictures.without(seen.failed), seen.rows
        else:
            self.pictures = _readable(pictures, source, progress)
        self.classes = tuple(sorted(set(pictures.labels)))
        if gone := sorted(set(self.classes) - set(self.pictures.labels)):
            raise DatasetError(f"no picture of {gone[0]} can be read", hint="take the class out, or mend its pictures")
        if not len(self.held_out):
            raise DatasetError(
                "no validation picture can be read", hint="mend its pictures, or let some of train be held back"
            )
        self._contents = [digest(file) or "unreadable" for file in self.pictures.files]
        self._targets, self._right = self.pictures.targets(self.classes), self.held_out.targets(self.classes)
        self.data = TrainingData(len(self.pictures), self._train, self._validation)

    def identity(self) -> dict[str, Any]:
        """Everything that a checkpoint must agree on before a run goes on from it."""
        known = [digest(file) or "unreadable" for file in self.held_out.files]
        pictures = [self._contents, self._targets.tolist(), known, self._right.tolist()]
        record = {
            "model": self.source.model,
            "weights": self.source.key,
            "recipe": asdict(self.recipe),
            "classes": self.classes,
            "pictures": hashlib.sha256(json.dumps(pictures).encode()).hexdigest(),
        }
        return dict(json.loads(json.dumps(record)))  # as it will be read again

    def scores(self, learner: Trainee) -> FloatArray:
        """Logits of the validation pictures: (n, c)."""
        learner.mode(is_training=False)
        return logits(learner, self.data.validation())

    def predictions(self, scores: FloatArray) -> tuple[Prediction, ...]:
        """What scores (n, c) say of each validation picture."""
        table = softmax(scores)
        best = table.argmax(axis=1).tolist()
        known = zip(self.held_out.files, self.held_out.labels, best, table, strict=True)
        return tuple(Prediction(file, label, self.classes[at], float(row[at])) for file, label, at, row in known)

    def measure(self, scores: FloatArray) -> dict[str, Any]:
        return classification_metrics(scores, self._right, probabilities=softmax(scores))

    def _train(self, epoch: int) -> Iterator[Batch]:
        batches = order(len(self.pictures), self.recipe.batch_size, self.recipe.seed, epoch)
        if self._seen is None:
            return _ahead(lambda places: (self._inputs(places, epoch), _targets(self._targets[places])), batches)
        count, views = self._seen.shape[:2]
        drawn = np.random.default_rng([self.recipe.seed, epoch, 1]).integers(views, size=count)
        rows = self._seen[np.arange(count), drawn]  # the view of each picture that this epoch sees: (n, d)
        return ((_rows(rows[places]), _targets(self._targets[places])) for places in batches)

    def _validation(self) -> Iterator[Batch]:
        size = self.recipe.batch_size
        places = [
            np.arange(start, min(start + size, len(self.held_out)), dtype=np.int64)
            for start in range(0, len(self.held_out), size)
        ]
        if self._known is not None:
            rows = self._known
            return ((_rows(rows[chosen, 0]), _targets(self._right[chosen])) for chosen in places)

        def make(chosen: IntArray) -> Batch:
            files = [self.held_out.files[i] for i in chosen.tolist()]
            return self.source.centre_inputs(files), _targets(self._right[chosen])

        return _ahead(make, places)

    def _inputs(self, places: IntArray, epoch: int) -> torch.Tensor:
        """Pixels for a tower that learns, features of them where it does not."""
        if self.recipe.views == 0:
            return self.source.centre_inputs([self.pictures.files[i] for i in places.tolist()])
        reads = self.source.recipe

        def draw(place: int) -> npt.NDArray[np.uint8]:
            rng = rng_for(self._contents[place], self.recipe.seed, epoch)
            canvas = read_canvas(self.pictures.files[place], reads)
            return random_view(canvas, reads, rng, smallest=self.recipe.smallest)

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            pixels = np.stack(list(pool.map(draw, places.tolist())))
        return _rows(self.source.features(pixels)) if self.recipe.is_frozen else self.source.inputs(pixels)


def logits(learner: Trainee, batches: Iterator[tuple[Any, Any]]) -> FloatArray:
    import torch

    with torch.no_grad():
        return np.concatenate([learner.logits(inputs).float().cpu().numpy() for inputs, _ in batches])


def _readable(dataset: Dataset, source: Tunable, progress: Callable[[Progress], None] | None) -> Dataset:
    """Without the pictures that cannot be read; each is opened once for it."""
    failed: list[Failure] = []
    for done, file in enumerate(dataset.files, start=1):
        try:
            read_canvas(file, source.recipe)
        except ImageError as error:
            failed.append(Failure(file, error.message))
        if progress:
            progress(Progress(done, len(dataset), file))
    return dataset.without(failed)


def _ahead(make: Callable[[IntArray], Batch], batches: Sequence[IntArray]) -> Iterator[Batch]:
    """Batches in order; the next is made while the last is learned from."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(make, batches[0])
        for places in batches[1:]:
            ready, waiting = waiting, pool.submit(make, places)
            yield ready.result()
        yield waiting.result()


def _rows(rows: npt.NDArray[Any]) -> torch.Tensor:
    import torch

    return torch.from_numpy(rows.astype(np.float32))


def _targets(targets: IntArray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(targets))


class FeatureReader(Protocol):
    """A frozen image tower. key: everything that changes its features; recipe: the pixels it reads."""

    @property
    def key(self) -> str: ...
    @property
    def recipe(self) -> PixelRecipe: ...
    def features(self, pixels: npt.NDArray[np.uint8]) -> FloatArray: ...
    def centre_features(self, files: Sequence[str]) -> FloatArray: ...


@dataclass(frozen=True, eq=False)
class ViewFeatures:
    """The features of those pictures that could be read. rows: (n, views, d) float16. places: which of the files."""

    rows: npt.NDArray[np.float16]
    places: npt.NDArray[np.int64]
    failed: tuple[Failure, ...]


def view_features(
    files: Sequence[str],
    reader: FeatureReader,
    *,
    views: int,
    smallest: float,
    progress: Callable[[Progress], None] | None = None,
) -> ViewFeatures:
    """Features of `views` random views of each picture, or for 0 of its centre, as the model is asked later.

    Each picture is decoded once for all its views. Views are drawn from the picture's own content, so that any
    training on it, at any seed, shares them; what was computed before comes from the cache. Rounded to float16.
    """
    cache = _cache(reader, views, smallest)
    contents = [digest(file) or "unreadable" for file in files]
    known = _known(cache, set(contents))
    missing = [i for i, content in enumerate(contents) if content not in known]
    failed: list[Failure] = []
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        names = [files[i] for i in block]
        rows, bad = _compute(names, [contents[i] for i in block], reader, views, smallest)
        failed += bad
        gone = {failure.path for failure in bad}
        fresh = [contents[i] for i in block if files[i] not in gone]
        known.update(zip(fresh, rows, strict=True))
        if fresh:
            cache.put(cache_key(fresh)[:32], {"rows": rows}, fresh)
        if progress:
            progress(Progress(start + len(block), len(missing), names[-1]))
    gone = {failure.path for failure in failed}
    places = np.array([i for i, file in enumerate(files) if file not in gone], np.int64)
    if not len(places):
        raise ImageError(
            f"none of {len(files)} pictures can be read; the first: {failed[0].reason}",
            hint="pictures that other programs open, as JPEG or PNG",
        )
    return ViewFeatures(np.stack([known[contents[i]] for i in places]), places, tuple(failed))


def _compute(
    files: Sequence[str], contents: Sequence[str], reader: FeatureReader, views: int, smallest: float
) -> tuple[npt.NDArray[np.float16], list[Failure]]:
    """(n, views, d) of those that can be read, and the others."""
    if not views:
        return _centres(files, reader)

    def draw(file: str, content: str) -> npt.NDArray[np.uint8] | Failure:
        try:
            canvas = read_canvas(file, reader.recipe)
        except ImageError as error:
            return Failure(file, error.message)
        return np.stack(
            [random_view(canvas, reader.recipe, rng_for(content, view), smallest=smallest) for view in range(views)]
        )

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        drawn = list(pool.map(draw, files, contents))
    stacks = [item for item in drawn if not isinstance(item, Failure)]
    failed = [item for item in drawn if isinstance(item, Failure)]
    if not stacks:
        return np.empty((0, views, 0), np.float16), failed
    rows = reader.features(np.concatenate(stacks)).astype(np.float16)
    return rows.reshape(len(stacks), views, -1), failed


def _centres(files: Sequence[str], reader: FeatureReader) -> tuple[npt.NDArray[np.float16], list[Failure]]:
    parts: list[FloatArray] = []
    failed: list[Failure] = []
    try:
        parts.append(reader.centre_features(files))
    except ImageError:
        for file in files:
            try:
                parts.append(reader.centre_features([file]))
            except ImageError as error:
                failed.append(Failure(file, error.message))
    rows = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    return rows.astype(np.float16)[:, None], failed


def _cache(reader: FeatureReader, views: int, smallest: float) -> ArrayCache:
    return ArrayCache("views", cache_key(reader.key, views, smallest if views else None)[:32], form=FORM)


def _known(cache: ArrayCache, wanted: set[str]) -> dict[str, npt.NDArray[np.float16]]:
    rows: dict[str, npt.NDArray[np.float16]] = {}
    for key, contents in cache.payloads():
        if isinstance(contents, list) and wanted & set(contents) and (stored := cache.get(key)) is not None:
            found = zip(contents, stored[0]["rows"], strict=True)
            rows.update((name, row) for name, row in found if name in wanted)
    return rows
