"""The image head: the last convolution of the CNN, the mean over its cells and open_clip's two-layer projection."""

from pathlib import Path

import torch
from feature_maps import CELLS
from image_tower import image_tower
from safetensors.torch import load_file
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from train_projection import new_head
from tune_last_convolution import features, trunk_parts

STAGE = "visual.trunk.blocks.6."  # the last of the CNN
WEIGHTS = "open_clip_model.safetensors"


class ImageHead(nn.Module):
    """From cells (b, 81, c) to embeddings (b, 384) of length 1, with dropout in training.

    With `stage`, the last stage of the CNN, c is the 208 channels that it is given; without it, the 352 that it makes.
    """

    def __init__(self, dropout: float = 0.0, stage: nn.Module | None = None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(352, 1280)), nn.Parameter(torch.zeros(1280))
        self.mlp: Mlp = new_head()
        self.dropout, self.stage = dropout, stage

    def forward(self, cells: Tensor, count: int = CELLS**2) -> Tensor:
        """count: how many random cells of every picture are averaged; "Scaling CLIP via masking" (Li et al. 2022)."""
        if self.stage is not None:
            maps = self.stage(cells.unflatten(1, (CELLS, CELLS)).permute(0, 3, 1, 2))
            cells = maps.flatten(2).transpose(1, 2)
        if count < CELLS**2:
            cells = cells[:, torch.randperm(CELLS**2)[:count]]
        return F.normalize(self.raw(cells), dim=1)

    def raw(self, cells: Tensor) -> Tensor:
        """(b, 384), not of length 1, from the 352 channels of the last stage; all cells are averaged."""
        pooled = features(cells, None, self.weight, self.bias)
        hidden = F.gelu(self.mlp.fc1(F.dropout(pooled, self.dropout, self.training)))
        return self.mlp.fc2(F.dropout(hidden, self.dropout, self.training)).float()

    def train(self, mode: bool = True) -> "ImageHead":
        """The normalisations of the stage keep their statistics."""
        super().train(mode)
        if self.stage is not None:
            self.stage.eval()
        return self

    def packaged(self) -> dict[str, Tensor]:
        """The tensors by the names that open_clip gives them."""
        parts = {f"visual.{name}": value for name, value in trunk_parts(self.weight, self.bias).items()}
        parts |= {f"visual.head.mlp.{name}": value.detach() for name, value in self.mlp.state_dict().items()}
        stage = self.stage.state_dict() if self.stage is not None else {}
        return parts | {f"{STAGE}{name}": value.detach() for name, value in stage.items()}


def load_image_head(folder: Path, dropout: float = 0.0, *, with_stage: bool = False) -> ImageHead:
    """The head of a packaged model, the last batch normalisation taken into its convolution."""
    stored = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
    norm = {name: stored[f"visual.trunk.bn2.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
    scale = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-3)  # timm's epsilon of the tf_ models
    stage = image_tower().blocks[-1].requires_grad_(True) if with_stage else None
    if stage is not None:
        stage.load_state_dict(_below(stored, STAGE), strict=False)  # all but a count of batches
    head = ImageHead(dropout, stage)
    with torch.no_grad():
        head.weight.copy_((stored["visual.trunk.conv_head.weight"][:, :, 0, 0] * scale[:, None]).T)
        head.bias.copy_(norm["bias"] - norm["running_mean"] * scale)
    head.mlp.load_state_dict(_below(stored, "visual.head.mlp."))
    return head


def _below(stored: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in stored.items() if name.startswith(prefix)}
