"""One thing without another: the sentence, the thing alone, the subtraction that clipkit makes of it, and AND NOT.

On captioned photographs: of a pair of nouns, at least LEAST photographs show both and LEAST the first alone. Precision
at 10 is the share of the ten best that show the first and not the second.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from boolean import Scores
from captioned import LEAST, Captions, are_apart, captioned, cells, mean_over_pairs
from common import photographs, print_table, read_arguments, write

from clipkit.explore.relevance import RelevanceScale, embed_vocabulary
from clipkit.models.encoder import Encoder
from clipkit.search.query import embed, parse


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    data = photographs()
    if data is None:
        return
    encoder, captions = captioned(data)
    pairs = [(a, b) for a, b in permutations(captions.shown, 2) if _is_pair(captions, a, b)]
    found = {
        name: mean_over_pairs([_precision(captions, a, b, scores(a, b)) for a, b in pairs])
        for name, scores in methods(encoder, captions).items()
    }
    print_table([(f"{len(pairs)} pairs", "precision@10"), *zip(found, cells(found), strict=True)])
    write("negation", {"pairs": len(pairs), "photographs": len(captions.names), **found}, [], arguments)


def methods(encoder: Encoder, captions: Captions) -> dict[str, Scores]:
    """Scores (n,) of all photographs for a noun without another."""
    scale = RelevanceScale.of(embed_vocabulary(encoder), captions.rows, len(captions.rows))

    def scores_of(query: str) -> np.ndarray:
        return captions.rows @ embed(parse(query, words_only=True), encoder)[0]

    def and_not(a: str, b: str) -> np.ndarray:
        wanted, unwanted = (scale.standing(row[None], captions.rows) for row in encoder.encode_texts([a, b]))
        return np.minimum(wanted, 2 * scale.middle - unwanted)

    return {
        "the sentence as it stands": lambda a, b: captions.rows @ encoder.encode_texts([f"{a} without {b}"])[0],
        "the first alone": lambda a, b: scores_of(a),
        "less of the second, as clipkit reads the sentence": lambda a, b: scores_of(f"{a} without {b}"),
        "AND NOT": and_not,
    }


def _is_pair(captions: Captions, a: str, b: str) -> bool:
    if not are_apart(a, b):
        return False
    first, second = captions.shown[a] == 1, captions.shown[b]
    return bool((first & (second == 1)).sum() >= LEAST and (first & (second == 0)).sum() >= LEAST)


def _precision(captions: Captions, a: str, b: str, scores: np.ndarray) -> float:
    right = (captions.shown[a] == 1) & (captions.shown[b] == 0)
    return float(right[np.argsort(-scores)[:10]].mean())


if __name__ == "__main__":
    main()
