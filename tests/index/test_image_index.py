"""The Python API of an index: what it carries, what it answers, what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipkit.errors import IndexNotFound, ModelError, ModelMismatch, QueryError, ShapeError
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint, shade


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder) -> ImageIndex:
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


def test_red_finds_the_red_picture(index: ImageIndex) -> None:
    hit = index.search("red", k=1)[0]
    assert (hit.path, hit.file) == ("red.png", str(index.root / "red.png"))
    assert hit.score == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_finds_its_picture_first(index: ImageIndex, colour: str) -> None:
    assert index.search(colour, k=1)[0].path == f"{colour}.png"


def test_a_sum_finds_what_lies_between(index: ImageIndex) -> None:
    assert index.search("red + blue", k=1)[0].path == "magenta.png"
    assert index.search("white - blue", k=1)[0].path == "yellow.png"


def test_a_picture_finds_its_like(index: ImageIndex, tmp_path: Path) -> None:
    file = paint(tmp_path / "almost.png", (250, 10, 5))
    assert index.search(str(file), k=1)[0].path == "red.png"
    assert index.search_image(file, k=1)[0].path == "red.png"
    assert index.search_image(np.full((4, 4, 3), (0, 0, 250), np.uint8), k=1)[0].path == "blue.png"


def test_rows_and_paths_belong_together(index: ImageIndex, encoder: ColourEncoder) -> None:
    files = [index.root / path for path in index.paths]
    np.testing.assert_allclose(index.embeddings, encoder.encode_images(files), atol=1e-3)
    assert index.embeddings.dtype == np.float32
    assert len(index) == len(COLOURS) == len(np.concatenate(list(index.blocks())))


def test_a_large_index_comes_in_blocks(tmp_path: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.store.database.BLOCK", 3)
    for number in range(10):
        paint(tmp_path / f"{number}.png", shade(number))
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    assert [len(block) for block in index.blocks()] == [3, 3, 3, 1]
    np.testing.assert_allclose(index.embeddings, encoder.encode_images([tmp_path / p for p in index.paths]), atol=1e-3)


def test_answers_become_a_table(index: ImageIndex) -> None:
    frame = index.search("red", k=3).to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["score", "path", "file", "id"]
    assert frame.path[0] == "red.png"


def test_many_queries_are_answered_at_once(index: ImageIndex, encoder: ColourEncoder) -> None:
    queries = encoder.encode_texts(list(COLOURS) * 3)
    answers = index.search_embeddings(queries, k=1)
    assert [hits[0].path for hits in answers] == [f"{name}.png" for name in COLOURS] * 3


def test_more_answers_than_pictures_are_cut(index: ImageIndex) -> None:
    assert len(index.search("red", k=1000)) == len(COLOURS)


@pytest.mark.parametrize("k", [0, -1])
def test_no_answers_cannot_be_asked_for(index: ImageIndex, k: int) -> None:
    with pytest.raises(QueryError, match="were asked for"):
        index.search("red", k=k)


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 0], [1, 0, 0], [2, 0, 0, 0]])
def test_what_is_no_embedding_is_refused(index: ImageIndex, row: list[float]) -> None:
    with pytest.raises(ShapeError):
        index.search_embeddings(np.array([row], dtype=np.float32))


def test_answers_can_be_kept_to_a_folder(tmp_path: Path, encoder: ColourEncoder) -> None:
    for folder in ("a", "a/b", "ab", "c/raw"):
        paint(tmp_path / folder / "red.png", COLOURS["red"])
    index = ImageIndex.create(tmp_path, encoder)
    index.update()

    def found(**options: object) -> list[str]:
        return sorted(hit.path for hit in index.search("red", **options))  # type: ignore[arg-type]

    assert found(below="a") == ["a/b/red.png", "a/red.png"]
    assert found(below="a/") == ["a/b/red.png", "a/red.png"]
    assert found(below="c", exclude_dirs=["raw"]) == []
    assert found(exclude_dirs=["raw", "a/b"]) == ["a/red.png", "ab/red.png"]
    assert encoder.encoded == 1  # the four pictures are equal


def test_a_folder_without_an_index_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound) as caught:
        ImageIndex.open(tmp_path)
    assert caught.value.hint == f"clipkit index {tmp_path}"


def test_create_opens_what_is_there(index: ImageIndex, encoder: ColourEncoder) -> None:
    again = ImageIndex.create(index.root, encoder)
    assert again.update().unchanged == len(COLOURS)
    assert again.info.index_id == index.info.index_id


def test_an_index_opened_without_an_encoder_loads_its_own(index: ImageIndex) -> None:
    asked = []

    def load(name: str, exact_pixels: bool) -> ColourEncoder:
        asked.append((name, exact_pixels))
        return ColourEncoder()

    with ImageIndex.open(index.root, load=load) as again:
        assert again.update().unchanged == len(COLOURS)
        assert asked == []  # nothing to encode: no model is needed
        assert again.search("red", k=1)[0].path == "red.png"
        again.search("blue")
    assert asked == [("colour", False)]


def test_weights_that_changed_under_the_same_name_are_refused(index: ImageIndex) -> None:
    other = ImageIndex.open(index.root, load=lambda name, exact: ColourEncoder(fingerprint="ff" * 32))
    with pytest.raises(ModelMismatch, match="other weights") as caught:
        other.search("red")
    assert caught.value.hint == f"clipkit index {index.root} --rebuild"


def test_other_pixels_are_refused(index: ImageIndex) -> None:
    with pytest.raises(ModelMismatch, match="other pixels") as caught:
        ImageIndex.create(index.root, ColourEncoder(exact=True))
    assert caught.value.hint == f"clipkit index {index.root} --rebuild --exact-pixels"


def test_weights_that_moved_on_this_disk_are_found_again(index: ImageIndex) -> None:
    moved = ColourEncoder()
    moved.source = "/elsewhere/colour"
    ImageIndex.create(index.root, moved)
    assert ImageIndex.open(index.root).info.model_source == "/elsewhere/colour"


def test_every_transaction_has_its_own_revision(index: ImageIndex) -> None:
    before = index.revision
    assert index.update().unchanged == len(COLOURS)
    assert index.revision == before
    paint(index.root / "new.png", (1, 2, 3))
    index.update()
    assert index.revision == before + 1


def test_what_another_process_wrote_is_seen_at_once(index: ImageIndex, encoder: ColourEncoder) -> None:
    reader = ImageIndex.open(index.root, encoder=encoder)
    assert reader.search("red", k=1)[0].path == "red.png"
    os.rename(index.root / "red.png", index.root / "rot.png")
    index.update()
    assert reader.search("red", k=1)[0].path == "rot.png"


def test_progress_counts_to_the_end(photos: Path, encoder: ColourEncoder) -> None:
    seen = []
    ImageIndex.create(photos, encoder).update(progress=seen.append)
    assert [(step.done, step.total) for step in seen] == [(n, len(COLOURS)) for n in range(1, len(COLOURS) + 1)]
    assert [step.path for step in seen] == sorted(f"{name}.png" for name in COLOURS)


def test_an_index_that_another_program_made_meanwhile_is_kept(photos: Path, encoder: ColourEncoder) -> None:
    late = ImageIndex(photos, photos / ".clipkit", encoder=encoder)  # as `create` has it before it takes the lock
    ImageIndex.create(photos, encoder).update()
    late._make(encoder, is_outside=False)
    assert len(late) == len(COLOURS)
    assert late.update().unchanged == len(COLOURS)


def test_a_moved_model_is_said_with_the_command_that_takes_its_new_place(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    encoder.model, encoder.source = "local:mine", str(tmp_path / "mine")
    paint(tmp_path / "photos" / "red.png", COLOURS["red"])
    ImageIndex.create(tmp_path / "photos", encoder).update()

    def load(name: str, exact: bool) -> ColourEncoder:
        raise ModelError(f"{name} is no model folder")

    with pytest.raises(ModelError, match="was indexed with a model that is not there any more") as caught:
        ImageIndex.open(tmp_path / "photos", load=load).search("red")
    assert caught.value.hint == f"clipkit index {tmp_path / 'photos'} --model FOLDER, where it is now"
