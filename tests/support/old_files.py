"""Files of version 0.1: where they lie, and the pictures they are of. That version runs this too: no clipkit here."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

OLD_FILES = Path(__file__).parents[1] / "data" / "v0.1"
COUNT = 12
DATE_NS = 1_700_000_000_123_456_789
CHANGED = (5, 6)  # whose content changed after they were indexed; the run that read them again died between the two
GONE = 3
BAD = b"no picture"


def paint_picture(file: Path, number: int) -> Path:
    """A picture of two colours and some noise: the same bytes on every machine, because BMP is not compressed."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 32, (48, 64, 3), dtype=np.uint8)
    pixels[:, : 16 + 3 * (number % 12)] += rng.integers(0, 220, 3, dtype=np.uint8)
    pixels[24:] += rng.integers(0, 220, 3, dtype=np.uint8) // 2
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    os.utime(file, ns=(DATE_NS, DATE_NS))
    return file


def paint_indexed(root: Path) -> Path:
    """The folder as it was first indexed."""
    for number in range(COUNT):
        paint_picture(root / f"{number:02}.bmp", number)
    (root / "bad.bmp").write_bytes(BAD)
    os.utime(root / "bad.bmp", ns=(DATE_NS, DATE_NS))
    return root


def change_pictures(root: Path) -> Path:
    """What happened to the folder since then."""
    for number in CHANGED:
        file = paint_picture(root / f"{number:02}.bmp", number + 100)
        os.utime(file, ns=(DATE_NS + 10**9, DATE_NS + 10**9))
    (root / f"{GONE:02}.bmp").unlink(missing_ok=True)
    return root


def move_old_content(root: Path) -> Path:
    """The old content of the first of CHANGED comes back under another name."""
    return paint_picture(root / "came back.bmp", CHANGED[0])


def paint_classes(root: Path) -> Path:
    """A dataset of three classes, twelve pictures each."""
    for place, name in enumerate(("dark", "mixed", "pale")):
        for number in range(12):
            rng = np.random.default_rng(1000 * place + number)
            pixels = rng.integers(60 * place, 60 * place + 100, (32, 32, 3), dtype=np.uint8)
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{number:02}.bmp")
    return root
