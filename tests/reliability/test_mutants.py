"""clipkit made worse on purpose: each time a test of ours must notice, or the tests are blind."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import clipkit.index.image_index
import clipkit.index.update
import clipkit.store.database
from clipkit.errors import ClipkitError
from clipkit.index.scan import Scan
from tests.index import test_names
from tests.reliability import test_cases, test_crash, test_disk, test_migration
from tests.support.colours import ColourEncoder
from tests.support.faults import indexed
from tests.support.sweeps import check_cut, migrate_piecemeal, need_strace, power_cuts, prepare

NOTICED = (AssertionError, ClipkitError, pytest.fail.Exception)  # the last: an error that was expected and did not come


@contextmanager
def must_be_noticed(mutant: str) -> Iterator[None]:
    try:
        yield
    except NOTICED:
        return
    raise RuntimeError(f"no test noticed: {mutant}")


# no fsync before rename


@contextmanager
def replacing_unsynced(file: Path, *, sync: bool = True, stem: str = "") -> Iterator[Path]:
    beside = file.with_name(f"{file.name}.tmp")
    yield beside
    os.replace(beside, file)


@pytest.mark.parametrize("act", [indexed, test_disk.rebuild])
def test_a_cache_renamed_before_it_is_synced_is_noticed(
    photos: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("clipkit.search.vectors.replacing", replacing_unsynced)
    with must_be_noticed("no fsync before the cache is renamed"):
        test_disk.check_synced_before_renamed(photos, monkeypatch, lambda: act(photos))


@pytest.mark.parametrize("act", [indexed, test_disk.rebuild])
def test_an_index_renamed_before_it_is_synced_is_noticed(
    photos: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("clipkit.store.database.sync_file", lambda _: None)
    with must_be_noticed("no fsync before the index is renamed"):
        test_disk.check_synced_before_renamed(photos, monkeypatch, lambda: act(photos))


@pytest.mark.parametrize("act", [indexed, test_disk.rebuild])
def test_an_index_whose_folder_is_not_synced_after_the_rename_is_noticed(
    photos: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("clipkit.store.database.sync_folder", lambda _: None)
    with must_be_noticed("no fsync of the folder after the index is renamed"):
        test_disk.check_synced_before_renamed(photos, monkeypatch, lambda: act(photos))


@pytest.mark.parametrize("mode", ["update", "rebuild"])
def test_an_index_that_is_never_synced_does_not_survive_the_power_cuts(
    tmp_path: Path, private_cache: Path, mode: str
) -> None:
    need_strace()
    root = prepare(tmp_path / "photos")
    with must_be_noticed("no fsync at all"):
        for moment in power_cuts(f"{mode}-unsynced", root, private_cache, tmp_path / "log", every=8):
            check_cut(moment, root, private_cache)


# a migration in pieces


def test_a_migration_without_a_transaction_is_noticed_between_two_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path / "template" / "photos", "migrate")
    monkeypatch.setattr("clipkit.store.database.migrate", migrate_piecemeal)
    with must_be_noticed("each statement of the migration is a transaction of its own"):
        test_migration.check_killed_between_statements(root, tmp_path, monkeypatch)


def test_a_migration_without_a_transaction_does_not_survive_the_power_cuts(tmp_path: Path, private_cache: Path) -> None:
    need_strace()
    root = prepare(tmp_path / "photos", "migrate")
    with must_be_noticed("each statement of the migration is a transaction of its own"):
        for moment in power_cuts("migrate-piecemeal", root, private_cache, tmp_path / "log", every=4):
            check_cut(moment, root, private_cache)


def test_a_migration_that_forgets_what_was_replaced_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate = clipkit.store.database.migrate

    def forget(db: sqlite3.Connection) -> bool:
        is_migrated = migrate(db)
        db.execute("DELETE FROM images WHERE state = 'replaced'")
        return is_migrated

    index = test_migration.make_old(tmp_path / "photos", 1)
    monkeypatch.setattr("clipkit.store.database.migrate", forget)
    with must_be_noticed("the migration loses what a dead run had replaced"):
        test_migration.test_it_answers_as_the_newest_does_and_no_byte_of_it_changes(index, 1)


# no lock


@pytest.fixture
def no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.index.image_index.writing", lambda _: nullcontext())


@pytest.mark.usefixtures("no_lock")
def test_a_run_without_a_lock_is_noticed_by_the_second_run(photos: Path, encoder: ColourEncoder) -> None:
    with must_be_noticed("no lock"):
        test_crash.test_a_run_inside_another_is_locked_out_and_then_is_not(photos, encoder)


@pytest.mark.usefixtures("no_lock")
def test_a_run_without_a_lock_is_noticed_by_the_second_process(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with must_be_noticed("no lock"):
        test_crash.test_a_second_run_is_locked_out_until_the_first_dies(
            photos, encoder, monkeypatch, test_crash.signal.SIGKILL
        )


# hide before the scan completes


def test_a_scan_that_forgets_what_it_could_not_enter_is_noticed(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = clipkit.index.image_index.find_images
    forgetful = lambda *args, **options: replace(find(*args, **options), unreadable=[])  # noqa: E731
    monkeypatch.setattr("clipkit.index.image_index.find_images", forgetful)
    with must_be_noticed("what lies below an unreadable folder is hidden"):
        test_cases.test_nothing_below_an_unreadable_folder_counts_as_gone(photos, encoder, monkeypatch, "scandir")


def test_a_scan_that_takes_a_lost_disk_for_an_empty_one_is_noticed(
    photos: Path, encoder: ColourEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = clipkit.index.image_index.find_images

    def careless(*args: Any, **options: Any) -> Scan:
        with suppress(ClipkitError):
            return find(*args, **options)
        return Scan()

    monkeypatch.setattr("clipkit.index.image_index.find_images", careless)
    with must_be_noticed("a root that vanishes hides everything"):
        test_cases.test_a_root_that_vanishes_is_an_error_and_hides_nothing(photos, encoder, tmp_path)


def test_hiding_before_everything_is_read_is_noticed(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hasty(clipkit.index.update._Run):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.finish()

    monkeypatch.setattr("clipkit.index.update._Run", Hasty)
    with must_be_noticed("what is gone is hidden before the rest is read"):
        test_names.test_a_run_interrupted_while_it_reads_has_hidden_nothing(photos, encoder)
