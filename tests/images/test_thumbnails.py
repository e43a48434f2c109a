"""Thumbnails: the right size, upright, and nothing but pixels."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ImageError
from clipkit.images.thumbnails import thumbnail, to_jpeg, to_palette, to_png


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("original", "size", "expected"),
    [
        ((400, 200), 100, (100, 50)),
        ((200, 400), 100, (50, 100)),
        ((401, 303), (100, 20), (26, 20)),
        ((401, 303), (20, 100), (20, 15)),
        ((100, 100), 100, (100, 100)),
        ((30, 20), 100, (30, 20)),
        ((30, 100), 100, (30, 100)),
        ((30, 20), (100, 10), (15, 10)),
        ((5000, 1), 100, (100, 1)),
        ((1, 1), 100, (1, 1)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_thumbnail_fits_and_is_never_enlarged(
    tmp_path: Path, original: tuple[int, int], size: int | tuple[int, int], expected: tuple[int, int], suffix: str
) -> None:
    file = tmp_path / f"picture.{suffix}"
    Image.new("RGB", original, (10, 200, 90)).save(file, quality=100)
    small = thumbnail(file, size)
    assert (small.width, small.height) == original
    assert small.canvas.shape == (expected[1], expected[0], 3)
    assert np.abs(small.canvas.astype(int) - (10, 200, 90)).max() <= 2  # no padding is left at any side


def test_a_picture_that_fits_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = noise(31, 17)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(thumbnail(tmp_path / "a.png", 31).canvas, pixels)
    assert np.array_equal(thumbnail(tmp_path / "a.png", 300).canvas, pixels)


def test_a_thumbnail_is_upright_and_over_white(tmp_path: Path) -> None:
    stored = noise(40, 20)
    for orientation, turned in {1: stored, 3: stored[::-1, ::-1], 6: np.rot90(stored, -1), 8: np.rot90(stored)}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
        small = thumbnail(tmp_path / "turned.png", 64)
        assert np.array_equal(small.canvas, turned)
        assert (small.height, small.width) == turned.shape[:2]
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (thumbnail(tmp_path / "clear.png", 64).canvas == 255).all()


def test_a_jpeg_keeps_the_colours_and_loses_the_position(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    Image.new("RGB", (300, 200), (200, 40, 90)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    data = to_jpeg(thumbnail(tmp_path / "a.jpg", 64).canvas)
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (64, 43), {})
        assert np.abs(np.asarray(image).astype(int) - (200, 40, 90)).max() <= 4
    assert b"SecretCamera" not in data


def test_png_and_palette_give_the_pixels_back() -> None:
    pixels = noise(12, 9)
    with Image.open(BytesIO(to_png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    palette, numbers = to_palette(pixels, 256)  # 108 colours: all of them fit
    assert np.array_equal(palette[0, numbers], pixels)
    few, numbers = to_palette(pixels, 4)
    assert few.shape == (1, 4, 3)
    assert numbers.max() <= 3


@pytest.mark.parametrize("content", [b"", b"words", b"\xff\xd8\xff nonsense", None])
def test_what_is_no_picture_is_an_image_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.jpg: "):
        thumbnail(tmp_path / "bad.jpg", 64)
