"""Ranking of pictures by a query: a sum by cosine; AND, OR and NOT by fuzzy logic on the relevance to its parts.

The level of a part is how far it stands above general phrases on a picture (`explore/relevance.py`), which is the same
scale for every part. AND is the least level, OR the greatest, and NOT mirrors it about the middle between likely and
strong, as in Zadeh's logic; so "dog AND beach" wants both, where a sum of the two is content with much of one.

References
----------
.. [1] L. A. Zadeh, "Fuzzy Sets", Information and Control 8, 1965.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.explore.relevance import RelevanceScale, Searched, judge_hits
from clipkit.search.hits import Hit, Relevance, Verdict
from clipkit.search.query import AllOf, Node, NoneOf, Sum

NEAREST = 5_000  # pictures of each part that are looked at; of a smaller collection, all


@dataclass(frozen=True)
class Ranked:
    """Pictures by the level of a whole query, the highest first."""

    hits: list[tuple[Hit, Relevance]]
    verdict: Verdict
    has_more: bool


def rank(
    index: Searched,
    tree: Node,
    vectors: Mapping[Sum, Embeddings],
    scale: RelevanceScale,
    k: int,
    only: IntArray | None = None,
) -> Ranked:
    """The k pictures that fit a query best. vectors: the embedding (1, d) of each of its sums.

    The score of a hit is the cosine where the query is one sum; else the logistic function of its level above the
    middle, .5 of which is as much for as against.
    """
    if isinstance(tree, Sum):
        nearest = index.search_embeddings(vectors[tree], k + 1, only=only)[0]
        return Ranked(*judge_hits(index, nearest[:k], vectors[tree], scale, is_words=tree.is_words), len(nearest) > k)
    found = _candidates(index, tree, vectors, only)
    ids, rows = index.store.vectors(found)
    pictures = rows.astype(np.float32)
    levels = _levels(tree, vectors, pictures, scale, scale.on_phrases(pictures))
    order = np.lexsort((ids, -levels))[:k]
    judged = scale.judge_levels(levels[order])
    scores = 1 / (1 + np.exp(scale.middle - levels[order]))
    named = [found[id_] for id_ in ids[order].tolist()]
    hits = [Hit(float(s), hit.path, hit.file, hit.id, hit.is_partial) for s, hit in zip(scores, named, strict=True)]
    return Ranked(list(zip(hits, judged.words, strict=True)), judged.verdict, has_more=len(ids) > k)


def _candidates(
    index: Searched, tree: Node, vectors: Mapping[Sum, Embeddings], only: IntArray | None
) -> dict[int, Hit]:
    """The nearest pictures of each part, and the farthest of what is not to be seen."""
    signed = [vectors[leaf] if is_wanted else -vectors[leaf] for leaf, is_wanted in _signed(tree, is_wanted=True)]
    answers = index.search_embeddings(np.concatenate(signed), NEAREST, only=only)
    return {hit.id: hit for hits in answers for hit in hits}


def _signed(node: Node, *, is_wanted: bool) -> Iterator[tuple[Sum, bool]]:
    if isinstance(node, Sum):
        yield node, is_wanted
    elif isinstance(node, NoneOf):
        yield from _signed(node.part, is_wanted=not is_wanted)
    else:
        for part in node.parts:
            yield from _signed(part, is_wanted=is_wanted)


def _levels(
    node: Node,
    vectors: Mapping[Sum, Embeddings],
    pictures: Embeddings,
    scale: RelevanceScale,
    on_phrases: FloatArray,
) -> FloatArray:
    """Levels (n,) of pictures (n, d), on which the phrases score `on_phrases` (n, v)."""
    if isinstance(node, Sum):
        level = scale.standing if node.is_words else scale.alike
        return level(vectors[node], pictures, on_phrases)
    if isinstance(node, NoneOf):
        mirrored = 2 * scale.middle - _levels(node.part, vectors, pictures, scale, on_phrases)
        return np.asarray(mirrored, dtype=np.float32)
    parts = [_levels(part, vectors, pictures, scale, on_phrases) for part in node.parts]
    return np.asarray((np.minimum if isinstance(node, AllOf) else np.maximum).reduce(parts), dtype=np.float32)
