"""The gain of a few labels by hand over the words alone, with the starter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from common import photographs, read_arguments, work_folder, write

from clipkit.classify.collection import Matrix, classify
from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.datasets.embed import embed_once
from clipkit.evaluate.zeroshot import load_labelled
from clipkit.learn import corrections
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder

CORRECTIONS, DRAWS = 5, 20


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    folder = photographs()
    if folder is None:
        return
    os.environ.setdefault("CLIPKIT_CACHE", str(work_folder() / "zeroshot-cache"))
    encoder = load_encoder("starter")
    write("corrections", {"corrections": taught(folder, encoder)}, [], arguments)


def taught(data: Path, encoder: Encoder) -> dict[str, Any]:
    """Accuracy on the pictures of Pets test that were not corrected, before and after `teach`; the mean over draws.

    With the pictures that the words were surest of, as the page does, and without them.
    """
    pets = embed_once(load_labelled(data, split="test"), encoder)
    rows, labels = pets.embeddings, np.array(pets.dataset.labels)
    head = ZeroShotClassifier(encoder, "pets", templates="pets").head
    matrix = Matrix(0, np.arange(1, len(rows) + 1), rows.astype(np.float16))
    sorted_by_words = classify(matrix, head, judge=head)
    names = np.array(head.classes)
    wrong = np.flatnonzero(names[sorted_by_words.places] != labels)
    rng = np.random.default_rng(0)
    draws = [rng.choice(wrong, CORRECTIONS, replace=False) for _ in range(DRAWS)]
    after: dict[int, list[float]] = {}
    usual = corrections.ANCHORS
    for anchors in (0, usual):
        corrections.ANCHORS, after[anchors] = anchors, []
        for chosen in draws:
            by_hand = {int(row) + 1: str(labels[row]) for row in chosen}
            learned = corrections.teach(head, head, encoder, matrix, sorted_by_words, by_hand).head
            rest = np.setdiff1d(np.arange(len(rows)), chosen)
            after[anchors].append(float((names[learned.best(rows[rest])] == labels[rest]).mean()))
    said = {
        "n": len(rows),
        "words": float((names[sorted_by_words.places] == labels).mean()),
        "corrections": CORRECTIONS,
        "draws": DRAWS,
        "after": float(np.mean(after[usual])),
        "spread": [min(after[usual]), max(after[usual])],
        "after without anchors": float(np.mean(after[0])),
    }
    print(said)
    return said


if __name__ == "__main__":
    main()
