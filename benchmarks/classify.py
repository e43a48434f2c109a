"""Cost of a large class list: 50,000 pictures, 1,000 classes, and their eighty templates for the first time."""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Target,
    fresh,
    interleaved,
    print_table,
    private_cache,
    read_arguments,
    seconds,
    summary,
    write,
)
from fixtures import DIM, random_vit, unit_rows

from clipkit.classify.head import Head
from clipkit.classify.words import class_prompts, ensemble
from clipkit.models.load import load_encoder

ROWS, CLASSES, ROUNDS = 50_000, 1_000, 5
TEMPLATES = 80
LIMIT_S = 360.0  # on a busy machine; what is left out is in the result
FIRST_TIME_S, CLASSIFY_S, CLASSIFY_MB = 240.0, 2.0, 200.0


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        print(json.dumps(first_time(*arguments.child)))
        return
    results, targets = speed(arguments)
    write("classify", results, targets, arguments)


def speed(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Target]]:
    """A large collection against many classes, and their eighty templates for the first time."""
    rows = ROWS // 10 if arguments.quick else ROWS
    embeddings = np.concatenate(list(unit_rows(rows))).astype(np.float32)
    weight = np.concatenate(list(unit_rows(CLASSES, seed=2))).astype(np.float32)
    names = tuple(str(i) for i in range(CLASSES))
    head = Head(names, weight, np.zeros(CLASSES, np.float32), 100.0, "random", "f")
    run = f"{rows:,} x {CLASSES:,} x {DIM}"
    taken = interleaved({"ranked": lambda: head.ranked(embeddings)}, 2 if arguments.quick else ROUNDS)["ranked"]
    tracemalloc.start()
    head.ranked(embeddings)
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    print_table([("classify " + run, "seconds", "MB beyond the embeddings"), ("", min(taken), peak_mb)])
    results: dict[str, Any] = {"classify": {"size": run, "seconds": summary(taken), "peak_mb": peak_mb}}
    targets = [
        Target(f"classify {run}, seconds (median)", summary(taken)["median"], CLASSIFY_S),
        Target("memory beyond the embeddings, MB", peak_mb, CLASSIFY_MB),
    ]
    models = {"starter": "starter", "ViT-B-32, random weights": str(random_vit())}
    for name, source in models.items():
        said = fresh(__file__, source, 1 if arguments.quick else TEMPLATES)
        print_table([(name, *said), ("", *said.values())])
        results[f"1,000 classes, {name}"] = said
        if said["prompts"] == CLASSES * TEMPLATES:
            targets.append(Target(f"1,000 classes x 80 templates, {name}, seconds", said["first_s"], FIRST_TIME_S))
    return results, targets


def first_time(source: str, templates: str) -> dict[str, float]:
    """The class matrix of ImageNet in an empty cache, and again; of fewer templates where 80 would take too long."""
    private_cache(f"zeroshot-first-{Path(source).name}")
    encoder = load_encoder(source)
    prompts = class_prompts("imagenet", "imagenet").prompts
    trial = [text for group in prompts[::10] for text in group[::4]]  # 2,000 of every length
    rate = len(trial) / seconds(lambda: encoder.encode_texts(trial))
    count = min(int(templates), max(1, int(LIMIT_S * rate / len(prompts))))
    groups = [group[:count] for group in prompts]
    first, again = (seconds(lambda: ensemble(encoder, groups)) for _ in range(2))
    said = {"prompts": sum(map(len, groups)), "first_s": first, "again_s": again}
    return {**said, "prompts_per_s": said["prompts"] / first}


if __name__ == "__main__":
    sys.exit(main())
