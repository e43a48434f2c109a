"""What each kind of attention gives its tokens, computed again from its queries and keys: fast ones do not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def multihead_weights(attention: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights (n, heads, t, t), output (n, t, width)) of torch's `MultiheadAttention` on itself, from q and k."""
    n, count, width = tokens.shape
    heads = attention.num_heads
    stacked = tokens @ attention.in_proj_weight.T + attention.in_proj_bias
    q, k, v = (part.reshape(n, count, heads, width // heads).transpose(1, 2) for part in stacked.chunk(3, dim=-1))
    weights = (q @ k.transpose(-2, -1) * (width // heads) ** -0.5).softmax(dim=-1)
    return weights, attention.out_proj((weights @ v).transpose(1, 2).reshape(n, count, width))


def timm_weights(attention: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for a timm `Attention`."""
    n, count, _ = tokens.shape
    stacked = attention.qkv(tokens).reshape(n, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = stacked.unbind(0)
    q, k = attention.q_norm(q), attention.k_norm(k)
    weights = (q * attention.scale @ k.transpose(-2, -1)).softmax(dim=-1)
    return weights, attention.proj(attention.norm((weights @ v).transpose(1, 2).reshape(n, count, -1)))


def levit_weights(attention: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for both attentions of timm's `Levit`: among all tokens, and of every other one over all of them."""
    import torch

    n, heads, key, value = len(tokens), attention.num_heads, attention.key_dim, attention.val_dim

    def apart(stacked: torch.Tensor, *sizes: int) -> tuple[torch.Tensor, ...]:
        return torch.split(stacked.reshape(n, -1, heads, sum(sizes)).transpose(1, 2), list(sizes), dim=-1)

    if hasattr(attention, "kv"):
        (q,), (k, v) = apart(attention.q(tokens), key), apart(attention.kv(tokens), key, value)
    else:
        q, k, v = apart(attention.qkv(tokens), key, key, value)
    weights = (q @ k.transpose(-2, -1) * attention.scale + attention.get_attention_biases(q.device)).softmax(dim=-1)
    return weights, attention.proj((weights @ v).transpose(1, 2).reshape(n, q.shape[2], heads * value))


def pool_weights(pool: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights (n, heads, 1, t), output (n, width)) of timm's attention pool: one learned query asks all."""
    n, count, width = tokens.shape
    q = pool.q(pool.latent.expand(n, -1, -1)).reshape(n, pool.latent_len, pool.num_heads, -1).transpose(1, 2)
    k, v = pool.kv(tokens).reshape(n, count, 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    weights = (pool.q_norm(q) * pool.scale @ pool.k_norm(k).transpose(-2, -1)).softmax(dim=-1)
    output = pool.proj((weights @ v).transpose(1, 2).reshape(n, pool.latent_len, width))
    return weights, (output + pool.mlp(pool.norm(output)) if pool.mlp is not None else output)[:, 0]
