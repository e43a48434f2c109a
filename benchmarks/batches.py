"""Throughput and peak memory by how many pictures go through a tower at once on a CPU; pixels are ready."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from common import MB, fresh, peak_bytes, print_table, read_arguments, summary, write
from fixtures import random_vit

SIZES = (1, 2, 4, 8, 16, 32)
PICTURES, ROUNDS = 96, 3


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        _child(*arguments.child)
        return
    rounds, count = (1, 32) if arguments.quick else (ROUNDS, PICTURES)
    models = {"starter": "starter", "ViT-B-32, random weights": str(random_vit())}
    results: dict[str, Any] = {"pictures": count}
    rows: list[tuple[object, ...]] = [("pictures at once", "model", "pictures/s", "peak MB")]
    for name, model in models.items():
        results[name] = {}
        for size in SIZES:  # each in a fresh process: what malloc has learnt stays in it
            runs = [fresh(__file__, model, size, count) for _ in range(rounds)]
            rate = summary([run["rate"] for run in runs])
            results[name][size] = {"pictures_per_second": rate, "peak_mb": max(run["peak_mb"] for run in runs)}
            rows.append((size, name, rate["median"], results[name][size]["peak_mb"]))
    print_table(rows)
    write("batches", results, [], arguments)


def _child(model: str, size: str, count: str) -> None:
    from clipkit.models.load import load_encoder

    encoder = load_encoder(model, device="cpu", batch_size=int(size))
    pixels = np.random.default_rng(0).integers(0, 256, (int(count), 3, *encoder.recipe.size), np.uint8)
    encoder.encode_pixels(pixels[: 2 * int(size)])
    started = time.perf_counter()
    encoder.encode_pixels(pixels)
    rate = len(pixels) / (time.perf_counter() - started)
    print(json.dumps({"rate": rate, "peak_mb": peak_bytes() / MB}))


if __name__ == "__main__":
    main()
