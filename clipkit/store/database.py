"""Index database: SQLite, where every picture's row carries its own embedding."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import IntArray
from clipkit.core.files import sync_file, sync_folder
from clipkit.core.locks import exclusive_lock
from clipkit.core.progress import Failure
from clipkit.errors import ClipkitError, IndexDamaged, IndexLocked, IndexNotFound
from clipkit.store.columns import SELECTED, Columns
from clipkit.store.migrations import migrate, read_as_newest
from clipkit.store.records import IndexInfo, Known, PictureRow, RawRow, ScannedFile, Written
from clipkit.store.schema import (
    APPLICATION_ID,
    FORMAT,
    SCHEMA,
    answering_path,
    check_database,
    check_sums,
    command_for,
    read_info,
    read_matrix,
    read_path,
    read_revision,
)

FILE = "index.db"
BUSY_SECONDS = 10.0
BLOCK = 2048  # rows a read: 2 MB at 512 dimensions, and as much again three times while they are checked
MANY = 50_000  # rows of metadata a read: 50 MB of Python objects

_METADATA = ("taken_at", "camera", "latitude", "longitude", "rating", "tags", "title", "sidecar")
_CONTENT = ("sha256", "width", "height", "taken_at", "share", "error", "embedding", "phash", *_METADATA[1:])
_COLUMNS = f"path, size, mtime_ns, ctime_ns, inode, {', '.join(_CONTENT)}"
_INSERT = f"INSERT INTO images ({_COLUMNS}, state, revision) VALUES ({', '.join('?' * (len(_CONTENT) + 7))})"
_UPDATE = f"UPDATE images SET {', '.join(f'{name} = ?' for name in _COLUMNS.split(', '))}, state = ?, revision = ?"
_STAMP = "size = ?, mtime_ns = ?, ctime_ns = ?, inode = ?"
_LISTED = "(SELECT value FROM json_each(?))"  # ids in one parameter, of which SQLite takes only so many
_IS_PARTIAL = "state = 'ok' AND share < 1"
_PRESENT = "CASE WHEN embedding IS NULL THEN 'failed' ELSE 'ok' END"


@dataclass(frozen=True)
class Snapshot:
    """One consistent look at the rows that answer (state ok) and at what changed.

    ids (n,) ascending; embeddings float16 (n, d); changed (m,): ids of all rows changed since the revision asked for.
    """

    info: IndexInfo
    ids: IntArray
    embeddings: npt.NDArray[np.float16]
    changed: IntArray


class Store:
    """Short transactions on one `index.db`. No connection outlives a call, so a replaced file is seen at once."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def create(cls, file: Path, info: IndexInfo) -> Store:
        """A new, empty database at `file`, which must not exist."""
        store = cls(file)
        with store._connect("rwc") as db:
            db.execute("PRAGMA page_size = 16384")  # a row of 512 float16 fits a page 15 times; benchmarked in FACTS
            db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            fields = {key: str(value) for key, value in vars(info).items() if value is not None}
            del fields["revision"], fields["token"]  # these live in `revisions`
            fields["excluded"] = json.dumps(info.excluded)
            fields["searches"] = json.dumps(dict(info.searches))
            db.executemany("INSERT INTO meta VALUES (?, ?)", fields.items())
            db.execute("INSERT INTO revisions VALUES (?, ?)", (info.revision, info.token))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
        return store

    def info(self) -> IndexInfo:
        """What the index says of itself; raises IndexNotFound, IndexTooNew or IndexDamaged."""
        with self._read() as db:
            return read_info(db, self.file)

    def counts(self) -> dict[str, int]:
        """Pictures by state: ok, missing, failed."""
        with self._read() as db:
            counts = dict(db.execute("SELECT state, count(*) FROM images GROUP BY state"))
        return {state: counts.get(state, 0) for state in ("ok", "missing", "failed")}

    def partial_count(self) -> int:
        """Pictures that answer though the file has only a part of their rows."""
        with self._read() as db:
            return int(db.execute(f"SELECT count(*) FROM images WHERE {_IS_PARTIAL}").fetchone()[0])

    def without_metadata_count(self) -> int:
        """Pictures that answer and whose metadata was never read."""
        with self._read() as db:
            query = "SELECT count(*) FROM images WHERE state = 'ok' AND sidecar IS NULL"
            return int(db.execute(query).fetchone()[0])

    def hashes(self) -> dict[int, bytes]:
        """Perceptual hashes, 8 bytes each, of the rows that answer, by id; those without one are left out."""
        with self._read() as db:
            rows = db.execute("SELECT id, phash FROM images WHERE state = 'ok' AND length(phash) = 8").fetchall()
        return {id_: value for id_, value in rows if isinstance(value, bytes)}

    def partial_among(self, ids: Iterable[int]) -> set[int]:
        """Those of `ids` of whose rows the file has only a part."""
        with self._read() as db:
            query = f"SELECT id FROM images WHERE id IN {_LISTED} AND {_IS_PARTIAL}"
            return {row[0] for row in db.execute(query, (_listed(ids),))}

    def known(self) -> dict[str, Known]:
        """Every picture's stamp, by path."""
        columns = (
            "id, path, size, mtime_ns, ctime_ns, inode, sha256, state, embedding IS NOT NULL, sidecar, phash NOTNULL"
        )
        with self._read() as db:
            rows = db.execute(f"SELECT {columns} FROM images WHERE state != 'replaced'").fetchall()
        check_sums((row[6] for row in rows), self.file)
        paths = [read_path(row[1], self.file) for row in rows]
        return {path: Known(row[0], path, *row[2:]) for path, row in zip(paths, rows, strict=True)}

    def replaced(self) -> dict[bytes, int]:
        """Old contents of replaced files that a run which did not finish has left: SHA-256 -> id of the row."""
        with self._read() as db:
            rows = db.execute("SELECT sha256, id FROM images WHERE state = 'replaced'").fetchall()
        check_sums((row[0] for row in rows), self.file)
        return {sha256: id_ for sha256, id_ in rows if sha256}

    def failures(self) -> list[Failure]:
        """Pictures that could not be read, with the reason, by path."""
        with self._read() as db:
            rows = db.execute("SELECT path, error FROM images WHERE state = 'failed' ORDER BY path").fetchall()
        return [Failure(read_path(path, self.file), str(error or "")) for path, error in rows]

    def revisions(self) -> tuple[IndexInfo, dict[int, str]]:
        """The info, and the token of every revision this index went through."""
        with self._read() as db:
            return read_info(db, self.file), dict(db.execute("SELECT revision, token FROM revisions"))

    def changes(self, revision: int, token: str) -> Snapshot | None:
        """The rows that changed after a revision; None where this index never was at that revision."""
        with self._read() as db:
            info = read_info(db, self.file)
            if not db.execute("SELECT 1 FROM revisions WHERE revision = ? AND token = ?", (revision, token)).fetchone():
                return None
            changed = db.execute("SELECT id FROM images WHERE revision > ? ORDER BY id", (revision,)).fetchall()
            answering = "SELECT id, embedding FROM images WHERE revision > ? AND state = 'ok' ORDER BY id"
            ids, embeddings = read_matrix(db.execute(answering, (revision,)).fetchall(), info.dim, self.file)
        return Snapshot(info, ids, embeddings, np.array(changed, dtype=np.int64).reshape(-1))

    def last_id(self) -> int:
        """The highest id: no more rows than that."""
        with self._read() as db:
            return int(db.execute("SELECT coalesce(max(id), 0) FROM images").fetchone()[0])

    def blocks(self) -> Iterator[tuple[IndexInfo, IntArray, npt.NDArray[np.float16]]]:
        """All answering rows in pieces of at most 2,048: ids (n,) ascending and embeddings (n, d).

        Each piece is a transaction of its own, so that a writer never waits for a slow reader; each carries the info it
        was read under, whose revision tells whether something was written in between.
        """
        last = -1
        query = "SELECT id, embedding FROM images WHERE id > ? AND state = 'ok' ORDER BY id LIMIT ?"
        while True:
            with self._read() as db:
                info = read_info(db, self.file)
                ids, embeddings = read_matrix(db.execute(query, (last, BLOCK)).fetchall(), info.dim, self.file)
            yield info, ids, embeddings
            if len(ids) < BLOCK:
                return
            last = int(ids[-1])

    def paths(self, ids: Iterable[int] | None = None) -> tuple[int, dict[int, str]]:
        """The revision, and the paths of the rows that answer, by id; all of them without `ids`."""
        with self._read() as db:
            revision = read_revision(db, self.file)[0]
            if ids is None:
                rows = sorted(db.execute("SELECT id, path FROM images WHERE state = 'ok'"))  # from an index alone
            else:
                query = f"SELECT id, path FROM images WHERE id IN {_LISTED} AND state = 'ok'"
                rows = db.execute(query, (_listed(ids),)).fetchall()
        return revision, {id_: answering_path(raw, self.file) for id_, raw in rows}

    def columns(self, before: Columns | None = None) -> Columns:
        """Metadata of the pictures that answer; where there is an older one, only what changed since is read."""
        with self._read() as db:
            revision, token = read_revision(db, self.file)
            if before is not None and (before.revision, before.token) == (revision, token):
                return before
            known = None if before is None else (before.revision, before.token)
            if known and not db.execute("SELECT 1 FROM revisions WHERE revision = ? AND token = ?", known).fetchone():
                before = None
            query, values = f"SELECT {SELECTED} FROM images WHERE state = 'ok'", (before.revision,) if before else ()
            found = db.execute(f"{query} AND revision > ?" if before else query, values)
            columns = Columns.of(revision, token, iter(lambda: found.fetchmany(MANY), []))
            if before is None:
                return columns
            changed = db.execute("SELECT id FROM images WHERE revision > ?", values).fetchall()
        return before.updated(np.array(changed, dtype=np.int64).reshape(-1), columns)

    def newest_ids(self) -> IntArray:
        """Ids (n,) of the pictures that answer: the newest first by date, then those without one; equals by id."""
        order = "substr(coalesce(taken_at, ''), 1, 19) DESC, id"
        with self._read() as db:
            rows = db.execute(f"SELECT id FROM images WHERE state = 'ok' ORDER BY {order}").fetchall()
        return np.array(rows, dtype=np.int64).reshape(-1)

    def facts(self, first: int, last: int) -> dict[int, tuple[bytes | None, int | None, int | None, str | None]]:
        """SHA-256, width, height and date of the rows with ids from `first` to `last`."""
        query = "SELECT id, sha256, width, height, taken_at FROM images WHERE id BETWEEN ? AND ?"
        with self._read() as db:
            rows = db.execute(query, (first, last)).fetchall()
        check_sums((row[1] for row in rows), self.file)
        return {id_: tuple(facts) for id_, *facts in rows}

    def contents(self, ids: Iterable[int]) -> set[str]:
        """SHA-256, in hex, of those of `ids` that answer."""
        one = "SELECT sha256 FROM images WHERE id = ? AND state = 'ok'"
        with self._read() as db:
            sums = [row[0] for id_ in ids for row in db.execute(one, (int(id_),))]
        check_sums(sums, self.file)
        return {value.hex() for value in sums if value}

    def ids_with_contents(self, contents: Collection[str]) -> IntArray:
        """Ids (n,) of the pictures that answer and have one of these SHA-256, in hex; ascending."""
        with self._read() as db:
            rows = db.execute("SELECT sha256, id FROM images WHERE state = 'ok' ORDER BY id").fetchall()
        check_sums((row[0] for row in rows), self.file)
        return np.array([id_ for value, id_ in rows if value and value.hex() in contents], dtype=np.int64)

    def unread_texts(self) -> dict[bytes, str]:
        """Pictures that answer and whose text was never read: SHA-256 -> a path."""
        query = "SELECT sha256, path FROM images WHERE state = 'ok' AND sha256 NOTNULL ORDER BY id DESC"
        with self._read() as db:
            rows = db.execute(query).fetchall()
            known = {row[0] for row in db.execute("SELECT sha256 FROM texts")}
        check_sums((row[0] for row in rows), self.file)
        unread = {sha256: raw for sha256, raw in rows if sha256 not in known}
        return {sha256: answering_path(raw, self.file) for sha256, raw in reversed(unread.items())}

    def texts(self) -> dict[bytes, str]:
        """What was read in pictures, by SHA-256; "" where there is no text."""
        with self._read() as db:
            rows = db.execute("SELECT sha256, text FROM texts").fetchall()
        return {sha256: text for sha256, text in rows if isinstance(sha256, bytes) and isinstance(text, str)}

    def vectors(self, ids: Iterable[int]) -> tuple[IntArray, npt.NDArray[np.float16]]:
        """Ids (n,) and embeddings (n, d) of those of `ids` that answer, in their order."""
        one = "SELECT id, embedding FROM images WHERE id = ? AND state = 'ok'"
        with self._read() as db:
            rows = [row for id_ in ids for row in db.execute(one, (int(id_),))]
            return read_matrix(rows, read_info(db, self.file).dim, self.file)

    def raw_rows(self) -> Iterator[RawRow]:
        """Every row as it is, unchecked, by id; in blocks, each a transaction of its own."""
        last = -1
        query = "SELECT id, path, state, sha256, embedding FROM images WHERE id > ? ORDER BY id LIMIT ?"
        while True:
            with self._read() as db:
                rows = db.execute(query, (last, BLOCK)).fetchall()
            yield from (RawRow(id_, read_path(path, self.file), *rest) for id_, path, *rest in rows)
            if len(rows) < BLOCK:
                return
            last = rows[-1][0]

    def check_structure(self) -> None:
        """SQLite's own check of every page and index; IndexDamaged with what it says first."""
        with self._read() as db:
            answer = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if answer != "ok":
            raise IndexDamaged(f"{self.file} is damaged: {answer}", hint=command_for(self.file, "index", "--rebuild"))

    def compact(self) -> None:
        """Give the space of deleted rows back to the disk."""
        with self._connect("rw") as db:
            db.execute("VACUUM")

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        """All of it or nothing; the revision grows by one. An older format becomes the newest with it."""
        with self._connect("rw") as db:
            check_database(db, self.file)
            db.execute("BEGIN IMMEDIATE")
            try:
                is_migrated = migrate(db)
                revision = read_revision(db, self.file)[0] + 1
                yield Writer(db, revision)
                db.execute("INSERT INTO revisions VALUES (?, ?)", (revision, secrets.token_hex(8)))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            if is_migrated:
                with suppress(sqlite3.OperationalError):  # no space, or a reader: only the file is longer then
                    db.execute("VACUUM")

    def copy_to(self, other: Store) -> None:
        """Write all of it to another file, which must not exist: the same index, at the same revision."""
        with self._connect("rw") as db, other._connect("rwc") as target:
            db.backup(target)

    def replace_by(self, other: Store) -> None:
        """Put `other`'s file in this one's place, durably. The caller holds the lock.

        A journal left beside the old file would roll the OLD pages into the NEW file, and SQLite's own check would call
        the result sound: so the old file is opened for writing first, which rolls it back; its journal must be gone.
        """
        journal = Path(f"{self.file}-journal")
        if self.file.exists():
            try:
                with self._connect("rw") as db:
                    db.execute("BEGIN EXCLUSIVE")  # rolls back a hot journal, and deletes it
                    db.execute("COMMIT")
                if journal.exists() and journal.read_bytes()[:1] in (b"", b"\0"):
                    journal.unlink()  # its header was never synced, so SQLite would not read it either
            except IndexDamaged:
                journal.unlink(missing_ok=True)  # nothing to save: the file it belongs to cannot be read
        if journal.exists() or Path(f"{other.file}-journal").exists():
            raise ClipkitError(f"{journal} is still there, so nothing was changed", hint="run the command again")
        sync_file(other.file)
        os.replace(other.file, self.file)
        sync_folder(self.file.parent)

    def discard(self) -> None:
        """Remove the file and its journal, if there are any. The caller holds the lock."""
        for leftover in (self.file, Path(f"{self.file}-journal")):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._connect("rw") as db:  # not "ro": only a writer may roll back what a crash left behind
            db.execute("PRAGMA temp_store = MEMORY")  # a view at most; VACUUM, elsewhere, takes more
            db.execute("BEGIN")
            check_database(db, self.file)  # in the transaction: a writer may change the format at any moment
            read_as_newest(db)
            db.execute("PRAGMA query_only = ON")
            yield db

    @contextmanager
    def _connect(self, mode: str) -> Iterator[sqlite3.Connection]:
        if mode == "rw" and not self.file.exists():
            raise IndexNotFound(f"no index at {self.file}", hint="clipkit index")
        try:
            address = f"{self.file.absolute().as_uri()}?mode={mode}"
            with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as db:
                db.execute("PRAGMA trusted_schema = OFF")
                db.execute("PRAGMA cell_size_check = ON")
                db.execute("PRAGMA synchronous = EXTRA")  # FULL does not sync the folder after the journal goes
                yield db
        except sqlite3.Error as error:
            raise _explained(error, self.file) from error
        except UnicodeDecodeError as error:  # sqlite3 itself, over a message that quotes the damage
            raise IndexDamaged(f"{self.file} is damaged", hint=command_for(self.file, "index", "--rebuild")) from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the one writer of the index in `folder`; IndexLocked if there is one. The lock dies with its process."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(folder / "lock", seconds=0))
        except TimeoutError as error:
            hint = "wait for it to end; searching works meanwhile"
            raise IndexLocked(f"another clipkit is writing the index in {folder}", hint=hint) from error
        except OSError as error:
            raise _read_only(folder, error) from error
        yield


def _listed(ids: Iterable[int]) -> str:
    """Ids as `_LISTED` reads them."""
    return json.dumps([int(id_) for id_ in ids])


def make_folder(folder: Path) -> None:
    """The folder for an index, made if need be; ClipkitError where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _read_only(folder, error) from error


def _read_only(folder: Path, error: OSError) -> ClipkitError:
    hint = f"clipkit index {folder.parent} --index FOLDER"
    return ClipkitError(f"cannot write in {folder}: {error.strerror}", hint=hint)


def _explained(error: sqlite3.Error, file: Path) -> ClipkitError:
    text = str(error)
    if "locked" in text:
        return IndexLocked(f"{file} is being written by another program", hint="try again in a moment")
    if "full" in text:
        hint = "free some space, then run the same command again"
        return ClipkitError(f"no space left to write {file}; the index is as of its last batch", hint=hint)
    if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
        copy = f"copy {file.parent} to a folder that can be written, and ask that: --index COPY"
        return ClipkitError(f"a run died while it wrote {file}, and its traces cannot be cleared here", hint=copy)
    if "readonly" in text or "unable to open" in text:
        return ClipkitError(f"cannot write {file}: {text}", hint="keep the index elsewhere: --index FOLDER")
    if isinstance(error, sqlite3.OperationalError) and "disk I/O" in text:
        return ClipkitError(f"the disk failed while clipkit used {file}: {text}", hint="clipkit info")
    return IndexDamaged(f"{file} is damaged: {text}", hint=command_for(file, "index", "--rebuild"))


class Writer:
    """What a transaction may do to the rows. Only `Store.transaction` makes one."""

    def __init__(self, db: sqlite3.Connection, revision: int) -> None:
        self._db = db
        self._revision = revision

    def put(self, row: PictureRow) -> Written:
        """A new picture, or new content under a known path; the old content stays until `drop_replaced`."""
        state = "ok" if row.embedding is not None else "failed"
        old = self._get("path = ? AND state != 'replaced'", os.fsencode(row.found.path))
        if old is None:
            return Written(self._insert(os.fsencode(row.found.path), row, state))
        id_, old_row = old
        replaced_id = self._keep_replaced(old_row, row.sha256)
        self._db.execute(f"{_UPDATE} WHERE id = ?", (*self._values(os.fsencode(row.found.path), row, state), id_))
        return Written(id_, replaced_id)

    def has(self, path: str, sha256: bytes | None) -> bool:
        """Whether a picture of this path answers, with this content."""
        query = (
            "SELECT state, sha256 FROM images WHERE path = ? AND state != 'replaced'"  # as the index of paths has it
        )
        return bool(self._db.execute(query, (os.fsencode(path),)).fetchone() == ("ok", sha256))

    def copy(self, source_id: int, found: ScannedFile, sha256: bytes) -> Written:
        """Give `found` all that row `source_id` knows of the same bytes."""
        row = self._get("id = ? AND sha256 = ?", source_id, sha256)
        if row is None:
            raise IndexDamaged(f"row {source_id} is not what it was", hint="run the same command again")
        return self.put(replace(row[1], found=found))

    def move(self, source_id: int, found: ScannedFile) -> None:
        """Row `source_id` now stands for `found`, a path that no row has."""
        query = f"UPDATE images SET path = ?, {_STAMP}, state = {_PRESENT}, revision = ? WHERE id = ?"
        self._db.execute(query, (os.fsencode(found.path), *found.stamp, self._revision, source_id))

    def touch(self, found: ScannedFile) -> None:
        """Same bytes, new stamp; back in the results if it was missing."""
        query = (
            f"UPDATE images SET {_STAMP}, revision = CASE state WHEN 'missing' THEN ? ELSE revision END, "
            f"state = {_PRESENT} WHERE path = ? AND state != 'replaced'"
        )
        self._db.execute(query, (*found.stamp, self._revision, os.fsencode(found.path)))

    def describe(self, id_: int, row: PictureRow) -> None:
        """Other metadata of the same content; a perceptual hash where the row has none."""
        names = ", ".join(f"{name} = ?" for name in _METADATA)
        query = f"UPDATE images SET {names}, phash = coalesce(phash, ?), revision = ? WHERE id = ? AND sha256 = ?"
        values = (getattr(row, name) for name in _METADATA)
        self._db.execute(query, (*values, row.phash, self._revision, id_, row.sha256))

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
            "error = 'its row was damaged', revision = ? WHERE id = ? AND state != 'replaced'"
        )
        self._db.executemany(query, ((self._revision, id_) for id_ in ids))

    def delete(self, ids: Collection[int]) -> None:
        """Forget these pictures. Deleted rows cannot say that they changed: older caches may not be used any more."""
        self._db.executemany("DELETE FROM images WHERE id = ?", ((id_,) for id_ in ids))
        self._db.execute("DELETE FROM texts WHERE sha256 NOT IN (SELECT sha256 FROM images WHERE sha256 NOTNULL)")
        self._db.execute("DELETE FROM revisions WHERE revision < ?", (self._revision,))

    def note(self, key: str, value: str) -> None:
        """Change one fact of the index."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def put_texts(self, texts: Mapping[bytes, str]) -> None:
        """Remember what was read in pictures, by SHA-256."""
        self._db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?)", texts.items())

    def exclude(self, texts: Sequence[str]) -> None:
        """Remember which folders are left out, and forget which were."""
        self.note("excluded", json.dumps(texts))

    def save_searches(self, searches: Mapping[str, str]) -> None:
        """Remember these searches by name, and forget which were."""
        self.note("searches", json.dumps(searches))

    def drop_replaced(self) -> None:
        """Drop the old contents of replaced files: the run is complete, nobody can ask for them any more."""
        self._db.execute("DELETE FROM images WHERE state = 'replaced'")

    def _keep_replaced(self, row: PictureRow, sha256: bytes | None) -> int | None:
        # A later file of this run may hold the bytes that are replaced here (files that swapped names).
        if row.embedding is None or not row.sha256 or row.sha256 == sha256:
            return None
        return self._insert(os.fsencode(row.found.path), row, "replaced")

    def _get(self, condition: str, *values: object) -> tuple[int, PictureRow] | None:
        query = f"SELECT id, {_COLUMNS} FROM images WHERE {condition}"
        for id_, raw, size, mtime_ns, ctime_ns, inode, *content in self._db.execute(query, values).fetchall():
            return id_, PictureRow(ScannedFile(os.fsdecode(raw), size, mtime_ns, ctime_ns, inode), *content)
        return None

    def _insert(self, path: bytes, row: PictureRow, state: str) -> int:
        id_ = self._db.execute(_INSERT, self._values(path, row, state)).lastrowid
        assert id_ is not None
        return id_

    def _values(self, path: bytes, row: PictureRow, state: str) -> tuple[object, ...]:
        return (path, *row.found.stamp, *(getattr(row, name) for name in _CONTENT), state, self._revision)
