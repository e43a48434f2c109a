"""A vision transformer and CLIP's loss, to be read: what `vit` and `encoder` wrap, in as few lines as it takes.

The weights are those of transformers' `ViTForImageClassification`, under its names, and so are the outputs. Dosovitskiy
et al. 2021, "An image is worth 16x16 words"; Radford et al. 2021, "Learning transferable visual models from natural
language supervision". Nothing in clipkit computes with this file; tests hold it against the real ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention


def patchify(pixels: Tensor, side: int) -> Tensor:
    """Pixels (n, 3, height, width) cut into squares, row by row: (n, patches, 3 * side * side)."""
    n, channels, height, width = pixels.shape
    grid = pixels.reshape(n, channels, height // side, side, width // side, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * side * side)


class PatchEmbeddings(nn.Module):
    """Each patch becomes a token, by one matrix. A convolution that steps by its own size is the same."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.projection = nn.Conv2d(3, width, kernel_size=side, stride=side)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projection(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]  # (n, patches, width)

    def as_linear(self, pixels: Tensor) -> Tensor:
        """The same, as a matrix product on flattened patches."""
        matrix, bias = self.projection.weight.flatten(1), self.projection.bias  # (width, 3 * side * side), (width,)
        return nn.functional.linear(patchify(pixels, self.side), matrix, bias)


class Embeddings(nn.Module):
    """Patch tokens, one more token that will speak for the picture, and where each of them stands."""

    def __init__(self, width: int, side: int, patches: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + patches, width))
        self.patch_embeddings = PatchEmbeddings(width, side)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embeddings(pixels)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)  # (n, 1 + patches, width)
        return tokens + self.position_embeddings


class Attention(nn.Module):
    """Every token asks all (q), is found by what it offers (k), and gives what it holds (v); in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n, count, width = tokens.shape

        def split(x: Tensor) -> Tensor:
            return x.reshape(n, count, self.heads, -1).transpose(1, 2)  # (n, heads, tokens, width / heads)

        q, k, v = (split(project(tokens)) for project in (self.q_proj, self.k_proj, self.v_proj))
        heard = scaled_dot_product_attention(q, k, v)  # softmax(q k^T / sqrt(width / heads)) v
        return self.o_proj(heard.transpose(1, 2).reshape(n, count, width))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Each token by itself: wider, bent, and narrow again."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Tokens talk, then think; each step is added to what was there, and reads it normalised (pre-norm)."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.layernorm_before = nn.LayerNorm(width, eps=eps)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.layernorm_before(tokens))
        return tokens + self.mlp(self.layernorm_after(tokens))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Embeddings, blocks, a last normalisation: all tokens out."""

    def __init__(self, *, image: int, side: int, width: int, depth: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.embeddings = Embeddings(width, side, (image // side) ** 2)
        self.layers = nn.ModuleList(Block(width, heads, hidden, eps) for _ in range(depth))
        self.layernorm = nn.LayerNorm(width, eps=eps)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.embeddings(pixels)
        for block in self.layers:
            tokens = block(tokens)
        return self.layernorm(tokens)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Pixels (n, 3, image, image) -> logits (n, classes), read from the class token. The defaults are ViT-B/16's."""

    def __init__(
        self, classes: int, *, image: int = 224, side: int = 16, width: int = 768, depth: int = 12, heads: int = 12,
        hidden: int = 3072, eps: float = 1e-12,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes: dict[str, Any] = {"image": image, "side": side, "width": width, "depth": depth, "heads": heads}
        self.vit = Trunk(**sizes, hidden=hidden, eps=eps)
        self.classifier = nn.Linear(width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(self.vit(pixels)[:, 0])  # type: ignore[no-any-return]


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: float | Tensor) -> Tensor:
    """CLIP's loss for pairs (n, d) of length 1: each picture must find its text, and each text its picture."""
    logits = logit_scale * images @ texts.T  # (n, n): the pairs are on the diagonal
    right = torch.arange(len(images), device=images.device)
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
