"""AND, OR, NOT and filters of a query: hand-made answers, the same in Python, on the command line, on the page
and in its JSON endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from clipkit_apps.search.api import Endpoints
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails

from clipkit.cli.main import main
from clipkit.core.arrays import Embeddings
from clipkit.errors import QueryError
from clipkit.explore import Library, Question, ask, search
from clipkit.explore.logic import rank
from clipkit.explore.relevance import RelevanceScale
from clipkit.index.image_index import ImageIndex
from clipkit.search.query import parse_query
from tests.support.colours import ColourEncoder, paint


class Sides(ColourEncoder):
    """A picture says how red it is and how blue; "red" and "blue" are the two, other texts some of each."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        said = {"red": (1, 0), "blue": (0, 1), "both": (1, 1)}
        rows = [said.get(text) or np.random.default_rng(list(text.encode())).uniform(-0.5, 0.5, 2) for text in texts]
        return _unit(np.array([[*row, text not in said, 0] for row, text in zip(rows, texts, strict=True)], np.float32))

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        colours = pixels.reshape(len(pixels), 3, -1).mean(axis=2).astype(np.float32) / 255
        rest = np.sqrt(np.maximum(0, 1 - colours[:, 0] ** 2 / 2 - colours[:, 2] ** 2 / 2))
        rows = np.stack([colours[:, 0] / 2**0.5, colours[:, 2] / 2**0.5, np.zeros(len(rest)), rest], axis=1)
        return _unit(rows.astype(np.float32))


def _unit(rows: np.ndarray) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


PICTURES = {
    "much red.png": (250, 0, 40),
    "much blue.png": (40, 0, 250),
    "trip/both.png": (200, 0, 200),
    "trip/some of both.jpg": (120, 0, 120),
    "trip/neither.png": (0, 0, 0),
}
QUERIES = {
    "red": ["much red.png"],
    "red AND blue": ["trip/both.png", "trip/some of both.jpg"],
    "red OR blue": ["much blue.png", "much red.png"],
    "NOT red": ["trip/neither.png"],
    "blue AND NOT red": ["much blue.png"],
    "NOT (red OR blue)": ["trip/neither.png"],
    "(red OR blue) AND NOT (red AND blue)": ["much blue.png", "much red.png"],
    "red path:trip": ["trip/both.png", "trip/some of both.jpg", "trip/neither.png"],
    "red path:trip type:png": ["trip/both.png", "trip/neither.png"],
    "red path:trip -type:png": ["trip/some of both.jpg"],
    "red -path:trip": ["much red.png", "much blue.png"],
    "type:jpeg": ["trip/some of both.jpg"],
    "shape:square path:trip -type:png": ["trip/some of both.jpg"],
    "red AND blue type:jpeg": ["trip/some of both.jpg"],
    "both without blue": ["much red.png"],
}


@pytest.fixture(scope="module")
def encoder() -> Sides:
    return Sides(fingerprint="5d" * 32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, encoder: Sides) -> ImageIndex:
    root = tmp_path_factory.mktemp("logic") / "photos"
    for name, colour in PICTURES.items():
        paint(root / name, colour)
    made = ImageIndex.create(root, encoder)
    made.update()
    return made


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_gives_the_same_pictures_everywhere(
    query: str, index: ImageIndex, encoder: Sides, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipkit.cli.options.ModelOptions.query_encoder", lambda *_: encoder)
    found = search(index, query, 20, encoder=encoder)
    best = [hit.path for hit in found[: len(QUERIES[query])]]
    assert sorted(best) == sorted(QUERIES[query])
    answer = ask(Library(index.root, lambda *_: encoder), Question(query), 20)
    assert [one.fact.path for one in answer.found] == [hit.path for hit in found]
    assert [one.hit.score for one in answer.found] == [hit.score for hit in found]
    assert main(["search", query, str(index.root), "-t", "20", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["path"], line["score"]) for line in lines] == [(hit.path, round(hit.score, 6)) for hit in found]
    shelf = Shelf(lambda *_: encoder)
    shelf.add(index.root)
    endpoint = Endpoints(Page(shelf, Thumbnails(index.root.parent / "thumbs"))).search(query, 20)
    assert [(hit["id"], hit["picture"], hit["score"]) for hit in endpoint["hits"]] == [
        (hit.id, hit.path, round(hit.score, 6)) for hit in found
    ]


def test_levels_are_the_least_the_greatest_and_the_mirrored(index: ImageIndex, encoder: Sides) -> None:
    ids, rows = index.store.vectors(range(1, 6))
    phrases = _unit(np.random.default_rng(0).normal(size=(50, 4)))
    scale = RelevanceScale.of(phrases, rows.astype(np.float32), len(ids))
    red, blue = (scale.standing(encoder.encode_texts([text]), rows.astype(np.float32)) for text in ("red", "blue"))
    expected = {
        "red AND blue": np.minimum(red, blue),
        "red OR blue": np.maximum(red, blue),
        "NOT red": 2 * scale.middle - red,
        "red AND NOT (blue OR red)": np.minimum(red, 2 * scale.middle - np.maximum(red, blue)),
    }
    for text, levels in expected.items():
        query = parse_query(text)
        vectors = {leaf: encoder.encode_texts([leaf.terms[0].text]) for leaf in query.sums}
        assert query.tree is not None
        found = rank(index, query.tree, vectors, scale, 5)
        order = np.argsort(-levels, kind="stable")
        assert [hit.id for hit, _ in found.hits] == ids[order].tolist()
        scores = 1 / (1 + np.exp(scale.middle - levels[order]))
        assert [hit.score for hit, _ in found.hits] == pytest.approx(scores.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("red path:nowhere", "nowhere"),
        ("red date:yesterday", "is no date"),
        ("red shape:round", "is no shape"),
        ("red type:docx", "is no type of picture"),
        ("red class:beagle", "names no classifier"),
    ],
)
def test_a_filter_that_means_nothing_is_a_sentence(query: str, sentence: str, index: ImageIndex) -> None:
    with pytest.raises(QueryError, match=sentence):
        search(index, query)


def test_a_visitor_names_no_file(index: ImageIndex, encoder: Sides, tmp_path: Path) -> None:
    library = Library(index.root, lambda *_: encoder)
    for query in ("similar:/etc/passwd", "red class:beagle@/etc/passwd"):
        with pytest.raises(QueryError, match="names a file"):
            ask(library, Question(query))


def test_pictures_that_the_page_adds_are_one_more_part(index: ImageIndex, encoder: Sides) -> None:
    library = Library(index.root, lambda *_: encoder)
    both = next(fact.id for fact in map(library.catalogue().fact, range(1, 6)) if fact and "both.png" in fact.path)
    answer = ask(library, Question("red OR blue", more=(both,)))
    assert "both" in answer.found[0].fact.path
    assert answer.verdict == "fits"
