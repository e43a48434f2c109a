"""A picture and a word: `./dog.jpg + snow` as a plain sum, without the gap between the two, and with equal spreads.

On captioned photographs: of a pair of nouns, at least LEAST photographs show both. A query is a photograph that shows
the first noun and not the second, plus the second noun. Precision at 10 is the share of the ten best photographs,
the query's own left out, that show both; beside it, which share shows each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
from captioned import LEAST, Captions, are_apart, captioned, cells, mean_over_pairs
from common import photographs, print_table, read_arguments, write

from clipkit.core.arrays import Embeddings, FloatArray
from clipkit.explore.relevance import RelevanceScale, embed_vocabulary
from clipkit.models.encoder import Encoder
from clipkit.search.query import word_weight

PICTURES = 8  # queries of one pair
Scores = Callable[[FloatArray, FloatArray], FloatArray]  # of a picture and a word (d,), those of all photographs (n,)


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    data = photographs()
    if data is None:
        return
    encoder, captions = captioned(data)
    pairs = [(a, b) for a, b in permutations(captions.shown, 2) if _is_pair(captions, a, b)]
    words = dict(zip(captions.shown, encoder.encode_texts(list(captions.shown)), strict=True))
    found = {name: _measured(captions, words, pairs, scores) for name, scores in ways(encoder, captions.rows).items()}
    print(f"{len(pairs)} pairs")
    print_table(
        [
            ("of the ten best", *next(iter(found.values()))),
            *((name, *cells(row)) for name, row in found.items()),
        ]
    )
    write("mixed", {"pairs": len(pairs), "photographs": len(captions.names), **found}, [], arguments)


def ways(encoder: Encoder, rows: Embeddings) -> dict[str, Scores]:
    """Scores (n,) of all photographs for a picture and a word."""
    phrases = embed_vocabulary(encoder)
    pictures, words = rows.mean(axis=0), phrases.mean(axis=0)
    scale = RelevanceScale.of(phrases, rows, len(rows))

    def of_sum(vector: Callable[[FloatArray, FloatArray], FloatArray]) -> Scores:
        return lambda picture, word: rows @ vector(picture, word)

    def both(picture: FloatArray, word: FloatArray) -> FloatArray:
        return np.minimum(scale.alike(picture[None], rows), scale.standing(word[None], rows))

    return {
        "the picture alone": of_sum(lambda picture, word: picture),
        "the word alone": of_sum(lambda picture, word: word),
        "plain sum (before)": of_sum(lambda picture, word: picture + word),
        "sum, the gap taken off the picture": of_sum(lambda picture, word: _unit(picture - pictures + words) + word),
        "sum, each less its mean": of_sum(lambda picture, word: _unit(picture - pictures) + _unit(word - words)),
        "sum, equal spreads (as clipkit reads it)": of_sum(
            lambda picture, word: picture + word_weight(word[None], picture[None], rows) * word
        ),
        "AND": both,
    }


def _measured(
    captions: Captions, words: dict[str, FloatArray], pairs: list[tuple[str, str]], scores: Scores
) -> dict[str, Any]:
    found = [
        np.mean(
            [_shares(captions, a, b, n, scores(captions.rows[n], words[b])) for n in _queries(captions, a, b)], axis=0
        )
        for a, b in pairs
    ]
    names = ("show both", "show what the picture shows", "show what the word says")
    return {name: mean_over_pairs(column) for name, column in zip(names, np.transpose(found).tolist(), strict=True)}


def _shares(captions: Captions, a: str, b: str, number: int, scores: FloatArray) -> tuple[float, float, float]:
    order = np.argsort(-scores)
    best = order[order != number][:10]
    shows_a, shows_b = captions.shown[a][best] == 1, captions.shown[b][best] == 1
    return float((shows_a & shows_b).mean()), float(shows_a.mean()), float(shows_b.mean())


def _queries(captions: Captions, a: str, b: str) -> Iterator[int]:
    alone = np.flatnonzero((captions.shown[a] == 1) & (captions.shown[b] == 0))
    yield from np.random.default_rng(0).permutation(alone)[:PICTURES].tolist()


def _is_pair(captions: Captions, a: str, b: str) -> bool:
    both = (captions.shown[a] == 1) & (captions.shown[b] == 1)
    alone = (captions.shown[a] == 1) & (captions.shown[b] == 0)
    return are_apart(a, b) and both.sum() >= LEAST and bool(alone.any())


def _unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


if __name__ == "__main__":
    main()
