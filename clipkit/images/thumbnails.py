"""Thumbnails: a picture at the size a person looks at, as pixels and as the bytes that pages and terminals take."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipkit.errors import ImageError
from clipkit.images import guarded_decoder
from clipkit.images.decode import Size, read_file
from clipkit.images.guarded_decoder import decode
from clipkit.images.recipe import NO_METADATA, Metadata, Picture, PixelRecipe

Canvas = npt.NDArray[np.uint8]  # (height, width, 3), RGB
JPEG_QUALITY = 82  # a photograph of 256 x 256 takes about 14 KB


@dataclass(frozen=True)
class Thumbnail:
    """A small picture. canvas: its pixels. width, height: of the upright original."""

    canvas: Canvas
    width: int
    height: int


def thumbnail(file: str | os.PathLike[str], size: int | Size) -> Thumbnail:
    """The first frame, upright, over white, as large as fits into `size` (one number: a square), never enlarged.

    Nothing but pixels is kept: no EXIF, no position, no embedded profile. ImageError where the file cannot be read.
    """
    box = (size, size) if isinstance(size, int) else size
    data, name = read_file(file), os.fspath(file)
    picture = decode(data, _recipe(box), name=name)
    original = (picture.width, picture.height)
    if original[0] < box[0] and original[1] < box[1]:
        box = original
        picture = decode(data, _recipe(box), name=name)
    return Thumbnail(_without_padding(picture, box), *original)


def file_metadata(file: str | os.PathLike[str]) -> Metadata:
    """What a picture says of itself now; nothing where it cannot be read."""
    try:
        return guarded_decoder.metadata(read_file(file), name=os.fspath(file))
    except ImageError:
        return NO_METADATA


def to_jpeg(canvas: Canvas) -> bytes:
    return _save(Image.fromarray(canvas), "JPEG", quality=JPEG_QUALITY, optimize=True)


def to_png(canvas: Canvas, facts: Mapping[str, str] | None = None) -> bytes:
    """A PNG file; facts: what it says of itself, in iTXt chunks."""
    about = PngInfo()
    for name, text in (facts or {}).items():
        about.add_itxt(name, text)
    return _save(Image.fromarray(canvas), "PNG", pnginfo=about)


def to_palette(canvas: Canvas, colours: int) -> tuple[Canvas, npt.NDArray[np.uint8]]:
    """The picture in at most `colours` colours: the palette (1, n, 3), and for each pixel which one (height, width)."""
    image = Image.fromarray(canvas).quantize(colours)
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(1, -1, 3)
    return palette, np.asarray(image)


def _recipe(box: Size) -> PixelRecipe:
    return PixelRecipe((box[1], box[0]), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize_mode="longest")


def _without_padding(picture: Picture, box: Size) -> Canvas:
    """What `decode` padded to fill the box is cut off again; both round alike."""
    ratio = max(picture.height / box[1], picture.width / box[0])
    width, height = (max(1, round(side / ratio)) for side in (picture.width, picture.height))
    left, top = (box[0] - width) // 2, (box[1] - height) // 2
    rows = picture.pixels.transpose(1, 2, 0)[top : top + height, left : left + width]
    return np.ascontiguousarray(rows)


def _save(image: Image.Image, form: str, **options: int | PngInfo) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
