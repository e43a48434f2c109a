"""Duplicates: of near copies made from photographs, how many are found at each level, and which pairs are wrong?

100 photographs each get one near copy (a crop, a smaller size, JPEG at quality 40, a mirror image, more light, words
across it, a border) and lie, with their copies, among 1,000 others. `before` is a cosine of .95 alone.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import fresh, peak_bytes, photographs, print_table, private_cache, read_arguments, scratch, seconds, write
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from clipkit.core.arrays import Embeddings
from clipkit.explore import duplicates
from clipkit.explore.choices import LEVELS
from clipkit.explore.duplicates import find_duplicates
from clipkit.index.image_index import ImageIndex
from clipkit.metrics import wilson
from clipkit.models.load import load_encoder

COPIES, OTHERS = 100, 1_000
SEEDS = (0, 1)  # the first chose the limit of 20 bits, the second did not
SPEED_SIZES = (10_000, 100_000)
DIM = 384


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        print_speed(int(arguments.child[0]))
        return
    data = photographs()
    if data is None:
        return
    private_cache("duplicates-cache")
    copies, others = (14, 100) if arguments.quick else (COPIES, OTHERS)
    samples = {f"sample {seed}": measure_sample(data, copies, others, seed) for seed in SEEDS}
    sizes = SPEED_SIZES[:1] if arguments.quick else SPEED_SIZES
    speed = {f"{size:,} random vectors and hashes": fresh(__file__, size) for size in sizes}
    write("duplicates", {"n": copies, "others": others, "samples": samples, "grouping": speed}, [], arguments)


def measure_sample(data: Path, copies: int, others: int, seed: int) -> dict[str, Any]:
    root = scratch("duplicates")
    edits = make_album(data, root, copies, others, seed)
    index = ImageIndex.create(root, load_encoder("starter"))
    index.update()
    found: dict[str, Any] = {"before: cosine .95 alone": measure(cosine_pairs(index), edits)}
    limit, duplicates.MOST_BITS = duplicates.MOST_BITS, 64
    found["near, whatever the hashes from a cosine of .95"] = measure(level_pairs(index, "near"), edits)
    duplicates.MOST_BITS = limit
    for level in LEVELS:
        found[level] = measure(level_pairs(index, level), edits)
    rows = [("", "found", "95 % interval", "false pairs")]
    rows += [(name, one["found"], one["ci95"], len(one["false pairs"])) for name, one in found.items()]
    print_table(rows)
    return found


def make_album(data: Path, root: Path, copies: int, others: int, seed: int) -> dict[str, str]:
    """The pictures in `root`; the name of each copy, and which edit made it."""
    files = sorted((data / "more_captions" / "images").rglob("*.*"))
    files = [file for file in files if file.suffix.lower() in (".jpg", ".png", ".webp")]
    chosen = np.random.default_rng(seed).permutation(len(files))[: copies + others]
    edits = {}
    names = list(EDITS)
    for number, row in enumerate(chosen.tolist()):
        name = f"{number:04}"
        shutil.copyfile(files[row], root / f"{name}{files[row].suffix}")
        if number < copies:
            edit = names[number % len(names)]
            edits[f"{name} copy.jpg"] = edit
            with Image.open(files[row]) as image:
                picture, quality = EDITS[edit](ImageOps.exif_transpose(image).convert("RGB"))
            picture.save(root / f"{name} copy.jpg", quality=quality)
    return edits


def cropped(image: Image.Image) -> tuple[Image.Image, int]:
    """90 % of each side, from the middle."""
    width, height = image.size
    box = (width // 20, height // 20, width - width // 20, height - height // 20)
    return image.crop(box), 90


def smaller(image: Image.Image) -> tuple[Image.Image, int]:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS), 90


def compressed(image: Image.Image) -> tuple[Image.Image, int]:
    return image, 40


def mirrored(image: Image.Image) -> tuple[Image.Image, int]:
    return ImageOps.mirror(image), 90


def lighter(image: Image.Image) -> tuple[Image.Image, int]:
    return ImageEnhance.Brightness(image).enhance(1.3), 90


def with_words(image: Image.Image) -> tuple[Image.Image, int]:
    picture = image.copy()
    ImageDraw.Draw(picture).text(
        (image.width * 0.1, image.height * 0.8), "© 2026 clipkit", "white", font_size=max(12, image.height // 12)
    )
    return picture, 90


def bordered(image: Image.Image) -> tuple[Image.Image, int]:
    return ImageOps.expand(image, max(2, image.width // 40), "white"), 90


EDITS: dict[str, Callable[[Image.Image], tuple[Image.Image, int]]] = {
    "crop 90 %": cropped,
    "half size": smaller,
    "JPEG 40": compressed,
    "mirror": mirrored,
    "brightness 1.3": lighter,
    "watermark": with_words,
    "border": bordered,
}


def cosine_pairs(index: ImageIndex) -> set[tuple[str, str]]:
    """All pairs with a cosine of .95, as the page had them."""
    rows: Embeddings = index.embeddings
    left, right = np.nonzero(np.triu(rows @ rows.T >= duplicates.SAME, 1))
    return {(index.paths[a], index.paths[b]) for a, b in zip(left.tolist(), right.tolist(), strict=True)}


def level_pairs(index: ImageIndex, level: Any) -> set[tuple[str, str]]:
    """The picture to keep and each other of its group."""
    groups = find_duplicates(index, level=level)
    return {(group[0].path, other.path) for group in groups for other in group[1:]}


def measure(pairs: set[tuple[str, str]], edits: dict[str, str]) -> dict[str, Any]:
    """Share of copies that stand beside their original, by edit too, and the pairs that are none of ours."""
    of_one = [pair for pair in pairs if pair[0][:4] == pair[1][:4]]
    right = Counter(edits[max(pair, key=lambda name: " copy" in name)] for pair in of_one)
    made = Counter(edits.values())
    share = sum(right.values()) / sum(made.values())
    low, high = wilson(share, sum(made.values()))
    return {
        "found": share,
        "ci95": [round(float(low), 3), round(float(high), 3)],
        "by edit": {edit: f"{right[edit]} of {count}" for edit, count in made.items()},
        "false pairs": sorted(sorted(pair) for pair in pairs - set(of_one)),
    }


def print_speed(size: int) -> None:
    """Grouping of random vectors with random hashes, one in ten of which has a near copy: seconds and memory."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((size, DIM), dtype=np.float32)
    rows[: size // 10] = rows[-(size // 10) :] + 0.2 * rng.standard_normal((size // 10, DIM), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    hashes = rng.integers(0, 2**64, size, dtype=np.uint64)
    signs = duplicates._Signs(rows.astype(np.float16), hashes, np.ones(size, np.bool_), np.zeros(size), is_burst=True)
    groups: list[list[int]] = []
    taken = seconds(lambda: groups.extend(duplicates._groups_around(signs, size)))
    print(
        json.dumps({"seconds": taken, "groups of two": sum(len(one) > 1 for one in groups), "peak bytes": peak_bytes()})
    )


if __name__ == "__main__":
    main()
