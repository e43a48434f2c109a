"""Column cache of one index: its metadata as arrays, in memory and in the cache folder."""

from __future__ import annotations

import threading
from contextlib import suppress

from clipkit.core.cache import ArrayCache
from clipkit.errors import BadIndex
from clipkit.store.columns import Columns
from clipkit.store.database import Store

MOST = 100  # indexes


class ColumnCache:
    """Metadata columns of a Store at its newest revision; of an older file only what changed since is read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._columns: Columns | None = None
        self._lock = threading.Lock()

    def current(self) -> Columns:
        """The columns as the index has them now."""
        with self._lock:
            if self._columns is None:
                self._columns = self._opened()
            self._columns = self._store.columns(self._columns)
            return self._columns

    def write(self) -> None:
        """Write the file of the newest revision, unless it is there."""
        self.clear()
        self.current()

    def clear(self) -> None:
        """Forget what is in memory."""
        self._columns = None

    def drop(self) -> None:
        """Remove the file of this index: it is about to be replaced by one with another id."""
        with suppress(BadIndex):
            _cache().remove(self._store.info().index_id)

    def _opened(self) -> Columns:
        cache = _cache()
        key = self._store.info().index_id
        written = _read(cache, key)
        columns = self._store.columns(written)
        if columns is not written:
            cache.put(key, columns.arrays(), [columns.revision, columns.token])
        return columns


def _cache() -> ArrayCache:
    return ArrayCache("columns", form="clipkit columns 1", most=MOST)


def _read(cache: ArrayCache, key: str) -> Columns | None:
    with suppress(KeyError, ValueError, TypeError):
        if (stored := cache.get(key)) is not None:
            revision, token = stored[1]
            return Columns.from_arrays(revision, token, stored[0])
    return None
