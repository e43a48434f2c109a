"""A picture and words in one sum: neither drowns the other, and the answer is the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipkit.cli.main import main
from clipkit.core.arrays import Embeddings
from clipkit.explore import Library, Question, ask, search
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import LEAST_SAMPLE, MOST_WEIGHT, embed, parse, word_weight
from tests.support.colours import COLOURS, ColourEncoder, paint

APART = 4.0  # how far words lie from all pictures: their scores on pictures hardly differ


class Apart(ColourEncoder):
    """Words lie in a direction of their own, as those of CLIP do."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        rows = [[*COLOURS.get(text, (128, 128, 128)), 255 * APART] for text in texts]
        array = np.array(rows, np.float32)
        return array / np.linalg.norm(array, axis=1, keepdims=True)


@pytest.fixture
def album(tmp_path: Path) -> ImageIndex:
    """Reds, blues and mixtures of the two."""
    root = tmp_path / "photos"
    for number in range(6):
        paint(root / f"red {number}.png", (255 - 5 * number, 0, 10))
        paint(root / f"blue {number}.png", (10, 0, 255 - 5 * number))
        paint(root / f"both {number}.png", (200 - 5 * number, 0, 200))
    index = ImageIndex.create(root, Apart())
    index.update()
    return index


def kinds(paths: Sequence[str]) -> set[str]:
    return {path.partition(" ")[0] for path in paths}


def test_a_picture_and_a_word_find_what_has_both_everywhere(
    album: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, red = Apart(), paint(tmp_path / "red.png", COLOURS["red"])
    monkeypatch.setattr("clipkit.cli.options.ModelOptions.query_encoder", lambda *_: encoder)
    query = f"{red} + blue"
    plain = album.search_embeddings(embed(parse(query), encoder), 6)[0]
    assert kinds([hit.path for hit in plain]) == {"red"}, "the picture drowns the word"
    found = search(album, query, 6, encoder=encoder)
    assert kinds([hit.path for hit in found]) == {"both"}
    assert [(hit.path, hit.score) for hit in album.search(query, 6)] == [(hit.path, hit.score) for hit in found]
    assert main(["search", query, str(album.root), "-t", "6", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [hit.path for hit in found]
    library = Library(album.root, lambda *_: encoder)
    answer = ask(library, Question("blue", picture=encoder.encode_images([red])), 6)
    assert [one.fact.path for one in answer.found] == [hit.path for hit in found]


def test_pictures_alone_and_words_alone_are_as_they_were(album: ImageIndex, tmp_path: Path) -> None:
    encoder, sample = Apart(), album.sample_embeddings()
    for query in (f"{paint(tmp_path / 'x.png', COLOURS['red'])}", "red + blue - 0.5:green"):
        np.testing.assert_array_equal(embed(parse(query), encoder, sample=sample), embed(parse(query), encoder))


def test_words_are_brought_to_the_spread_of_pictures_within_bounds() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(500, 8)).astype(np.float32) * np.float32([4, 1, 1, 1, 1, 1, 1, 0])
    picture, word, flat = np.eye(8, dtype=np.float32)[[0, 1, 7]]
    expected = sample[:, 0].std() / sample[:, 1].std()
    assert word_weight(word[None], picture[None], sample) == pytest.approx(expected, rel=1e-5)
    assert word_weight(3 * word[None], 2 * picture[None], sample) == pytest.approx(expected, rel=1e-5)
    assert word_weight(picture[None], word[None], sample) == 1.0
    assert word_weight(flat[None], picture[None], sample) == MOST_WEIGHT
    assert word_weight(word[None], picture[None], sample[: LEAST_SAMPLE - 1]) == 1.0
    assert word_weight(word[None], picture[None], None) == 1.0
