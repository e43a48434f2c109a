"""Relevance: words that do not depend on what else is in the collection, and a verdict on the whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipkit.cli.main import main
from clipkit.core.arrays import Embeddings
from clipkit.explore import Library, Question, ask
from clipkit.explore.question import search
from clipkit.explore.relevance import SAMPLE, RelevanceScale, vocabulary
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint

RNG = np.random.default_rng(0)
DIM = 64


def _unit(rows: np.ndarray) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


PHRASES = _unit(RNG.normal(size=(400, DIM)))
QUERY = _unit(RNG.normal(size=(1, DIM)))


def _pictures(count: int, matching: int, closeness: float = 1.0) -> Embeddings:
    """`matching` pictures near QUERY, the rest at a right angle to it."""
    noise = RNG.normal(size=(count, DIM))
    noise = _unit(noise - (noise @ QUERY[0])[:, None] * QUERY)
    return _unit(noise + closeness * QUERY * (np.arange(count) < matching)[:, None])


def _scale(pictures: Embeddings) -> RelevanceScale:
    return RelevanceScale.of(PHRASES, pictures, len(pictures))


def test_a_query_stands_as_many_standard_deviations_above_the_phrases_as_numpy_says() -> None:
    pictures = _pictures(20, 5)
    for picture, standing in zip(pictures, _scale(pictures).standing(QUERY, pictures), strict=True):
        scores = PHRASES @ picture
        assert standing == pytest.approx((picture @ QUERY[0] - scores.mean()) / scores.std(), abs=1e-4)


@pytest.mark.parametrize("matching", [1, 10, 50, 100])
def test_the_words_do_not_depend_on_how_many_pictures_match(matching: int) -> None:
    pictures = _pictures(100, matching)
    judged = _scale(pictures).judge(QUERY, pictures)
    assert judged.verdict == "fits"
    assert judged.words[:matching] == ["strong"] * matching
    assert judged.words[matching:].count("strong") == 0


def test_the_cuts_are_what_so_many_of_the_phrases_reach() -> None:
    pictures = _pictures(200, 0)
    scale = _scale(pictures)
    scores = pictures @ PHRASES.T
    standing = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    assert (standing >= scale.strong).mean() == pytest.approx(0.01, abs=1e-3)
    assert (standing >= scale.likely).mean() == pytest.approx(0.05, abs=1e-3)


def test_the_verdict_goes_from_fits_over_unsure_to_nothing() -> None:
    seen = []
    for closeness in (1.0, 0.24, 0.0):
        pictures = _pictures(10, 1, closeness)
        scale = _scale(pictures)
        judged = scale.judge(QUERY, pictures)
        best = scale.standing(QUERY, pictures).max() + 0.4  # 10 pictures have fewer chances than 100
        expected = "fits" if best >= scale.sure else "unsure" if best >= scale.fits else "nothing"
        assert judged.verdict == expected
        assert ("strong" in judged.words) == (expected == "fits")
        assert (set(judged.words) == {"weak"}) or expected != "nothing"
        seen.append(judged.verdict)
    assert seen == ["fits", "unsure", "nothing"]


def test_more_pictures_have_more_chances() -> None:
    pictures = _pictures(20, 1, 0.4)
    cuts = {count: RelevanceScale.of(PHRASES, pictures, count) for count in (100, 10_000, 10**7)}
    best = cuts[100].standing(QUERY, pictures).max()
    assert cuts[100].sure < best < cuts[100].sure + 0.8, "the case is of use"
    assert [cuts[count].judge(QUERY, pictures).verdict for count in cuts] == ["fits", "unsure", "unsure"]


def test_pictures_are_judged_by_what_the_phrases_say_of_both() -> None:
    kind, other = _unit(RNG.normal(size=(2, DIM)))
    gap = _unit(RNG.normal(size=DIM))  # pictures have a direction of their own that no words have
    pictures = _unit(np.stack([kind, kind + 0.3 * other, other, -kind]) + 0.5 * gap)
    scale = _scale(pictures)
    words = scale.words(scale.alike(pictures[:1], pictures))
    assert words[:2] == ["strong", "strong"]
    assert words[3] == "weak"


def test_no_collection_and_no_result_is_no_fault() -> None:
    nothing = np.empty((0, DIM), np.float32)
    judged = RelevanceScale.of(PHRASES, nothing, 0).judge(QUERY, nothing)
    assert (judged.words, judged.verdict) == ([], "nothing")


def test_the_vocabulary_has_each_phrase_once() -> None:
    phrases = vocabulary()
    assert len(set(phrases)) == len(phrases) > 400
    assert all(phrase == phrase.strip() != "" for phrase in phrases)


@pytest.mark.parametrize(("words", "verdict"), [("blue", "fits"), ("an invoice", "nothing")])
def test_the_verdict_is_the_same_everywhere(
    words: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, colour in COLOURS.items():
        if name != "grey":
            paint(tmp_path / "album" / f"{name}.png", colour)
    encoder = ColourEncoder()
    index = ImageIndex.create(tmp_path / "album", encoder)
    index.update()
    monkeypatch.setattr("clipkit.cli.options.ModelOptions.query_encoder", lambda *_: encoder)
    monkeypatch.setattr("clipkit.index.image_index.ImageIndex.query_encoder", encoder)
    answer = ask(Library(index.root, lambda *_: encoder), Question(words), 20)
    hits = search(index, words, 20, encoder=encoder)
    assert main(["search", words, str(index.root), "-t", "20", "--json"]) == 0
    out, err = capfd.readouterr()
    printed = [json.loads(line) for line in out.splitlines()]
    assert answer.verdict == hits.verdict == verdict
    assert ("these come closest" in err) == (verdict != "fits")
    judged = [(one.fact.path, one.relevance) for one in answer.found]
    assert judged == [(hit.path, hit.relevance) for hit in hits]
    assert judged == [(one["path"], one["relevance"]) for one in printed]


@pytest.mark.parametrize("count", [3, 499, 999, 1_000, 1_999, 2_000, 2_001, 9_000])
def test_the_cuts_are_the_same_from_the_few_pictures_that_are_read_for_them(count: int) -> None:
    rng = np.random.default_rng(0)
    rows, phrases = (rng.standard_normal((n, 8)).astype(np.float32) for n in (count + 1, 20))
    asked: list[int] = []

    def vectors(ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(ids))
        return np.array(ids), rows[ids]

    index = SimpleNamespace(store=SimpleNamespace(vectors=vectors))
    ids = np.arange(1, count + 1)
    many = ImageIndex.sample_embeddings(index, ids)  # type: ignore[arg-type]  all that it needs
    few = ImageIndex.sample_embeddings(index, ids, about=SAMPLE)  # type: ignore[arg-type]
    old, new = (RelevanceScale.of(phrases, sample, count) for sample in (many, few))
    assert (old.sure, old.strong, old.fits, old.likely) == (new.sure, new.strong, new.fits, new.likely)
    assert asked[1] < 2 * SAMPLE
    assert asked[0] <= 2_000
