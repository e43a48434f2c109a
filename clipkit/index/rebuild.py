"""Rebuild of an index: a new database beside the one that answers, which takes its place in one step."""

from __future__ import annotations

from pathlib import Path

from clipkit.search.column_cache import ColumnCache
from clipkit.search.vector_cache import IndexCache
from clipkit.store.database import FILE, Store
from clipkit.store.records import IndexInfo

NEW_FILE = f"{FILE}.new"


class Rebuild:
    """A database under way. Whoever calls `begin`, `install` or `discard` holds the lock of the folder.

    Attributes:
        store: the new database, to be filled; readers do not see it.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / NEW_FILE)
        self._current = Store(folder / FILE)

    @classmethod
    def begin(cls, folder: Path, info: IndexInfo) -> Rebuild:
        """An empty database in `folder`; what a run that died has left of another goes."""
        rebuild = cls(folder)
        rebuild.discard()
        Store.create(rebuild.store.file, info)
        return rebuild

    def install(self) -> None:
        """The new database takes the place of the old one, durably, and the caches of the old one go."""
        IndexCache(self._current).drop()
        ColumnCache(self._current).drop()
        self._current.replace_by(self.store)

    def discard(self) -> None:
        """Remove the new database, if there is one."""
        self.store.discard()
