"""Random views of a picture for training: crop, resize, flip."""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np

from clipkit.images.recipe import PixelRecipe, Pixels
from clipkit.images.thumbnails import Canvas, thumbnail

CANVAS = 2  # times the model's side: crops of less than a quarter of the area are enlarged
RATIOS = (3 / 4, 4 / 3)  # of width to height, as everywhere since GoogLeNet
TRIES = 10


def read_canvas(file: str | os.PathLike[str], recipe: PixelRecipe) -> Canvas:
    """The whole picture, upright, at a size that is enough to cut views from: (h, w, 3)."""
    return thumbnail(file, CANVAS * max(recipe.size)).canvas


def random_view(canvas: Canvas, recipe: PixelRecipe, rng: np.random.Generator, *, smallest: float) -> Pixels:
    """A random part of the picture at the model's size, mirrored or not: (3, height, width).

    The part has at least `smallest` of the area and 3:4 to 4:3 of proportions: random resized crop and flip.
    """
    from torch import from_numpy
    from torch.nn.functional import interpolate

    top, left, height, width = random_box(canvas.shape[0], canvas.shape[1], rng, smallest=smallest)
    part = canvas[top : top + height, left : left + width]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    batch = from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]  # uint8: torch stays in this thread
    view: Pixels = interpolate(batch, size=recipe.size, mode=recipe.interpolation, antialias=True)[0].numpy()
    return np.ascontiguousarray(view)


def random_box(height: int, width: int, rng: np.random.Generator, *, smallest: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part; where none fits, the largest of the nearest proportions."""
    for _ in range(TRIES):
        area = height * width * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = max(1, min(width, round(height * RATIOS[1])))
    h = max(1, min(height, round(width / RATIOS[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def rng_for(content: str, *numbers: int) -> np.random.Generator:
    """The same for the same content and numbers, wherever the picture lies and whatever others are there."""
    return np.random.default_rng([int(hashlib.sha256(content.encode()).hexdigest()[:16], 16), *numbers])
