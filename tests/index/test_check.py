"""check finds what is damaged, --repair mends it; prune forgets what is gone and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clipkit.cli.main import main
from clipkit.errors import ClipkitError, IndexDamaged
from clipkit.index.check import check, prune
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder) -> ImageIndex:
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


def write(index: ImageIndex, query: str, *values: object) -> None:
    with closing(sqlite3.connect(index.store.file)) as db, db:
        db.execute(query, values)


def half(*numbers: float) -> bytes:
    return np.array(numbers, dtype="<f2").tobytes()


def test_a_sound_index_has_no_damage(index: ImageIndex) -> None:
    report = check(index, sample=None)
    assert (report.rows, report.encoded_again, report.damage) == (len(COLOURS), len(COLOURS), ())


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        (half(np.nan, 0, 0, 1), "its vector has length nan, not 1"),
        (half(0, 0, 0, 0), "its vector has length 0, not 1"),
        (half(2, 0, 0, 0), "its vector has length 2, not 1"),
        (half(1, 0, 0), "it has no vector of 4 values"),
        (None, "it has no vector of 4 values"),
    ],
)
def test_a_damaged_vector_is_found_and_made_again(index: ImageIndex, vector: bytes | None, what: str) -> None:
    write(index, "UPDATE images SET embedding = ? WHERE path = ?", vector, b"red.png")
    (damage,) = check(index).damage[:1]
    assert (damage.path, damage.what) == ("red.png", what)
    report = check(index, repair=True)
    assert report.damage == ()
    assert report.repaired >= 1
    assert index.search("red", k=1)[0].path == "red.png"
    np.testing.assert_allclose(index.embeddings, index.encoder.encode_images(_files(index)), atol=1e-3)


def test_a_vector_of_another_picture_is_found_by_encoding_again(index: ImageIndex) -> None:
    blue = half(*index.encoder.encode_texts(["blue"])[0])
    write(index, "UPDATE images SET embedding = ? WHERE path = ?", blue, b"red.png")
    assert [damage.path for damage in check(index).damage] == [""]  # the cache no longer has the rows of the store
    full = check(index, sample=None)
    assert full.damage[0].path == "red.png"
    assert "not that of the picture" in full.damage[0].what
    assert check(index, sample=None, repair=True).damage == ()
    assert check(index, sample=None).damage == ()
    assert index.search("red", k=1)[0].path == "red.png"


def test_a_picture_that_changed_since_is_not_damage(index: ImageIndex) -> None:
    paint(index.root / "red.png", COLOURS["blue"])
    assert check(index, sample=None).damage == ()


def test_what_a_dead_run_left_is_dropped(index: ImageIndex) -> None:
    write(index, "UPDATE images SET state = 'replaced' WHERE path = ?", b"red.png")
    assert "left behind by a run that did not finish" in [damage.what for damage in check(index).damage]
    assert check(index, repair=True).damage == ()
    assert sorted(index.paths) == sorted(f"{name}.png" for name in COLOURS)


@pytest.mark.parametrize("suffix", ["faiss", "ids"])
def test_a_flipped_byte_in_the_cache_is_found_even_if_its_date_was_set_back(
    index: ImageIndex, private_cache: Path, suffix: str
) -> None:
    (file,) = (private_cache / "faiss").glob(f"*.{suffix}")
    stamp = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    with open(file, "r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert [damage.what for damage in check(index).damage] == ["the search cache is damaged"]
    assert check(index, repair=True).damage == ()


def test_a_flipped_byte_in_a_page_is_never_a_wrong_answer(index: ImageIndex) -> None:
    sound = index.store.file.read_bytes()
    right = [(hit.path, round(hit.score, 3)) for hit in index.search("red", k=100)]
    caught = 0
    for position in range(100, len(sound), len(sound) // 150):
        index.store.file.write_bytes(sound[:position] + bytes([sound[position] ^ 0xFF]) + sound[position + 1 :])
        index._cache.clear()
        try:
            found = [(hit.path, round(hit.score, 3)) for hit in index.search("red", k=100)]
            is_damaged = bool(check(index, sample=None).damage)
        except ClipkitError:
            caught += 1
            continue
        caught += is_damaged
        assert found == right or is_damaged, position
    assert caught > 0


def test_a_file_that_is_no_database_is_left_to_rebuild(index: ImageIndex) -> None:
    index.store.file.write_bytes(b"x" * 5000)
    with pytest.raises(IndexDamaged) as caught:
        check(index, repair=True)
    assert caught.value.hint is not None
    assert "--rebuild" in caught.value.hint


def test_prune_forgets_what_is_gone(index: ImageIndex) -> None:
    (index.root / "red.png").unlink()
    (index.root / "blue.png").unlink()
    index.update()
    paint(index.root / "blue.png", (9, 9, 9))  # there again, but not indexed yet
    assert prune(index, dry_run=True) == ["red.png"]
    assert index.counts()["missing"] == 2
    assert prune(index) == ["red.png"]
    assert index.counts() == {"ok": 6, "missing": 1, "failed": 0}
    assert "red.png" not in [hit.path for hit in index.search("red", k=100)]
    assert check(index).damage == ()
    assert index.update().encoded == 1


def test_answers_after_a_prune_are_those_of_the_rows_that_are_left(index: ImageIndex, encoder: ColourEncoder) -> None:
    reader = ImageIndex.open(index.root, encoder=encoder)
    reader.search("red")
    (index.root / "red.png").unlink()
    index.update()
    prune(index)
    paint(index.root / "new.png", (250, 0, 0))
    index.update()
    for one in (reader, index):
        assert one.search("red", k=1)[0].path == "new.png"


def test_prune_asks_back_where_everything_is_missing(index: ImageIndex) -> None:
    for file in index.root.glob("*.png"):
        file.unlink()
    index.update()
    with pytest.raises(ClipkitError, match="unplugged"):
        prune(index)
    assert index.counts()["missing"] == len(COLOURS)
    assert len(prune(index, force=True)) == len(COLOURS)


def test_the_commands_say_what_they_did(
    index: ImageIndex, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: ColourEncoder())
    assert main(["check", str(index.root), "--full"]) == 0
    assert capfd.readouterr().err == "8 rows looked at, 8 encoded again\n"
    write(index, "UPDATE images SET embedding = ? WHERE path = ?", half(0, 0, 0, 0), b"red.png")
    assert main(["check", str(index.root)]) == 3
    out, err = capfd.readouterr()
    assert out.splitlines()[0] == "red.png\tits vector has length 0, not 1"
    assert "--repair" in err
    assert main(["search", "red", str(index.root)]) == 0  # the search cache still has the right vector
    capfd.readouterr()
    assert main(["check", str(index.root), "--json", "--repair"]) == 0
    (index.root / "red.png").unlink()
    assert main(["index", str(index.root)]) == 0
    capfd.readouterr()
    assert main(["prune", str(index.root), "--dry-run"]) == 0
    assert capfd.readouterr() == ("red.png\n", "1 missing picture would be forgotten\n")
    assert main(["prune", str(index.root)]) == 0
    assert main(["info", str(index.root), "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["missing"] == 0


def _files(index: ImageIndex) -> list[Path]:
    return [index.root / path for path in index.paths]
