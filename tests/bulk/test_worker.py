"""Workers: what they do without a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipkit.bulk.readers import Item, list_source
from clipkit.bulk.storage import Storage
from clipkit.bulk.worker import EncoderWorker, decode_chunk, finished_rows
from clipkit.core.arrays import Embeddings
from clipkit.errors import ClipkitError, ShapeError
from tests.support.colours import COLOURS, ColourEncoder, paint


class FailsOnRed(ColourEncoder):
    """A model that makes nothing finite of red."""

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        rows = super().encode_pixels(pixels, space=space)
        rows[pixels[:, 1].mean(axis=(1, 2)) < 1] = np.nan
        return rows


def test_a_folder_that_a_machine_does_not_mount_is_no_error_of_its_pictures(tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="is not there on a worker's machine"):
        decode_chunk(Storage(tmp_path / "nowhere"), [Item("a.png")], ColourEncoder().recipe)


def test_a_picture_of_which_the_model_makes_nothing_costs_itself(tmp_path: Path) -> None:
    for name in ("green", "red", "white"):
        paint(tmp_path / f"{name}.png", COLOURS[name])
    (tmp_path / "broken.png").write_bytes(b"")
    source = list_source(str(tmp_path))
    worker = EncoderWorker(FailsOnRed, 4)
    rows, pixels = decode_chunk(source.storage, source.items, worker.facts().recipe)
    found = {row.path: row for row in finished_rows(rows, worker.encode(pixels))}
    assert found["red.png"].error == "the model failed: embedding 0 of 1 has length nan, not 1"
    assert found["red.png"].embedding is None
    assert found["broken.png"].error == "empty file"
    right = ColourEncoder().encode_images([tmp_path / "green.png", tmp_path / "white.png"])
    given = [found[f"{name}.png"].embedding for name in ("green", "white")]
    assert np.abs(np.stack(given).astype(np.float32) - right).max() < 1e-3  # type: ignore[arg-type]


def test_a_model_that_fails_on_everything_is_said(tmp_path: Path) -> None:
    worker = EncoderWorker(FailsOnRed, 2)
    with pytest.raises(ShapeError, match="the model fails on every picture"):
        worker.encode(np.zeros((2, 3, 8, 8), np.uint8))
