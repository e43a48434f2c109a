"""An index of an older format: it answers as it is, and the first writer makes it the newest or leaves it as it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clipkit.errors import ClipkitError, IndexDamaged
from clipkit.index.check import check, prune
from clipkit.index.image_index import ImageIndex
from clipkit.index.import_export import export, import_
from clipkit.store.schema import FORMAT
from tests.reliability.test_disk import IS_ROOT, disk, needs_root, set_read_only  # noqa: F401  disk is a fixture
from tests.support.colours import ColourEncoder, paint, shade
from tests.support.downgrade import add_replaced, to_format, to_format_2
from tests.support.faults import check_aligned, check_answers, check_sound, indexed, paint_many, rows_of, run_cli
from tests.support.sweeps import NEW, OLD, check_old_or_new, prepare

BAD, GONE = "bad.png", "000.png"
OLD_FORMATS = (1, 2, 3)


@pytest.fixture(params=OLD_FORMATS)
def old_format(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old(tmp_path: Path, old_format: int) -> ImageIndex:
    return make_old(tmp_path / "photos", old_format)


def make_old(folder: Path, old_format: int) -> ImageIndex:
    """An index of an older format with six pictures that answer, one missing, one failed and one replaced."""
    root = paint_many(folder, 7)
    (root / BAD).write_bytes(b"bad")
    index = indexed(root)
    (root / GONE).unlink()
    index.update()
    add_replaced(index.store.file)
    to_format(index.store.file, old_format)
    return ImageIndex.open(root, encoder=ColourEncoder())


def format_of(index: ImageIndex) -> object:
    return rows_of(index, "PRAGMA user_version")[0][0]


def facts(index: ImageIndex) -> dict[str, object]:
    """All that an index answers."""
    known, replaced = index.store.known(), index.store.replaced()
    return {
        "info": index.info,
        "counts": index.counts(),
        "failures": index.failures(),
        "paths": index.paths,
        "known": known,
        "replaced": replaced,
        "rows": [vars(row) for row in index.store.raw_rows()],
        "facts": index.store.facts(0, 100),
        "embeddings": index.embeddings.tolist(),
        "hits": index.search("red", k=100),
    }


def test_it_answers_as_the_newest_does_and_no_byte_of_it_changes(old: ImageIndex, old_format: int) -> None:
    before = old.store.file.read_bytes()
    answers = facts(old)
    assert answers["counts"] == {"ok": 6, "missing": 1, "failed": 1}
    assert (old.info.engine, old.info.precision) == ("torch", "float" if old_format == 1 else "float32")
    assert old.without_metadata_count() == (0 if old_format == 3 else 6)
    assert [row["state"] for row in answers["rows"]].count("replaced") == 1  # type: ignore[attr-defined]
    assert len(old.store.replaced()) == 1
    assert check(old).damage[0].what == "left behind by a run that did not finish"
    assert (old.store.file.read_bytes(), format_of(old)) == (before, old_format)
    with old.store.transaction():
        pass
    assert format_of(old) == FORMAT
    after = facts(old)
    assert after.pop("info") == old.info
    assert after == {name: answer for name, answer in answers.items() if name != "info"}
    check_sound(old)


@needs_root
def test_on_a_read_only_disk_it_answers_the_same(
    disk: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    old_format: int,
) -> None:
    index = indexed(paint_many(disk / "photos", 6))
    before = index.embeddings
    to_format(index.store.file, old_format)
    set_read_only(disk, to=True)
    opened = ImageIndex.open(disk / "photos", encoder=ColourEncoder())
    np.testing.assert_array_equal(opened.embeddings, before)
    check_answers(opened)
    for command in ("info {}", "info {} --failed", "search red {}", "check {}", "prune {} --dry-run"):
        line = f"clipkit {command}".replace("{}", str(disk / "photos"))
        assert run_cli(monkeypatch, line, ColourEncoder()) == 0, line
    set_read_only(disk, to=False)
    assert format_of(index) == old_format


def update(index: ImageIndex) -> None:
    paint(index.root / "new.png", shade(50))
    index.update()


def prune_missing(index: ImageIndex) -> None:
    assert prune(index) == [GONE]


def repair(index: ImageIndex) -> None:
    assert check(index, repair=True).damage == ()


def import_vectors(index: ImageIndex) -> None:
    paint(index.root / "new.png", shade(50))
    copy = shutil.copytree(index.root, index.root.parent / "copy", ignore=shutil.ignore_patterns(".clipkit", BAD))
    export(indexed(copy), index.root.parent / "vectors")
    assert import_(index.root.parent / "vectors", index.root, ColourEncoder()).imported == 1


def move_the_model(index: ImageIndex) -> None:
    encoder = ColourEncoder()
    encoder.source = "/elsewhere/colour"
    ImageIndex.create(index.root, encoder)


@pytest.mark.parametrize(
    "write", [update, prune_missing, repair, import_vectors, move_the_model], ids=lambda write: write.__name__
)
def test_every_writer_makes_it_the_newest_format(old: ImageIndex, write: object) -> None:
    write(old)  # type: ignore[operator]
    assert format_of(old) == FORMAT
    check_sound(old)
    check_aligned(old)
    check_answers(old)
    old.update()
    assert old.store.replaced() == {}


def test_a_run_without_changes_writes_nothing(tmp_path: Path, old_format: int) -> None:
    index = indexed(paint_many(tmp_path, 3))
    to_format(index.store.file, old_format)
    before = index.store.file.read_bytes()
    assert index.update().unchanged == 3
    assert index.store.file.read_bytes() == before


def test_a_migrated_file_is_as_small_as_a_new_one(old: ImageIndex) -> None:
    update(old)
    rebuilt = ImageIndex.create(old.root, ColourEncoder(), rebuild=True)
    size = old.store.file.stat().st_size
    rebuilt.update()
    assert size <= rebuilt.store.file.stat().st_size


@pytest.mark.parametrize("odd", ["CREATE TABLE other (a)", "DROP INDEX images_revision", "PRAGMA user_version = 4"])
def test_an_old_format_that_is_not_as_it_was_made_is_refused(old: ImageIndex, odd: str) -> None:
    rows_of(old, odd)
    with pytest.raises(IndexDamaged, match="not as clipkit made it"):
        ImageIndex.open(old.root)
    with pytest.raises(IndexDamaged, match="not as clipkit made it"), old.store.transaction():
        pass


# killed between any two statements


def check_killed_between_statements(root: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Copies of the files as a kill would leave them before each statement of the first writing run; how many."""
    copies: list[Path] = []

    class Copying(sqlite3.Connection):
        def execute(self, query: str, *rest: object) -> sqlite3.Cursor:
            if not query.startswith(("PRAGMA", "SELECT")):
                copy = place / str(len(copies)) / "photos"
                copies.append(Path(shutil.copytree(root, copy)))
            return super().execute(query, *rest)  # type: ignore[arg-type]

    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Copying, **options))
        ImageIndex.create(root, ColourEncoder()).update(workers=1)
    for copy in copies:
        check_old_or_new(copy)
    check_old_or_new(root, promised=NEW, is_done=True)
    return len(copies)


@pytest.fixture
def spilling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite keeps a page in memory, so that what a transaction writes reaches the file before it is committed."""
    connect = sqlite3.connect

    def connect_small(*args: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **options)  # type: ignore[call-overload]
        db.execute("PRAGMA cache_size = 1")
        return db

    monkeypatch.setattr(sqlite3, "connect", connect_small)
    return


@pytest.mark.usefixtures("spilling")
@pytest.mark.parametrize("mode", ["migrate", "migrate-2"])
def test_a_run_killed_between_two_statements_leaves_the_old_index_or_the_new_one(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path / "template" / "photos", mode)
    assert check_killed_between_statements(root, tmp_path, monkeypatch) > 20


def test_a_migration_that_fails_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ImageIndex.open(prepare(tmp_path, "migrate"), encoder=ColourEncoder())
    before = index.store.file.read_bytes()

    def fail(db: sqlite3.Connection) -> bool:
        db.execute("ALTER TABLE images RENAME TO old_images")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("clipkit.store.database.migrate", fail)
        with pytest.raises(ClipkitError, match="no space left"):
            index.update()
    assert index.store.file.read_bytes() == before
    assert len(index) == OLD
    assert sorted(os.listdir(index.folder)) == ["index.db", "lock"]
    assert index.update().encoded == NEW - OLD


def test_metadata_of_older_rows_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    index = indexed(paint_many(tmp_path, 3))
    before, hashes = index.embeddings, rows_of(index, "SELECT phash FROM images ORDER BY id")
    to_format_2(index.store.file)
    assert index.update().refreshed == 0
    assert index.without_metadata_count() == 3
    assert index.update(refresh_metadata=True).refreshed == 3
    assert format_of(index) == FORMAT
    assert index.without_metadata_count() == 0
    assert rows_of(index, "SELECT phash FROM images ORDER BY id") == hashes
    np.testing.assert_array_equal(index.embeddings, before)
