"""`Encoder` protocol: what turns pictures and words into embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings
from clipkit.core.text import described, readable
from clipkit.errors import ModelError, ModelMismatch, ShapeError
from clipkit.images.recipe import Picture, PixelRecipe
from clipkit.models.tensors import from_tensor, is_tensor

if TYPE_CHECKING:
    import torch

    from clipkit.images.recipe import PictureSource

SPACES = ("projected", "backbone")
UNRECORDED = "float"  # a precision of plain floating point, where nobody wrote down which
_FLOATING = frozenset({"float32", "bfloat16", "float16", UNRECORDED})


class Encoder(Protocol):
    """Protocol of what turns pictures and texts into embeddings.

    Every function of clipkit that takes an encoder takes any object with these members. Embeddings are float32, of
    shape (n, dim), and every row has length 1.

    Attributes
    ----------
    model : str
        Canonical name of the model.
    source : str
        What `load_encoder` takes to find it again.
    fingerprint : str
        SHA-256 of the weights.
    engine : str
        What computes: "torch", for instance.
    precision : str
        Of the towers: "float32", or "bfloat16 float32" where images and texts differ. Embeddings of another engine or
        precision are slightly other numbers.
    dim : int
        Width of the embeddings.
    recipe : PixelRecipe
        How it wants its pictures.
    logit_scale, logit_bias : float
        A cosine c means the logit `logit_scale * c + logit_bias`.
    batch_size : int
        Pictures encoded together.

    See Also
    --------
    load_encoder : Loads one by name.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> encoder.dim, encoder.engine
    (384, 'onnx')
    >>> images = encoder.encode_images(["photos/chelsea.png"])
    >>> texts = encoder.encode_texts(["a cat", "a rocket"])
    >>> cosines = images @ texts.T  # (1, 2)
    >>> int(cosines.argmax())
    0
    """

    @property
    def model(self) -> str:
        """Canonical name."""

    @property
    def source(self) -> str:
        """What `load_encoder` takes to find it again."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""

    @property
    def engine(self) -> str:
        """What computes, "torch" for instance."""

    @property
    def precision(self) -> str:
        """Precision of its towers: one name, or two where images and texts differ."""

    @property
    def dim(self) -> int:
        """Width of the embeddings."""

    @property
    def recipe(self) -> PixelRecipe:
        """How it wants its pictures."""

    @property
    def logit_scale(self) -> float:
        """Factor from cosines to logits."""

    @property
    def logit_bias(self) -> float:
        """What is added to logits; 0 for models trained with a softmax."""

    @property
    def batch_size(self) -> int:
        """Pictures encoded together."""

    def encode_images(self, pictures: Sequence[PictureSource], *, space: str = "projected") -> Embeddings:
        """Embeddings of pictures.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            RGB, of any sizes.
        space : {"projected", "backbone"}, default "projected"
            The space of the texts, or the features before the projection, of a width of their own.

        Returns
        -------
        ndarray of shape (n, d), float32
            In order; rows of length 1.
        """

    def encode_pixels(self, pixels: npt.NDArray[np.uint8], *, space: str = "projected") -> Embeddings:
        """Embeddings of pixels that are decoded by this encoder's recipe.

        Parameters
        ----------
        pixels : ndarray of shape (n, 3, height, width), uint8
            RGB, without mean and std.
        space : {"projected", "backbone"}, default "projected"
            As in `encode_images`.

        Returns
        -------
        ndarray of shape (n, d), float32
            In order; rows of length 1.
        """

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings of texts.

        Parameters
        ----------
        texts : sequence of str
            What exceeds the model's context is cut off.

        Returns
        -------
        ndarray of shape (n, dim), float32
            In order; rows of length 1.
        """


class PickledByName:
    """Base of encoders that pickle as what `load_encoder` was asked for, and are loaded again in the other process.

    A copy is the encoder itself, so that scikit-learn's `clone` loads nothing: an encoder does not change.
    """

    model: str
    source: str
    fingerprint: str
    model_cfg_sha256: str
    _load: Callable[[str], Encoder] | None

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[Any, ...]]:
        if self._load is None:
            raise ModelError(
                f"this encoder of {self.model} was not made by load_encoder, and nothing says how to load it again",
                hint=f"load_encoder({self.source!r}), and pickle that",
            )
        made = (getattr(self, "engine", ""), getattr(self, "precision", ""))
        return load_again, (self._load, self.source, self.fingerprint, self.model_cfg_sha256, made)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def load_again(
    load: Callable[[str], Encoder], source: str, fingerprint: str, config: str, made: tuple[str, str]
) -> Encoder:
    """The encoder that was pickled; ModelMismatch where `source` has other weights here, or is computed otherwise."""
    encoder = load(source)
    if encoder.fingerprint != fingerprint or getattr(encoder, "model_cfg_sha256", config) != config:
        raise ModelMismatch(
            f"{source} has other weights here than where its encoder was pickled",
            hint="the same weights in both places, or the embeddings made anew",
        )
    if not embeddings_agree(made, (encoder.engine, encoder.precision)):
        raise ModelMismatch(
            f"{source} is computed in {encoder.precision} by {encoder.engine} here, and its encoder was pickled where "
            f"that was {made[1]} by {made[0]}",
            hint="the same engine and precision in both places",
        )
    return encoder


def embeddings_agree(made: tuple[str, str], asked: tuple[str, str]) -> bool:
    """Whether the same weights give the same embeddings under two pairs of engine and precision.

    Plain floating point agrees to 1e-3, whatever the engine and the number of bits, and may be mixed in one index.
    Anything else, int8 say, agrees with its own engine and precision alone.
    """
    return made == asked or all(set(precision.split(" ")) <= _FLOATING for _, precision in (made, asked))


def encoder_repr(encoder: Encoder) -> str:
    """The `repr` of an encoder: its model, its width, and what computes."""
    return described(encoder, repr(encoder.model), f"dim={encoder.dim}", f"{encoder.engine}, {encoder.precision}")


def identity(encoder: Encoder) -> list[str]:
    """All of an encoder that decides its embeddings, for the key of a cache."""
    config = getattr(encoder, "model_cfg_sha256", "")  # an encoder made by hand has none
    return [encoder.model, encoder.fingerprint, config, encoder.engine, encoder.precision, str(encoder.recipe)]


def encode_in_batches(encoder: Encoder, pictures: Sequence[Any] | torch.Tensor, space: str) -> Embeddings:
    """`encode_images` for an encoder that has `encode_pixels`: decoded in threads, a batch at a time."""
    if isinstance(pictures, str | os.PathLike):
        raise ShapeError("encode_images takes a list of pictures", hint=f"encode_images([{str(pictures)!r}])")
    if not hasattr(pictures, "__len__"):  # a Pillow image, a generator
        raise ShapeError(
            f"encode_images takes a list of pictures, and this is one {type(pictures).__name__}",
            hint="encode_images([picture]), or list(pictures)",
        )
    if is_tensor(pictures) and pictures.ndim != 4:
        raise ShapeError(
            f"a tensor of pictures is (n, 3, h, w), not {tuple(pictures.shape)}", hint="encode_images([picture])"
        )
    if not len(pictures):
        return encoder.encode_pixels(np.empty((0, 3, *encoder.recipe.size), np.uint8), space=space)
    parts = []
    step = encoder.batch_size  # not all at once: pixels are 100 times the vectors; may halve while the loop runs
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(pictures), step):
            batch = pool.map(partial(read_picture, recipe=encoder.recipe), pictures[start : start + step])
            parts.append(encoder.encode_pixels(np.stack([picture.pixels for picture in batch]), space=space))
    return np.concatenate(parts)


def read_picture(picture: PictureSource | torch.Tensor, recipe: PixelRecipe) -> Picture:
    """A picture of any kind by a recipe; ImageError where it cannot be read."""
    from clipkit.images.decode import from_image, read_file
    from clipkit.images.guarded_decoder import decode

    if isinstance(picture, str | os.PathLike):
        return decode(read_file(picture), recipe, name=os.fspath(picture))
    if is_tensor(picture):
        return from_tensor(picture, recipe)
    return from_image(picture, recipe)


def refuse_name(encoder: object) -> None:
    """ModelError where the name of a model stands for the model."""
    if isinstance(encoder, str | os.PathLike):
        name = str(encoder)
        raise ModelError(f"{name!r} is a name, and no model", hint=f"clipkit.load_encoder({name!r}) loads it")


def check_pixels(encoder: Encoder, pixels: npt.NDArray[np.uint8], space: str) -> None:
    """ShapeError where pixels are not what the encoder reads, or the space is unknown."""
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, *encoder.recipe.size):
        wanted = f"uint8 (n, 3, {encoder.recipe.size[0]}, {encoder.recipe.size[1]})"
        raise ShapeError(f"pixels are {pixels.dtype} {pixels.shape}, and {encoder.model} reads {wanted}")
    if space not in SPACES:
        raise ShapeError(f"the space is {space!r}, not one of {', '.join(SPACES)}")


def encode_unique(encoder: Encoder, texts: Sequence[str], encode: Callable[[list[str]], Embeddings]) -> Embeddings:
    """`encode_texts` by a function that is given each text once."""
    if isinstance(texts, str):
        raise ShapeError("encode_texts takes a list of texts", hint=f"encode_texts([{texts!r}])")
    if not hasattr(texts, "__len__") or not all(isinstance(text, str) for text in texts):
        raise ShapeError("encode_texts takes a list of texts, each a str", hint='encode_texts(["a cat", "a dog"])')
    if not len(texts):
        return np.empty((0, encoder.dim), np.float32)
    readables = [readable(text) for text in texts]
    place = {text: i for i, text in enumerate(dict.fromkeys(readables))}
    return encode(list(place))[[place[text] for text in readables]]
