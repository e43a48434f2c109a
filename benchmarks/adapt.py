"""Adaptation of the starter to data that it never saw: gains and losses by recipe and number of pictures, refusals too.

Pets: trainval of Oxford-IIIT Pet, a quarter of it held out for the test (the set's own test is not touched).
Captions: the 400 photographs with 5 captions each, which are the shipped starter's validation set: nothing was fitted
on them, but what ships was chosen by them; a copy is adapted on three quarters and tested on the rest. General:
imagenet_sample, one picture a class, without the words that stand for two classes. 3,000 unseen pictures are not at
hand.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import photographs, print_table, read_arguments, work_folder, write

from clipkit.classify.prompts import TEMPLATES
from clipkit.core.tables import read_table
from clipkit.datasets.load import Dataset, load_dataset
from clipkit.learn.adaptation import Adapting
from clipkit.learn.captioned import Captioned, ThreeParts, three_parts
from clipkit.learn.tuning import AdaptRecipe, Towers
from clipkit.models.load import load_encoder
from clipkit.models.trainable import TunableEncoder

SIZES = (100, 300, 1000)  # pictures, four fifths of them learned from and one fifth to choose on
KINDS = ("words", "projection")
EPOCHS = {"pets": 10, "captions": 3}  # a step of 128 captions takes 1.3 s of an idle core, one of 37 breeds .4 s


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    data = photographs()
    if data is None:
        return
    os.environ["CLIPKIT_CACHE"] = str(work_folder() / "adapt-cache")  # embeddings are kept from run to run
    encoder = load_encoder("starter")
    towers = Towers(TunableEncoder(encoder))
    general = _general(data)  # its model before is that of every row
    results: dict[str, Any] = {}
    sets = {"pets": (load_dataset(data / "oxford-iiit-pet", split="trainval"), "pets")}
    sets["captions"] = (load_dataset(data / "captions"), "simple")
    for name, (dataset, templates) in sets.items():
        whole = three_parts(dataset, encoder, tokens=towers.tokens, templates=TEMPLATES[templates])
        for size in SIZES[:1] if arguments.quick else SIZES:
            if size > len(whole.train) + len(whole.validation):
                continue
            for kind in KINDS:
                recipe = AdaptRecipe(kind, epochs=1 if arguments.quick else EPOCHS[name])
                row = f"{name} {size} {kind}"
                folder = _checkpoints(f"{row} {recipe.epochs}")
                adapting = Adapting(towers, encoder, _reduced(whole, size), recipe, folder, None)
                results[row] = _measured(adapting, towers, general)
                write("adapt", results, [], arguments)  # after each: the whole takes long
    print_table([["data, pictures, recipe", "way", "before", "after", "gain", "low", "high"], *_lines(results)])


def _measured(adapting: Adapting, towers: Towers, general: Dataset) -> dict[str, Any]:
    started = time.monotonic()
    found, tuned = adapting.measure(adapting.forgetting(general))
    towers.put(tuned, 0.0)  # the next begins where this one did
    return {**found.to_json(), "seconds": round(time.monotonic() - started, 1)}


def _checkpoints(row: str) -> Path:
    """Kept from run to run: one that was stopped, or another rule of choice, trains nothing twice."""
    folder = work_folder() / "adapt-runs" / row.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _reduced(whole: ThreeParts, size: int) -> ThreeParts:
    """As many pictures to learn from and to choose on, the classes spread evenly; the test stays."""
    train, validation = round(0.8 * size), size - round(0.8 * size)
    rest = [(whole.train, train), (whole.validation, validation)]
    first, second = (part.only(_spread(part, count)) for part, count in rest)
    return replace(whole, train=first, validation=second)


def _spread(part: Captioned, count: int) -> np.ndarray:
    order = np.random.default_rng(0).permutation(len(part))
    if part.are_classes:  # the first of each class, then the second of each
        seen: Counter[int] = Counter()
        turns = []
        for place in order.tolist():
            owner = int(part.right[place].argmax())
            turns.append(seen[owner])
            seen[owner] += 1
        order = order[np.argsort(turns, kind="stable")]
    return np.sort(order[:count])


def _general(data: Path) -> Dataset:
    folder = data / "imagenet_sample"
    rows = [row for _, row in read_table(folder / "labels.csv")]
    wnids: dict[str, set[str]] = {}
    for row in rows:
        wnids.setdefault(row["label"], set()).add(row["wnid"])
    rows = [row for row in rows if len(wnids[row["label"]]) == 1]
    place = folder if (folder / rows[0]["image"]).is_file() else folder / "images"
    labels = tuple(row["label"] for row in rows)
    return Dataset(
        "imagenet_sample", tuple(str(place / row["image"]) for row in rows), labels, tuple(sorted(set(labels)))
    )


def _lines(results: dict[str, Any]) -> list[list[Any]]:
    lines = []
    for name, found in results.items():
        for one in (*found["changes"], found["general"]):
            if one["measure"] in ("mean", "top-1"):
                numbers = [one["before"], one["after"], one["after"] - one["before"], one["low"], one["high"]]
                lines.append([name, one["way"], *(round(number, 3) for number in numbers)])
    return lines


if __name__ == "__main__":
    main()
