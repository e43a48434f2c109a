"""`Encoder` protocol: what turns pictures and words into embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings
from clipkit.images.recipe import PixelRecipe

if TYPE_CHECKING:
    from clipkit.images.recipe import PictureSource

SPACES = ("projected", "backbone")
UNRECORDED = "float"  # a precision of plain floating point, where nobody wrote down which
_FLOATING = frozenset({"float32", "bfloat16", "float16", UNRECORDED})


class Encoder(Protocol):
    """What turns pictures and words into embeddings.

    model: canonical name. source: what load_encoder takes to find it again. fingerprint: SHA-256 of the weights.
    engine: what computes, "torch" say. precision: of its towers, "float32" say, or "bfloat16 float32" where that of
    pictures and that of texts differ. Of another engine or precision embeddings are other numbers, if only a little.
    logit_scale, logit_bias: a cosine c means the logit `logit_scale * c + logit_bias`.
    """

    @property
    def model(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def recipe(self) -> PixelRecipe: ...
    @property
    def logit_scale(self) -> float: ...
    @property
    def logit_bias(self) -> float: ...
    @property
    def batch_size(self) -> int: ...

    def encode_images(self, pictures: Sequence[PictureSource], *, space: str = "projected") -> Embeddings: ...
    def encode_pixels(self, pixels: npt.NDArray[np.uint8], *, space: str = "projected") -> Embeddings: ...
    def encode_texts(self, texts: Sequence[str]) -> Embeddings: ...


def embeddings_agree(made: tuple[str, str], asked: tuple[str, str]) -> bool:
    """Whether the same weights give the same embeddings under two pairs of engine and precision.

    Plain floating point agrees to 1e-3, whatever the engine and the number of bits, and may be mixed in one index.
    Anything else, int8 say, agrees with its own engine and precision alone.
    """
    return made == asked or all(set(precision.split(" ")) <= _FLOATING for _, precision in (made, asked))


def identity(encoder: Encoder) -> list[str]:
    """All of an encoder that decides its embeddings, for the key of a cache."""
    return [encoder.model, encoder.fingerprint, encoder.engine, encoder.precision, str(encoder.recipe)]
