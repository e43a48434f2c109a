"""The hidden layer that a head may have between embeddings and classes: how it is computed, and how it is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipkit.errors import ShapeError
from clipkit.store.records import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

RATE, DECAY = 1e-3, 1e-2  # AdamW's; of rates 3e-4 to 1e-2 within a point of the best for pictures held back of Pets
EVERY = 10  # steps between two looks
UNITS = 512  # of the layer, where nobody says another number
BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Hidden:
    """One layer with GELU: gelu(embeddings @ weight.T + bias). weight: (h, d) float32. bias: (h,) float32."""

    weight: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.size or self.bias.shape != (len(self.weight),):
            raise ShapeError(f"hidden weight {self.weight.shape} and bias {self.bias.shape} are not (h, d) and (h,)")
        if self.weight.dtype != np.float32 or self.bias.dtype != np.float32:
            raise ShapeError(f"hidden weight is {self.weight.dtype} and bias {self.bias.dtype}, not float32")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ShapeError("hidden weight or bias is NaN or infinite")

    @property
    def dim(self) -> int:
        """Width of the embeddings it reads."""
        return int(self.weight.shape[1])

    @property
    def units(self) -> int:
        """Width of what it gives."""
        return len(self.weight)

    def apply(self, embeddings: FloatArray) -> FloatArray:
        """(n, h) of embeddings (n, d)."""
        units = np.empty((len(embeddings), self.units), np.float32)
        for start in range(0, len(embeddings), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            units[block] = gelu(embeddings[block] @ self.weight.T + self.bias)
        return units


@dataclass(frozen=True, eq=False)
class TwoLayers:
    """A classifier at one step of its training: logits are hidden(rows) @ weight.T + bias."""

    hidden: Hidden
    weight: FloatArray  # (c, h)
    bias: FloatArray  # (c,)


def gelu(values: FloatArray) -> FloatArray:
    """x times the normal distribution below x, by tanh (Hendrycks and Gimpel 2016): numpy has no erf."""
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(inner)), dtype=np.float32)


def train_two_layers(
    rows: FloatArray, targets: IntArray, *, classes: int, units: int, steps: int, seed: int
) -> Iterator[TwoLayers]:
    """The classifier after every EVERY of `steps` steps of AdamW on all rows (n, d) and targets (n,) at once.

    The same seed gives the same classifier on the same machine.
    """
    import torch
    from torch.nn.functional import cross_entropy, gelu, linear

    mean = rows.mean(axis=0)
    spread = float(np.sqrt(((rows - mean) ** 2).mean())) or 1.0  # to unit variance: Adam's steps know no units
    inputs, right = torch.from_numpy((rows - mean) / spread), torch.from_numpy(targets)
    dice = torch.Generator().manual_seed(seed)
    sizes = [(units, rows.shape[1]), (units,), (classes, units), (classes,)]
    layers = [torch.zeros(size) for size in sizes]
    for matrix in (layers[0], layers[2]):
        matrix.normal_(std=matrix.shape[1] ** -0.5, generator=dice)
    for layer in layers:
        layer.requires_grad_()
    optimiser = torch.optim.AdamW(layers, lr=RATE, weight_decay=DECAY)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        hidden = gelu(linear(inputs, layers[0], layers[1]), approximate="tanh")
        cross_entropy(linear(hidden, layers[2], layers[3]), right).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % EVERY == 0:
            yield _at_unit_length(layers, mean, spread)


def _at_unit_length(layers: list[torch.Tensor], mean: FloatArray, spread: float) -> TwoLayers:
    """The layers for embeddings as they are, not centred and scaled."""
    first, offset, weight, bias = (layer.detach().numpy().copy() for layer in layers)
    first /= np.float32(spread)
    return TwoLayers(Hidden(first, offset - first @ mean), weight, bias)
