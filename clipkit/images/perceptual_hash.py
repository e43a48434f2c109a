"""Perceptual hash of a picture: 64 bits of its lowest frequencies, nearly the same for near copies.

References
----------
.. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from clipkit.images.recipe import Pixels


def phash(pixels: Pixels) -> bytes:
    """pHash by the DCT of 32 x 32 grey values: which of its 8 x 8 lowest frequencies are above their median.

    pixels uint8 (3, height, width), of the whole picture -> 8 bytes, a row of frequencies each. Copies differ in few
    bits whatever their size.
    """
    import imagehash

    image = Image.merge("RGB", [Image.fromarray(np.ascontiguousarray(band)) for band in pixels])
    return np.packbits(imagehash.phash(image).hash).tobytes()
