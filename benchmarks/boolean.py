"""Two things at once: a sentence, a sum, and AND, on captioned photographs that show both, one, or neither.

A photograph shows a noun where two of its captions mention it, and not where none does. A pair of nouns counts where
LEAST photographs show both. Precision at 10 is the share of the ten best photographs that show both.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from captioned import LEAST, Captions, are_apart, captioned, cells, mean_over_pairs
from common import photographs, print_table, read_arguments, write
from sklearn.metrics import roc_auc_score

from clipkit.core.arrays import FloatArray
from clipkit.explore.relevance import RelevanceScale, embed_vocabulary
from clipkit.models.encoder import Encoder

Scores = Callable[[str, str], FloatArray]


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    data = photographs()
    if data is None:
        return
    encoder, captions = captioned(data)
    pairs = [(a, b) for a, b in combinations(captions.shown, 2) if _is_pair(captions, a, b)]
    ways = methods(encoder, captions)
    found = {name: [_measured(captions, a, b, scores(a, b)) for a, b in pairs] for name, scores in ways.items()}
    print(f"{len(pairs)} pairs")
    results = {"pairs": len(pairs), "photographs": len(captions.names)} | {
        name: {
            "precision@10": mean_over_pairs([p for p, _ in rows]),
            "AUROC, both against one": mean_over_pairs([a for _, a in rows]),
        }
        for name, rows in found.items()
    }
    lift = np.array([p for p, _ in found["AND"]]) - np.array([p for p, _ in found["sum"]])
    results["precision@10, AND less sum"] = mean_over_pairs(lift.tolist())
    print_table([(name, *cells(row)) for name, row in results.items() if isinstance(row, dict) and "mean" not in row])
    print(results["precision@10, AND less sum"])
    write("boolean", results, [], arguments)


def methods(encoder: Encoder, captions: Captions) -> dict[str, Scores]:
    """Scores (n,) of all photographs for two nouns, by each way to ask for both."""
    scale = RelevanceScale.of(embed_vocabulary(encoder), captions.rows, len(captions.rows))
    rows = {noun: encoder.encode_texts([noun])[0] for noun in captions.shown}
    level = {noun: scale.standing(row[None], captions.rows) for noun, row in rows.items()}
    return {
        "sentence": lambda a, b: captions.rows @ encoder.encode_texts([f"a {a} and a {b}"])[0],
        "sum": lambda a, b: captions.rows @ (rows[a] + rows[b]),
        "AND": lambda a, b: np.minimum(level[a], level[b]),
        "sum of levels": lambda a, b: level[a] + level[b],
    }


def _is_pair(captions: Captions, a: str, b: str) -> bool:
    """Enough photographs show both, and neither noun is counted as a mention of the other."""
    return are_apart(a, b) and len(_both(captions, a, b)) >= LEAST


def _both(captions: Captions, a: str, b: str) -> FloatArray:
    return np.flatnonzero((captions.shown[a] == 1) & (captions.shown[b] == 1))


def _measured(captions: Captions, a: str, b: str, scores: FloatArray) -> tuple[float, float]:
    """Precision at 10, and AUROC of photographs that show both against those that show one."""
    shows_a, shows_b = captions.shown[a], captions.shown[b]
    both = (shows_a == 1) & (shows_b == 1)
    one = ((shows_a == 1) & (shows_b == 0)) | ((shows_a == 0) & (shows_b == 1))
    return float(both[np.argsort(-scores)[:10]].mean()), float(roc_auc_score(both[both | one], scores[both | one]))


if __name__ == "__main__":
    main()
