"""The towers that learn from the CNN starter: a plain ViT, and a convolutional stem with attention above it (LeViT)."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from train_text_tower import EMBED

MAP_CHANNELS, HINT_CHANNELS = 256, 64  # of the maps in packed_pictures.py
VIT = {"image_size": 144, "layers": 12, "width": 192, "head_width": 64, "patch_size": 16, "pool_type": "avg"}
LEVIT = {
    "image_size": 224,
    "timm_model_name": "levit_192",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "timm_proj_bias": True,
}
HINTED_BLOCK = 6  # what the CNN sees at stride 16 is asked of the plain ViT after this many blocks
LAST, HINT = "maps", "hints"
Grids = list[tuple[str, float, Tensor]]  # which of the teacher's maps, its weight, what the student says (b, c, g, g)


class Student(Protocol):
    """A tower as open_clip builds it from `config`, and projections that are thrown away."""

    config: dict[str, Any]
    tower: nn.Module
    sizes: Sequence[tuple[float, dict[int, float]]]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Grids]:
        """(b, 3, s, s) -> embeddings (b, 384) and the maps it was asked for."""

    def look_at(self, size: int) -> None:
        """Prepares the tower for pictures of this size."""


class PlainViT(nn.Module):
    """ViT-Ti/16 at 144: 5.6 M parameters."""

    config = VIT
    # until so many pictures: the shares of the batches at each size; a small picture costs a third
    sizes = ((400_000, {96: 0.85, 144: 0.15}), (1_200_000, {96: 0.5, 144: 0.5}), (float("inf"), {96: 0.25, 144: 0.75}))

    def __init__(self) -> None:
        super().__init__()
        self.tower = _vit()
        self.to_map = nn.Linear(VIT["width"], MAP_CHANNELS)
        self.to_hint = nn.Linear(VIT["width"], HINT_CHANNELS)
        _begin_like_a_trained_one(self.tower)

    def look_at(self, size: int) -> None:
        """Nothing: `forward` finds the places of fewer patches between the learnt ones."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Grids]:
        """As Student says."""
        tower, side = self.tower, pixels.shape[-1] // VIT["patch_size"]
        x = tower.conv1(pixels).flatten(2).transpose(1, 2)
        first = (tower.class_embedding + tower.positional_embedding[0]).expand(len(x), 1, -1)
        x = tower.ln_pre(torch.cat([first, x + _places(tower, side)], 1))
        for number, block in enumerate(tower.transformer.resblocks, 1):
            x = block(x)
            if number == HINTED_BLOCK:
                hint = self.to_hint(x[:, 1:])
        x = tower.ln_post(x)[:, 1:]
        grids: Grids = [(LAST, 1.0, _in_grid(self.to_map(x))), (HINT, 0.5, _in_grid(hint))]
        return x.mean(1) @ tower.proj, grids


class Levit(nn.Module):
    """LeViT-192 (Graham et al. 2021): four convolutions down to stride 16, then attention in three resolutions."""

    config = LEVIT
    # a finer grid costs more and teaches little more: the tower answers as well at 224 after pictures of 128
    sizes = ((1_500_000, {96: 0.5, 128: 0.5}), (3_000_000, {128: 0.7, 160: 0.3}), (float("inf"), {160: 0.6, 224: 0.4}))

    def __init__(self) -> None:
        super().__init__()
        self.tower = TimmModel(LEVIT["timm_model_name"], EMBED, LEVIT["image_size"], proj="linear", proj_bias=True)
        widths = self.tower.trunk.embed_dim
        self.to_hint = nn.Linear(widths[0], HINT_CHANNELS)
        self.to_map = nn.Linear(widths[1], MAP_CHANNELS)
        self.to_last = nn.Linear(widths[2], MAP_CHANNELS)

    def look_at(self, size: int) -> None:
        """As Student says."""
        look_at(self.tower, size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Grids]:
        """As Student says."""
        trunk = self.tower.trunk
        x = trunk.stem(pixels).flatten(2).transpose(1, 2)
        x = trunk.stages[0](x)
        hint = self.to_hint(x)
        x = trunk.stages[1](x)
        middle = self.to_map(x)
        x = trunk.stages[2](x)
        asked = ((LAST, 0.5, self.to_last(x)), (LAST, 0.5, middle), (HINT, 0.5, hint))
        return self.tower.head(x.mean(1)), [(which, weight, _in_grid(said)) for which, weight, said in asked]


STUDENTS: dict[str, type[PlainViT | Levit]] = {"vit": PlainViT, "levit": Levit}


@torch.no_grad()
def look_at(tower: nn.Module, size: int) -> None:
    """Lets a LeViT built for 224 see smaller pictures: its learnt biases are of distances, and few are asked for."""
    if not isinstance(tower, TimmModel):
        return
    side = size // 16
    for number, stage in enumerate(tower.trunk.stages):
        sides = (side, side) if number == 0 else (side, (side - 1) // 2 + 1)
        side = sides[1]
        down = [m for m in stage.modules() if hasattr(m, "attention_biases") and hasattr(m, "q")]
        for module in stage.modules():
            if hasattr(module, "attention_biases"):
                _fewer_places(module, *(sides if module in down else (side, side)))


def _fewer_places(attention: nn.Module, before: int, after: int) -> None:
    """The table of biases stays as long as it was, (distance down) * whole + (distance across)."""
    whole = round(attention.attention_biases.shape[1] ** 0.5)
    step = 1 if before == after else 2
    if step == 2:
        attention.q[0].resolution = (before, before)
        attention.resolution = (before, before)
    keys = torch.cartesian_prod(torch.arange(before), torch.arange(before))
    asking = torch.cartesian_prod(torch.arange(0, before, step), torch.arange(0, before, step))
    apart = (asking[:, None] - keys[None]).abs()
    attention.attention_bias_idxs = apart[..., 0] * whole + apart[..., 1]
    attention.attention_bias_cache = {}


def _in_grid(tokens: Tensor) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _vit() -> VisionTransformer:
    """The tower exactly as open_clip builds it from VIT."""
    return VisionTransformer(
        image_size=VIT["image_size"],
        patch_size=VIT["patch_size"],
        width=VIT["width"],
        layers=VIT["layers"],
        heads=VIT["width"] // VIT["head_width"],
        mlp_ratio=4.0,
        pool_type=VIT["pool_type"],
        output_dim=EMBED,
    )


def _places(tower: VisionTransformer, side: int) -> Tensor:
    """(side * side, width): the learnt places of 9 x 9 patches, between them where there are fewer."""
    places = tower.positional_embedding[1:]
    if side**2 == len(places):
        return places
    square = places.T.unflatten(1, (VIT["image_size"] // VIT["patch_size"],) * 2)[None]
    return F.interpolate(square, size=(side, side), mode="bilinear", antialias=True)[0].flatten(1).T


@torch.no_grad()
def _begin_like_a_trained_one(tower: VisionTransformer) -> None:
    """Attention that begins as trained ViTs end: a patch looks at what is like it, and takes it off.

    "Mimetic initialization of self-attention layers" (Trockman, Kolter 2023): with Z random, query x key is about
    .7 Z + .7 I, value x projection .4 Z - .4 I, and places are sines.
    """
    width, head = VIT["width"], VIT["head_width"]
    for block in tower.transformer.resblocks:
        weight = block.attn.in_proj_weight
        for start in range(0, width, head):
            left, sizes, right = torch.linalg.svd(0.7 * torch.randn(width, width) / width**0.5 + 0.7 * torch.eye(width))
            weight[start : start + head] = (left[:, :head] * sizes[:head].sqrt()).T
            weight[width + start : width + start + head] = sizes[:head, None].sqrt() * right[:head]
        left, sizes, right = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
        weight[2 * width :] = sizes[:, None].sqrt() * right
        block.attn.out_proj.weight.copy_(left * sizes.sqrt())
    side = VIT["image_size"] // VIT["patch_size"]
    across, down = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy")
    speed = 100 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.cat([across.reshape(-1, 1) * speed, down.reshape(-1, 1) * speed], 1)
    tower.positional_embedding[1:] = 0.5 * torch.cat([angles.sin(), angles.cos()], 1)
    tower.positional_embedding[0] = 0
