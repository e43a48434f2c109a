"""Transformer layers and attention pooling over the 9 x 9 cells of the CNN, as a residual of the pooled image head.

The hybrid of "An image is worth 16x16 words" (Dosovitskiy et al. 2021), and open_clip's own `timm_pool: abs_attn`.
"""

import torch
from feature_maps import CELLS, CHANNELS
from image_head import ImageHead
from timm.layers import AttentionPool2d, Mlp
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tune_last_convolution import last_convolution

HEAD_WIDTH, EMBEDDING = 64, 384


class HybridHead(nn.Module):
    """From cells (b, 81, 352) to embeddings (b, 384) of length 1: the pooled head's answer plus that of attention."""

    def __init__(self, attention: nn.Module | None, pooled: ImageHead | None) -> None:
        super().__init__()
        self.attention, self.pooled = attention, pooled

    def forward(self, cells: Tensor, count: int = CELLS**2) -> Tensor:
        """count: how many random cells of every picture are seen, the same by both."""
        places = torch.arange(CELLS**2) if count == CELLS**2 else torch.randperm(CELLS**2)[:count]
        cells = cells[:, places]
        parts = []
        if self.pooled is not None:
            parts.append(self.pooled.raw(cells))
        if self.attention is not None:
            parts.append(self.attention(cells, places).float())
        return F.normalize(sum(parts), dim=1)


class GridTransformer(nn.Module):
    """Pre-norm layers over the cells and a class token; its last layer has the class token as its only query."""

    def __init__(self, layers: int, width: int = 384, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm, self.embed = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, width)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(CELLS**2, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, dropout) for _ in range(layers))
        self.dropout, self.last_norm = nn.Dropout(dropout), nn.LayerNorm(width)
        self.project = nn.Linear(width, EMBEDDING, bias=False)

    def forward(self, cells: Tensor, places: Tensor) -> Tensor:
        """(b, 384), not of length 1; places (t,) are where in the grid the cells (b, t, 352) are."""
        tokens = self.embed(self.norm(cells.float())) + self.positions[places]
        tokens = self.dropout(torch.cat([self.class_token.expand(len(cells), -1, -1), tokens], 1))
        for layer in self.layers[:-1]:
            tokens = layer(tokens, tokens)
        return self.project(self.last_norm(self.layers[-1](tokens[:, :1], tokens)[:, 0]))


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)
        self.mlp = Mlp(width, 4 * width, drop=dropout)

    def forward(self, wanted: Tensor, tokens: Tensor) -> Tensor:
        """wanted (b, q, width) are the first q of the tokens (b, t, width), and what comes back."""
        seen = self.norm1(tokens)
        query = _heads(self.query(seen[:, : wanted.shape[1]]))
        key, value = (_heads(part) for part in self.key_value(seen).chunk(2, -1))
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        wanted = wanted + self.dropout(self.out(found))
        return wanted + self.mlp(self.norm2(wanted))


class AttentionPool(nn.Module):
    """The CNN's last convolution and timm's `AttentionPool2d` on it, which open_clip calls `abs_attn`.

    Only the pooled token is computed, keys and values after the mean over the cells: the same numbers 30 times as fast.
    """

    def __init__(self) -> None:
        super().__init__()
        weight, bias = last_convolution()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.pool = AttentionPool2d(len(bias), feat_size=CELLS, out_features=EMBEDDING)

    @property
    def project(self) -> nn.Linear:
        """What makes an embedding of the pooled token."""
        return self.pool.proj

    def forward(self, cells: Tensor, places: Tensor) -> Tensor:
        """(b, 384), not of length 1."""
        maps = (cells @ self.weight + self.bias).clamp(0, 6).float()
        tokens = torch.cat([maps.mean(1, keepdim=True), maps], 1)
        tokens = tokens + self.pool.pos_embed[torch.cat([places.new_zeros(1), places + 1])]
        (query_weight, key_weight, value_weight), (query_bias, _, value_bias) = (
            part.chunk(3) for part in (self.pool.qkv.weight, self.pool.qkv.bias)
        )
        query = F.linear(tokens[:, 0], query_weight, query_bias).unflatten(1, (-1, HEAD_WIDTH)) * HEAD_WIDTH**-0.5
        asked = torch.einsum("bhd,hdc->bhc", query, key_weight.unflatten(0, (-1, HEAD_WIDTH)))
        seen = (asked @ tokens.transpose(1, 2)).softmax(-1) @ tokens  # (b, heads, 1280)
        value = torch.einsum("bhc,hdc->bhd", seen, value_weight.unflatten(0, (-1, HEAD_WIDTH))).flatten(1)
        return self.pool.proj(value + value_bias)


def _heads(tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
