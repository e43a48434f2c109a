"""Captioned photographs, and which nouns they show; shared by the benchmarks that ask for nouns."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import work_folder

from clipkit.core.arrays import Embeddings
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import Dataset
from clipkit.models.encoder import Encoder
from clipkit.models.load import load_encoder

LEAST, DRAWS = 5, 2_000
# A noun of the captions, and the words that mention it.
NOUNS = {
    "man": "man men guy",
    "dog": "dog dogs puppy",
    "boy": "boy boys",
    "water": "water",
    "girl": "girl girls",
    "child": "child children kid kids boy girl baby toddler",
    "woman": "woman women lady girl",
    "grass": "grass grassy",
    "field": "field",
    "street": "street road",
    "snow": "snow snowy",
    "beach": "beach shore sand",
    "rock": "rock rocks rocky",
    "tree": "tree trees forest woods",
    "ball": "ball baseball football basketball soccer",
    "toy": "toy toys",
    "ocean": "ocean sea waves",
    "rope": "rope",
    "jacket": "jacket coat",
    "mountain": "mountain mountains",
    "wall": "wall",
    "crowd": "crowd audience",
    "hill": "hill hills",
    "sand": "sand sandy beach",
    "fence": "fence",
    "river": "river stream creek",
    "table": "table",
    "hat": "hat cap",
    "baby": "baby toddler infant",
    "food": "food eating eat",
    "playground": "playground slide swing",
    "forest": "forest woods",
    "lake": "lake pond",
    "waves": "waves wave surf surfing surfer",
    "baseball": "baseball",
    "bench": "bench",
    "train": "train",
    "bicycle": "bike bicycle biker cyclist",
    "cliff": "cliff",
    "swing": "swing swinging",
    "boat": "boat boats kayak canoe",
    "skiing": "ski skiing skier skis",
    "climbing": "climbing climbs climber climb climbed",
}


def captioned(data: Path) -> tuple[Encoder, Captions]:
    """The starter, and the captioned photographs by it."""
    os.environ.setdefault("CLIPKIT_CACHE", str(work_folder() / "zeroshot-cache"))
    encoder = load_encoder("starter")
    return encoder, Captions(data, encoder)


class Captions:
    """Photographs with captions: embeddings (n, d), and which noun each of them shows: 1, 0, or -1 for perhaps."""

    def __init__(self, data: Path, encoder: Encoder) -> None:
        self.texts: dict[str, list[str]] = defaultdict(list)
        with (data / "captions" / "captions.csv").open() as file:
            for row in csv.DictReader(file):
                self.texts[row["image"]].append(row["caption"].lower())
        self.names = sorted(self.texts)
        self.rows = embedded(encoder, [data / "captions" / "images" / name for name in self.names])
        self.words = [[set(re.findall(r"[a-z]+", text)) for text in self.texts[name]] for name in self.names]
        shown = {noun: self._shows(set(words.split())) for noun, words in NOUNS.items()}
        self.shown = {noun: shows for noun, shows in shown.items() if (shows == 1).sum() >= LEAST}

    def _shows(self, words: set[str]) -> np.ndarray:
        mentions = np.array([sum(bool(words & caption) for caption in captions) for captions in self.words])
        return np.select([mentions >= 2, mentions == 1], [1, -1], 0)


def embedded(encoder: Encoder, files: Sequence[Path]) -> Embeddings:
    """Embeddings (n, d) of photographs, computed once."""
    found = embed_once(Dataset("photographs", tuple(map(str, files))), encoder)
    assert not found.dataset.failed
    return found.embeddings


def are_apart(a: str, b: str) -> bool:
    """Whether neither noun is counted as a mention of the other."""
    return not set(NOUNS[a].split()) & set(NOUNS[b].split())


def mean_over_pairs(values: Iterable[float]) -> dict[str, Any]:
    """The mean over pairs, with a bootstrap interval."""
    array = np.array(list(values))
    draws = np.random.default_rng(0).choice(array, (DRAWS, len(array))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": round(float(array.mean()), 3), "ci95": [round(float(low), 3), round(float(high), 3)]}


def cells(row: dict[str, dict[str, Any]]) -> list[str]:
    """Means with their intervals, for a table."""
    return [f"{value['mean']:.3f} {value['ci95']}" for value in row.values()]
