"""Processes that die, wait for each other, or look while another writes; other models, and rebuilding."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clipkit.core.progress import Progress
from clipkit.errors import IndexLocked, ModelMismatch
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint, shade
from tests.support.faults import (
    BATCH,
    check_aligned,
    check_answers,
    check_sound,
    indexed,
    paint_many,
    run_cli,
    running,
    wait_for_batch,
)
from tests.support.sweeps import IS_FULL

TOTAL = 40  # `make faults` dies at twenty moments, `make test` at eight
OTHER = "0e" * 32  # the fingerprint of other weights


class StopError(Exception):
    pass


def stop_after(pictures: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.done > pictures:
            raise StopError

    return stop


# death at any moment


def moment(number: int) -> tuple[int, float]:
    """The batch after which a signal is sent, and how long after: encoding and committing one takes about 0.03 s."""
    chance = random.Random(number)
    return chance.randrange(8), chance.uniform(0, 0.05)


def check_rest(folder: Path, batch: int) -> int:
    """The index answers as of its last commit, and a second run encodes exactly the rest."""
    index = ImageIndex.open(folder, encoder=ColourEncoder())
    kept = len(index.search("red", k=1000))
    assert kept == len(index) == index.counts()["ok"]
    assert kept % BATCH == 0
    assert kept >= BATCH * (batch - 1)
    check_aligned(index)
    check_sound(index)
    encoder = ColourEncoder()
    report = ImageIndex.create(folder, encoder).update()
    assert report.encoded == encoder.encoded == TOTAL - kept
    assert len(index) == TOTAL
    check_aligned(index)
    check_sound(index)
    assert sorted(os.listdir(index.folder)) == ["index.db", "lock"]
    check_answers(index)
    return kept


@pytest.mark.parametrize("number", range(10 if IS_FULL else 4))
def test_after_kill_9_a_second_run_encodes_exactly_the_rest(tmp_path: Path, number: int) -> None:
    folder = paint_many(tmp_path / "photos", TOTAL)
    batch, seconds = moment(number)
    with running("index", folder, stop=batch + 2) as child:
        wait_for_batch(child, batch)
        time.sleep(seconds)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    check_rest(folder, batch)


@pytest.mark.parametrize("number", range(10, 20 if IS_FULL else 14))
def test_ctrl_c_says_how_many_are_kept_and_a_second_run_encodes_exactly_the_rest(tmp_path: Path, number: int) -> None:
    folder = paint_many(tmp_path / "photos", TOTAL)
    batch, seconds = moment(number)
    with running("cli", folder, stop=batch + 2) as child:
        wait_for_batch(child, batch + 1)  # before the first one the model is still being loaded
        time.sleep(seconds)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130, said
    assert said.count("\n") == 1, said
    kept = check_rest(folder, batch)
    assert re.findall(r"\d+", said) == [str(kept)], said


@pytest.mark.parametrize("number", range(3))
def test_a_first_run_killed_while_it_makes_the_index_is_no_obstacle(tmp_path: Path, number: int) -> None:
    folder = paint_many(tmp_path / "photos", 3)
    made = ImageIndex.create(folder, ColourEncoder()).folder
    (made / "index.db").rename(made / "index.db.new")
    if number == 1:
        (made / "index.db.new").write_bytes(b"")
    if number == 2:
        (made / "index.db.new-journal").write_bytes(os.urandom(512))
    assert indexed(folder).paths == ["000.png", "001.png", "002.png"]
    assert sorted(os.listdir(made)) == ["index.db", "lock"]


# one writer, many readers


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_second_run_is_locked_out_until_the_first_dies(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    with running("index", photos, stop=2) as child:
        wait_for_batch(child, 1)
        with pytest.raises(IndexLocked):
            ImageIndex.open(photos, encoder=encoder).update()
        with pytest.raises(IndexLocked):
            ImageIndex.create(photos, encoder, rebuild=True).update()
        assert run_cli(monkeypatch, f"clipkit index {photos}", encoder) == 11
        assert ImageIndex.open(photos, encoder=encoder).search("red") is not None
        child.send_signal(end)
        child.wait()
    assert run_cli(monkeypatch, f"clipkit index {photos}", encoder) == 0
    assert len(ImageIndex.open(photos)) == len(COLOURS)


def test_a_run_inside_another_is_locked_out_and_then_is_not(photos: Path, encoder: ColourEncoder) -> None:
    second = ImageIndex.create(photos, encoder)
    refused = []

    def try_too(progress: Progress) -> None:
        with pytest.raises(IndexLocked):
            second.update()
        refused.append(progress.path)

    ImageIndex.create(photos, encoder).update(progress=try_too)
    assert refused == sorted(f"{colour}.png" for colour in COLOURS)
    assert second.update().unchanged == len(COLOURS)


def test_a_rebuild_that_is_locked_out_leaves_the_other_rebuild_alone(photos: Path, encoder: ColourEncoder) -> None:
    indexed(photos)
    rebuilt = ImageIndex.create(photos, encoder, rebuild=True)

    def rebuild_too(progress: Progress) -> None:
        if progress.done == 1:
            with pytest.raises(IndexLocked):
                ImageIndex.create(photos, ColourEncoder(), rebuild=True)

    assert rebuilt.update(progress=rebuild_too).encoded == len(COLOURS)
    check_aligned(ImageIndex.open(photos))


def test_a_search_during_indexing_sees_whole_batches_only(tmp_path: Path) -> None:
    folder = paint_many(tmp_path / "photos", TOTAL + 2)
    seen = []
    with running("index", folder) as child:
        index = ImageIndex.open(folder, encoder=ColourEncoder())
        while True:
            is_over = child.poll() is not None
            seen.append(len(index.search("red", k=1000)))
            assert seen[-1] % BATCH == 0 or seen[-1] == TOTAL + 2
            if is_over:
                break
        assert child.returncode == 0
    assert seen == sorted(seen)
    assert seen[-1] == TOTAL + 2
    assert len(set(seen)) > 2, "the search ran before or after, not during"
    check_answers(index)


def test_a_reader_who_takes_his_time_does_not_make_a_commit_fail(photos: Path) -> None:
    index = indexed(photos)
    paint(photos / "new.png", shade(1))
    is_held = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(index.folder / "index.db", isolation_level=None)) as db:
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM images").fetchall()
            is_held.set()
            time.sleep(1)

    reader = threading.Thread(target=hold)
    reader.start()
    is_held.wait()
    started = time.monotonic()
    assert index.update().encoded == 1
    assert time.monotonic() - started > 0.5, "the reader was not there any more"
    reader.join()
    check_aligned(index)


def test_half_read_embeddings_do_not_hold_a_writer_up(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.store.database.BLOCK", 3)
    monkeypatch.setattr("clipkit.store.database.BUSY_SECONDS", 0.0)
    index = indexed(photos)
    before = index.embeddings
    blocks = index.blocks()
    first = next(blocks)
    paint(photos / "red.png", (250, 10, 10))
    paint(photos / "new.png", shade(1))
    assert index.update().encoded == 2
    rest = np.concatenate(list(blocks))
    np.testing.assert_array_equal(first, before[:3])
    np.testing.assert_array_equal(rest, index.embeddings[3:])


# another model, and rebuilding


def other_weights() -> ColourEncoder:
    return ColourEncoder(fingerprint=OTHER)


def other_pixels() -> ColourEncoder:
    return ColourEncoder(exact=True)


def other_model() -> ColourEncoder:
    encoder = ColourEncoder(fingerprint=OTHER)
    encoder.model = encoder.source = "other"
    return encoder


@pytest.mark.parametrize("make", [other_weights, other_pixels, other_model])
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_another_model_is_refused_with_the_command_that_changes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], ColourEncoder], where: str
) -> None:
    folder = paint_many(tmp_path / "my photos", 5)
    at = tmp_path / "my index" if where == "outside" else None
    index = ImageIndex.create(folder, ColourEncoder(), at=at)
    index.update()
    with pytest.raises(ModelMismatch) as refused:
        ImageIndex.create(folder, make(), at=at)
    assert refused.value.hint
    assert "--rebuild" in refused.value.hint
    assert run_cli(monkeypatch, refused.value.hint, make()) == 0
    info = ImageIndex.open(folder, at=at, encoder=make()).info
    assert (info.weights_sha256, info.pixel_recipe) == (make().fingerprint, str(make().recipe))
    check_aligned(ImageIndex.open(folder, at=at))


@pytest.mark.parametrize("make", [other_weights, other_pixels, other_model])
def test_an_index_is_never_asked_by_another_model(photos: Path, make: Callable[[], ColourEncoder]) -> None:
    indexed(photos)
    with pytest.raises(ModelMismatch):
        ImageIndex.open(photos, encoder=make())
    with pytest.raises(ModelMismatch):
        ImageIndex.open(photos, load=lambda *_: make()).search("red")


def test_one_who_opened_an_index_before_it_was_rebuilt_does_not_mix_models(photos: Path) -> None:
    index = indexed(photos)
    indexed_anew = ImageIndex.create(photos, other_weights(), rebuild=True)
    indexed_anew.update()
    paint(photos / "new.png", shade(1))
    with pytest.raises(ModelMismatch):
        index.search("red")
    with pytest.raises(ModelMismatch):
        index.update()
    assert "new.png" not in indexed_anew.paths


def test_a_rebuild_replaces_all_and_one_that_stops_half_way_replaces_nothing(photos: Path) -> None:
    old = indexed(photos)
    paint(photos / "new.png", shade(1))
    for _ in range(2):  # the second finds what the first has left
        with pytest.raises(StopError):
            ImageIndex.create(photos, other_weights(), rebuild=True).update(progress=stop_after(6))
        assert (old.folder / "index.db.new").exists()
        again = ImageIndex.open(photos, encoder=ColourEncoder())
        assert again.info == old.info
        assert sorted(hit.path for hit in again.search("red")) == sorted(f"{colour}.png" for colour in COLOURS)
    encoder = other_weights()
    rebuilt = ImageIndex.create(photos, encoder, rebuild=True)
    assert rebuilt.update().encoded == len(COLOURS) + 1
    assert sorted(os.listdir(rebuilt.folder)) == ["index.db", "lock"]
    assert rebuilt.info.weights_sha256 == old.info.weights_sha256 == OTHER
    assert old.paths == rebuilt.paths
    check_answers(rebuilt)


def leave_journal(index: ImageIndex, kind: str) -> None:
    """The database and its journal as a writer leaves them that dies.

    "hot": some of its pages have reached the disk. "unsynced": none have, its header is still zeros. "empty": before.
    """
    file, journal = index.folder / "index.db", index.folder / "index.db-journal"
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(f"PRAGMA cache_size = {1 if kind == 'hot' else 10_000}")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE images SET embedding = zeroblob(8), error = hex(randomblob(9000))")
        kept = file.read_bytes(), journal.read_bytes() if kind != "empty" else b""
        db.execute("ROLLBACK")
    file.write_bytes(kept[0])
    journal.write_bytes(kept[1])
    assert kept[1][:8] == {"hot": bytes.fromhex("d9d505f920a163d7"), "unsynced": bytes(8), "empty": b""}[kind]


@pytest.mark.parametrize("kind", ["hot", "unsynced", "empty"])
def test_what_a_dead_writer_left_is_rolled_back_by_the_first_reader(photos: Path, kind: str) -> None:
    index = indexed(photos)
    before = index.embeddings
    leave_journal(index, kind)
    np.testing.assert_array_equal(ImageIndex.open(photos).embeddings, before)
    check_sound(index)


@pytest.mark.parametrize("kind", ["hot", "unsynced", "empty"])
def test_a_journal_of_the_old_index_neither_reaches_nor_stops_the_rebuilt_one(photos: Path, kind: str) -> None:
    index = indexed(photos)
    rebuilt = ImageIndex.create(photos, other_weights(), rebuild=True)
    (photos / "red.png").unlink()
    leave_journal(index, kind)
    rebuilt.update()
    check_sound(rebuilt)
    assert ImageIndex.open(photos).info.weights_sha256 == OTHER
    assert sorted(rebuilt.paths) == sorted(f"{colour}.png" for colour in COLOURS if colour != "red")
    check_aligned(rebuilt)
