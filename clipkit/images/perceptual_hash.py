"""Perceptual hash of a picture: 64 bits of its lowest frequencies, nearly the same for near copies.

References
----------
.. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipkit.images.recipe import Pixels

SIDE, LOWEST = 32, 8


def phash(pixels: Pixels) -> bytes:
    """pHash by the DCT of 32 x 32 grey values: which of its 8 x 8 lowest frequencies are above their median.

    pixels uint8 (3, height, width), of the whole picture -> 8 bytes, a row of frequencies each. Copies differ in few
    bits whatever their size. The same bits as imagehash's, which would load SciPy for the one new picture of a run.
    """
    image = Image.merge("RGB", [Image.fromarray(np.ascontiguousarray(band)) for band in pixels])
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _cosines() @ grey @ _cosines().T
    return np.packbits(low > np.median(low)).tobytes()


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """The LOWEST rows of the DCT-II of SIDE values, as SciPy scales it: (LOWEST, SIDE), float64."""
    frequencies, places = np.arange(LOWEST)[:, None], np.arange(SIDE)[None]
    return np.asarray(2 * np.cos(np.pi * frequencies * (2 * places + 1) / (2 * SIDE)))
