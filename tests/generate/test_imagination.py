"""Imagining: the pictures find the colour that the words do not name to the encoder, and are kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipkit
from clipkit.errors import ClipkitError, IndexNotFound, QueryError
from clipkit.generate import DiffusionGenerator, GeneratedPicture, imagine, mean_query
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder


@dataclass
class Stamps:
    """A picture generator: seed i gives the i-th colour, and `refused` seeds are blackened."""

    model: str = "stamps"
    refused: tuple[int, ...] = ()

    def generate(self, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
        return [self._one(seed + i) for i in range(n)]

    def _one(self, seed: int) -> GeneratedPicture:
        is_refused = seed in self.refused
        pixels = np.full((8, 8, 3), 0 if is_refused else list(COLOURS.values())[seed], np.uint8)
        return GeneratedPicture(pixels, seed, is_refused)


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder) -> ImageIndex:
    index = ImageIndex.create(photos, encoder)
    index.update()
    return index


@pytest.mark.parametrize("name", ["red", "blue", "yellow", "white"])
def test_what_was_painted_finds_its_colour_where_the_words_find_another(
    index: ImageIndex, painter: DiffusionGenerator, name: str
) -> None:
    """To ColourEncoder a sentence is grey; the pipeline's cross-attention reads the colour in it."""
    made = imagine(f"a {name} bicycle in snow", index, model=painter, n=2)
    assert made.hits is not None
    assert made.word_hits is not None
    assert made.hits[0].path == f"{name}.png"
    assert made.word_hits[0].path == "grey.png"
    assert len(made.hits) == len(made.word_hits) == len(COLOURS)


def test_the_words_hits_are_those_of_a_plain_search(index: ImageIndex, painter: DiffusionGenerator) -> None:
    made = imagine("red", index, model=painter, n=1, k=3)
    plain = index.search("red", k=3)
    assert made.word_hits is not None
    assert [hit.path for hit in made.word_hits] == [hit.path for hit in plain]
    assert np.allclose([hit.score for hit in made.word_hits], [hit.score for hit in plain], atol=1e-6)


def test_several_pictures_become_the_mean_of_their_embeddings(index: ImageIndex) -> None:
    encoder = index.encoder
    made = imagine("anything", index, model=Stamps(), n=2)  # red and green
    mean = np.mean([encoder.encode_texts([name])[0] for name in ("red", "green")], axis=0)
    expected = index.search_embeddings(mean / np.linalg.norm(mean))[0]
    assert made.hits is not None
    assert [hit.path for hit in made.hits] == [hit.path for hit in expected]
    assert np.allclose([hit.score for hit in made.hits], [hit.score for hit in expected], atol=1e-5)
    assert made.hits[0].path == "yellow.png"


def test_a_refused_picture_does_not_count(index: ImageIndex) -> None:
    made = imagine("anything", index, model=Stamps(refused=(0,)), n=2)
    assert made.hits is not None
    assert made.hits[0].path == "green.png"
    assert [picture.is_refused for picture in made.pictures] == [True, False]
    with pytest.raises(QueryError, match="refused every picture"):
        mean_query(Stamps(refused=(0,)).generate("anything"), ColourEncoder())


def test_the_files_say_how_they_were_made_and_are_never_overwritten(
    painter: DiffusionGenerator, tmp_path: Path
) -> None:
    prompt = "a red bicycle: très vite, im Schnee / 雪"
    first = clipkit.imagine(prompt, model=painter, n=2, seed=8, out=tmp_path / "kept")
    assert first.hits is None
    with Image.open(first.files[0]) as image:
        about, pixels = image.info, np.asarray(image)
    assert (about["prompt"], about["seed"], about["model"]) == (prompt, "8", "pipeline")
    assert about["num_inference_steps"] == "3"
    assert np.array_equal(pixels, first.pictures[0].pixels)
    before = {file: Path(file).read_bytes() for file in first.files}
    again = clipkit.imagine(prompt, model=painter, n=2, seed=8, out=tmp_path / "kept")
    assert not set(again.files) & set(first.files)
    assert {file: Path(file).read_bytes() for file in first.files} == before
    assert len(list((tmp_path / "kept").iterdir())) == 4


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "///", "x" * 500, "con\0trol", "."])
def test_any_prompt_makes_a_file_in_the_folder(tmp_path: Path, prompt: str) -> None:
    made = imagine(prompt, model=Stamps(), n=1, out=tmp_path / "kept")
    assert [Path(file).parent for file in made.files] == [tmp_path / "kept"]


def test_what_is_wrong_is_said_before_a_picture_is_made(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "shut").mkdir(mode=0o500)
    nowhere = "no/pipeline-at-all-that-is-looked-for"
    with pytest.raises(QueryError, match="the prompt is empty"):
        imagine(" ", model=nowhere)
    with pytest.raises(IndexNotFound, match="has no index"):
        imagine("red", photos, model=nowhere)
    with pytest.raises(ClipkitError, match="file is a file; pictures go to a folder"):
        imagine("red", model=nowhere, out=tmp_path / "file")
    with pytest.raises(ClipkitError, match="file is a file; pictures go to a folder"):
        imagine("red", model=nowhere, out=tmp_path / "file" / "below")
    if os.geteuid():
        with pytest.raises(ClipkitError, match="shut cannot be written: Permission denied"):
            imagine("red", model=nowhere, out=tmp_path / "shut" / "new")
    assert not (tmp_path / "shut" / "new").exists()


def test_a_full_disk_keeps_what_was_written_and_leaves_no_half_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A new file of which only half is written."""

        def __init__(self, file: Path, mode: str) -> None:
            self.stream = open(file, mode)  # noqa: SIM115  closed by __exit__

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def write(self, content: bytes) -> None:
            half = content if self.stream.name.endswith("-0.png") else content[: len(content) // 2]
            if self.stream.write(half) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("clipkit.generate.pictures.open", Full, raising=False)
    with pytest.raises(ClipkitError, match="kept cannot be written: No space left on device") as caught:
        imagine("red", model=Stamps(), n=3, out=tmp_path / "kept")
    assert caught.value.hint == "another place: --out FOLDER"
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["red-0.png"]


def test_an_interruption_keeps_what_was_made(tmp_path: Path) -> None:
    @dataclass
    class Stopped(Stamps):
        def generate(self, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
            if seed == 2:
                raise KeyboardInterrupt
            return super().generate(prompt, n=n, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        imagine("red", model=Stopped(), n=4, out=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["red-0.png", "red-1.png"]


def test_progress_is_told_after_each_picture() -> None:
    seen: list[tuple[int, int]] = []
    imagine("red", model=Stamps(), n=3, progress=lambda step: seen.append((step.done, step.total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_name_of_a_pipeline_is_loaded(pipelines: Callable[[str], Path]) -> None:
    made = imagine("red", model=pipelines("painter"), n=1)
    assert made.model == str(pipelines("painter"))
