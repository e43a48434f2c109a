"""What fine-tuning reads: features computed once, or views made anew each epoch; and what is said of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import softmax
from clipkit.core.files import digest
from clipkit.datasets.load import Dataset
from clipkit.errors import DatasetError, ImageError
from clipkit.learn.trainer import Batch, Learner, Material, Recipe, order
from clipkit.learn.views import dice_for, random_view, read_canvas, see
from clipkit.metrics import classification_metrics
from clipkit.models.trainable import Tunable
from clipkit.store.records import Failure, FloatArray, IntArray, Progress

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Prediction:
    """What was said of one picture. actual: its label."""

    file: str
    actual: str
    label: str
    probability: float


class Work:
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
            known = see(held_out.files, source, views=0, smallest=recipe.smallest, progress=progress)
            self.held_out, self._known = held_out.without(known.failed), known.rows
        else:
            self.held_out = _readable(held_out, source, progress)
        if recipe.is_frozen and recipe.views is not None:
            seen = see(pictures.files, source, views=recipe.views, smallest=recipe.smallest, progress=progress)
            self.pictures, self._seen = pictures.without(seen.failed), seen.rows
        else:
            self.pictures = _readable(pictures, source, progress)
        self.classes = tuple(sorted(set(pictures.labels)))
        if gone := sorted(set(self.classes) - set(self.pictures.labels)):
            raise DatasetError(f"no picture of {gone[0]} can be read", hint="take the class out, or mend its pictures")
        if not len(self.held_out):
            raise DatasetError("no validation picture can be read")
        self._contents = [digest(file) or "unreadable" for file in self.pictures.files]
        self._targets, self._right = self.pictures.targets(self.classes), self.held_out.targets(self.classes)
        self.material = Material(len(self.pictures), self._train, self._validation)

    def identity(self) -> dict[str, Any]:
        """Everything that a checkpoint must agree on before a run goes on from it."""
        known = [digest(file) or "unreadable" for file in self.held_out.files]
        pictures = [self._contents, self._targets.tolist(), known, self._right.tolist()]
        said = {
            "model": self.source.model,
            "weights": self.source.key,
            "recipe": asdict(self.recipe),
            "classes": self.classes,
            "pictures": hashlib.sha256(json.dumps(pictures).encode()).hexdigest(),
        }
        return dict(json.loads(json.dumps(said)))  # as it will be read again

    def say(self, learner: Learner) -> Prediction:
        """What is said of the first validation picture."""
        learner.mode(is_training=False)
        inputs, _ = next(self.material.validation())
        row = softmax(logits(learner, iter([(inputs[:1], None)])))[0]
        best = int(row.argmax())
        return Prediction(self.held_out.files[0], self.held_out.labels[0], self.classes[best], float(row[best]))

    def measure(self, learner: Learner) -> dict[str, Any]:
        scores = logits(learner, self.material.validation())
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
            dice = dice_for(self._contents[place], self.recipe.seed, epoch)
            canvas = read_canvas(self.pictures.files[place], reads)
            return random_view(canvas, reads, dice, smallest=self.recipe.smallest)

        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            pixels = np.stack(list(pool.map(draw, places.tolist())))
        return _rows(self.source.features(pixels)) if self.recipe.is_frozen else self.source.inputs(pixels)


def logits(learner: Learner, batches: Iterator[tuple[Any, Any]]) -> FloatArray:
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
