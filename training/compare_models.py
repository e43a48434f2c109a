"""Teacher and student side by side, as clipkit runs them: what they find, what they name, how fast they are."""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from picture_sets import STARTER, WORK, data_folder
from train_student import folder

from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import load_dataset
from clipkit.evaluate.zeroshot import evaluate_retrieval, evaluate_zeroshot, load_labelled
from clipkit.index.image_index import ImageIndex
from clipkit.learn.linear_probe import LinearProbe
from clipkit.models.load import load_encoder
from clipkit.models.openclip import OpenClipEncoder

ROUNDS = 5  # of each speed, the models in turn: the machine is shared
PIXELS = 96  # pictures a round, pixels ready


def main() -> None:
    """Prints the table; with --out it is kept as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[STARTER, folder("levit") / "starter-vit"])
    parser.add_argument("--test", action="store_true", help="Pets test instead of trainval: only for what ships")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("CLIPKIT_CACHE", str(WORK / "cache"))
    encoders = {folder.name: load_encoder(str(folder)) for folder in options.folders}
    table = {
        folder.name: {
            **quality(encoder, "test" if options.test else "trainval"),
            "pictures_per_second": rate,
            "indexed_per_second": indexed,
            "megabytes": sum(file.stat().st_size for file in folder.glob("open_clip_*")) / 1e6,
            "sha256": hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest(),
        }
        for (folder, encoder), rate, indexed in zip(
            zip(options.folders, encoders.values(), strict=True), *speeds(list(encoders.values())), strict=True
        )
    }
    for name in next(iter(table.values())):
        print(f"{name:32}", *(f"{_cell(row[name]):>14}" for row in table.values()))
    print(f"{'':32}", *(f"{name:>14}" for name in table))
    if options.out:
        options.out.write_text(json.dumps(table, indent=1) + "\n")


def quality(encoder: OpenClipEncoder, split: str) -> dict[str, Any]:
    """Retrieval on captions/ with 95 % intervals, zero-shot and probes on Pets."""
    found = evaluate_retrieval(load_dataset(data_folder() / "captions"), encoder).metrics
    recalls = {name: value for name, value in found.items() if isinstance(value, float)}
    intervals = {f"{name} ci95": found["ci95"][name] for name in recalls if name in found["ci95"]}
    pets = load_labelled(data_folder(), split=split)
    zero_shot = {f"pets_{split}_zero_shot": evaluate_zeroshot(pets, encoder, templates="pets").metrics["acc1"]}
    spaces = {"probe": "projected", "backbone_probe": "backbone"}
    return recalls | intervals | zero_shot | {f"pets_{split}_{k}": probe(encoder, split, s) for k, s in spaces.items()}


def probe(encoder: OpenClipEncoder, split: str, space: str) -> float:
    """Accuracy of a linear probe on Pets trainval; when trainval is asked for too, on a fifth of it held back."""
    known = embed_once(load_labelled(data_folder(), split="trainval"), encoder, space=space)
    rows, labels = known.embeddings, np.array(known.dataset.labels)
    if split == "trainval":
        held = np.random.default_rng(0).permutation(len(rows)) < len(rows) // 5
        asked, truth, rows, labels = rows[held], labels[held], rows[~held], labels[~held]
    else:
        test = embed_once(load_labelled(data_folder(), split=split), encoder, space=space)
        asked, truth = test.embeddings, np.array(test.dataset.labels)
    return float((np.array(LinearProbe().fit(rows, list(labels)).predict(asked)) == truth).mean())


def speeds(encoders: list[OpenClipEncoder]) -> tuple[list[float], list[float]]:
    """Pictures per second from pixels to embeddings, and from the files of captions/ to a finished index; medians."""
    folder = data_folder() / "captions" / "images"
    count = sum(1 for _ in folder.iterdir())
    taken: list[list[tuple[float, float]]] = [[] for _ in encoders]
    for _ in range(ROUNDS):
        for times, encoder in zip(taken, encoders, strict=True):
            pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, 3, *encoder.recipe.size), np.uint8)
            started = time.perf_counter()
            encoder.encode_pixels(pixels)
            encoded = time.perf_counter()
            place = Path(tempfile.mkdtemp())
            ImageIndex.create(folder, encoder, at=place).update()
            times.append((PIXELS / (encoded - started), count / (time.perf_counter() - encoded)))
            shutil.rmtree(place)
    medians = [[statistics.median(column) for column in zip(*times, strict=True)] for times in taken]
    return [m[0] for m in medians], [m[1] for m in medians]


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "-".join(f"{end:.3f}" for end in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)[:12]


if __name__ == "__main__":
    main()
