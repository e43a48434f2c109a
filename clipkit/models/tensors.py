"""Torch tensors as pictures: what users of torchvision and open_clip have in their hands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.errors import ShapeError
from clipkit.images.recipe import Picture, PixelRecipe

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

FROM_ZERO_TO_ONE = 0.5  # values that all lie there and are so far apart are those of ToTensor, without mean and std
_HINT = "encoder.preprocess(picture) makes what is read; or uint8 (3, h, w)"


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether this is a tensor of torch, which is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def from_tensor(tensor: torch.Tensor, recipe: PixelRecipe) -> Picture:
    """A picture of a tensor: uint8 (3, h, w) or (1, h, w) of any size, or what `Preprocess` made, in floating point.

    The latter is rounded to the 256 steps of a picture. ShapeError for anything else.
    """
    from clipkit.images.decode import from_image

    array = np.asarray(tensor.detach().cpu().float() if tensor.is_floating_point() else tensor.detach().cpu())
    if array.ndim != 3 or array.shape[0] not in (1, 3) or array.dtype not in (np.uint8, np.float32):
        raise ShapeError(f"a tensor of {array.dtype} {array.shape} is no picture (3, h, w)", hint=_HINT)
    if array.dtype == np.uint8:
        return from_image(as_picture(tensor), recipe)
    return _denormalised(array, recipe)


def as_picture(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Pixels (h, w, 3) of a uint8 tensor (3, h, w) or (1, h, w); ShapeError for floating point, whose mean and std
    nobody has told.
    """
    array = np.asarray(tensor.detach().cpu())
    if array.ndim != 3 or array.shape[0] not in (1, 3) or array.dtype != np.uint8:
        raise ShapeError(
            f"a tensor of {array.dtype} {array.shape} cannot be shown",
            hint="pictures as they were before the transform: DATASET.files; or uint8 (3, h, w)",
        )
    return np.ascontiguousarray(np.broadcast_to(array, (3, *array.shape[1:])).transpose(1, 2, 0))


def _denormalised(values: Any, recipe: PixelRecipe) -> Picture:
    height, width = recipe.size
    if values.shape != (3, height, width):
        raise ShapeError(f"a float tensor {values.shape} is not (3, {height}, {width}), as the model reads", hint=_HINT)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high) or (low >= 0 and high <= 1 and high - low > FROM_ZERO_TO_ONE):
        raise ShapeError(f"a float tensor from {low:.3g} to {high:.3g} is not normalised by mean and std", hint=_HINT)
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (recipe.mean, recipe.std))
    pixels = np.clip(np.rint((values * std + mean) * 255), 0, 255).astype(np.uint8)
    return Picture(pixels, width, height)
