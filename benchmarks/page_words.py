"""Relevance words with the starter (strong, likely, weak), and the gain of a few labels by hand."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import photographs, print_table, read_arguments, work_folder, write

from clipkit.classify.collection import Matrix, classify
from clipkit.classify.zeroshot import ZeroShotClassifier, neutral_mean
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import load_dataset
from clipkit.evaluate.zeroshot import load_labelled
from clipkit.explore.choices import RELEVANCES
from clipkit.explore.relevance import rule_for
from clipkit.learn import corrections
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder
from clipkit.search.query import embed, parse

CORRECTIONS, DRAWS = 5, 20


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    folder = photographs()
    if folder is None:
        return
    os.environ.setdefault("CLIPKIT_CACHE", str(work_folder() / "zeroshot-cache"))
    encoder = load_encoder("starter")
    found = {"relevance": relevance(folder, encoder), "corrections": taught(folder, encoder)}
    write("page_words", found, [], arguments)


def relevance(data: Path, encoder: Encoder) -> dict[str, Any]:
    """The word for the right picture of each ImageNet class, and for the best one where mostly none is right."""
    named = embed_once(load_dataset(data / "imagenet_sample", label="wnid"), encoder)
    with (data / "imagenet_sample" / "labels.csv").open() as file:
        names = {row["wnid"]: row["label"] for row in csv.DictReader(file)}
    others = embed_once(load_dataset(data / "captions"), encoder).embeddings
    neutral = neutral_mean(encoder)
    right, best, shown = Counter[str](), Counter[str](), 0
    for row, wnid in enumerate(named.dataset.labels):
        query = embed(parse(names[str(wnid)], words_only=True), encoder)
        scores, elsewhere = named.embeddings @ query[0], others @ query[0]
        rule = rule_for(query, named.embeddings, len(scores), neutral)
        words = rule.judge(scores, named.embeddings)
        right[words[row]] += 1
        shown += sum(word != "weak" for word in words)
        top = int(elsewhere.argmax())
        best.update(rule_for(query, others, len(others), neutral).judge(elsewhere[[top]], others[[top]]))
    count = len(named.dataset.labels)
    said = {
        "questions": count,
        "the right picture": {word: right[word] / count for word in RELEVANCES},
        "strong or likely pictures a question": shown / count,
        "the best of photographs of which most show no class": {word: best[word] / count for word in RELEVANCES},
    }
    print_table(
        [("relevance", *RELEVANCES)]
        + [(k, *(f"{v[w]:.1%}" for w in RELEVANCES)) for k, v in said.items() if isinstance(v, dict)]
    )
    return said


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
