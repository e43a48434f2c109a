"""Motion photos: a JPEG with a video behind its end."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipkit.images import guarded_decoder
from clipkit.images.decode import cost_bytes, decode, decode_whole
from clipkit.images.recipe import PixelRecipe


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_only_the_still_of_a_motion_photo_is_decoded(progressive: bool, exact: bool) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", progressive=progressive)
    video = np.random.default_rng(2).integers(0, 255, 6_000_000, dtype=np.uint8).tobytes()  # as a phone writes it
    still, motion = stream.getvalue(), stream.getvalue() + b"\0\0\0\x18ftypmp42" + video
    recipe = PixelRecipe((64, 64), (0.5,) * 3, (0.5,) * 3, exact=exact)
    expected, found = decode(still, recipe, name=""), decode(motion, recipe, name="")
    assert np.array_equal(expected.pixels, found.pixels)
    assert (found.width, found.height, found.share) == (400, 300, 1)
    assert np.array_equal(decode_whole(motion, name=""), decode_whole(still, name=""))
    assert np.array_equal(guarded_decoder.decode(motion, recipe, name="").pixels, expected.pixels)
    assert cost_bytes(motion, recipe) == cost_bytes(still, recipe)
