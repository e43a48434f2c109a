"""The image head: the last convolution of the CNN, the mean over its cells and open_clip's two-layer projection."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from train_projection import new_head
from tune_last_convolution import features, trunk_parts

WEIGHTS = "open_clip_model.safetensors"


class ImageHead(nn.Module):
    """From cells (b, 81, 352) to embeddings (b, 384) of length 1; with dropout in training."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(352, 1280)), nn.Parameter(torch.zeros(1280))
        self.mlp: Mlp = new_head()
        self.dropout = dropout

    def forward(self, cells: Tensor) -> Tensor:
        """From any number of cells, whose mean counts."""
        pooled = features(cells, None, self.weight, self.bias)
        hidden = F.gelu(self.mlp.fc1(F.dropout(pooled, self.dropout, self.training)))
        return F.normalize(self.mlp.fc2(F.dropout(hidden, self.dropout, self.training)).float(), dim=1)

    def packaged(self) -> dict[str, Tensor]:
        """The tensors by the names that open_clip gives them."""
        parts = {f"visual.{name}": value for name, value in trunk_parts(self.weight, self.bias).items()}
        return parts | {f"visual.head.mlp.{name}": value.detach() for name, value in self.mlp.state_dict().items()}


def load_image_head(folder: Path, dropout: float = 0.0) -> ImageHead:
    """The head of a packaged model, its batch normalisation taken into the convolution."""
    stored = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
    norm = {name: stored[f"visual.trunk.bn2.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
    scale = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-3)  # timm's epsilon of the tf_ models
    head = ImageHead(dropout)
    with torch.no_grad():
        head.weight.copy_((stored["visual.trunk.conv_head.weight"][:, :, 0, 0] * scale[:, None]).T)
        head.bias.copy_(norm["bias"] - norm["running_mean"] * scale)
    prefix = "visual.head.mlp."
    head.mlp.load_state_dict({name[len(prefix) :]: value for name, value in stored.items() if name.startswith(prefix)})
    return head
