"""Base of the encoders: pictures, texts and tensors in, embeddings out; and the transform of a model's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, overload

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings
from clipkit.images.recipe import PixelRecipe
from clipkit.models.encoder import Encoder, PickledByName, check_pixels, encode_in_batches, encode_unique, read_picture

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    from clipkit.images.recipe import PictureSource

    Pictures: TypeAlias = Sequence[PictureSource | torch.Tensor] | torch.Tensor


@dataclass(frozen=True)
class Preprocess:
    """Transform of a model: one picture to the tensor that the model reads, as open_clip's `preprocess`.

    It may stand in a torchvision pipeline and in the workers of a DataLoader. Pixels are made as the encoder makes
    them: exactly as by open_clip's own transform with `load_encoder(..., exact_pixels=True)`, else nearly.

    Attributes
    ----------
    recipe : PixelRecipe
        Of the model.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> pixels = encoder.preprocess("photos/chelsea.png")
    >>> pixels.shape, pixels.dtype
    (torch.Size([3, 288, 288]), torch.float32)
    >>> import torch
    >>> encoder.encode_images(torch.stack([pixels])).shape
    (1, 384)
    """

    recipe: PixelRecipe

    def __call__(self, picture: PictureSource) -> torch.Tensor:
        """(3, height, width), float32, normalised by mean and std."""
        import torch

        pixels = torch.from_numpy(np.array(read_picture(picture, self.recipe).pixels))
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.recipe.mean, self.recipe.std))
        return pixels.float().div_(255).sub_(mean).div_(std)


class EncoderBase(PickledByName):
    """What the encoders share: the way of pictures and texts to embeddings."""

    recipe: PixelRecipe

    @property
    def preprocess(self) -> Preprocess:
        """Picture to the tensor that this model reads, as open_clip's `preprocess`; `encode_images` takes such tensors.

        Examples
        --------
        >>> encoder = clipkit.load_encoder("starter")
        >>> encoder.preprocess("photos/chelsea.png").shape
        torch.Size([3, 288, 288])
        """
        return Preprocess(self.recipe)

    @overload
    def encode_images(
        self, pictures: Pictures, *, space: str = "projected", as_tensor: Literal[False] = False
    ) -> Embeddings: ...
    @overload
    def encode_images(
        self, pictures: Pictures, *, space: str = "projected", as_tensor: Literal[True]
    ) -> torch.Tensor: ...
    def encode_images(
        self, pictures: Pictures, *, space: str = "projected", as_tensor: bool = False
    ) -> Embeddings | torch.Tensor:
        """Embeddings of pictures, decoded in threads and encoded in batches.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image, ndarray of shape (h, w, 3), uint8, or tensor; or one tensor
            RGB, of any sizes. Tensors of torch are uint8 (3, h, w), or what `preprocess` made; one of shape
            (n, 3, h, w) is n pictures.
        space : {"projected", "backbone"}, default "projected"
            The space of the texts, or the features before the projection, of a width of their own.
        as_tensor : bool, default False
            Return a tensor of torch, on the CPU.

        Returns
        -------
        ndarray or torch.Tensor of shape (n, d), float32
            In order; rows of length 1. d is `dim` in the projected space.

        Raises
        ------
        ImageError
            Names the first picture that cannot be read.
        ShapeError
            If `pictures` is one path instead of a list, a tensor is no picture, or the space is unknown.
        """
        return _as_asked(encode_in_batches(cast("Encoder", self), pictures, space), as_tensor)

    @overload
    def encode_texts(self, texts: Sequence[str], *, as_tensor: Literal[False] = False) -> Embeddings: ...
    @overload
    def encode_texts(self, texts: Sequence[str], *, as_tensor: Literal[True]) -> torch.Tensor: ...
    def encode_texts(self, texts: Sequence[str], *, as_tensor: bool = False) -> Embeddings | torch.Tensor:
        """Embeddings of texts; equal texts are encoded once.

        Parameters
        ----------
        texts : sequence of str
            What exceeds the model's context is cut off.
        as_tensor : bool, default False
            Return a tensor of torch, on the CPU.

        Returns
        -------
        ndarray or torch.Tensor of shape (n, dim), float32
            In order; rows of length 1.

        Raises
        ------
        ShapeError
            If `texts` is one text instead of a list.
        """
        return _as_asked(encode_unique(cast("Encoder", self), texts, self._encode_unique), as_tensor)

    def encode_pixels(self, pixels: npt.NDArray[np.uint8], *, space: str = "projected") -> Embeddings:
        """Embeddings of pixels that are decoded by this encoder's recipe.

        Parameters
        ----------
        pixels : ndarray of shape (n, 3, height, width), uint8
            RGB at the recipe's size, without mean and std.
        space : {"projected", "backbone"}, default "projected"
            As in `encode_images`.

        Returns
        -------
        ndarray of shape (n, d), float32
            In order; rows of length 1.

        Raises
        ------
        ShapeError
            If the pixels have another shape or type, or the space is unknown.
        """
        check_pixels(cast("Encoder", self), pixels, space)
        return self._encode_pixels(pixels, space)

    def _encode_pixels(self, pixels: npt.NDArray[np.uint8], space: str) -> Embeddings:
        raise NotImplementedError

    def _encode_unique(self, texts: list[str]) -> Embeddings:
        raise NotImplementedError


def _as_asked(embeddings: Embeddings, as_tensor: bool) -> Embeddings | torch.Tensor:
    if not as_tensor:
        return embeddings
    import torch

    return torch.from_numpy(np.array(embeddings))  # a copy: the array may be a cache's
