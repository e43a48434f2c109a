"""Training of the hidden layer that a head may have between embeddings and classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipkit.classify.head import Hidden
from clipkit.core.arrays import FloatArray, IntArray

if TYPE_CHECKING:
    import torch


RATE, DECAY = 1e-3, 1e-2  # AdamW's; of rates 3e-4 to 1e-2 within a point of the best for pictures held back of Pets
EVERY = 10  # steps between two looks


@dataclass(frozen=True, eq=False)
class TwoLayers:
    """A classifier at one step of its training: logits are hidden(rows) @ weight.T + bias."""

    hidden: Hidden
    weight: FloatArray  # (c, h)
    bias: FloatArray  # (c,)


def train_two_layers(
    rows: FloatArray,
    targets: IntArray,
    *,
    classes: int,
    units: int,
    steps: int,
    seed: int,
    weights: FloatArray | None = None,
) -> Iterator[TwoLayers]:
    """The classifier after every EVERY of `steps` steps of AdamW on all rows (n, d) and targets (n,) at once.

    weights (n,): what each row weighs in the loss.

    The same seed gives the same classifier on the same machine.
    """
    import torch
    from torch.nn.functional import cross_entropy, gelu, linear

    each = np.ones(len(rows), np.float32) if weights is None else weights
    mean = np.average(rows, axis=0, weights=weights)
    # to unit variance: Adam's steps know no units
    spread = float(np.sqrt(np.average(((rows - mean) ** 2).mean(axis=1), weights=weights))) or 1.0
    inputs, right = torch.from_numpy((rows - mean) / spread), torch.from_numpy(targets)
    shares = torch.from_numpy(each / each.sum())
    rng = torch.Generator().manual_seed(seed)
    sizes = [(units, rows.shape[1]), (units,), (classes, units), (classes,)]
    layers = [torch.zeros(size) for size in sizes]
    for matrix in (layers[0], layers[2]):
        matrix.normal_(std=matrix.shape[1] ** -0.5, generator=rng)
    for layer in layers:
        layer.requires_grad_()
    optimiser = torch.optim.AdamW(layers, lr=RATE, weight_decay=DECAY)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        hidden = gelu(linear(inputs, layers[0], layers[1]), approximate="tanh")
        loss = cross_entropy(linear(hidden, layers[2], layers[3]), right, reduction="none")
        (loss @ shares).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % EVERY == 0:
            yield _at_unit_length(layers, mean, spread)


def _at_unit_length(layers: list[torch.Tensor], mean: FloatArray, spread: float) -> TwoLayers:
    """The layers for embeddings as they are, not centred and scaled."""
    first, offset, weight, bias = (layer.detach().numpy().copy() for layer in layers)
    first /= np.float32(spread)
    return TwoLayers(Hidden(first, offset - first @ mean), weight, bias)
