"""Zero-shot and retrieval evaluation by the published protocols: n, intervals and mistakes by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.classify.head import Head
from clipkit.classify.prompts import Classes, Templates, as_text, name_wnids
from clipkit.classify.words import head_from_words
from clipkit.core.arrays import IntArray
from clipkit.core.progress import Failure, Progress
from clipkit.core.text import described, short_name
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import (
    Dataset,
    layout_splits,
    load_dataset,
    name_splits,
    pets_root,
    split_folders,
    table_in,
)
from clipkit.datasets.splits import own_parts
from clipkit.errors import DatasetError
from clipkit.metrics import (
    Confused,
    acc1,
    auroc,
    bootstrap,
    classification_metrics,
    f1,
    most_confused,
    per_class,
    retrieval_metrics,
)
from clipkit.models.encoder import Encoder

if TYPE_CHECKING:
    import pandas as pd

CLASSIFICATION, RETRIEVAL = "zeroshot_classification", "zeroshot_retrieval"
CANDIDATES = ("plain", "a photo of a {}.", "simple", "imagenet", "pets")
VALIDATION = ("trainval", "val", "validation", "train")  # where templates are chosen, in this order
CONFUSED_SHOWN = 10
RECALLS = ("image_retrieval_recall@1", "text_retrieval_recall@1")

Show = Callable[[Progress], None] | None


@dataclass(frozen=True)
class Result:
    """One model on one dataset.

    Attributes
    ----------
    task : {"zeroshot_classification", "zeroshot_retrieval"}
        The protocol.
    dataset, model, fingerprint, pixels : str
        Name of the dataset; name, SHA-256 of the weights and pixel recipe of the model.
    metrics : dict
        CLIP_benchmark's keys and ours.
    classes : tuple of str
        In the order of the confusion matrix.
    templates : str or tuple of str
        As given.
    confused : tuple of Confused
        The most frequent mistakes.
    failed : tuple of Failure
        Pictures that could not be read.
    searched : dict of str to float
        Validation accuracy by templates, where they were searched.
    """

    task: str
    dataset: str
    model: str
    fingerprint: str
    pixels: str
    metrics: dict[str, Any]
    classes: tuple[str, ...] = ()
    templates: str | tuple[str, ...] = ()
    confused: tuple[Confused, ...] = ()
    failed: tuple[Failure, ...] = ()
    searched: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = [name for name in ("acc1", "acc5", *RECALLS) if self.metrics.get(name) is not None]
        numbers = [f"{name} {self.metrics[name]:.3f}" for name in names]
        return described(self, f"{self.model} on {short_name(self.dataset)}", f"n={self.metrics['n']:,}", *numbers)

    def to_frame(self) -> pd.DataFrame:
        """Recall and precision of each class as a pandas table; no rows for a task without classes.

        Returns
        -------
        pandas.DataFrame
            With the columns name, n, recall and precision.
        """
        import pandas as pd

        matrix = np.array(self.metrics.get("confusion", []), np.int64)
        table = per_class(matrix, self.classes) if len(matrix) else []
        return pd.DataFrame([vars(row) for row in table], columns=["name", "n", "recall", "precision"])

    def _repr_html_(self) -> str:
        """Metrics with their intervals, as notebooks show them."""
        from clipkit.images.notebook import notebook_html

        intervals = self.metrics.get("ci95", {})
        rows = [
            (name, f"{value:.3f}", "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else "")
            for name, value in self.metrics.items()
            if isinstance(value, float)
        ]
        facts = [short_name(self.dataset), self.model, f"n = {self.metrics['n']:,}"]
        return notebook_html(self.task, facts, columns=["metric", "value", "95 % interval"], rows=rows)

    def to_json(self) -> str:
        """The result as JSON: what CLIP_benchmark would write, and more.

        Returns
        -------
        str
            The same run gives the same text.
        """
        from clipkit.core.version import __version__

        record = {name: value for name, value in vars(self).items() if value != () and value != {}}
        record["confused"] = [vars(pair) for pair in self.confused]
        record["failed"] = [vars(failure) for failure in self.failed]
        if self.task == CLASSIFICATION:
            table = per_class(np.array(self.metrics["confusion"]), self.classes)
            record["per_class"] = [vars(row) for row in table if row.n]
        text = json.dumps({**record, "language": "en", "clipkit": __version__}, indent=1)
        return re.sub(r"\[[\d.,\s-]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"  # a row, a line


def measured_split(path: str | os.PathLike[str]) -> str | None:
    """The folder that is measured on where the class folders lie in splits: test, else validation; None elsewhere."""
    place = Path(path)
    if not place.is_dir() or pets_root(place) or table_in(place):
        return None
    if splits := layout_splits(place):
        _, validation, test = name_splits(splits)
        return test or validation
    _, validation, test = split_folders(place)
    return test or validation


def load_labelled(path: str | os.PathLike[str], *, split: str | None = None, classes: Classes | None = None) -> Dataset:
    """A dataset with labels; where `classes` is "imagenet" its WordNet ids become the published names.

    Without `split` it is the test part of folders that are splits, and of Oxford-IIIT Pet.
    """
    split = split or measured_split(path)
    if classes != "imagenet":
        dataset = load_dataset(path, split=split)
    else:
        dataset = load_dataset(path, split=split, label="wnid")
        dataset = dataset.renamed(name_wnids(dataset.classes))
    if not dataset.labels:
        raise DatasetError(
            f"{dataset.name} has captions, no labels", hint=f"clipkit evaluate retrieval {os.fspath(path)}"
        )
    return dataset


def evaluate_zeroshot(
    dataset: Dataset,
    encoder: Encoder,
    *,
    classes: Classes | None = None,
    templates: Templates = "simple",
    unknown: bool = False,
    progress: Show = None,
) -> Result:
    """Accuracy of classes from words on labelled pictures, by the protocol of CLIP_benchmark.

    Parameters
    ----------
    dataset : Dataset
        With labels.
    encoder : Encoder
        Encodes prompts and pictures.
    classes : str, path, sequence of str or mapping, optional
        As for `ZeroShotClassifier`; by default the dataset's own. Matched with its labels by name.
    templates : str, path or sequence of str, default "simple"
        As for `ZeroShotClassifier`.
    unknown : bool, default False
        Labels that are no class are what should be rejected, and measured as `auroc`, `f1_known` and `f1_unknown`.
    progress : callable, optional
        Given a `Progress` after each batch of pictures.

    Returns
    -------
    Result
        `metrics`: those of `classification_metrics`; `confused`, the most frequent mistakes; `failed`; `to_json()`.

    Raises
    ------
    DatasetError
        If a label is no class, unless `unknown`; if no label is one; or, with `unknown`, if all are.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.

    Examples
    --------
    >>> from clipkit.evaluate import evaluate_zeroshot
    >>> animals = clipkit.load_dataset("animals").renamed({"other": "rocket"})
    >>> result = evaluate_zeroshot(animals, clipkit.load_encoder("starter"))
    >>> result.metrics["n"], result.metrics["acc1"] > 0.5
    (10, True)
    """
    head = head_from_words(encoder, classes or dataset.classes, templates=templates, unknown=unknown).head
    names = head.classes
    if not unknown:
        dataset.targets(names)  # before anything is encoded
    embedded = embed_once(dataset, encoder, progress=progress)
    is_known = np.isin(embedded.dataset.labels, names)
    if not is_known.any():
        raise DatasetError(
            f"no label of {dataset.name} is one of the classes", hint=f"--classes {','.join(dataset.classes[:5])}"
        )
    rows = embedded.embeddings[is_known]
    targets = _only(embedded.dataset, is_known).targets(names)
    metrics = classification_metrics(head.logits(rows), targets, probabilities=head.probabilities(rows))
    if unknown:
        rejection = _rejection_metrics(head, embedded.embeddings, is_known)
        metrics["ci95"] |= rejection.pop("ci95")
        metrics |= rejection
    return Result(
        CLASSIFICATION,
        dataset.name,
        *_model(encoder),
        metrics,
        classes=names,
        templates=_said(templates),
        confused=tuple(most_confused(np.array(metrics["confusion"]), names, CONFUSED_SHOWN)),
        failed=embedded.dataset.failed,
    )


def evaluate_retrieval(dataset: Dataset, encoder: Encoder, *, progress: Show = None) -> Result:
    """Recall of captions and pictures that search each other, by the protocol of CLIP_benchmark.

    Captions are encoded as they are; a picture with several counts as found by any.

    Parameters
    ----------
    dataset : Dataset
        With captions.
    encoder : Encoder
        Encodes captions and pictures.
    progress : callable, optional
        Given a `Progress` after each batch of pictures.

    Returns
    -------
    Result
        `metrics`: those of `retrieval_metrics`, recall at 1, 5 and 10 both ways.

    Raises
    ------
    DatasetError
        If the dataset has no captions.

    Examples
    --------
    >>> from clipkit.evaluate import evaluate_retrieval
    >>> result = evaluate_retrieval(clipkit.load_dataset("captions.csv"), clipkit.load_encoder("starter"))
    >>> result.metrics["image_retrieval_recall@1"]
    1.0
    """
    if not dataset.captions:
        raise DatasetError(f"{dataset.name} has no captions", hint="a CSV image,caption")
    embedded = embed_once(dataset, encoder, progress=progress)
    groups = embedded.dataset.captions
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    texts = encoder.encode_texts([text for group in groups for text in group])
    metrics = retrieval_metrics(embedded.embeddings, texts, owners)
    return Result(RETRIEVAL, dataset.name, *_model(encoder), metrics, failed=embedded.dataset.failed)


def search_templates(
    dataset: Dataset, encoder: Encoder, *, classes: Classes | None = None, progress: Show = None
) -> dict[str, float]:
    """acc1 of each set of templates on a validation split (n, c), best first; equal ones in the order of CANDIDATES."""
    embedded = embed_once(dataset, encoder, progress=progress)
    quality = {}
    for candidate in CANDIDATES:
        head = head_from_words(encoder, classes or dataset.classes, templates=candidate).head
        quality[candidate] = acc1(head.logits(embedded.embeddings), embedded.dataset.targets(head.classes))
    return dict(sorted(quality.items(), key=lambda item: -item[1]))


def validation_split(path: str | os.PathLike[str], *, classes: Classes | None = None) -> tuple[str, Dataset]:
    """The split on which things may be chosen, and its pictures; DatasetError if the dataset has none."""
    train, validation, _ = own_parts(Path(path))
    for split in filter(None, dict.fromkeys((*VALIDATION, validation, train))):
        try:
            return split, load_labelled(path, split=split, classes=classes)
        except DatasetError:
            continue
    raise DatasetError(f"{os.fspath(path)} has no split to choose on", hint=", ".join(VALIDATION))


def evaluate_searched(
    path: str | os.PathLike[str],
    dataset: Dataset,
    encoder: Encoder,
    *,
    classes: Classes | None = None,
    unknown: bool = False,
    progress: Show = None,
) -> Result:
    """`evaluate_zeroshot` on `dataset`, with the templates that were best on the validation split at `path`."""
    split, chosen_on = validation_split(path, classes=classes)
    if set(chosen_on.files) & set(dataset.files):
        raise DatasetError(f"templates would be chosen on {split}, which is what is measured", hint="--split test")
    quality = search_templates(chosen_on, encoder, classes=classes, progress=progress)
    best = next(iter(quality))
    ways: dict[str, Any] = {"classes": classes, "unknown": unknown, "progress": progress}
    return replace(evaluate_zeroshot(dataset, encoder, templates=best, **ways), searched=quality)


def rejection_quality(
    scores: npt.ArrayLike, is_known: npt.NDArray[np.bool_], cut: float, rows: IntArray | None = None
) -> dict[str, float]:
    """F1 of what is known and of what is not, at one cut (n,), and their mean; on `rows` (m,) of them if given."""
    chosen = slice(None) if rows is None else rows
    accepted, right = (np.asarray(scores) >= cut)[chosen], is_known[chosen]
    known, unknown = f1(accepted, right), f1(~accepted, ~right)
    return {"f1_known": known, "f1_unknown": unknown, "macro_f1": (known + unknown) / 2}


def _rejection_metrics(
    head: Head, embeddings: npt.NDArray[np.float32], is_known: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    rule = head.rejection
    if rule is None or is_known.all():
        raise DatasetError(
            "every label is a class: there is nothing to reject", hint="only some of them: --classes A,B"
        )
    scores = head.known(embeddings)
    quality = {"auroc": auroc(scores, is_known), **rejection_quality(scores, is_known, rule.cut)}
    pairs = {
        "auroc": lambda rows: auroc(scores[rows], is_known[rows]) if len(set(is_known[rows])) > 1 else np.nan,
        **{key: _at(scores, is_known, rule.cut, key) for key in ("f1_known", "f1_unknown", "macro_f1")},
    }
    ci95 = {key: bootstrap(statistic, len(scores)) for key, statistic in pairs.items()}
    return {"n_unknown": int((~is_known).sum()), **quality, "ci95": ci95}


def _at(scores: npt.NDArray[Any], is_known: npt.NDArray[np.bool_], cut: float, key: str) -> Callable[[IntArray], float]:
    return lambda rows: rejection_quality(scores, is_known, cut, rows)[key]


def _only(dataset: Dataset, chosen: npt.NDArray[np.bool_]) -> Dataset:
    places = np.flatnonzero(chosen).tolist()
    labels = tuple(dataset.labels[i] for i in places)
    return Dataset(dataset.name, tuple(dataset.files[i] for i in places), labels, dataset.classes)


def _model(encoder: Encoder) -> tuple[str, str, str]:
    return encoder.model, encoder.fingerprint, str(encoder.recipe)


def _said(templates: Templates) -> str | tuple[str, ...]:
    if isinstance(templates, str | os.PathLike):
        return os.fspath(templates)
    return as_text(templates) if callable(templates) else tuple(map(as_text, templates))
