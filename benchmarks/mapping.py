"""Map: how long it takes to lay out and name 100,000 vectors, and how much memory; without thumbnails.

The vectors are made up: 60 clusters of several sizes, and a tenth that belongs to none.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from common import Target, fresh, peak_bytes, print_table, read_arguments, write

from clipkit.explore import mapping
from clipkit.models.load import load_encoder

SIZES = (1_000, 10_000, 100_000)
CLUSTERS, DIM = 60, 384


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        measure(int(arguments.child[0]))
        return
    sizes = SIZES[:1] if arguments.quick else SIZES
    found: dict[str, Any] = {f"{size:,} vectors": fresh(__file__, size) for size in sizes}
    print_table([("", "seconds", "GB"), *((name, one["seconds"], one["peak gb"]) for name, one in found.items())])
    last = list(found.values())[-1]
    targets = [Target("seconds of the largest", last["seconds"], 300), Target("its memory, GB", last["peak gb"], 2)]
    write("mapping", found, targets, arguments)


def measure(size: int) -> None:
    encoder = load_encoder("starter")
    vectors = made_up(size)
    mapping._pictures = lambda *_: (np.arange(size), tuple(f"{row}.jpg" for row in range(size)), vectors)
    started = time.perf_counter()
    found = mapping.map_collection(None, encoder=encoder)  # type: ignore[arg-type]
    taken = time.perf_counter() - started
    facts = {"clusters": len(found.names), "outliers": len(found.outliers), "peak gb": peak_bytes() / 1e9}
    print(json.dumps({"seconds": taken, **facts}))


def made_up(size: int) -> mapping.Half:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    rows = 0.8 * rng.standard_normal((size, DIM), dtype=np.float32)
    rows[size // 10 :] += centers[rng.integers(0, CLUSTERS, size - size // 10) ** 2 // CLUSTERS]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


if __name__ == "__main__":
    main()
