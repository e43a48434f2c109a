"""Shards as they are read: whole, or with one clear sentence on what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from clipkit.bulk import Shards
from clipkit.bulk.places import is_shards
from clipkit.bulk.shards import READ_ROWS, Row
from clipkit.bulk.storage import Storage
from clipkit.errors import ClipkitError, IndexDamaged
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder
from tests.support.shards import failed, write_shard, write_shards, write_vectors

ODD = os.fsdecode(b"caf\xe9.png")


def unit(n: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_rows_come_back_as_they_were_written(tmp_path: Path, encoder: ColourEncoder) -> None:
    vectors = unit(READ_ROWS + 5)
    shards = write_vectors(tmp_path, vectors, encoder, shard_rows=READ_ROWS + 5)
    (name,) = shards.names
    blocks = list(shards.blocks(name))
    assert [block.start for block in blocks] == [0, READ_ROWS]
    assert (np.concatenate([block.embeddings for block in blocks]) == vectors.astype(np.float16)).all()
    assert len(shards) == READ_ROWS + 5
    assert shards.paths(name, [7, READ_ROWS]) == ["7.jpg", f"{READ_ROWS}.jpg"]


def test_a_failed_picture_is_a_row_without_an_embedding(tmp_path: Path, encoder: ColourEncoder) -> None:
    write_vectors(tmp_path, unit(1), encoder)
    name = write_shard(Storage(tmp_path), 1, [failed("bad.jpg", "no picture"), failed(ODD)], 4)
    shards = Shards(tmp_path)
    assert list(shards.failures(name)) == [("bad.jpg", "no picture"), (ODD, "not a picture")]
    assert not any(piece.entries for piece in shards.pieces(name))
    assert shards.to_frame(name)["path"].tolist() == ["bad.jpg", "caf\\udce9.png"]


@pytest.mark.parametrize("length", [float("nan"), 0.0, 2.0])
def test_what_has_no_length_of_one_is_named(length: float, tmp_path: Path, encoder: ColourEncoder) -> None:
    write_vectors(tmp_path, unit(3), encoder)
    row = Row("odd.jpg", None, 1, 1, None, None, np.full(4, length / 2, np.float32))
    name = write_shard(Storage(tmp_path), 1, [row], 4)
    with pytest.raises(IndexDamaged, match=r"part-000001.*'odd.jpg' has length"):
        list(Shards(tmp_path).pieces(name))


def test_a_truncated_shard_is_damaged(tmp_path: Path, encoder: ColourEncoder) -> None:
    shards = write_vectors(tmp_path, unit(50), encoder)
    file = tmp_path / shards.names[0]
    content = file.read_bytes()
    for part in (content[:100], b"", content[:60] + b"\0" * 400 + content[460:]):
        file.write_bytes(part)
        with pytest.raises(IndexDamaged, match="no whole shard"):
            list(shards.pieces(file.name))


def test_a_shard_of_another_width_is_damaged(tmp_path: Path, encoder: ColourEncoder) -> None:
    write_vectors(tmp_path, unit(3), encoder)
    name = write_shard(Storage(tmp_path), 1, [Row("a.jpg", None, 1, 1, None, None, unit(1, 8)[0])], 8)
    with pytest.raises(IndexDamaged, match=f"{name} has embeddings of type .*8.*, not of 4 values"):
        list(Shards(tmp_path).blocks(name))


def test_a_stamp_tells_a_shard_that_was_made_again(tmp_path: Path, encoder: ColourEncoder) -> None:
    shards = write_vectors(tmp_path, unit(20), encoder)
    (name,) = shards.names
    before = shards.stamp(name)
    write_vectors(tmp_path, unit(20), encoder)
    assert shards.stamp(name) == before
    write_vectors(tmp_path, unit(20, seed=1), encoder)
    assert shards.names == [name]
    assert shards.stamp(name) != before


def test_a_folder_of_shards_is_told_from_one_of_pictures(tmp_path: Path, photos: Path, encoder: ColourEncoder) -> None:
    shards = write_shards(tmp_path / "out", photos, encoder)
    assert is_shards("s3://bucket/out")
    assert is_shards(str(tmp_path / "out"))
    assert not is_shards(str(photos))
    assert not is_shards(str(tmp_path / "nowhere"))
    (tmp_path / "out" / "clipkit.json").unlink()
    assert is_shards(str(tmp_path / "out"))  # and reading it says what is missing
    with pytest.raises(ClipkitError, match="holds no shards"):
        Shards(shards.storage.url)
    ImageIndex.create(tmp_path / "out", encoder)
    assert not is_shards(str(tmp_path / "out"))
