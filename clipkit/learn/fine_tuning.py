"""Fine-tuning: a new head on a frozen image tower, or on one of which a part learns too; the tutorial's recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head, softmax
from clipkit.core.arrays import FloatArray
from clipkit.core.files import check_writable
from clipkit.core.progress import Failure, Progress
from clipkit.core.requirements import missing_packages_named
from clipkit.core.text import counted, described, some
from clipkit.datasets.load import Dataset
from clipkit.datasets.sampling import split_validation
from clipkit.datasets.splits import TWO_CLASSES
from clipkit.errors import DatasetError
from clipkit.learn.finetune_data import FinetuneData, Prediction, logits
from clipkit.learn.trainer import Epoch, Recipe, Trainee, train
from clipkit.models.encoder import Encoder
from clipkit.models.openclip import open_clip_catalogue
from clipkit.models.registry import find_weights
from clipkit.models.trainable import Body, Counts, Tunable, TunableEncoder, count_parameters, tunable, unfreeze
from clipkit.models.vit import ViTClassifier

if TYPE_CHECKING:
    import pandas as pd

HEAD, REPORT = "head.safetensors", "finetune.json"


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A model that was fine-tuned, as it was after its best epoch.

    Attributes
    ----------
    classes : tuple of str
        Labels, sorted.
    counts : Counts
        Parameters: `trainable`, `frozen`, `total`.
    history : tuple of Epoch
        Each with `number`, `lr`, `loss`, `val_loss`, `val_acc1` and `seconds`.
    best_epoch : int
        Number of the epoch whose weights these are.
    validation : tuple of (Prediction, Prediction)
        Of each validation picture, with the first weights and the last: `file`, `actual`, `label`, `probability`.
    metrics : dict
        Of the validation pictures, as `classification_metrics` has them. They chose the epoch, so that they flatter.
    head : Head or None
        Over backbone features, where the tower is open_clip's and stayed frozen.
    classifier : ViTClassifier or None
        Where the model is one of transformers.
    failed : tuple of Failure
        Pictures that could not be read.
    notes : tuple of str
        What to know, a sentence each.
    recipe : Recipe
        As it was followed.

    See Also
    --------
    finetune : Makes one.

    Examples
    --------
    >>> from clipkit.learn import Recipe
    >>> vit = clipkit.ViTClassifier("tiny-vit")
    >>> tuned = clipkit.finetune(vit, clipkit.load_dataset("animals"), recipe=Recipe(epochs=2, views=0))
    >>> tuned.save("tuned")
    >>> clipkit.ViTClassifier("tuned").classes_.tolist()
    ['cat', 'other']
    """

    classes: tuple[str, ...]
    counts: Counts
    history: tuple[Epoch, ...]
    best_epoch: int
    validation: tuple[tuple[Prediction, Prediction], ...]
    metrics: dict[str, Any]
    head: Head | None
    classifier: ViTClassifier | None
    failed: tuple[Failure, ...]
    notes: tuple[str, ...]
    recipe: Recipe
    _source: Tunable
    _body: Body
    _learner: Trainee

    def __repr__(self) -> str:
        classes = f"{counted(len(self.classes), 'class')}: {some(self.classes)}"
        best = f"best epoch {self.best_epoch} of {len(self.history)}"
        return described(self, repr(self._source.model), classes, best, f"validation acc1 {self.metrics['acc1']:.3f}")

    def _repr_html_(self) -> str:
        """Validation pictures with the first and the last answer, as notebooks show them."""
        from clipkit.images.notebook import Captioned, notebook_html, rest

        pictures = (Captioned(last.file, _change(first, last)) for first, last in self.validation)
        n, best = self.metrics["n"], f"best epoch {self.best_epoch} of {len(self.history)}"
        facts = [best, f"validation acc1 {self.metrics['acc1']:.3f}, n = {n:,}", f"{self.counts.trainable:,} learned"]
        more = rest(len(self.validation), "pictures", "validation")
        return notebook_html(self._source.model, facts, pictures=pictures, more=more)

    @property
    def before(self) -> Prediction:
        """Of the first validation picture, with the first weights."""
        return self.validation[0][0]

    @property
    def after(self) -> Prediction:
        """Of the same picture, with the last weights."""
        return self.validation[0][1]

    def to_frame(self) -> pd.DataFrame:
        """The epochs as a pandas table.

        Returns
        -------
        pandas.DataFrame
            With the columns lr, loss, val_loss, val_acc1 and seconds; its index is the number of the epoch.
        """
        import pandas as pd

        return pd.DataFrame([asdict(epoch) for epoch in self.history]).set_index("number")

    def predict(self, files: Sequence[str]) -> npt.NDArray[np.str_]:
        """Label of the likeliest class.

        Parameters
        ----------
        files : sequence of str
            Pictures on this disk.

        Returns
        -------
        ndarray of shape (n,), str
            In order.

        Raises
        ------
        ImageError
            Names the first picture that cannot be read.
        """
        return np.asarray(np.array(self.classes)[self.predict_proba(files).argmax(axis=1)])

    def predict_proba(self, files: Sequence[str]) -> FloatArray:
        """Probabilities of the classes.

        Parameters
        ----------
        files : sequence of str
            Pictures on this disk.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes`.
        """
        parts = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(files), self.recipe.batch_size):
            parts.append(self._probabilities(files[start : start + self.recipe.batch_size]))
        return np.concatenate(parts)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save what `load_encoder` and `Head.load`, or `ViTClassifier`, read; and the history, as finetune.json.

        A frozen open_clip tower: head.safetensors. One that learned: the whole model in open_clip's layout, and a head
        that is bound to it. A model of transformers: as `save_pretrained` writes it.

        Parameters
        ----------
        folder : str or path
            Made if need be.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if self.head is not None:
            self.head.save(place / HEAD)
        elif isinstance(self._source, TunableEncoder):
            self._source.save(self._body, place)
            weights = find_weights(str(place.resolve()), open_clip_catalogue())
            _as_head(self._learner, self.classes, weights.model, weights.fingerprint).save(place / HEAD)
        else:
            self._source.save(self._body, self.classes, self._learner.head, place)
        (place / REPORT).write_text(json.dumps(self._said(), indent=2), encoding="utf-8")

    def _probabilities(self, files: Sequence[str]) -> FloatArray:
        if self.classifier is not None:
            return self.classifier.predict_proba(files)
        if self.head is not None and isinstance(self._source, TunableEncoder):
            return self.head.probabilities(self._source.encoder.encode_images(files, space="backbone"))
        return softmax(logits(self._learner, iter([(self._source.centre_inputs(files), None)])))

    def _said(self) -> dict[str, Any]:
        names = ("classes", "best_epoch", "metrics", "notes")
        record = {name: getattr(self, name) for name in names} | {"model": self._source.model}
        parts = ("recipe", "counts", "before", "after")
        return (
            record
            | {name: asdict(getattr(self, name)) for name in parts}
            | {
                "history": [asdict(epoch) for epoch in self.history],
                "failed": [asdict(failure) for failure in self.failed],
            }
        )


@missing_packages_named()
def finetune(
    model: Encoder | ViTClassifier,
    dataset: Dataset,
    *,
    recipe: Recipe | None = None,
    validation: Dataset | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> FineTuned:
    """Fine-tune a model: a new head for the classes of a dataset, and perhaps a tower that learns too.

    `model` itself is not changed. Pictures that cannot be read are left out, and listed.

    Parameters
    ----------
    model : Encoder or ViTClassifier
        Where to start.
    dataset : Dataset
        With labels of two classes or more.
    recipe : Recipe, optional
        Hyperparameters; by default a head on a frozen tower.
    validation : Dataset, optional
        What chooses the epoch; without it a tenth of each class of `dataset`, which is then not learned from. Test
        pictures have no place here.
    out : str or path, optional
        A folder for checkpoints and the result; a run that was killed goes on from there and ends with the same
        weights.
    progress : callable, optional
        Given a `Progress` while features are computed.
    on_epoch : callable, optional
        Given each `Epoch`.

    Returns
    -------
    FineTuned
        As it was after its best epoch.

    Raises
    ------
    DatasetError
        If there is nothing to tell apart, or nothing to choose the epoch on.
    ModelError
        If a checkpoint is damaged or of another run, or the loss is not finite.

    References
    ----------
    .. [1] A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
       ICLR 2021.

    Examples
    --------
    >>> from clipkit.learn import Recipe
    >>> vit = clipkit.ViTClassifier("tiny-vit")
    >>> tuned = clipkit.finetune(vit, clipkit.load_dataset("animals"), recipe=Recipe(epochs=2, views=0))
    >>> tuned.classes, len(tuned.history)
    (('cat', 'other'), 2)
    >>> tuned.predict_proba(["photos/chelsea.png"]).shape
    (1, 2)
    """
    import torch

    recipe = recipe or Recipe()
    pictures, held_out = _parts(dataset, validation, recipe.seed)
    source = tunable(model)
    with torch.random.fork_rng(devices=[]):  # a network draws its first weights before it is given ours
        body = source.body()
    unfreeze(body.module, recipe.unfreeze)
    place = Path(out) if out is not None else None
    if place is not None:
        check_writable(place)
    work = FinetuneData(source, recipe, pictures, held_out, progress)
    learner = _learner(source, body, len(work.classes), recipe)
    counts = count_parameters(body.module, learner.head)
    before = work.predictions(work.scores(learner))
    history, best = train(learner, work.data, recipe, identity=work.identity(), out=place, on_epoch=on_epoch)
    result = _result(work, source, body, learner, before, counts=counts, history=history, best_epoch=best)
    if place is not None:
        result.save(place)
    return result


def _change(first: Prediction, last: Prediction) -> str:
    answers = (f"{one.label} {one.probability:.2f}" for one in (first, last))
    return f"{last.actual}: {', then '.join(answers)}"


def _result(
    work: FinetuneData, source: Tunable, body: Body, learner: Trainee, before: tuple[Prediction, ...], **measured: Any
) -> FineTuned:
    """The learner as it is now. before: its first answers; measured: what was counted and measured meanwhile."""
    classes, scores = work.classes, work.scores(learner)
    return FineTuned(
        classes=classes,
        validation=tuple(zip(before, work.predictions(scores), strict=True)),
        metrics=work.measure(scores),
        head=_head(source, learner, classes) if work.recipe.is_frozen else None,
        classifier=None if isinstance(source, TunableEncoder) else source.with_head(body, classes, learner.head),
        failed=(*work.pictures.failed, *work.held_out.failed),
        notes=_notes(work),
        recipe=work.recipe,
        _source=source,
        _body=body,
        _learner=learner,
        **measured,
    )


def _parts(dataset: Dataset, validation: Dataset | None, seed: int) -> tuple[Dataset, Dataset]:
    if not isinstance(dataset, Dataset):
        raise DatasetError(f"{dataset!r} is no dataset", hint="clipkit.load_dataset(FOLDER) reads one")
    if not dataset.labels:
        raise DatasetError(
            f"{dataset.name} has no labels to learn from", hint="a folder of class folders, or a CSV image,label"
        )
    if len(set(dataset.labels)) < 2:
        only = dataset.labels[0]
        raise DatasetError(
            f"{dataset.name} has one class only, {only}: there is nothing to tell apart", hint=TWO_CLASSES
        )
    if validation is None:
        pictures, held_out = split_validation(dataset, seed=seed)
    else:
        pictures, held_out = dataset, validation
        if unknown := sorted(set(validation.labels) - set(dataset.labels)):
            raise DatasetError(
                f"validation has pictures of {unknown[0]}, which nothing is learned of",
                hint="add some to train, or take them out of validation",
            )
    if not len(held_out):
        raise DatasetError(
            f"{dataset.name} has one picture a class: none can be held out to choose the epoch",
            hint="two pictures a class at least",
        )
    return pictures, held_out


def _learner(source: Tunable, body: Body, count: int, recipe: Recipe) -> Trainee:
    """In bfloat16 where the model computes in it; float16 would need its gradients scaled, so float32 instead."""
    import torch

    if recipe.is_frozen:  # a head is small
        return Trainee(body.width, count, recipe, body=None)
    towers = source.towers
    layout = torch.channels_last if towers.channels_last else torch.preserve_format
    body.module.to(towers.device).to(memory_format=layout)
    autocast = torch.bfloat16 if towers.image == torch.bfloat16 else None
    return Trainee(body.width, count, recipe, body=body, device=towers.device, autocast=autocast)


def _head(source: Tunable, learner: Trainee, classes: tuple[str, ...]) -> Head | None:
    if not isinstance(source, TunableEncoder):
        return None
    return _as_head(learner, classes, source.model, source.fingerprint)


def _as_head(learner: Trainee, classes: tuple[str, ...], model: str, fingerprint: str) -> Head:
    """Over rows of length 1: the factor sqrt(width) that it learned with goes into its weights."""
    weight = learner.head.weight.detach().cpu().numpy().astype(np.float32)
    scaled = np.ascontiguousarray(weight * np.float32(weight.shape[1] ** 0.5))
    bias = learner.head.bias.detach().cpu().numpy().astype(np.float32)
    return Head(classes, scaled, bias.copy(), 1.0, model, fingerprint, space="backbone")


def _notes(work: FinetuneData) -> tuple[str, ...]:
    notes = []
    if unseen := sorted(set(work.classes) - set(work.held_out.labels)):
        notes.append(f"validation has no picture of {', '.join(unseen)}: how well they are told is not measured")
    if failed := len(work.pictures.failed) + len(work.held_out.failed):
        notes.append(f"{counted(failed, 'picture')} could not be read and left out")
    if not work.recipe.is_frozen and isinstance(work.source, TunableEncoder):
        notes.append("the tower has moved: texts no longer find its pictures")
    return tuple(notes)
