"""Migrations of an index database: older formats are read as the newest, and rewritten by the first writer."""

from __future__ import annotations

import sqlite3

from clipkit.store.schema import FORMAT, IMAGES_INDEXES, IMAGES_TABLE, OLD_META, TEXTS_TABLE, read_format

# Format 1 kept the old content of a replaced file as a missing row whose path was PATH NUL SHA256: no file is named so.
_IS_REPLACED = "state = 'missing' AND typeof(path) = 'blob' AND instr(path, x'00') > 0"
_NEW = "NULL AS phash, NULL AS camera, NULL AS latitude, NULL AS longitude, NULL AS rating, NULL AS tags, NULL AS title"
_ROWS = {
    1: f"""
SELECT
    id,
    CASE WHEN {_IS_REPLACED} THEN substr(path, 1, instr(path, x'00') - 1) ELSE path END AS path,
    size, mtime_ns, ctime_ns, inode, sha256, width, height, taken_at, NULL AS share, {_NEW}, NULL AS sidecar,
    CASE WHEN {_IS_REPLACED} THEN 'replaced' ELSE state END AS state,
    error, revision, embedding
FROM
""",
    2: f"""
SELECT
    id, path, size, mtime_ns, ctime_ns, inode, sha256, width, height, taken_at, share, {_NEW}, NULL AS sidecar,
    state, error, revision, embedding
FROM
""",
}  # format -> its rows with the columns of the newest, in their order


def read_as_newest(db: sqlite3.Connection) -> None:
    """Let queries for the newest format find their rows in an older one; only this connection sees the difference."""
    if (rows := _ROWS.get(read_format(db))) is not None:
        db.execute(f"CREATE TEMP VIEW images AS {rows} main.images")
    if read_format(db) < FORMAT:
        db.execute("CREATE TEMP VIEW texts AS SELECT x'' AS sha256, '' AS text WHERE false")


def migrate(db: sqlite3.Connection) -> bool:
    """Make an older database one of FORMAT; whether its rows were rewritten for that.

    The caller has begun a transaction, and commits. Ids, revisions and what every row answers stay, so that search
    caches stay valid.
    """
    old = read_format(db)
    if old == FORMAT:
        return False
    db.execute(TEXTS_TABLE)
    db.execute(f"PRAGMA user_version = {FORMAT}")
    if old in _ROWS:
        _rewrite(db, old)
    return old in _ROWS


def _rewrite(db: sqlite3.Connection, old: int) -> None:
    db.execute("ALTER TABLE images RENAME TO old_images")
    db.execute(IMAGES_TABLE)
    db.execute(f"INSERT INTO images {_ROWS[old]} old_images ORDER BY id")
    db.execute("DROP TABLE old_images")
    for statement in IMAGES_INDEXES.split(";"):  # those of the old table, of the same name, went with it
        db.execute(statement)
    if old == 1:
        db.executemany("INSERT INTO meta VALUES (?, ?)", OLD_META.items())
