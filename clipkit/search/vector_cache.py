"""Search cache of one index: the last FAISS files, and exactly the rows that changed since."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.folders import cache_folder
from clipkit.errors import BadIndex
from clipkit.search.inverted_file import InvertedFile, Quality, carry, covers
from clipkit.search.vectors import Neighbors, part
from clipkit.store.database import Store
from clipkit.store.records import IndexInfo

STALE = 0.1  # share of the rows that are in no list, above which the inverted file is made anew
_SUFFIXES = (".faiss", ".ids", ".json", ".ivf", ".members", ".ann")


@dataclass(frozen=True)
class _View:
    """What answers at one revision: the base without `changed`, and the rows that took their place."""

    info: IndexInfo
    base: Neighbors
    base_key: tuple[int, str]  # revision and token the base was made from
    changed: IntArray
    fresh: Neighbors
    inverted: InvertedFile | None

    @cached_property
    def ids(self) -> IntArray:
        """All that answer (n,), ascending."""
        if not len(self.changed):
            return self.base.ids
        kept = self.base.ids[~np.isin(self.base.ids, self.changed)]
        return np.sort(np.concatenate([kept, self.fresh.ids]))


class IndexCache:
    """Answers for a Store at its newest revision; opens, builds and writes the FAISS files as needed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._view: _View | None = None
        self._lock = threading.Lock()

    def search(
        self, queries: Embeddings, k: int, *, only: IntArray | None = None, exact: bool = False
    ) -> tuple[int, FloatArray, IntArray]:
        """The revision that answered, scores (q, k) and ids (q, k), best first, ties by id.

        By the inverted file where there is one, unless `exact`.
        """
        view = self._current()
        found = None
        if view.inverted is not None and not exact:
            found = view.inverted.search(view.base, queries, k, without=view.changed, only=only)
        scores, ids = found or view.base.search(queries, k, without=view.changed, only=only)
        if len(view.fresh):
            more_scores, more_ids = view.fresh.search(queries, k, only=only)
            scores = np.concatenate([scores, more_scores], axis=1)
            ids = np.concatenate([ids, more_ids], axis=1)
            order = np.lexsort((ids, -scores), axis=-1)[:, :k]
            scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
        return view.info.revision, scores, ids

    def ids(self) -> IntArray:
        """Ids (n,) of what answers at the newest revision, ascending."""
        return self._current().ids

    def write(self, *, afresh: bool = False) -> None:
        """Write the FAISS file of the newest revision, and drop older ones of this index. OSError if it cannot."""
        info = self._store.info()
        prefix = _prefix(info.index_id, info.revision, info.token)
        if afresh or not prefix.with_suffix(".json").exists():
            self._save(*self._gather(), verify=afresh)
        else:
            _drop(info.index_id, keep=prefix.name)  # what a run that died here has left

    def needs_inverted_file(self) -> bool:
        """Whether there is none at the newest revision that was written, or a tenth of the rows is in no list."""
        written = self._newest_written()
        sizes = covers(_prefix(self._store.info().index_id, *written)) if written else None
        return sizes is None or self._store.counts()["ok"] - sizes[0] > STALE * self._store.counts()["ok"]

    def build_inverted_file(self, queries: Embeddings) -> Quality:
        """Make one for the newest revision; `queries` (q, d) are what its recall is measured on. OSError if it cannot.

        It is written only where it pays: quality.nprobe is above 0.
        """
        self.write()
        info = self._store.info()
        prefix = _prefix(info.index_id, info.revision, info.token)
        base = Neighbors.load(prefix, info.dim)
        if base is None:
            raise OSError("the search cache cannot be read")
        inverted = InvertedFile.build(base, queries)
        if inverted.quality.nprobe:
            inverted.save(prefix)
        self.clear()
        return inverted.quality

    def drop_inverted_file(self) -> None:
        """Remove it: from now on search is exact."""
        _remove((cache_folder() / "faiss").glob(f"{self._store.info().index_id}-*"), {".ann", ".ivf", ".members"})
        self.clear()

    def advance(self, before: IndexInfo) -> None:
        """Let the files of revision `before` stand for the newest, where no picture changed in between."""
        now = self._store.info()
        old = _prefix(before.index_id, before.revision, before.token)
        new = _prefix(now.index_id, now.revision, now.token)
        for suffix in _SUFFIXES:  # checksums last
            with suppress(OSError):
                os.replace(old.with_suffix(suffix), new.with_suffix(suffix))

    def verify(self, *, with_rows: bool = True) -> bool:
        """Whether the FAISS files of this index have the checksum they were written with, and the rows of the store."""
        info = self._store.info()
        for revision, token in _written(info.index_id):
            prefix = _prefix(info.index_id, revision, token)
            cached = Neighbors.load(prefix, info.dim, verify=True)
            if cached is None:
                return False
            if part(prefix, "ann").exists() and InvertedFile.load(prefix, cached, verify=True) is None:
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
            inverted = self._inverted(info.index_id, base, key)
            self._view = _View(snapshot.info, base, key, snapshot.changed, fresh, inverted)
            return self._view

    def _inverted(self, index_id: str, base: Neighbors, key: tuple[int, str]) -> InvertedFile | None:
        view = self._view
        if view is not None and view.base is base:
            return view.inverted
        return InvertedFile.load(_prefix(index_id, *key), base)

    def _newest_written(self) -> tuple[int, str] | None:
        info, revisions = self._store.revisions()
        ours = (key for key in _written(info.index_id) if revisions.get(key[0]) == key[1])
        return max(ours, default=None)

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

    def _save(self, info: IndexInfo, neighbors: Neighbors, *, verify: bool = False) -> None:
        prefix = _prefix(info.index_id, info.revision, info.token)
        neighbors.save(prefix)
        for file in (cache_folder() / "faiss").glob(f"{info.index_id}-*.ann"):
            carry(file.with_suffix(""), prefix, neighbors, verify=verify)
        _drop(info.index_id, keep=prefix.name)


def _prefix(index_id: str, revision: int, token: str) -> Path:
    return cache_folder() / "faiss" / f"{index_id}-{revision}-{token}"


def _drop(index_id: str, *, keep: str = "") -> None:
    """Remove every file of an index but those of `keep`, and what a process that died was writing.

    One that lives writes anew, or does without: it is only a cache.
    """
    _remove(file for file in (cache_folder() / "faiss").glob(f"{index_id}-*") if file.stem != keep)


def _remove(files: Iterable[Path], suffixes: Collection[str] = ()) -> None:
    # Checksums first: without them nobody opens the rest.
    for file in sorted(files, key=lambda file: file.suffix not in (".json", ".ann")):
        if not suffixes or file.suffix in suffixes:
            with suppress(OSError):
                file.unlink()


def _written(index_id: str) -> set[tuple[int, str]]:
    found = set()
    for file in (cache_folder() / "faiss").glob(f"{index_id}-*.json"):
        parts = file.stem.split("-")
        if len(parts) == 3 and parts[1].isdigit():
            found.add((int(parts[1]), parts[2]))
    return found
