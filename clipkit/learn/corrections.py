"""Corrections by hand: a better classifier from a few labels, and how much better it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clipkit.classify.calibration import best_cut
from clipkit.classify.collection import Classified, Matrix
from clipkit.classify.head import Head
from clipkit.core.arrays import Embeddings
from clipkit.core.text import counted
from clipkit.errors import DatasetError

if TYPE_CHECKING:
    from clipkit.models.encoder import Encoder

# Nobody labels enough to choose these by. On the trainval pictures of Pets, with an earlier starter, 5 random
# corrections lifted the rest by 1 % alone (C = 100) and by 12 % with three anchors a class; from one anchor to eight
# and C from 30 to 300 it was 10 % to 13 %. On test: benchmarks/corrections.py.
STRENGTH = 100.0
ANCHORS = 3  # pictures a class that the classifier is surest of, taken for right: they hold the rest in place
FOLDS = 5
LEAST = 2  # labels of a class, in two classes or more, before a comparison says anything


@dataclass(frozen=True)
class Lesson:
    """What was learned. labels: pictures of the classes. judged: those in the comparison, 0 where they were too few.

    before, after: how many of them the classifier named rightly that it began from, and one that had not seen them.
    judge: by which "none of these" is decided, its cut moved where pictures were labelled as that.
    """

    head: Head
    judge: Head
    labels: int
    nones: int
    judged: int
    before: int
    after: int


def teach(
    start: Head, judge: Head, encoder: Encoder, matrix: Matrix, found: Classified, by_hand: Mapping[int, str]
) -> Lesson:
    """A linear probe that begins from `start` (its words, mostly), fitted to what was labelled by hand.

    No picture is read again. DatasetError where there is nothing to learn from.
    """
    ids, rows = matrix.of(list(by_hand))
    names = [by_hand[id_] for id_ in ids.tolist()]
    is_class = np.array([name in start.classes for name in names], dtype=np.bool_)
    labels = [name for name in names if name in start.classes]
    moved = judge if is_class.all() else _with_cut(judge, rows, is_class)
    nones = len(names) - len(labels) if moved is not judge else 0
    if not names:
        raise DatasetError("nothing is labelled yet", hint="click a picture and choose its class")
    if not labels:
        return Lesson(start, moved, 0, nones, 0, 0, 0)
    anchors = _anchors(start, judge, matrix, found, set(by_hand))
    learned = fit(start, encoder, rows[is_class], labels, anchors)
    judged, before, after = _compare(start, encoder, rows[is_class], labels, anchors)
    return Lesson(learned, moved, len(labels), nones, judged, before, after)


Part = tuple[Embeddings, list[str]]


def fit(start: Head, encoder: Encoder, rows: Embeddings, labels: Sequence[str], anchors: Part) -> Head:
    """A head of all classes of `start`; those without a label keep what they had."""
    if start.hidden is not None:
        raise DatasetError(
            "this head has a hidden layer, and only linear ones learn further here",
            hint="open one without: clipkit probe DATASET --out head.safetensors",
        )
    from clipkit.learn.base import linear_head
    from clipkit.learn.linear_probe import LinearProbe

    names = [*labels, *anchors[1]]
    probe = LinearProbe(zeroshot=start, C=STRENGTH).fit(np.concatenate([rows, anchors[0]]), names)
    weight, bias = start.temperature * start.weight, start.temperature * start.bias
    place = {name: i for i, name in enumerate(start.classes)}
    taught = [place[str(name)] for name in probe.classes_.tolist()]
    weight[taught], bias[taught] = probe.coef_, probe.intercept_
    return linear_head(np.array(start.classes), weight, bias, encoder, space="projected")


def _anchors(start: Head, judge: Head, matrix: Matrix, found: Classified, labelled: set[int]) -> Part:
    """The pictures of each class that the classifier is surest of, less what was labelled, or is none of them."""
    cut = judge.rejection.cut if judge.rejection else 0.0
    columns = found.columns(start.classes, cut, {})
    chosen = [
        (id_, start.classes[column.place])
        for column in columns
        if column.place >= 0
        for id_ in [id_ for id_ in column.ids[: ANCHORS + len(labelled)].tolist() if id_ not in labelled][:ANCHORS]
    ]
    _, rows = matrix.of([id_ for id_, _ in chosen])
    return rows, [name for _, name in chosen]


def _compare(
    start: Head, encoder: Encoder, rows: Embeddings, labels: Sequence[str], anchors: Part
) -> tuple[int, int, int]:
    """(judged, right before, right after): each label is asked of a classifier that has not seen it."""
    counts = Counter(labels)
    if sum(count >= LEAST for count in counts.values()) < 2:
        return 0, 0, 0
    names = np.array(labels)
    fold = np.empty(len(names), np.int64)
    order = np.argsort(names, kind="stable")  # classes one after the other, dealt out in turn
    fold[order] = np.arange(len(names)) % FOLDS
    before = int((_best(start, rows) == names).sum())
    after = 0
    for number in np.unique(fold):
        held = fold == number
        learned = fit(start, encoder, rows[~held], names[~held].tolist(), anchors)
        after += int((_best(learned, rows[held]) == names[held]).sum())
    return len(names), before, after


def _best(head: Head, rows: Embeddings) -> np.ndarray:
    """The best class of each row, with none rejected."""
    return np.array(head.classes)[head.best(rows)]


def _with_cut(judge: Head, rows: Embeddings, is_class: np.ndarray) -> Head:
    """The cut that parts best what was labelled as a class from what was labelled as none."""
    if judge.rejection is None or not is_class.any():
        return judge
    cut = best_cut(judge.known(rows), is_class)
    return replace(judge, rejection=replace(judge.rejection, cut=cut, cuts=None))


def describe(lesson: Lesson) -> str:
    """How much was learned, in a sentence or two."""
    nones = f" {lesson.nones:,} were labelled as none of these, which moves where that begins." if lesson.nones else ""
    if not lesson.labels:
        return "No class has a label yet: there is nothing to learn from."
    learned = f"Learned from {counted(lesson.labels, 'labelled picture')}."
    if not lesson.judged:
        return (
            f"{learned}{nones} Too few to say how good that is: label at least {LEAST} pictures in each of two classes."
        )
    return (
        f"{learned}{nones} Of those {lesson.judged:,}, each asked of a classifier that had not seen it, "
        f"{lesson.after:,} are right; without learning, {lesson.before:,}. Pictures that were wrong are labelled more "
        f"often than others, so this flatters learning: label some that are right, too."
    )
