"""Queries in other languages: the whole path with a small random multilingual tower, and the note for the starter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.cli.main import main
from clipkit.explore import Library, Question, ask, search
from clipkit.explore.question import notes_on
from clipkit.index.image_index import ImageIndex
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder
from clipkit.search.language import NOTE
from clipkit.search.query import parse_query
from tests.support.tiny_models import make_multilingual_model

QUERIES = {
    "German": ("ein Hund am Strand", "zwei Katzen im Schnee", "eine grüne Straße", "Äpfel ODER Birnen"),
    "Spanish": ("un perro en la playa", "dos gatos en la nieve", "una calle verde", "¿un niño?"),
    "Chinese": ("海滩上的一只狗", "雪中的两只猫", "一条绿色的街道", "苹果和梨"),
}
ALL = [query for queries in QUERIES.values() for query in queries]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_multilingual_model(tmp_path_factory.mktemp("multilingual"), ALL)


@pytest.fixture(scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("multilingual-cache")


@pytest.fixture(autouse=True)
def cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all these tests: the model is exported once."""
    monkeypatch.setenv("CLIPKIT_CACHE", str(_cache))


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Encoder:
    return load_encoder(str(folder), device="cpu", engine="torch", precision="float32")


@pytest.fixture(scope="module")
def index(folder: Path, oracle: Encoder, tmp_path_factory: pytest.TempPathFactory) -> ImageIndex:
    photos, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(12):
        coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
        coarse.resize((64, 64), Image.Resampling.NEAREST).save(photos / f"{number:02}.png")
    ImageIndex.create(photos, oracle).update()
    return ImageIndex.open(photos)


def expected(index: ImageIndex, oracle: Encoder, query: str) -> list[str]:
    scores = index.embeddings @ oracle.encode_texts([query])[0]
    return [index.paths[row] for row in np.argsort(-scores, kind="stable")]


def test_every_query_is_read_as_itself(oracle: Encoder) -> None:
    vectors = oracle.encode_texts(ALL)
    likeness = vectors @ vectors.T - np.eye(len(ALL))
    assert likeness.max() < 0.9999  # none is all unknown words
    np.testing.assert_allclose(oracle.encode_texts(["EINE GRÜNE STRASSE".replace("SS", "ß")]), vectors[2:3], atol=1e-5)


@pytest.mark.parametrize("query", ALL)
def test_the_search_answers_as_torch_does_and_says_nothing_of_the_language(
    query: str, index: ImageIndex, oracle: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = expected(index, oracle, query)
    assert [hit.path for hit in search(index, query, 12)] == wanted
    assert main(["search", query, str(index.root), "-t", "12", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["path"] for line in out.splitlines()] == wanted
    assert NOTE not in err
    answer = ask(Library(index.root, lambda *_: oracle), Question(query), 12)
    assert [one.fact.path for one in answer.found] == wanted
    assert answer.notes == ()


@pytest.mark.parametrize("language", QUERIES)
def test_operators_and_filters_hold_in_every_language(language: str, index: ImageIndex, oracle: Encoder) -> None:
    first, second, *_ = QUERIES[language]
    both = search(index, f"{first} AND {second} path:.", 12)
    assert {hit.path for hit in both} == set(index.paths)
    filtered = search(index, f"{first} width:>=65", 12)
    assert list(filtered) == []
    sums = index.embeddings @ (oracle.encode_texts([first]) + oracle.encode_texts([second]))[0]
    best = index.paths[int(np.argmax(sums))]
    assert search(index, f"{first} + {second}", 1)[0].path == best


@pytest.mark.parametrize("query", [QUERIES[language][0] for language in QUERIES])
def test_the_starter_is_said_to_know_english_only(query: str, starter: Encoder) -> None:
    assert NOTE in notes_on(parse_query(query).terms, starter)
    assert notes_on(parse_query("a dog on a beach").terms, starter) == ()
