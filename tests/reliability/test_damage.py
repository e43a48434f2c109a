"""Search caches and index files that are not what clipkit wrote."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipkit.errors import IndexDamaged, IndexTooNew
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder, paint, shade
from tests.support.faults import cache_files, check_aligned, check_answers, indexed, paint_many, rows_of, run_cli

# the search cache may be anything


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[random.Random(len(data)).randrange(len(data))] ^= 0x10
    file.write_bytes(data)


def plant_dim(file: Path) -> None:
    file.write_text(file.read_text().replace('"dim": 4', '"dim": 2'))


FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"{suffix} is gone": (suffix, Path.unlink) for suffix in ("faiss", "ids", "json", "*")},
    **{f"{suffix} is cut": (suffix, truncate) for suffix in ("faiss", "ids", "json", "*")},
    **{f"{suffix} has another byte": (suffix, flip) for suffix in ("faiss", "ids", "json", "*")},
    "the seal says another width": ("json", plant_dim),
    "the seal is no table": ("json", lambda file: file.write_text("[1, 2]")),
}


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Thirty pictures, half of them with a copy: ties."""
    folder = paint_many(tmp_path / "photos", 30)
    for number in range(0, 30, 2):
        shutil.copy(folder / f"{number:03}.png", folder / f"copy{number}.png")
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_search_cache_changes_no_answer(twins: Path, private_cache: Path, fault: str) -> None:
    index = indexed(twins)
    suffix, act = FAULTS[fault]
    files = cache_files(private_cache, suffix)
    assert files, "no cache was written"
    for file in files:
        act(file)
    check_answers(ImageIndex.open(twins))
    check_answers(index)


def test_a_search_cache_of_an_older_revision_answers_for_the_newest(twins: Path, private_cache: Path) -> None:
    indexed(twins)
    old = [(file, file.read_bytes()) for file in cache_files(private_cache)]
    paint_many(twins, 5, start=50)
    paint(twins / "003.png", shade(500))
    (twins / "004.png").unlink()
    (twins / "005.png").rename(twins / "first.png")
    shutil.copy(twins / "006.png", twins / "a third.png")
    indexed(twins)
    for file in cache_files(private_cache):
        file.unlink()
    for file, data in old:
        file.write_bytes(data)
    index = ImageIndex.open(twins)
    check_answers(index)
    assert sorted(file.name for file, _ in old) == [file.name for file in cache_files(private_cache)], "it was not used"


def test_a_copy_of_an_index_that_went_its_own_way_has_its_own_answers(twins: Path, tmp_path: Path) -> None:
    indexed(twins)
    shutil.copytree(twins, tmp_path / "other")
    paint(twins / "new.png", shade(901))
    paint(tmp_path / "other" / "new.png", shade(902))
    (tmp_path / "other" / "004.png").unlink()
    for folder in (twins, tmp_path / "other"):
        assert ImageIndex.open(folder, encoder=ColourEncoder()).update().encoded == 1
    for seed in range(3):
        for folder in (twins, tmp_path / "other"):
            check_answers(ImageIndex.open(folder), seed)
            check_aligned(ImageIndex.open(folder))


# index files that are not what clipkit wrote


@pytest.mark.parametrize("content", [b"", b"This is no database.\n" * 500, random.Random(1).randbytes(40_000)], ids=len)
def test_what_is_no_database_is_a_damaged_index_and_can_be_rebuilt(
    photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    file = indexed(photos).folder / "index.db"
    file.write_bytes(content)
    with pytest.raises(IndexDamaged):
        ImageIndex.open(photos)
    with pytest.raises(IndexDamaged):
        ImageIndex.create(photos, encoder)
    assert run_cli(monkeypatch, f"clipkit index {photos}", encoder) == 3
    assert run_cli(monkeypatch, f"clipkit index {photos} --rebuild", encoder) == 0
    check_aligned(ImageIndex.open(photos))


def test_a_newer_format_is_refused_as_such(photos: Path, encoder: ColourEncoder) -> None:
    rows_of(indexed(photos), "PRAGMA user_version = 999")
    for attempt in (lambda: ImageIndex.open(photos), lambda: ImageIndex.create(photos, encoder)):
        with pytest.raises(IndexTooNew, match="999"):
            attempt()


def vector(*values: float) -> str:
    return f"UPDATE images SET embedding = x'{struct.pack('<4e', *values).hex()}' WHERE id = 3"


DAMAGE = {
    "an extra trigger": "CREATE TRIGGER extra AFTER INSERT ON images BEGIN DELETE FROM images; END",
    "a trigger called as its table": "CREATE TRIGGER images AFTER INSERT ON images BEGIN DELETE FROM images; END",
    "an extra view": "CREATE VIEW extra AS SELECT * FROM images",
    "an extra column": "ALTER TABLE images ADD COLUMN extra",
    "a missing index": "DROP INDEX images_revision",
    "an absolute path": "UPDATE images SET path = CAST('/etc/passwd.png' AS BLOB) WHERE id = 3",
    "a path that leads out": "UPDATE images SET path = CAST('sub/../../secret.png' AS BLOB) WHERE id = 3",
    "a path with a NUL": "UPDATE images SET path = x'610062' WHERE id = 3",
    "a path of another type": "UPDATE images SET path = 3 WHERE id = 3",
    "a short vector": "UPDATE images SET embedding = zeroblob(6) WHERE id = 3",
    "a long vector": "UPDATE images SET embedding = zeroblob(10) WHERE id = 3",
    "a vector that is text": "UPDATE images SET embedding = 'abcdefgh' WHERE id = 3",
    "no vector": "UPDATE images SET embedding = NULL WHERE id = 3",
    "a vector of NaN": vector(np.nan, np.nan, np.nan, np.nan),
    "a vector without end": vector(np.inf, 0, 0, 0),
    "a vector of nothing": vector(0, 0, 0, 0),
    "a vector of another length": vector(1, 1, 1, 1),
    "no width": "DELETE FROM meta WHERE key = 'dim'",
    "a width of zero": "UPDATE meta SET value = '0' WHERE key = 'dim'",
    "an endless width": "UPDATE meta SET value = '99999999999' WHERE key = 'dim'",
    "no revision": "DELETE FROM revisions",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_index_that_clipkit_did_not_write_so_is_damaged_and_never_answers(
    photos: Path, private_cache: Path, damage: str
) -> None:
    index = indexed(photos)
    rows_of(index, DAMAGE[damage])
    for file in cache_files(private_cache):
        file.unlink()
    with pytest.raises(IndexDamaged):
        ImageIndex.open(photos, encoder=ColourEncoder()).search("red", k=100)


def test_a_path_of_another_type_stops_a_run_as_damage(photos: Path) -> None:
    index = indexed(photos)
    rows_of(index, "UPDATE images SET path = 3, state = 'failed' WHERE id = 3")
    for ask in (index.update, index.failures):
        with pytest.raises(IndexDamaged):
            ask()


@pytest.mark.parametrize("seed", range(12))
def test_a_page_of_noise_is_an_error_of_ours_or_changes_nothing(tmp_path: Path, private_cache: Path, seed: int) -> None:
    index = indexed(paint_many(tmp_path / "photos", 60))
    file, chance = index.folder / "index.db", random.Random(seed)
    data = bytearray(file.read_bytes())
    place = chance.randrange(len(data) - 64)
    data[place : place + 64] = chance.randbytes(64)
    file.write_bytes(data)
    shutil.rmtree(private_cache / "faiss")
    try:
        hits = ImageIndex.open(tmp_path / "photos", encoder=ColourEncoder()).search("red", k=100)
    except IndexDamaged:
        return
    assert all(np.isfinite(hit.score) for hit in hits)
    assert [hit.path for hit in hits if ".." in hit.path.split("/") or os.path.isabs(hit.path)] == []


@pytest.mark.parametrize("number", range(3))
def test_what_a_killed_run_was_writing_of_the_search_cache_is_dropped_by_the_next(
    photos: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    index = ImageIndex.create(photos, ColourEncoder())
    parts: list[Path] = []

    def die(old: Path, new: Path, replace: Callable[[Path, Path], None] = os.replace) -> None:
        if "faiss" in Path(new).parts:
            parts.append(Path(old))
            if len(parts) == number + 1:
                raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a process that is killed tidies nothing
        with pytest.raises(KeyboardInterrupt):
            index.update()
    assert parts[-1].exists()
    ImageIndex.create(photos, ColourEncoder()).update()
    assert sorted(file.suffix for file in cache_files(private_cache)) == [".faiss", ".ids", ".json"]
