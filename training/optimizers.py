"""Muon for the matrices inside a tower, AdamW for all else: what both students learn with."""

from collections.abc import Callable

import torch
from torch import nn

DECAY = 0.05


def muon_and_adamw(
    module: nn.Module, inner: tuple[str, ...], rate: float, is_free: Callable[[str], bool]
) -> list[torch.optim.Optimizer]:
    """inner: what the names of those matrices begin with. is_free: of weight decay, as everything of one dimension is.

    "Muon: an optimizer for hidden layers" (Jordan et al. 2024), with steps as large as AdamW's (Liu et al. 2025), so
    that both take one rate.
    """
    matrices, decayed, others = [], [], []
    for name, value in module.named_parameters():
        if value.ndim < 2 or is_free(name):
            others.append(value)
        else:
            (matrices if value.ndim == 2 and name.startswith(inner) else decayed).append(value)
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True),
    ]
