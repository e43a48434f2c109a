"""Labels for the pictures of an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clipkit.classify.head import UNKNOWN, Head
from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.progress import Failure, Progress
from clipkit.datasets.embed import embed_pictures
from clipkit.datasets.load import Dataset
from clipkit.errors import QueryError
from clipkit.index.image_index import ImageIndex
from clipkit.index.paths import filter_for
from clipkit.models.encoder import Encoder

_TRIES = 3


class ScoredLabel(NamedTuple):
    """One class of a picture.

    Attributes
    ----------
    label : str
        The class.
    probability : float or None
        None where all classes were rejected.
    """

    label: str
    probability: float | None


@dataclass(frozen=True)
class LabelledPicture:
    """Labels of one picture.

    Attributes
    ----------
    path : str
        Relative to the index's root.
    file : str
        On this disk.
    answers : tuple of ScoredLabel
        Best first.
    labels : tuple of str
        Those it gets: the first answer's, or with `multi_label` all of them.
    """

    path: str
    file: str
    answers: tuple[ScoredLabel, ...]
    labels: tuple[str, ...]


def label_index(index: ImageIndex, head: Head, *, top_k: int = 1, below: str = "") -> list[LabelledPicture]:
    """Labels of every picture of an index, from stored embeddings; no picture is opened.

    Parameters
    ----------
    index : ImageIndex
        Whose pictures are labelled.
    head : Head
        Over projected embeddings of the index's model.
    top_k : int, default 1
        Answers a picture. A `multi_label` head gives those that are likelier than not, at most so many, perhaps none.
    below : str, optional
        Only pictures in that folder, relative to the root.

    Returns
    -------
    list of LabelledPicture
        By path: `path`, `file`, `answers` (pairs of label and probability, best first) and `labels`. A rejected picture
        is called "unknown" first.

    Raises
    ------
    ModelMismatch
        If the head is of another model, or reads backbone features.
    QueryError
        If no picture lies in `below`.

    See Also
    --------
    label_pictures : For heads of backbone features.

    Examples
    --------
    >>> from clipkit.classify import label_index
    >>> index = clipkit.ImageIndex.open("photos")
    >>> head = clipkit.ZeroShotClassifier(index.encoder, ["cat", "cup of coffee", "rocket"]).head
    >>> [(picture.path, picture.labels[0]) for picture in label_index(index, head)][1:]
    [('chelsea.png', 'cat'), ('coffee.png', 'cup of coffee'), ('rocket.jpg', 'rocket')]
    """
    named, answers = _answered(index, head, top_k, below)
    return _labelled(index, head, sorted((named[id_], given) for id_, given in answers.items()))


def label_pictures(
    index: ImageIndex,
    head: Head,
    *,
    top_k: int = 1,
    below: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> tuple[list[LabelledPicture], tuple[Failure, ...]]:
    """Labels of every picture of an index; the pictures are read and encoded again.

    For heads of backbone features, which an index does not hold.

    Parameters
    ----------
    index : ImageIndex
        Whose pictures are labelled.
    head : Head
        Of the index's model.
    top_k : int, default 1
        As in `label_index`.
    below : str, optional
        Only pictures in that folder, relative to the root.
    progress : callable, optional
        Given a `Progress` after each batch.

    Returns
    -------
    tuple
        List of LabelledPicture, as in `label_index`; and a tuple of Failure for pictures that cannot be read.

    Raises
    ------
    ModelMismatch
        If the head is of another model.
    QueryError
        If no picture lies in `below`.

    Examples
    --------
    >>> from clipkit.classify import label_pictures
    >>> index = clipkit.ImageIndex.open("photos")
    >>> head = clipkit.ZeroShotClassifier(index.encoder, ["cat", "rocket"]).head
    >>> labelled, failed = label_pictures(index, head)
    >>> labelled[1].labels, failed
    (('cat',), ())
    """
    encoder = index.encoder
    head.check(encoder, space=head.space)
    everything = index.paths
    is_chosen = filter_for(everything, below)
    paths = {str(index.root / path): path for path in everything if is_chosen is None or is_chosen(path)}
    pictures = Dataset(str(index.root), tuple(sorted(paths)))
    embedded = embed_pictures(pictures, encoder, space=head.space, progress=progress)
    answers = label(head, embedded.embeddings, top_k)
    named = [(paths[file], given) for file, given in zip(embedded.dataset.files, answers, strict=True)]
    return _labelled(index, head, sorted(named)), embedded.dataset.failed


def label_files(
    files: Sequence[str], head: Head, encoder: Encoder, *, top_k: int = 1
) -> tuple[list[LabelledPicture], tuple[Failure, ...]]:
    """Labels of pictures that no index holds, in their order, and those that cannot be read; as `label_pictures`."""
    head.check(encoder, space=head.space)
    embedded = embed_pictures(Dataset("pictures", tuple(dict.fromkeys(files))), encoder, space=head.space)
    answers = label(head, embedded.embeddings, top_k) if len(embedded.dataset) else []
    borne = None if head.multi_label else 1
    labelled = [
        LabelledPicture(file, os.path.abspath(file), given, tuple(answer.label for answer in given[:borne]))
        for file, given in zip(embedded.dataset.files, answers, strict=True)
    ]
    return labelled, embedded.dataset.failed


def ids_of_class(
    index: ImageIndex,
    head: Head,
    classes: Collection[str],
    *,
    below: str = "",
    exclude_dirs: Collection[str] = (),
) -> IntArray:
    """Ids of the pictures that `head` puts into one of `classes`, for a search among them.

    QueryError for a class that the head does not know, ModelMismatch for a head that cannot read the index.
    """
    known = {*head.classes, *([UNKNOWN] if head.rejection else [])}
    strange = [name for name in classes if name not in known]
    if strange:
        raise QueryError(f"the head has no class {strange[0]!r}", hint=f"its classes are {', '.join(head.classes)}")
    _, answers = _answered(index, head, len(head.classes) if head.multi_label else 1, "")
    wanted = set(classes)
    chosen = [id_ for id_, given in answers.items() if wanted & {answer.label for answer in given}]
    allowed = index.ids_in(below, exclude_dirs)
    ids = np.array(chosen, dtype=np.int64)
    return ids if allowed is None else np.intersect1d(ids, allowed)


def _answered(
    index: ImageIndex, head: Head, top_k: int, below: str
) -> tuple[Mapping[int, str], dict[int, tuple[ScoredLabel, ...]]]:
    """Paths by id, and answers by id."""
    info = index.info
    head.check_model(info.model, info.weights_sha256, space="projected")
    for _ in range(_TRIES):  # an index run may commit between the names and the vectors
        revision, paths = index.store.paths()
        is_chosen = filter_for(paths.values(), below)
        answers: dict[int, tuple[ScoredLabel, ...]] = {}
        is_same = True
        for now, ids, rows in index.store.blocks():
            is_same &= now.revision == revision
            known = [paths.get(id_) for id_ in ids.tolist()]
            mine = np.array([path is not None and (is_chosen is None or is_chosen(path)) for path in known], dtype=bool)
            if mine.any():
                answers.update(zip(ids[mine].tolist(), label(head, rows[mine].astype(np.float32), top_k), strict=True))
        if is_same:
            break
    return paths, answers


def _labelled(
    index: ImageIndex, head: Head, named: Iterable[tuple[str, tuple[ScoredLabel, ...]]]
) -> list[LabelledPicture]:
    borne = None if head.multi_label else 1
    return [
        LabelledPicture(path, str(index.root / path), given, tuple(answer.label for answer in given[:borne]))
        for path, given in named
    ]


def label(head: Head, embeddings: Embeddings, top_k: int = 1) -> list[tuple[ScoredLabel, ...]]:
    """The answers for each row, as in `label_index`."""
    if top_k < 1:
        raise QueryError(f"{top_k} answers were asked for", hint="--top-k 1")
    if head.multi_label:
        return [_likely(head, row, top_k) for row in head.probabilities(embeddings)]
    places, sure = head.ranked(embeddings, top_k)
    lines = zip(places.tolist(), sure.tolist(), strict=True)
    named = [tuple(ScoredLabel(head.classes[c], p) for c, p in zip(*line, strict=True)) for line in lines]
    if head.rejection is None:
        return named
    is_rejected = head.rejects(embeddings, places[:, 0])
    first = ScoredLabel(UNKNOWN, None)
    return [(first, *given)[:top_k] if out else given for given, out in zip(named, is_rejected, strict=True)]


def _likely(head: Head, row: Embeddings, top_k: int) -> tuple[ScoredLabel, ...]:
    places = np.flatnonzero(row > 0.5)
    best = places[np.argsort(-row[places], kind="stable")][:top_k]
    return tuple(ScoredLabel(head.classes[place], float(row[place])) for place in best)
