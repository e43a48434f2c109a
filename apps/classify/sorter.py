"""Sorted libraries, the last few kept."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from clipkit.classify.collection import Classified, Matrix, classify
from clipkit.classify.head import Head
from clipkit.errors import QueryError
from clipkit.explore.library import Library

MOST_KEPT = 4  # sorted libraries in memory, 20 bytes a picture each
_TRIES = 3


class Sorter:
    """Sorts libraries, and keeps the embeddings of the last and the answers of the last few. Safe between threads."""

    def __init__(self) -> None:
        self._matrix: tuple[str, str, Matrix] | None = None
        self._kept: OrderedDict[tuple[object, ...], tuple[Head, Head, Classified]] = OrderedDict()
        self._lock = threading.Lock()

    def matrix(self, library: Library) -> Matrix:
        """The embeddings now; 1 KB a picture for a model of width 512."""
        info = library.index.info
        with self._lock:
            if self._matrix and self._matrix[:2] == (library.key, info.token):
                return self._matrix[2]
            matrix = _read(library)
            self._matrix = (library.key, info.token, matrix)
            return matrix

    def sort(self, library: Library, head: Head, *, judge: Head) -> Classified:
        """Each picture's class by `head`, and by `judge` whether it is one of them at all.

        ModelMismatch for a head of another model; QueryError for one that gives several labels.
        """
        info = library.index.info
        head.check_model(info.model, info.weights_sha256, space="projected")
        if head.multi_label:
            raise QueryError(
                "this head may give a picture several labels, or none, and a column holds it once",
                hint="clipkit classify PHOTOS --head FILE",
            )
        matrix = self.matrix(library)
        key = (library.key, info.token, matrix.revision, id(head), id(judge))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][2]
        found = classify(matrix, head, judge=judge)
        with self._lock:
            self._kept[key] = (head, judge, found)  # the heads too, or another could get the same id
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return found


def _read(library: Library) -> Matrix:
    store = library.index.store
    for _ in range(_TRIES):  # an index run may commit between two blocks
        parts = list(store.blocks())
        revisions = {info.revision for info, _, _ in parts}
        if len(revisions) == 1:
            break
    ids = np.concatenate([ids for _, ids, _ in parts])
    return Matrix(max(revisions), ids, np.concatenate([rows for _, _, rows in parts]))
