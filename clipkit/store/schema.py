"""Schema of the index database, and the checks of a file that may have come from anybody."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import IntArray
from clipkit.errors import IndexDamaged, IndexTooNew
from clipkit.models.encoder import UNRECORDED
from clipkit.store.records import IndexInfo

APPLICATION_ID = 0x434C504B  # "CLPK"
FORMAT = 4
MAX_DIM = 65_536
MAX_NUMBER = 1 << 62  # of ids and revisions: far from where SQLite's integers end, so that one more always fits
NORM_TOLERANCE = 2e-3  # float16 moves the length of a vector by at most 5e-4
_OBJECTS = "SELECT type, name, sql FROM main.sqlite_schema"
_HEX = re.compile(r"[0-9a-f]{1,64}")

META_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE revisions (revision INTEGER PRIMARY KEY, token TEXT NOT NULL);
"""
IMAGES_TABLE = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha256 BLOB,
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    share REAL,
    phash BLOB,
    camera TEXT,
    latitude REAL,
    longitude REAL,
    rating INTEGER,
    tags TEXT,
    title TEXT,
    sidecar TEXT,
    state TEXT NOT NULL CHECK (state IN ('ok', 'missing', 'failed', 'replaced')),
    error TEXT,
    revision INTEGER NOT NULL,
    embedding BLOB
);
"""
# The last holds all that the columns of metadata and paths are read from, a tenth of the file.
IMAGES_INDEXES = """
CREATE INDEX images_revision ON images (revision);
CREATE UNIQUE INDEX images_path ON images (path) WHERE state != 'replaced';
CREATE INDEX images_metadata
    ON images (taken_at, width, height, share, rating, latitude, longitude, camera, tags, title, sidecar, path, state)
    WHERE state = 'ok';
"""
TEXTS_TABLE = "CREATE TABLE texts (sha256 BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"
_SCHEMA_3 = META_TABLES + IMAGES_TABLE + IMAGES_INDEXES
SCHEMA = _SCHEMA_3 + TEXTS_TABLE
# Exactly as format 1 was written: SQLite remembers the line break at the end of its last statement.
_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE revisions (revision INTEGER PRIMARY KEY, token TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha256 BLOB,
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    state TEXT NOT NULL CHECK (state IN ('ok', 'missing', 'failed')),
    error TEXT,
    revision INTEGER NOT NULL,
    embedding BLOB
);
CREATE INDEX images_revision ON images (revision)
"""
_SCHEMA_2 = (
    META_TABLES
    + """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha256 BLOB,
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    share REAL,
    state TEXT NOT NULL CHECK (state IN ('ok', 'missing', 'failed', 'replaced')),
    error TEXT,
    revision INTEGER NOT NULL,
    embedding BLOB
);
CREATE INDEX images_revision ON images (revision);
CREATE UNIQUE INDEX images_path ON images (path) WHERE state != 'replaced';
"""
)
_SCHEMAS = {1: _SCHEMA_1, 2: _SCHEMA_2, 3: _SCHEMA_3, FORMAT: SCHEMA}
OLD_META = {"engine": "torch", "precision": UNRECORDED}  # what format 1 leaves out


def command_for(file: Path, command: str, *options: str) -> str:
    """`clipkit COMMAND FOLDER` as the user would type it for the index that `file` belongs to."""
    is_inside = file.parent.name == ".clipkit"
    place = [str(file.parent.parent)] if is_inside else ["--index", str(file.parent)]
    return shlex.join(["clipkit", command, *place, *options])


def check_database(db: sqlite3.Connection, file: Path) -> None:
    """Ours, not newer than this clipkit, and with the tables we made and nothing else; IndexTooNew or IndexDamaged."""
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    version = read_format(db)
    if application_id != APPLICATION_ID:
        raise IndexDamaged(f"{file} is not a clipkit index", hint=_rebuild(file))
    if version > FORMAT:
        upgrade = "pip install --upgrade clipkit"
        raise IndexTooNew(f"{file} has format {version}; this clipkit reads up to {FORMAT}", hint=upgrade)
    objects, own = set(db.execute(_OBJECTS)), _own_objects(version)
    if objects != own:
        odd = ", ".join(sorted(f"{kind} {name}" for kind, name, _ in objects ^ own))
        raise IndexDamaged(f"{file} is not as clipkit made it ({odd})", hint=_rebuild(file))


def read_format(db: sqlite3.Connection) -> int:
    """The format that the database says it has."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def read_info(db: sqlite3.Connection, file: Path) -> IndexInfo:
    """What the index says of itself; IndexDamaged where that cannot be."""
    meta = dict(db.execute("SELECT key, value FROM meta"))
    revision, token = read_revision(db, file)
    _check_values(db, meta, file)
    try:
        meta = {**meta, **OLD_META} if read_format(db) == 1 else meta
        dim = int(meta.pop("dim"))
        excluded = tuple(json.loads(meta.pop("excluded", "[]")))
        searches = tuple(json.loads(meta.pop("searches", "{}")).items())
        root = meta.pop("root", None)
        own = {"root": root, "excluded": excluded, "searches": searches}
        info = IndexInfo(revision=revision, token=token, dim=dim, **own, **meta)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IndexDamaged(f"{file} does not say what it holds: {error}", hint=_rebuild(file)) from error
    if not all(isinstance(text, str) for text in excluded):
        raise IndexDamaged(f"{file} leaves out folders that have no name", hint=_rebuild(file))
    if not all(isinstance(text, str) for pair in searches for text in pair):
        raise IndexDamaged(f"{file} has saved searches that are no text", hint=_rebuild(file))
    if not 0 < dim <= MAX_DIM:
        raise IndexDamaged(f"{file} claims vectors of {dim} values", hint=_rebuild(file))
    if not (_HEX.fullmatch(info.index_id) and _HEX.fullmatch(token)):  # they name files in the cache folder
        raise IndexDamaged(f"{file} has an id that clipkit did not make", hint=_rebuild(file))
    return info


def read_revision(db: sqlite3.Connection, file: Path) -> tuple[int, str]:
    """The newest revision and its token."""
    row = db.execute("SELECT revision, token FROM revisions ORDER BY revision DESC LIMIT 1").fetchone()
    if row is None:
        raise IndexDamaged(f"{file} has no revision", hint=_rebuild(file))
    if not 0 <= row[0] < MAX_NUMBER:
        raise IndexDamaged(f"{file} claims to be at revision {row[0]}", hint=_rebuild(file))
    return int(row[0]), str(row[1])


def read_matrix(rows: list[tuple[int, bytes]], dim: int, file: Path) -> tuple[IntArray, npt.NDArray[np.float16]]:
    """Ids (n,) and vectors (n, dim) of rows that answer; IndexDamaged at the first that is no vector of length 1."""
    repair = command_for(file, "check", "--repair")
    for id_, blob in rows:
        if not isinstance(blob, bytes) or len(blob) != 2 * dim:
            raise IndexDamaged(f"{file}: picture {id_} has no vector of {dim} values", hint=repair)
    ids = np.array([id_ for id_, _ in rows], dtype=np.int64)
    matrix = np.frombuffer(b"".join(blob for _, blob in rows), dtype="<f2").reshape(-1, dim)
    lengths = np.linalg.norm(matrix.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= NORM_TOLERANCE))  # written so that a NaN is wrong
    if wrong.size:
        raise IndexDamaged(f"{file}: picture {ids[wrong[0]]} has no vector of length 1", hint=repair)
    return ids, matrix


def check_sums(sums: Iterable[object], file: Path) -> None:
    """IndexDamaged unless each is the bytes of a checksum, or None."""
    if not {type(value) for value in sums} <= {bytes, type(None)}:
        raise IndexDamaged(f"{file} has a checksum that is none", hint=_rebuild(file))


def read_path(raw: object, file: Path) -> str:
    """A path as the disk has it."""
    if not isinstance(raw, bytes):
        raise IndexDamaged(f"{file} has a path that is none: {raw!r}", hint=_rebuild(file))
    return os.fsdecode(raw)


def answering_path(raw: object, file: Path) -> str:
    """The path of a row that answers: it may not lead out of the folder."""
    path = read_path(raw, file)
    if "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        raise IndexDamaged(f"{file} names a file outside its folder: {path!r}", hint=_rebuild(file))
    return path


def _check_values(db: sqlite3.Connection, meta: dict[str, object], file: Path) -> None:
    if not all(isinstance(value, str) for value in meta.values()):
        raise IndexDamaged(f"{file} does not say in words what it holds", hint=_rebuild(file))
    first, last = db.execute("SELECT (SELECT min(id) FROM images), (SELECT max(id) FROM images)").fetchone()
    if first is not None and not 0 < first <= last < MAX_NUMBER:
        raise IndexDamaged(f"{file} numbers its pictures from {first} to {last}", hint=_rebuild(file))


@cache
def _own_objects(version: int) -> set[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMAS.get(version, ""))
        return set(db.execute(_OBJECTS))


def _rebuild(file: Path) -> str:
    return command_for(file, "index", "--rebuild")
