"""The two resizers of JPEGs against each other: torch's, where it is loaded, and Pillow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipkit.images import decode
from clipkit.images.recipe import PixelRecipe

HALF = (0.5, 0.5, 0.5)


@pytest.mark.real
@pytest.mark.parametrize("side", [224, 288])
def test_both_give_the_same_pixels_but_for_rounding(
    side: int, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = PixelRecipe((side, side), HALF, HALF)
    files = sorted((real_data / "captions").rglob("*.jpg"))[:40]
    monkeypatch.setattr(decode, "_resize_rows", decode._resized_by_torch)
    by_torch = [decode.decode(file.read_bytes(), recipe, name=file.name).pixels.astype(int) for file in files]
    monkeypatch.setattr(decode, "_resize_rows", decode._resized_by_pillow)
    by_pillow = [decode.decode(file.read_bytes(), recipe, name=file.name).pixels.astype(int) for file in files]
    difference = np.abs(np.stack(by_torch) - np.stack(by_pillow))
    assert difference.max() <= 2
    assert (difference == 1).mean() < 0.005
    assert (difference == 2).mean() < 1e-5
