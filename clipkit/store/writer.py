"""What one transaction may do to the rows of a store."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from clipkit.errors import IndexDamaged
from clipkit.store.records import Found, Row

if TYPE_CHECKING:
    import sqlite3

_COLUMNS = "path, size, mtime_ns, ctime_ns, inode, sha256, width, height, taken_at, error, embedding"
_UPSERT = f"""
INSERT INTO images ({_COLUMNS}, state, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:])},
    state = excluded.state, revision = excluded.revision
"""
_STAMP = "size = ?, mtime_ns = ?, ctime_ns = ?, inode = ?"
_PRESENT = "CASE WHEN embedding IS NULL THEN 'failed' ELSE 'ok' END"


class Writer:
    """What a transaction may do to the rows. Only `Store.transaction` makes one."""

    def __init__(self, db: sqlite3.Connection, revision: int) -> None:
        self._db = db
        self._revision = revision

    def put(self, row: Row) -> None:
        """A new picture, or new content under a known path; the old content is set aside until `tidy`."""
        path = os.fsencode(row.found.path)
        self._set_aside(path, row.sha256)
        self._insert(path, row, "ok" if row.embedding is not None else "failed")

    def copy(self, source: str, found: Found, sha256: bytes) -> None:
        """Give `found` all that is known of the same bytes at `source`."""
        row = self._get(os.fsencode(source), sha256)
        if row is None:
            raise IndexDamaged(f"the row of {source!r} is not what it was", hint="run the same command again")
        self.put(replace(row, found=found))

    def move(self, source: str, found: Found) -> None:
        """The row of `source` now stands for `found`, a path that no row has."""
        stamp = found[1:]
        query = f"UPDATE images SET path = ?, {_STAMP}, state = {_PRESENT}, revision = ? WHERE path = ?"
        self._db.execute(query, (os.fsencode(found.path), *stamp, self._revision, os.fsencode(source)))

    def touch(self, found: Found) -> None:
        """Same bytes, new stamp; back in the results if it was missing."""
        query = (
            f"UPDATE images SET {_STAMP}, revision = CASE state WHEN 'missing' THEN ? ELSE revision END, "
            f"state = {_PRESENT} WHERE path = ?"
        )
        self._db.execute(query, (*found[1:], self._revision, os.fsencode(found.path)))

    def hide(self, ids: Collection[int]) -> None:
        """The files are gone: keep the vectors, leave the results."""
        query = "UPDATE images SET state = 'missing', revision = ? WHERE id = ?"
        self._db.executemany(query, ((self._revision, id_) for id_ in ids))

    def restore(self, ids: Collection[int]) -> None:
        """The files are back, as they were."""
        query = f"UPDATE images SET state = {_PRESENT}, revision = ? WHERE id = ? AND state = 'missing'"
        self._db.executemany(query, ((self._revision, id_) for id_ in ids))

    def distrust(self, ids: Collection[int]) -> None:
        """Forget what was made of these pictures; the next pass reads them again."""
        query = (
            "UPDATE images SET size = -1, sha256 = NULL, embedding = NULL, state = 'failed', "
            "error = 'its row was damaged', revision = ? WHERE id = ?"
        )
        self._db.executemany(query, ((self._revision, id_) for id_ in ids))

    def delete(self, ids: Collection[int]) -> None:
        """Forget these pictures. Deleted rows cannot say that they changed: older caches may not be used any more."""
        self._db.executemany("DELETE FROM images WHERE id = ?", ((id_,) for id_ in ids))
        self._db.execute("DELETE FROM revisions WHERE revision < ?", (self._revision,))

    def note(self, key: str, value: str) -> None:
        """Change one fact of the index."""
        self._db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    def tidy(self) -> None:
        """Drop what was set aside: the run is complete, nobody can ask for it any more."""
        self._db.execute("DELETE FROM images WHERE instr(path, x'00') > 0")

    def _set_aside(self, path: bytes, sha256: bytes | None) -> None:
        # A later file of this run may hold the bytes that are replaced here (files that swapped names). No file name
        # has a NUL in it, so such a row is never found by a scan, and it never answers.
        row = self._get(path, None)
        if row is not None and row.embedding is not None and row.sha256 and row.sha256 != sha256:
            aside = set_aside_path(os.fsdecode(path), row.sha256)
            self._insert(os.fsencode(aside), row, "missing")

    def _get(self, path: bytes, sha256: bytes | None) -> Row | None:
        query = f"SELECT {_COLUMNS} FROM images WHERE path = ?1 AND (?2 IS NULL OR sha256 = ?2)"
        for raw, size, mtime_ns, ctime_ns, inode, *content in self._db.execute(query, (path, sha256)):
            return Row(Found(os.fsdecode(raw), size, mtime_ns, ctime_ns, inode), *content)
        return None

    def _insert(self, path: bytes, row: Row, state: str) -> None:
        content = (row.sha256, row.width, row.height, row.taken_at, row.error, row.embedding)
        self._db.execute(_UPSERT, (path, *row.found[1:], *content, state, self._revision))


def set_aside_path(path: str, sha256: bytes) -> str:
    """Where the content that `path` had is kept until the run is complete."""
    return f"{path}\0{sha256.hex()}"
