"""Relevance of search results in three words, from scores of the collection and of neutral texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray
from clipkit.explore.choices import RELEVANCES, Relevance
from clipkit.index.image_index import ImageIndex
from clipkit.search.hits import Hit

# How often the best of so many pictures would stand out so far by chance, if scores were normal; docs/page.md has what
# that means for real ones.
CHANCE = {"strong": 0.0005, "likely": 0.2}
MOST = 1_000  # pictures that count as tries: in a larger collection more pictures fit, too
TO_SIGMA = 1.4826  # the median distance from the median, times this, is a normal distribution's sigma
LEAST_SPREAD = 0.01  # a cosine; a folder of equal pictures must not make rounding look like relevance


@dataclass(frozen=True)
class Rule:
    """How the scores of one query become words; made by `rule_for`.

    middle, spread: median and spread of the query's scores over the collection. strong, likely: the least standing,
    in spreads. neutral: (d,) the mean of the neutral texts, or None where the query is not made of words alone, which
    no text can be compared with.
    """

    middle: float
    spread: float
    strong: float
    likely: float
    neutral: FloatArray | None

    def judge(self, scores: FloatArray, embeddings: Embeddings) -> list[Relevance]:
        """One word for each score (n,) of pictures with `embeddings` (n, d).

        Words are measured against texts that fit every picture, so that a folder of nothing but dogs still answers to
        "a dog"; a query with pictures in it against the collection's median. The unit of both is the spread.
        """
        base = self.middle if self.neutral is None else embeddings @ self.neutral
        standing = (scores - base) / self.spread
        return ["strong" if one >= self.strong else "likely" if one >= self.likely else "weak" for one in standing]


def rule_for(query: Embeddings, sample: Embeddings, count: int, neutral: FloatArray | None) -> Rule:
    """From the query (1, d), pictures drawn from the collection (m, d), and how many pictures that has."""
    # On one thread: BLAS wakes all of them for this little, which took 7 ms instead of 0.2.
    scores = np.einsum("nd,d->n", sample, query[0]) if len(sample) else np.zeros(1, np.float32)
    middle = float(np.median(scores))
    spread = TO_SIGMA * float(np.median(np.abs(scores - middle)))
    strong, likely = (_cut(CHANCE[word], count) for word in RELEVANCES[:2])
    return Rule(middle, max(spread, LEAST_SPREAD), strong, likely, neutral)


def is_at_least(relevance: Relevance, least: Relevance) -> bool:
    """Whether it is that strong or stronger."""
    return RELEVANCES.index(relevance) <= RELEVANCES.index(least)


def judge_hits(index: ImageIndex, hits: Iterable[Hit], rule: Rule) -> list[tuple[Hit, Relevance]]:
    """Each hit that is still in the index, with its relevance."""
    known = {hit.id: hit for hit in hits}
    ids, rows = index.store.vectors(known)
    place = {id_: row for row, id_ in enumerate(ids.tolist())}
    there = [hit for hit in known.values() if hit.id in place]
    if not there:
        return []
    scores = np.array([hit.score for hit in there], np.float32)
    words = rule.judge(scores, rows[[place[hit.id] for hit in there]].astype(np.float32))
    return list(zip(there, words, strict=True))


def _cut(chance: float, count: int) -> float:
    """What the highest of `count` normal draws exceeds with that probability, in sigmas."""
    return NormalDist().inv_cdf((1 - chance) ** (1 / max(2, min(count, MOST))))
