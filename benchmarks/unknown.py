"""Class sets for "none of these": pictures of the classes and as many of none, one half to choose on, one to report."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.classify.calibration import split
from clipkit.classify.head import UNKNOWN
from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import Dataset, load_dataset
from clipkit.evaluate.zeroshot import load_labelled, rejection_quality
from clipkit.metrics import auroc
from clipkit.models.encoder import Encoder

PER_SIDE = 200  # pictures of the classes, and of none
PET = re.compile(r"\b(dog|cat|pupp|kitten|pup|terrier|hound|retriever|poodle|animal)", re.IGNORECASE)
CUTS = np.linspace(0.01, 0.99, 99)  # quantiles tried on the sets to choose on


@dataclass(frozen=True)
class ClassSet:
    """Class names, embeddings (2n, d), and which of them show one of the classes (2n,)."""

    name: str
    classes: tuple[str, ...]
    embeddings: np.ndarray
    is_known: np.ndarray


@dataclass(frozen=True)
class Pool:
    """Labelled pictures, or captioned ones without labels."""

    labels: np.ndarray
    embeddings: np.ndarray
    captions: tuple[tuple[str, ...], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.labels.tolist())))


def class_sets(data: Path, encoder: Encoder, *, quick: bool) -> tuple[list[ClassSet], list[ClassSet]]:
    """Sets to choose on and sets to report: no picture and no class of one is in the other, but for Pets' breeds.

    The starter was fitted to the labels of none of these pictures: Pets, the captions, and the labelled ones of
    starter_train, which its last layers saw without labels.
    """

    def take(folder: str, each: int) -> Pool:
        return _embed(_from_manifest(data / "starter_train", folder, max(1, each // 4) if quick else each), encoder)

    things, captions = take("caltech101", 4), _embed(load_dataset(data / "captions"), encoder)
    goods = _joined(take("food101_10", 15), take("groceries", 2))
    trainval, test = (_embed(load_labelled(data, split=name), encoder) for name in ("trainval", "test"))
    no_pets = captions.embeddings[[not any(PET.search(text) for text in texts) for texts in captions.captions]]
    choose = [
        _halves("objects, half of them", things, 0),
        *(
            _set(name, pool, things.embeddings)
            for name, pool in (
                ("flowers", take("tf_flowers", 20)),
                ("scenes", take("intel_scenes", 20)),
                ("clothing", take("clothing", 8)),
            )
        ),
        _halves("breeds, half of them", trainval, 0),
    ]
    report = [
        _set("dishes or any photograph", take("food101_10", 15), captions.embeddings),
        _set("corel scenes or groceries", take("corel1k", 15), take("groceries", 2).embeddings),
        _set("sports or food", take("sports6", 20), goods.embeddings),
        _set("animals and things or food", take("pacs_photo", 15), goods.embeddings),
        _halves("breeds, the other half", test, 1),
        _set("breeds or any photograph", test, no_pets),
    ]
    return choose, report


def measure(choose: Sequence[ClassSet], report: Sequence[ClassSet], encoder: Encoder, templates: str) -> dict[str, Any]:
    """Of each score: AUROC and macro F1 on every reported set, at the one cut that is best on the sets to choose on."""
    table: dict[str, Any] = {"as clipkit ships it, cut and all": shipped(report, encoder, templates)}
    for name, score in SCORES.items():
        seen = [(score(part, encoder, templates), part.is_known) for part in choose]
        cut = best_common_cut(seen)
        rows = {}
        for part in report:
            values = score(part, encoder, templates)
            own = split(values)
            rows[part.name] = {
                "n": len(values),
                "auroc": auroc(values, part.is_known),
                **rejection_quality(values, part.is_known, cut),
                "known_rejected": float((values[part.is_known] < cut).mean()),
                "macro_f1_at_its_own_split": rejection_quality(values, part.is_known, own)["macro_f1"],
                "known_rejected_at_its_own_split": float((values[part.is_known] < own).mean()),
            }
        table[name] = {
            "cut": cut,
            "cut_in_logits": cut * encoder.logit_scale,
            "macro_f1_where_chosen": float(np.mean([rejection_quality(*pair, cut)["macro_f1"] for pair in seen])),
            "auroc_where_chosen": float(np.mean([auroc(*pair) for pair in seen])),
            "mean": _mean(rows),
            "sets": rows,
        }
    return table


def shipped(report: Sequence[ClassSet], encoder: Encoder, templates: str) -> dict[str, Any]:
    """What `unknown=True` does as it is, what `adapt` does, and what `adapt` does wrong without strangers."""
    rows = {}
    for part in report:
        plain = ZeroShotClassifier(encoder, part.classes, templates=templates, unknown=True)
        adapted = ZeroShotClassifier(encoder, part.classes, templates=templates, unknown=True).adapt(part.embeddings)
        mine = part.embeddings[part.is_known]
        lonely = ZeroShotClassifier(encoder, part.classes, templates=templates, unknown=True).adapt(mine)
        rows[part.name] = {
            "macro_f1": _macro(plain, part),
            "macro_f1_adapted": _macro(adapted, part),
            "known_rejected": float((plain.predict(mine) == UNKNOWN).mean()),
            "known_rejected_adapted": float((adapted.predict(mine) == UNKNOWN).mean()),
            "known_rejected_adapted_to_known_alone": float((lonely.predict(mine) == UNKNOWN).mean()),
        }
    return {"mean": _mean(rows), "sets": rows}


def best_common_cut(seen: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The cut with the best mean macro F1 over all sets."""
    candidates = np.quantile(np.concatenate([values for values, _ in seen]), CUTS)
    quality = [np.mean([rejection_quality(*pair, cut)["macro_f1"] for pair in seen]) for cut in candidates]
    return float(candidates[int(np.argmax(quality))])


def _macro(classifier: ZeroShotClassifier, part: ClassSet) -> float:
    rule = classifier.head.rejection
    assert rule is not None
    return rejection_quality(classifier.known_score(part.embeddings), part.is_known, rule.cut)["macro_f1"]


def _mean(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows.values()])) for key in next(iter(rows.values()))}


def _known(part: ClassSet, encoder: Encoder, templates: str) -> np.ndarray:
    return ZeroShotClassifier(encoder, part.classes, templates=templates, unknown=True).known_score(part.embeddings)


def _adapted(part: ClassSet, encoder: Encoder, templates: str) -> np.ndarray:
    classifier = ZeroShotClassifier(encoder, part.classes, templates=templates, unknown=True)
    return classifier.adapt(part.embeddings).known_score(part.embeddings)


def _softmax(part: ClassSet, encoder: Encoder, templates: str) -> np.ndarray:
    return ZeroShotClassifier(encoder, part.classes, templates=templates).predict_proba(part.embeddings).max(axis=1)


def _cosine(part: ClassSet, encoder: Encoder, templates: str) -> np.ndarray:
    head = ZeroShotClassifier(encoder, part.classes, templates=templates).head
    return np.asarray((part.embeddings @ head.weight.T).max(axis=1))


SCORES: dict[str, Callable[[ClassSet, Encoder, str], np.ndarray]] = {
    "largest softmax": _softmax,
    "largest cosine": _cosine,
    "unknown=True": _known,
    "unknown=True, adapted to the collection": _adapted,
}


def _from_manifest(root: Path, folder: str, each: int) -> Dataset:
    with open(root / "manifest.csv", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"].startswith(f"{folder}/") and row["label"]]
    counts: Counter[str] = Counter()
    files, labels = [], []
    for row in rows:
        counts[row["label"]] += 1
        if counts[row["label"]] <= each:
            files.append(str(root / row["file"]))
            labels.append(row["label"])
    return Dataset(folder, tuple(files), tuple(labels), tuple(sorted(set(labels))))


def _embed(dataset: Dataset, encoder: Encoder) -> Pool:
    done = embed_once(dataset, encoder)
    return Pool(np.array(done.dataset.labels), done.embeddings, done.dataset.captions)


def _joined(one: Pool, other: Pool) -> Pool:
    labels = np.concatenate([one.labels, other.labels])
    return replace(one, labels=labels, embeddings=np.concatenate([one.embeddings, other.embeddings]))


def _set(name: str, known: Pool, strangers: np.ndarray) -> ClassSet:
    count = min(PER_SIDE, len(known.embeddings), len(strangers))
    rows = np.concatenate([_spread(known.embeddings, count), _spread(strangers, count)])
    return ClassSet(name, known.classes, rows, np.arange(2 * count) < count)


def _halves(name: str, pool: Pool, first: int) -> ClassSet:
    """Every other class is one of the classes; the pictures of the rest are of none."""
    is_mine = np.isin(pool.labels, pool.classes[first::2])
    return _set(name, Pool(pool.labels[is_mine], pool.embeddings[is_mine]), pool.embeddings[~is_mine])


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]
