"""Pictures of one colour, and an encoder that knows them: a picture is its mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipkit.core.arrays import Embeddings
from clipkit.images.decode import decode, from_image, read_file
from clipkit.images.recipe import PixelRecipe

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
}


class ColourEncoder:
    """A picture is its mean colour, a word the colour it names, any other text grey: the right answer is known.

    Its backbone features are the mean colour and its squares, seven numbers.
    """

    model = "colour"
    source = "colour"
    engine, precision = "torch", "float32"
    dim = 4
    logit_scale = 100.0
    logit_bias = 0.0

    def __init__(self, *, fingerprint: str = "c0" * 32, batch_size: int = 4, exact: bool = False) -> None:
        self.fingerprint = fingerprint
        self.batch_size = batch_size
        self.recipe = PixelRecipe((8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), exact=exact)
        self.encoded = 0

    def encode_images(self, pictures: Sequence[object], *, space: str = "projected") -> Embeddings:
        if not pictures:
            return np.empty((0, 7 if space == "backbone" else 4), np.float32)
        decoded = [
            decode(read_file(p), self.recipe, name=str(p))
            if isinstance(p, str | os.PathLike)
            else from_image(p, self.recipe)  # type: ignore[arg-type]
            for p in pictures
        ]
        return self.encode_pixels(np.stack([picture.pixels for picture in decoded]), space=space)

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        self.encoded += len(pixels)
        colours = pixels.reshape(len(pixels), 3, -1).mean(axis=2)
        return _unit(np.concatenate([colours, colours**2 / 255], axis=1) if space == "backbone" else colours)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return _unit(np.array([COLOURS.get(text, COLOURS["grey"]) for text in texts], dtype=np.float32))


def _unit(colours: np.ndarray) -> Embeddings:
    rows = np.concatenate([colours.astype(np.float32) / 255, np.full((len(colours), 1), 0.1, np.float32)], axis=1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def paint(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> Path:
    """A picture of one colour; the suffix says the format. PNG and BMP keep the colour exactly."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)
    return file


def shade(number: int) -> tuple[int, int, int]:
    """A colour of its own for every number below 2 million or so."""
    return (number * 67 % 256, (number // 256 * 31 + number * 13) % 256, (number * 101 + number // 7) % 256)
