"""Agreement of int8 embeddings with float32 on the pictures of a new index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt

from clipkit.core.system import usable_cores
from clipkit.errors import ImageError, ModelError
from clipkit.images.recipe import PixelRecipe
from clipkit.models.devices import FLOAT32, INT8
from clipkit.models.encoder import Encoder, read_picture
from clipkit.models.int8 import LEAST_OVERLAP, Agreement, neighbor_overlap, note_agreement, read_agreement
from clipkit.models.load import load_encoder
from clipkit.models.onnx import OnnxEncoder
from clipkit.store.records import ScannedFile

SAMPLE = 200  # pictures, the first of the folder


def check_agreement(encoder: Encoder, root: str, found: Sequence[ScannedFile], *, hint: str) -> None:
    """ModelError with `hint` where int8 finds too few of the neighbours that float32 finds among these pictures.

    Measured once for a model, and again in a folder that has more pictures for it; only for int8.
    """
    if not isinstance(encoder, OnnxEncoder) or encoder.export.precision != INT8:
        return
    files = [os.path.join(root, file.path) for file in sorted(found, key=lambda file: file.path)[:SAMPLE]]
    known = read_agreement(encoder.export)
    if known is None or known.pictures < len(files):
        known = _measure(encoder, files)
        note_agreement(encoder.export, known)
    if known.overlap < LEAST_OVERLAP:
        fact = f"of the pictures nearest to each of {known.pictures} int8 finds {known.overlap:.0%} that float32 finds"
        raise ModelError(
            f"{encoder.model} loses too much in int8: {fact}, and {LEAST_OVERLAP:.0%} are asked", hint=hint
        )


def _measure(encoder: OnnxEncoder, files: Sequence[str]) -> Agreement:
    exact = encoder.recipe.exact
    in_float = load_encoder(encoder.source, engine="onnx", precision=FLOAT32, exact_pixels=exact)
    pairs = [(encoder.encode_pixels(batch), in_float.encode_pixels(batch)) for batch in _pixels(files, encoder.recipe)]
    if not pairs:
        return Agreement(0, 1.0)
    ours, theirs = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    return Agreement(len(files), neighbor_overlap(ours, theirs))


def _pixels(files: Sequence[str], recipe: PixelRecipe, size: int = 32) -> Iterator[npt.NDArray[np.uint8]]:
    """(n, 3, h, w) of those that can be read, `size` files at a time."""
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        for start in range(0, len(files), size):
            read = pool.map(partial(_pixels_of, recipe=recipe), files[start : start + size])
            if batch := [pixels for pixels in read if pixels is not None]:
                yield np.stack(batch)


def _pixels_of(file: str, recipe: PixelRecipe) -> npt.NDArray[np.uint8] | None:
    with suppress(ImageError):
        return read_picture(file, recipe).pixels
    return None
