"""Relevance of search results in three words, from how a query compares with general phrases on each picture.

A cosine says little by itself, and what is rare in a collection says nothing of a picture. So the query is compared, on
one picture at a time, with 478 phrases that name what photographs show (`vocabulary.txt`): how many standard deviations
it scores above their mean on that picture. What counts as much is read off the phrases themselves: a query is strong on
a picture where it stands as high as one phrase in 100 stands on one of the collection's pictures. Nothing of that
depends on how many pictures match.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.text import counted, described
from clipkit.explore.choices import RELEVANCES
from clipkit.models.encoder import Encoder, identity
from clipkit.search.hits import Hit, Hits, Relevance, Verdict
from clipkit.search.vectors import Half

# Shares of the phrases that stand lower, over pictures of the collection; `benchmarks/relevance.py` has what they give.
STRONG, LIKELY = 0.99, 0.95
SURE, FITS = 0.995, 0.975  # where the best picture stands lower it is not sure that any fits; or none does
# Standard scores of an encoder that knows none of the phrases.
FLOORS = {SURE: 2.0, STRONG: 2.0, FITS: 1.5, LIKELY: 1.0}
ALIKE = {"strong": 0.65, "likely": 0.45}  # correlations of two pictures' scores on the phrases
GROWTH = 0.4  # standard deviations that the best of ten times as many pictures may stand higher by chance
USUAL, FEW, MANY = 100, 10, 10_000  # pictures of a collection for which the cuts are; no fewer and no more count
SAMPLE = 500  # pictures whose scores on the phrases are read
LEAST_SPREAD = 0.01  # a cosine; for encoders to which all phrases are alike


class Vectors(Protocol):
    """Embeddings by id, float16: ids (n,) of those that are there, and rows (n, d)."""

    def vectors(self, ids: Iterable[int]) -> tuple[IntArray, Half]: ...


class Searched(Protocol):
    """What a query is ranked over: an `ImageIndex`, or shards."""

    @property
    def store(self) -> Vectors: ...

    def search_embeddings(self, embeddings: Embeddings, k: int = ..., *, only: IntArray | None = ...) -> list[Hits]: ...


@dataclass(frozen=True)
class Judgement:
    """Relevance of the results of one query.

    Attributes
    ----------
    words : list of {"strong", "likely", "weak"}
        One for each result.
    verdict : {"fits", "unsure", "nothing"}
        Whether any result fits: "unsure" where the best is not strong, "nothing" where it is too weak.
    """

    words: list[Relevance]
    verdict: Verdict


@dataclass(frozen=True)
class RelevanceScale:
    """What relevance is measured against, for one model and one collection; made by `RelevanceScale.of`.

    Attributes
    ----------
    phrases : ndarray of shape (v, d), float32
        Embeddings of the vocabulary.
    sure, strong, fits, likely : float
        Standard scores from which a picture surely fits, is strong, fits at all, and is likely.
    count : int
        Pictures in the collection.
    """

    phrases: Embeddings
    sure: float
    strong: float
    fits: float
    likely: float
    count: int

    def __repr__(self) -> str:
        cuts = (f"{name}={getattr(self, name):.2f}" for name in ("sure", "strong", "fits", "likely"))
        return described(self, *cuts, counted(self.count, "picture"))

    @classmethod
    def of(cls, phrases: Embeddings, sample: Embeddings, count: int) -> RelevanceScale:
        """From the vocabulary (v, d), some of the collection's pictures (m, d), and how many it has."""
        some = sample[:: max(1, len(sample) // SAMPLE)]  # drawn evenly, as the sample is
        standing = _standardized(some @ phrases.T) if len(some) else np.zeros((1, 1), np.float32)
        places = [round(share * (standing.size - 1)) for share in FLOORS]
        cuts = np.partition(standing, places, axis=None)[places]  # np.quantile imports numpy.ma, which takes 20 ms
        sure, strong, fits, likely = (max(float(cut), floor) for cut, floor in zip(cuts, FLOORS.values(), strict=True))
        return cls(phrases, sure, strong, fits, likely, count)

    def on_phrases(self, pictures: Embeddings) -> FloatArray:
        """Scores (n, v) of the phrases on pictures (n, d), for several queries of the same pictures."""
        return np.asarray(pictures @ self.phrases.T, dtype=np.float32)

    def standing(self, query: Embeddings, pictures: Embeddings, on_phrases: FloatArray | None = None) -> FloatArray:
        """Standard score (n,) of a query (1, d) among the phrases, on each picture (n, d)."""
        known = self.on_phrases(pictures) if on_phrases is None else on_phrases
        return np.asarray(_standardized(known, pictures @ query[0]), dtype=np.float32)

    def alike(self, query: Embeddings, pictures: Embeddings, on_phrases: FloatArray | None = None) -> FloatArray:
        """How alike pictures (n, d) are to a query with pictures in it (1, d), in units of `standing`.

        Pictures lie nearer to one another than to any words, so that what is compared is what the phrases say of both.
        """
        known = self.on_phrases(pictures) if on_phrases is None else on_phrases
        correlation = _profiles(known) @ _profiles(self.on_phrases(query))[0]
        share = (correlation - ALIKE["likely"]) / (ALIKE["strong"] - ALIKE["likely"])
        return np.asarray(self.likely + share * (self.strong - self.likely), dtype=np.float32)

    @property
    def middle(self) -> float:
        """The level that is as much for as against: halfway from likely to strong."""
        return (self.likely + self.strong) / 2

    def judge(self, query: Embeddings, pictures: Embeddings) -> Judgement:
        """Relevance of pictures (n, d) to a query of words (1, d)."""
        return self.judge_levels(self.standing(query, pictures))

    def judge_levels(self, levels: FloatArray) -> Judgement:
        """Relevance of pictures by what `standing` or `alike` has of them (n,)."""
        best = float(levels.max(initial=-math.inf))
        chance = GROWTH * math.log10(min(max(self.count, FEW), MANY) / USUAL)
        words = self.words(levels)
        if best >= self.sure + chance:
            return Judgement(words, "fits")
        if best >= self.fits + chance:
            return Judgement(["likely" if word == "strong" else word for word in words], "unsure")
        return Judgement(["weak" for _ in words], "nothing")

    def words(self, levels: FloatArray) -> list[Relevance]:
        """A word for each level (n,)."""
        return ["strong" if one >= self.strong else "likely" if one >= self.likely else "weak" for one in levels]


def scale_for(encoder: Encoder, sample: Embeddings, count: int) -> RelevanceScale:
    """The scale of a collection of `count` pictures, some of which are in `sample` (m, d)."""
    return RelevanceScale.of(embed_vocabulary(encoder), sample, count)


def embed_vocabulary(encoder: Encoder) -> Embeddings:
    """Embeddings (v, d) of the vocabulary; computed once for a model, then cached on disk."""
    cache = ArrayCache("vocabulary", form="clipkit vocabulary 1")
    key = cache_key(identity(encoder), vocabulary())
    if (stored := cache.get(key)) is not None:
        return np.asarray(stored[0]["embeddings"], dtype=np.float32)
    rows = np.asarray(encoder.encode_texts(list(vocabulary())), dtype=np.float32)
    cache.put(key, {"embeddings": rows})
    return rows


@cache
def vocabulary() -> tuple[str, ...]:
    """Phrases that name what photographs show, from people to screenshots."""
    return tuple(files(__package__).joinpath("vocabulary.txt").read_text("utf-8").split("\n")[:-1])


def standing_of_phrases(pictures: Embeddings, phrases: Embeddings) -> FloatArray:
    """Standard scores (n, v) of phrases (v, d) among one another, on each picture (n, d)."""
    return _standardized(pictures @ phrases.T)


def is_at_least(relevance: Relevance, least: Relevance) -> bool:
    """Whether it is that strong or stronger."""
    return RELEVANCES.index(relevance) <= RELEVANCES.index(least)


def judge_hits(
    index: Searched, hits: Iterable[Hit], query: Embeddings, scale: RelevanceScale, *, is_words: bool
) -> tuple[list[tuple[Hit, Relevance]], Verdict]:
    """Each hit that is still in the index, with its relevance; and whether any fits.

    A query with pictures in it always "fits": it asks for the nearest ones.
    """
    known = {hit.id: hit for hit in hits}
    ids, rows = index.store.vectors(known)
    place = {id_: row for row, id_ in enumerate(ids.tolist())}
    there = [hit for hit in known.values() if hit.id in place]
    if not there:
        return [], "nothing"
    pictures = rows[[place[hit.id] for hit in there]].astype(np.float32)
    if not is_words:
        return list(zip(there, scale.words(scale.alike(query, pictures)), strict=True)), "fits"
    judged = scale.judge(query, pictures)
    return list(zip(there, judged.words, strict=True)), judged.verdict


def _standardized(phrases: FloatArray, scores: FloatArray | None = None) -> FloatArray:
    """Scores (n,), or those of the phrases themselves (n, v), in standard deviations of the phrases' scores (n, v)."""
    middle, spread = phrases.mean(axis=1), np.maximum(phrases.std(axis=1), LEAST_SPREAD)
    if scores is None:
        return np.asarray((phrases - middle[:, None]) / spread[:, None], dtype=np.float32)
    return np.asarray((scores - middle) / spread, dtype=np.float32)


def _profiles(phrases: FloatArray) -> FloatArray:
    """Scores on the phrases (n, v), centered and of length 1, so that a product of two is a correlation."""
    centered = phrases - phrases.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(centered / np.maximum(lengths, LEAST_SPREAD), dtype=np.float32)
