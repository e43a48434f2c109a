"""Pixel recipe of a model, and the pictures decoded by it, with their metadata."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

    PictureSource: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]  # (h, w, 3) RGB

Pixels = npt.NDArray[np.uint8]  # (3, height, width), RGB


@dataclass(frozen=True)
class PixelRecipe:
    """Pixel recipe: how a model wants its pictures, what open_clip calls `preprocess`, as data.

    Its text, `str(recipe)`, is one line that names all that changes a pixel; an index stores and compares it.

    Attributes
    ----------
    size : tuple of int
        (height, width) in pixels.
    mean, std : tuple of float
        Of each channel, for pixels from 0 to 1.
    interpolation : {"bicubic", "bilinear"}, default "bicubic"
        How pictures are resized.
    resize_mode : {"shortest", "longest", "squash"}, default "shortest"
        Resize the shorter side and crop the centre; resize the longer side and pad; or ignore proportions.
    fill_color : int, default 0
        Of the padding.
    exact : bool, default False
        Decode and resize exactly as open_clip's own transform does, instead of the fast path.

    Examples
    --------
    >>> half = (0.5, 0.5, 0.5)
    >>> recipe = clipkit.PixelRecipe(size=(224, 224), mean=half, std=half)
    >>> print(recipe)
    fast-1 224x224 shortest bicubic 0.5,0.5,0.5,0.5,0.5,0.5
    >>> clipkit.load_encoder("starter").recipe.size
    (288, 288)
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    exact: bool = False

    def __str__(self) -> str:
        """One line that says everything that changes a pixel; the index stores it and compares it."""
        numbers = ",".join(f"{value:.6g}" for value in (*self.mean, *self.std))
        fill = f" fill={self.fill_color}" if self.resize_mode == "longest" else ""
        return (
            f"{'exact' if self.exact else 'fast'}-1 {self.size[0]}x{self.size[1]} "
            f"{self.resize_mode} {self.interpolation}{fill} {numbers}"
        )


@dataclass(frozen=True)
class Metadata:
    """What a picture says of itself beside its pixels.

    Attributes
    ----------
    taken_at : str or None
        "YYYY-MM-DDTHH:MM:SS", by the clock of its own zone.
    camera : str or None
        Maker and model, as people name it.
    latitude, longitude : float or None
        In degrees; both or neither.
    rating : int or None
        Stars, 0 to 5.
    tags : tuple of str
        Keywords, each once.
    title : str or None
        In one language, the default one.
    lens : str or None
        Its model.
    exposure : str or None
        Time, aperture, sensitivity and focal length: "1/250 s, f/2.8, ISO 400, 35 mm".
    """

    taken_at: str | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None
    tags: tuple[str, ...] = ()
    title: str | None = None
    lens: str | None = None
    exposure: str | None = None

    def over(self, other: Metadata) -> Metadata:
        """This, and of `other` what this does not have; but of two dates that of `other`, which is the camera's."""
        changes = {one.name: getattr(self, one.name) for one in fields(self)}
        found = {name: value for name, value in changes.items() if value not in (None, ())}
        if other.taken_at:
            found.pop("taken_at", None)
        return replace(other, **found)


NO_METADATA = Metadata()


@dataclass(frozen=True)
class Picture:
    """A decoded picture, ready for the model but for mean and std.

    pixels: uint8 (3, height, width) at the recipe's size. width, height: of the upright original, in pixels.
    metadata: what the file says of itself. share: of its rows that are there, less than 1 for a JPEG that was cut off.
    phash: 8 bytes of the whole picture, where they were asked for.
    """

    pixels: Pixels
    width: int
    height: int
    metadata: Metadata = NO_METADATA
    share: float = 1.0
    phash: bytes | None = None

    @property
    def taken_at(self) -> str | None:
        """Date as "YYYY-MM-DDTHH:MM:SS"."""
        return self.metadata.taken_at
