"""Search cache of one index: the last FAISS file, and exactly the rows that changed since."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.folders import cache_folder
from clipkit.errors import BadIndex
from clipkit.search.vectors import Neighbors
from clipkit.store.database import Store
from clipkit.store.records import IndexInfo


@dataclass(frozen=True)
class _View:
    """What answers at one revision: the base without `changed`, and the rows that took their place."""

    info: IndexInfo
    base: Neighbors
    base_key: tuple[int, str]  # revision and token the base was made from
    changed: IntArray
    fresh: Neighbors


class IndexCache:
    """Answers for a Store at its newest revision; opens, builds and writes the FAISS files as needed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._view: _View | None = None
        self._lock = threading.Lock()

    def search(self, queries: Embeddings, k: int, *, only: IntArray | None = None) -> tuple[int, FloatArray, IntArray]:
        """The revision that answered, scores (q, k) and ids (q, k), best first, ties by id."""
        view = self._current()
        scores, ids = view.base.search(queries, k, without=view.changed, only=only)
        if len(view.fresh):
            more_scores, more_ids = view.fresh.search(queries, k, only=only)
            scores = np.concatenate([scores, more_scores], axis=1)
            ids = np.concatenate([ids, more_ids], axis=1)
            order = np.lexsort((ids, -scores), axis=-1)[:, :k]
            scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
        return view.info.revision, scores, ids

    def write(self, *, afresh: bool = False) -> None:
        """Write the FAISS file of the newest revision, and drop older ones of this index. OSError if it cannot."""
        info = self._store.info()
        prefix = _prefix(info.index_id, info.revision, info.token)
        if afresh or not prefix.with_suffix(".json").exists():
            self._save(*self._gather())
        else:
            _drop(info.index_id, keep=prefix.name)  # what a run that died here has left

    def verify(self, *, with_rows: bool = True) -> bool:
        """Whether the FAISS files of this index have the checksum they were written with, and the rows of the store."""
        info = self._store.info()
        for revision, token in _written(info.index_id):
            cached = Neighbors.load(_prefix(info.index_id, revision, token), info.dim, verify=True)
            if cached is None:
                return False
            is_newest = (revision, token) == (info.revision, info.token)
            if with_rows and is_newest and not self._has_rows_of_store(cached):
                return False
        return True

    def _has_rows_of_store(self, cached: Neighbors) -> bool:
        start = 0
        for _, ids, rows in self._store.blocks():
            end = start + len(ids)
            if not np.array_equal(cached.ids[start:end], ids) or not np.array_equal(cached.rows()[start:end], rows):
                return False
            start = end
        return start == len(cached)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._view = None

    def drop(self) -> None:
        """Remove the FAISS files of this index: it is about to be replaced by one with another id."""
        with suppress(BadIndex):
            _drop(self._store.info().index_id)

    def _current(self) -> _View:
        with self._lock:
            info, revisions = self._store.revisions()
            if self._view is not None and (info.revision, info.token) == (
                self._view.info.revision,
                self._view.info.token,
            ):
                return self._view
            while True:
                base, key = self._base(info, revisions)
                snapshot = self._store.changes(*key)
                if snapshot is not None and snapshot.info.index_id == info.index_id:
                    break
                info, revisions = self._store.revisions()  # rebuilt in between
            fresh = Neighbors(snapshot.ids, info.dim, rows=snapshot.embeddings)
            self._view = _View(snapshot.info, base, key, snapshot.changed, fresh)
            return self._view

    def _base(self, info: IndexInfo, revisions: dict[int, str]) -> tuple[Neighbors, tuple[int, str]]:
        view = self._view
        if view is not None and revisions.get(view.base_key[0]) == view.base_key[1]:
            return view.base, view.base_key
        for revision, token in sorted(_written(info.index_id), reverse=True):
            if revisions.get(revision) == token:
                base = Neighbors.load(_prefix(info.index_id, revision, token), info.dim)
                if base is not None:
                    return base, (revision, token)
        made_from, base = self._gather()
        with suppress(OSError):
            self._save(made_from, base)
        return base, (made_from.revision, made_from.token)

    def _gather(self) -> tuple[IndexInfo, Neighbors]:
        """From the store. What is written meanwhile does not matter: it counts as changed since the first block."""
        info = self._store.info()
        blocks = ((ids, rows) for _, ids, rows in self._store.blocks())
        return info, Neighbors.build(blocks, info.dim, expected=self._store.last_id())

    def _save(self, info: IndexInfo, neighbors: Neighbors) -> None:
        prefix = _prefix(info.index_id, info.revision, info.token)
        neighbors.save(prefix)
        _drop(info.index_id, keep=prefix.name)


def _prefix(index_id: str, revision: int, token: str) -> Path:
    return cache_folder() / "faiss" / f"{index_id}-{revision}-{token}"


def _drop(index_id: str, *, keep: str = "") -> None:
    """Remove every file of an index but those of `keep`, and what a process that died was writing.

    One that lives writes anew, or does without: it is only a cache.
    """
    files = (cache_folder() / "faiss").glob(f"{index_id}-*")
    # Checksums first: without them nobody opens the rest.
    for file in sorted(files, key=lambda file: file.suffix != ".json"):
        if file.stem != keep:
            with suppress(OSError):
                file.unlink()


def _written(index_id: str) -> set[tuple[int, str]]:
    found = set()
    for file in (cache_folder() / "faiss").glob(f"{index_id}-*.json"):
        parts = file.stem.split("-")
        if len(parts) == 3 and parts[1].isdigit():
            found.add((int(parts[1]), parts[2]))
    return found
