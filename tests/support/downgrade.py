"""An index of today as earlier versions would have it: formats 1 to 3."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

FORMAT_1 = """
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
)
"""
FORMAT_2 = """
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
)
"""


def to_format(file: Path, number: int) -> None:
    """Rewrite the database as that format."""
    {1: to_format_1, 2: to_format_2, 3: to_format_3}[number](file)


def to_format_3(file: Path) -> None:
    """Rewrite the database without what was read in pictures."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("DROP TABLE IF EXISTS texts")
        db.execute("PRAGMA user_version = 3")


def to_format_2(file: Path) -> None:
    """Rewrite the database without metadata."""
    to_format_3(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("ALTER TABLE images RENAME TO images_3")
        db.execute(FORMAT_2)
        for name in ("revision", "path", "metadata"):
            db.execute(f"DROP INDEX images_{name}")
        db.execute("CREATE INDEX images_revision ON images (revision)")
        db.execute("CREATE UNIQUE INDEX images_path ON images (path) WHERE state != 'replaced'")
        db.execute(
            "INSERT INTO images SELECT id, path, size, mtime_ns, ctime_ns, inode, sha256, width, height, taken_at,"
            " share, state, error, revision, embedding FROM images_3 ORDER BY id"
        )
        db.execute("DROP TABLE images_3")
        db.execute("PRAGMA user_version = 2")
        db.execute("COMMIT")


def to_format_1(file: Path) -> None:
    """Rewrite the database; replaced rows become missing ones whose path has a NUL."""
    to_format_3(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.create_function("aside", 2, lambda path, sha256: path + b"\0" + sha256.hex().encode())
        db.execute("BEGIN")
        db.execute("ALTER TABLE images RENAME TO images_2")
        db.execute(FORMAT_1)
        db.execute("DROP INDEX images_revision")
        db.execute("CREATE INDEX images_revision ON images (revision)\n")
        db.execute(
            "INSERT INTO images "
            "SELECT id, iif(state = 'replaced', aside(path, sha256), path), size, mtime_ns, ctime_ns,"
            " inode, sha256, width, height, taken_at, iif(state = 'replaced', 'missing', state), error, revision,"
            " embedding FROM images_2 ORDER BY id"
        )
        db.execute("DROP TABLE images_2")
        db.execute("DELETE FROM meta WHERE key IN ('engine', 'precision')")
        db.execute("PRAGMA user_version = 1")
        db.execute("COMMIT")


def add_replaced(file: Path) -> None:
    """As a run leaves it that died after it had read a file whose content was another one before."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(
            "INSERT INTO images SELECT NULL, path, size, mtime_ns, ctime_ns, inode, randomblob(32), width, height, "
            "taken_at, share, phash, camera, latitude, longitude, rating, tags, title, sidecar, "
            "'replaced', error, revision, embedding FROM images ORDER BY id LIMIT 1"
        )
