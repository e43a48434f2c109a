"""Relevance maps (Grad-CAM): which parts of a picture raise a score, for towers without attention to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.core.arrays import FloatArray

if TYPE_CHECKING:
    import torch


def relevance_map(
    network: Any, pixels: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor]
) -> FloatArray | None:
    """(rows, columns) of the last feature map, from 0 to 1: Grad-CAM of a score of the network for one picture.

    score: runs the network on pixels (1, 3, height, width) and gives one number. None where the network has no feature
    map. Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization": each
    channel weighs as much as the score rises with it on average; what speaks against the score is left out.
    """
    import torch

    with torch.enable_grad(), _feature_maps(network) as maps:
        value = score(pixels.detach().clone().requires_grad_(True))
        if not maps:
            return None
        features = maps[-1]
        (slope,) = torch.autograd.grad(value, features, allow_unused=True)
    if slope is None:
        return None
    cells, slopes = (_cells(tensor.detach().float()) for tensor in (features, slope))
    raised = (cells * slopes.mean(dim=(1, 2), keepdim=True)).sum(dim=0).clamp_min(0)  # (rows, columns)
    return np.asarray((raised / raised.max().clamp_min(1e-12)).numpy(), np.float32)


@contextmanager
def _feature_maps(network: Any) -> Iterator[list[torch.Tensor]]:
    """What modules give that still has places in it, in the order in which they run: the last is the network's own."""
    import torch

    heard: list[torch.Tensor] = []

    def hear(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad and _has_places(output):
            heard.append(output)

    handles = [module.register_forward_hook(hear) for module in network.modules()]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _has_places(output: torch.Tensor) -> bool:
    """A map (1, channels, rows, columns), or tokens of a square one (1, rows * columns, channels)."""
    if output.ndim == 4:
        return output.shape[0] == 1 and min(output.shape[2:]) > 1
    return output.ndim == 3 and output.shape[0] == 1 and output.shape[1] > 1 and _side(output) ** 2 == output.shape[1]


def _cells(tensor: torch.Tensor) -> torch.Tensor:
    """(channels, rows, columns)."""
    if tensor.ndim == 4:
        return tensor[0]
    side = _side(tensor)
    return tensor[0].T.reshape(-1, side, side)


def _side(tokens: torch.Tensor) -> int:
    return int(tokens.shape[1] ** 0.5 + 0.5)
