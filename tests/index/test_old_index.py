"""An index that version 0.1 wrote: it answers as it did, and so it does when this version has brought it up to date."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.core.arrays import Embeddings
from clipkit.images.recipe import PixelRecipe
from clipkit.index.image_index import ImageIndex
from clipkit.store.schema import FORMAT
from tests.support.faults import check_sound, rows_of
from tests.support.old_files import OLD_FILES, change_pictures, move_old_content, paint_indexed

RECORD: dict[str, Any] = json.loads((OLD_FILES / "index.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> ImageIndex:
    """The folder and the index as version 0.1 left them."""
    root = change_pictures(paint_indexed(tmp_path / "photos"))
    (root / ".clipkit").mkdir()
    shutil.copyfile(OLD_FILES / "index.db", root / ".clipkit" / "index.db")
    return ImageIndex.open(root)


class OldStarter:
    """The starter of version 0.1, whose weights are gone: it answers from the embeddings that were recorded of it."""

    model = source = "starter"
    engine, precision = "torch", "float32"
    dim, batch_size = RECORD["info"]["dim"], 1
    logit_scale, logit_bias = 32.0, 0.0
    fingerprint = RECORD["info"]["weights_sha256"]
    recipe = PixelRecipe((288, 288), (0.5,) * 3, (0.5,) * 3)

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        assert len(pixels) == 1  # the one that changed and was not read again
        return np.load(OLD_FILES / "changed.npy").astype(np.float32)

    def encode_images(self, pictures: Sequence[object], *, space: str = "projected") -> Embeddings:
        raise AssertionError("an index encodes pixels")

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return np.array([RECORD["queries"][text] for text in texts], np.float32)


@pytest.fixture
def starter() -> OldStarter:
    return OldStarter()


def check_answers_as(index: ImageIndex, recorded: dict[str, Any]) -> None:
    assert index.counts() == recorded["counts"]
    assert index.paths == recorded["paths"]
    failed = [[failure.path, failure.reason] for failure in index.failures()]
    assert [path for path, _ in failed] == [path for path, _ in recorded["failed"]]
    assert all(
        now.startswith(then.partition(",")[0]) for (_, now), (_, then) in zip(failed, recorded["failed"], strict=True)
    )
    for words, query in RECORD["queries"].items():
        hits = index.search_embeddings(np.array(query, np.float32), k=20)[0]
        assert [hit.path for hit in hits] == [path for path, _ in recorded["found"][words]]
        np.testing.assert_allclose(
            [hit.score for hit in hits], [score for _, score in recorded["found"][words]], atol=1e-3
        )


def test_it_answers_as_it_did_and_reading_changes_no_byte(old: ImageIndex) -> None:
    before = hashlib.sha256(old.store.file.read_bytes()).digest()
    info = old.info
    assert {name: getattr(info, name) for name in RECORD["info"]} == RECORD["info"]
    check_answers_as(old, RECORD["before"])
    assert hashlib.sha256(old.store.file.read_bytes()).digest() == before


def test_words_find_what_they_found(old: ImageIndex, starter: OldStarter) -> None:
    index = ImageIndex.open(old.root, encoder=starter)
    for words, found in RECORD["before"]["found"].items():
        scores = {hit.path: hit.score for hit in index.search(words, k=20)}
        assert scores == pytest.approx(dict(found), abs=1e-3)


def test_brought_up_to_date_it_answers_as_version_0_1_did_after_the_same(old: ImageIndex, starter: OldStarter) -> None:
    move_old_content(old.root)
    index = ImageIndex.create(old.root, starter)
    report = index.update()
    assert report.encoded == 1  # what the dead run set aside came back, and was not encoded again
    check_answers_as(index, RECORD["after"])
    check_sound(index)
    assert rows_of(index, "SELECT path FROM images WHERE state = 'replaced' OR instr(path, x'00') > 0") == []
    assert rows_of(index, "PRAGMA user_version") == [(FORMAT,)]
    assert index.update().unchanged == len(RECORD["after"]["paths"]) + 1
