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
# benchmarks/duplicates.py has what each of them gives.
SAME = 0.95  # cosine of near copies, whatever their hashes say
ALIKE = 0.7  # cosine of near copies whose hashes agree
BITS = 12  # of 64 in which the perceptual hashes of near copies may differ
MOST_BITS = 20  # the same where the cosine alone would do: small models give .95 to other scenes of one kind, too
MIRROR = np.uint64(0x5555_5555_5555_5555)  # the odd horizontal frequencies, which change their sign in a mirror
SET_BITS = (24, 40)  # of the hash of a picture with some structure; one colour all over says nothing

Hashes = npt.NDArray[np.uint64]


def phash(pixels: Pixels) -> bytes:
    """pHash by the DCT of 32 x 32 grey values: which of its 8 x 8 lowest frequencies are above their median.

    pixels uint8 (3, height, width), of the whole picture -> 8 bytes, a row of frequencies each. Copies differ in few
    bits whatever their size. The same bits as imagehash's, which would load SciPy for the one new picture of a run.
    """
    image = Image.merge("RGB", [Image.fromarray(np.ascontiguousarray(band)) for band in pixels])
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = np.round(_cosines() @ grey @ _cosines().T, 6)  # of one colour all over there is only rounding, of any sign
    return np.packbits(low > np.median(low)).tobytes()


def have_structure(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Whether these hashes (n,) say anything."""
    count = np.bitwise_count(hashes)
    return np.asarray((count >= SET_BITS[0]) & (count <= SET_BITS[1]), dtype=np.bool_)


def are_near_copies(
    different: Hashes,
    cosines: npt.NDArray[np.float32],
    *,
    are_hashed: npt.NDArray[np.bool_],
    most_bits: int = MOST_BITS,
) -> npt.NDArray[np.bool_]:
    """Whether pairs of pictures with cosines (n,) of ALIKE or more are copies of each other.

    different: (n,), where their hashes differ. are_hashed: whether both hashes say anything.
    """
    bits = np.minimum(np.bitwise_count(different), np.bitwise_count(different ^ MIRROR))
    is_alike = (cosines >= SAME) & ~(are_hashed & (bits > most_bits)) | are_hashed & (bits <= BITS)
    return np.asarray(is_alike, dtype=np.bool_)


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """The LOWEST rows of the DCT-II of SIDE values, as SciPy scales it: (LOWEST, SIDE), float64."""
    frequencies, places = np.arange(LOWEST)[:, None], np.arange(SIDE)[None]
    return np.asarray(2 * np.cos(np.pi * frequencies * (2 * places + 1) / (2 * SIDE)))
