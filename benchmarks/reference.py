"""Published zero-shot numbers on Oxford-IIIT Pet, measured again. For a reader with a network: NOT RUN by the authors.

    python benchmarks/reference.py --data FOLDER --download            every model below, some 4 GB of weights
    python benchmarks/reference.py --data FOLDER ViT-B-32/openai       one

The protocol is CLIP_benchmark's: all 3,669 test pictures, open_clip's own preprocessing, "a photo of a {c}, a type of
pet.", mean per class recall. Ends with 1 where a number is further than a point from what was published.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import print_table

from clipkit.datasets.load import Dataset, load_dataset
from clipkit.errors import ClipkitError
from clipkit.evaluate.zeroshot import evaluate_zeroshot
from clipkit.models.load import load_encoder

PICTURES = 3_669
POINT = 0.01
PUBLISHED = {
    "ViT-B-32/openai": 0.870,
    "ViT-B-32/laion2b_s34b_b79k": 0.908,
    "ViT-B-32-256/datacomp_s34b_b86k": 0.912,
    "ViT-B-16/openai": 0.889,
    "ViT-B-16/dfn2b": 0.937,
    "ViT-B-16-SigLIP-256/webli": 0.942,
    "ViT-L-14/openai": 0.932,
    "ViT-L-14/datacomp_xl_s13b_b90k": 0.951,
}


def main(arguments: list[str] | None = None) -> int:
    asked = _read_arguments(arguments)
    pictures = load_dataset(asked.data, split="test", download=asked.download)
    is_whole = len(pictures) == PICTURES
    if not is_whole:
        print(f"{len(pictures):,} pictures, not {PICTURES:,}: a trial of this script, no reproduction")
    rows = [(name, *_measure(pictures, name)) for name in asked.models]
    print_table([("model", "published", "here", "low", "high", "note"), *rows])
    is_off = [
        PUBLISHED.get(name) is not None and not abs(found - PUBLISHED[name]) <= POINT for name, _, found, *_ in rows
    ]
    return int(is_whole and any(is_off))


def _read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(PUBLISHED), help="default: all that are published")
    parser.add_argument("--data", type=Path, required=True, help="where oxford-iiit-pet is, or shall be")
    parser.add_argument("--download", action="store_true", help="fetch the pictures (790 MB) if they are not there")
    return parser.parse_args(arguments)


def _measure(pictures: Dataset, model: str) -> tuple[Any, ...]:
    """Published and measured mean per class recall, its interval, and why there is none."""
    published = PUBLISHED.get(model, "-")
    try:
        encoder = load_encoder(
            model, precision="float32", exact_pixels=True, notify=lambda text: print(text, flush=True)
        )
        metrics = evaluate_zeroshot(pictures, encoder, templates="pets").metrics
    except ClipkitError as error:
        return published, float("nan"), "-", "-", error.message
    return published, metrics["mean_per_class_recall"], *metrics["ci95"]["mean_per_class_recall"], ""


if __name__ == "__main__":
    sys.exit(main())
