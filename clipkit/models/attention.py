"""Attention maps of a vision transformer: its grid of patches, each layer and head, and rollout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray
from clipkit.core.text import described
from clipkit.errors import ModelError
from clipkit.images.thumbnails import Canvas, to_png
from clipkit.models.encoder import Encoder
from clipkit.models.relevance import relevance_map
from clipkit.models.trainable import TunableEncoder
from clipkit.models.vit import ViTClassifier

if TYPE_CHECKING:
    import torch


Score = Callable[["torch.Tensor"], "torch.Tensor"]
Weights = npt.NDArray[np.float32]  # (heads, tokens that ask, tokens that are asked); rows sum to 1
TOLERANCE = 1e-3  # of recomputed attention against the block's own output; another kind of attention is off by far more
GAP = 8  # pixels of white between two panels
SHOWN = 448  # pixels a panel is wide at least
STRENGTH = 0.7  # of the colour where attention is highest
CLASS, POOL, MEAN = "class token", "attention pool", "mean of the patches"  # what a tower answers from
WITH_ATTENTION = "a ViT: --model ViT-B-16/laion2b_s34b_b88k, or the folder of one"


@dataclass(frozen=True)
class Grid:
    """How a tower cuts a picture into patches.

    Attributes
    ----------
    image : tuple of int
        (height, width) of the input, in pixels.
    patch : tuple of int
        (height, width) of one cell, in pixels.
    rows, columns : int
        Number of cells.
    prefix : tuple of str
        Tokens before the patch tokens: "class", "distillation", "register".
    tokens : int
        rows * columns and the prefix; 0 where there are no tokens, but the last feature map of a convolutional tower
        has that many cells.
    """

    image: tuple[int, int]
    patch: tuple[int, int]
    rows: int
    columns: int
    prefix: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention maps of one picture: last layer and rollout.

    Attributes
    ----------
    model : str
        Canonical name.
    grid : Grid
        How the tower cuts a picture: `image` and `patch` in pixels, `rows` and `columns` of cells, `tokens`.
    seen : ndarray of shape (height, width, 3), uint8
        The picture as the model reads it.
    last : ndarray of shape (rows, columns), float32, or None
        Attention of the last layer to each patch; smaller where the tower narrows its grid. Sums to at most 1: the rest
        goes to class and register tokens. None where `reason` says why.
    rollout : ndarray of shape (rows, columns), float32, or None
        Attention through all layers.
    speaker : str
        Whose attention it is: "class token", "attention pool" or "mean of the patches".
    reason : str or None
        Why there is no attention.
    layers : tuple of ndarray of shape (heads, rows, columns), float32
        The same attention in each layer and head, first layer first; an attention pool is the last. See `of`.
    relevance : ndarray of shape (rows, columns), float32, or None
        Where there is no attention: Grad-CAM in the tower's last feature map, from 0 to 1. It is of another kind than
        attention: which parts raise a score.
    target : str
        What that score is, in words.

    Examples
    --------
    >>> from clipkit.models import explain_attention
    >>> maps = explain_attention(clipkit.ViTClassifier("tiny-vit"), "photos/chelsea.png")
    >>> maps.grid.rows, maps.grid.columns, maps.grid.tokens
    (4, 4, 17)
    >>> bool(maps.last.sum() <= 1)
    True
    """

    model: str
    grid: Grid
    seen: Canvas
    last: FloatArray | None = None
    rollout: FloatArray | None = None
    speaker: str = ""
    reason: str | None = None
    layers: tuple[FloatArray, ...] = ()
    relevance: FloatArray | None = None
    target: str = ""

    def __repr__(self) -> str:
        grid = f"{self.grid.rows} x {self.grid.columns} cells"
        without = "no attention" if self.relevance is None else "relevance"
        return described(self, repr(self.model), grid, f"of the {self.speaker}" if self.speaker else without)

    def of(self, *, layer: int | None = None, head: int | None = None) -> FloatArray:
        """Attention in one layer, of one head or as the mean of all.

        Parameters
        ----------
        layer : int, optional
            From 1; by default the last.
        head : int, optional
            From 1; by default the mean of all.

        Returns
        -------
        ndarray of shape (rows, columns), float32
            Smaller than the grid in layers that narrow it.

        Raises
        ------
        ModelError
            If there is no attention, no such layer, or no such head.

        Examples
        --------
        >>> from clipkit.models import explain_attention
        >>> maps = explain_attention(clipkit.ViTClassifier("tiny-vit"), "photos/chelsea.png")
        >>> len(maps.layers), maps.of(layer=1, head=2).shape
        (3, (4, 4))
        """
        if not self.layers:
            raise ModelError(self.reason or "there is no attention to draw", hint=WITH_ATTENTION)
        place = len(self.layers) if layer is None else layer
        if not 1 <= place <= len(self.layers):
            raise ModelError(f"{self.model} has {len(self.layers)} layers, and no layer {place}", hint="--layer 1")
        heads = self.layers[place - 1]
        if head is None:
            return np.asarray(heads.mean(axis=0))
        if not 1 <= head <= len(heads):
            raise ModelError(
                f"layer {place} of {self.model} has {len(heads)} heads, and no head {head}", hint="--head 1"
            )
        return np.asarray(heads[head - 1])

    def overlay(self) -> bytes:
        """A PNG of three panels: the picture as it was read, the last layer's attention, and the rollout.

        Returns
        -------
        bytes
            The PNG file.

        Raises
        ------
        ModelError
            If there are no maps; the message is `reason`.
        """
        if self.last is None or self.rollout is None:
            raise ModelError(self.reason or "there is no attention to draw", hint=WITH_ATTENTION)
        factor = -(-SHOWN // self.seen.shape[1])
        picture = self.seen.repeat(factor, axis=0).repeat(factor, axis=1)
        gap = np.full((len(picture), GAP, 3), 255, np.uint8)
        panels = [picture, gap, paint(picture, self.last), gap, paint(picture, self.rollout)]
        return to_png(np.ascontiguousarray(np.concatenate(panels, axis=1)))


@dataclass(frozen=True, eq=False)
class _Looked:
    """layers: attention among all tokens, first layer first. speaker: whose the answer is.

    pool: of a learned query over them at the end, where that is the speaker.
    """

    layers: Sequence[Weights]
    speaker: str
    prefix: tuple[str, ...]
    pool: Weights | None = None


def explain_attention(
    model: Encoder | ViTClassifier, picture: str | os.PathLike[str], *, text: str = ""
) -> AttentionMaps:
    r"""Attention maps of a vision transformer for one picture; a relevance map of a tower that has no attention.

    The network is read from its file again and runs in float32, so that `model` is left alone and nothing is rounded.

    Parameters
    ----------
    model : Encoder or ViTClassifier
        A convolutional tower has no attention; `reason` says so then, and `relevance` is of the class that a classifier
        names, or of an encoder's embedding.
    picture : str or path
        The picture's file.
    text : str, optional
        For an encoder without attention: relevance for the cosine with this text.

    Returns
    -------
    AttentionMaps
        Grid, last layer and rollout, or relevance.

    Raises
    ------
    ImageError
        If the picture cannot be read.
    ModelError
        If there is a text, and a classifier or a tower whose attention does not depend on it.

    References
    ----------
    .. [1] S. Abnar and W. Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.
    .. [2] R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
       ICCV 2017.

    Examples
    --------
    >>> from clipkit.models import explain_attention
    >>> maps = explain_attention(clipkit.ViTClassifier("tiny-vit"), "photos/chelsea.png")
    >>> maps.rollout.shape
    (4, 4)
    >>> maps.overlay()[:4]
    b'\x89PNG'
    """
    if text and isinstance(model, ViTClassifier):
        raise ModelError(f"{model.model} reads no text", hint="an open_clip model: clipkit models")
    if isinstance(model, ViTClassifier):
        network, pixels, recipe = model.copy_network(), model.pixels([picture]), model.recipe
        options = {"interpolate_pos_encoding": True} if model.stretches else {}
        look = partial(_look_at_transformers, network, pixels, options)
        run = partial(network, pixel_values=pixels, **options)
    else:
        source = TunableEncoder(model)
        network, pixels, recipe = source.body().whole.visual, source.centre_inputs([os.fspath(picture)]), model.recipe
        look, run = partial(_look_at_open_clip, network, pixels), partial(network, pixels)
    grid = _grid(network, pixels, run)
    seen = _as_canvas(pixels, recipe.mean, recipe.std)
    try:
        looked = look()
        last, rolled = _maps(looked, grid)
    except _NoAttention as why:
        target, score = _scored(model, network, pixels, text)
        relevance = relevance_map(network, pixels, score) if score else None
        reason = f"{model.model}: {why}"
        return AttentionMaps(model.model, grid, seen, reason=reason, relevance=relevance, target=target)
    if text:
        raise ModelError(
            f"the attention of {model.model} does not depend on a text", hint="the same command without the text"
        )
    whole = Grid(grid.image, grid.patch, grid.rows, grid.columns, looked.prefix, looked.layers[0].shape[-1])
    layers = tuple(_of_layers(looked, grid))
    return AttentionMaps(model.model, whole, seen, last, rolled, looked.speaker, layers=layers)


def _scored(model: Encoder | ViTClassifier, network: Any, pixels: torch.Tensor, text: str) -> tuple[str, Score | None]:
    """What a relevance map is of, in words, and the score of pixels; None for a classifier without a head."""
    import torch

    if isinstance(model, ViTClassifier):
        return _scored_class(model, network, pixels)
    if text:
        wanted = torch.from_numpy(model.encode_texts([text])[0])
        return f"the text {text!r}", lambda tensor: torch.cosine_similarity(network(tensor)[0], wanted, dim=0)

    def along_itself(tensor: torch.Tensor) -> torch.Tensor:  # its cosine with itself has no slope
        embedding: torch.Tensor = network(tensor)[0]
        return embedding @ torch.nn.functional.normalize(embedding.detach(), dim=0)

    return "the picture's embedding", along_itself


def _scored_class(model: ViTClassifier, network: Any, pixels: torch.Tensor) -> tuple[str, Score | None]:
    import torch

    if not model.has_head:
        return "", None
    options = {"interpolate_pos_encoding": True} if model.stretches else {}
    with torch.no_grad():
        best = int(network(pixel_values=pixels, **options).logits[0].argmax())
    return f"the class {model.classes_[best]!s}", lambda tensor: network(pixel_values=tensor, **options).logits[0, best]


def facts(explanation: AttentionMaps, *, layer: int | None = None, head: int | None = None) -> dict[str, Any]:
    """What can be said of it, in words and numbers; "last" and "rollout" row by row, and "attention" if asked for."""
    grid = explanation.grid
    (height, width), (tall, wide) = grid.image, grid.patch
    prefix = "".join(f" + {count} {name}" for name, count in Counter(grid.prefix).items())
    record: dict[str, Any] = {
        "model": explanation.model,
        "image": f"{height} x {width} pixels",
        "cells": f"{grid.rows} x {grid.columns}, each of {tall} x {wide} pixels",
        "tokens": f"{grid.tokens} = {height} * {width} / ({tall} * {wide}){prefix}" if grid.tokens else None,
        "speaker": explanation.speaker or None,
        "reason": explanation.reason,
        "grid": vars(grid),
    }
    if explanation.relevance is not None:
        record |= {"relevance of": explanation.target, "relevance": _rounded(explanation.relevance)}
    if explanation.last is not None and explanation.rollout is not None:
        share = f"{explanation.last.sum():.1%} in the last layer, {explanation.rollout.sum():.1%} rolled out"
        record |= {"on patches": share, "last": _rounded(explanation.last), "rollout": _rounded(explanation.rollout)}
    if layer is not None or head is not None:
        record |= {"attention": _rounded(explanation.of(layer=layer, head=head)), "layer": layer, "head": head}
    return record


def rollout(layers: Sequence[Weights]) -> FloatArray:
    """(tokens at the end, tokens at the start): how much of each input is in each output; rows sum to 1.

    Abnar & Zuidema 2020, "Quantifying attention flow in transformers": the mean of the heads, half of it the residual
    connection, multiplied through the layers. A layer whose fewer tokens ask more (LeViT) has no residual connection.
    """
    flow = np.eye(layers[0].shape[-1])
    for weights in layers:
        step = weights.astype(np.float64).mean(axis=0)
        if len(step) == len(flow):
            step = 0.5 * step + 0.5 * np.eye(len(step))
        flow = (step / step.sum(axis=1, keepdims=True)) @ flow
    return np.asarray(flow, np.float32)


def paint(picture: Canvas, attention: FloatArray) -> Canvas:
    """The picture with warm colours where attention (rows, columns) is high, scaled to its highest value."""
    import torch

    grid = torch.from_numpy(np.ascontiguousarray(attention))[None, None]
    full = torch.nn.functional.interpolate(grid, size=picture.shape[:2], mode="bicubic", align_corners=False)
    heat = full[0, 0].clamp_min(0).numpy()
    heat = (heat / max(float(heat.max()), 1e-12))[..., None]  # (height, width, 1)
    colour = np.concatenate([np.full_like(heat, 255), 255 * heat, 32 * heat], axis=2)  # red, then yellow
    share = STRENGTH * heat
    grey = picture.mean(axis=2, keepdims=True) * 0.5 + picture * 0.5  # so that colours are those of attention
    return np.asarray(grey * (1 - share) + colour * share).astype(np.uint8)


class _NoAttention(Exception):
    """Why a tower has no attention to show, as the rest of a sentence that begins with its name."""


def _look_at_transformers(network: Any, pixels: torch.Tensor, options: dict[str, bool]) -> _Looked:
    import torch

    names = [name.rpartition(".")[2] for name, _ in network.named_parameters()]
    kind = network.config.model_type
    if "cls_token" not in names:
        raise _NoAttention(f"a {kind} tower has no class token whose attention to patches could be shown")
    network.set_attn_implementation("eager")  # the others return no attention
    with torch.no_grad():
        layers = network(pixel_values=pixels, output_attentions=True, **options).attentions
    if not layers:
        raise _NoAttention(f"a {kind} tower returns no attention")
    prefix = ("class", *("distillation" for name in names if name == "distillation_token"))
    registers = getattr(network.config, "num_register_tokens", 0) or 0
    speaker = MEAN if getattr(network.config, "use_mean_pooling", False) else CLASS
    return _Looked([layer[0].float().numpy() for layer in layers], speaker, (*prefix, *["register"] * registers))


def _look_at_open_clip(visual: Any, pixels: torch.Tensor) -> _Looked:
    trunk = getattr(visual, "trunk", None)
    if trunk is not None:
        return _look_at_timm(trunk, visual, pixels)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise _NoAttention("a convolutional tower has no class token whose attention could be shown")
    speaker = _speaker(visual.pool_type if visual.attn_pool is None else "")
    attentions = [getattr(block, "attn", None) for block in blocks]
    return _Looked(_recompute(visual, attentions, multihead_weights, pixels), speaker, ("class",))


def _look_at_timm(trunk: Any, visual: Any, pixels: torch.Tensor) -> _Looked:
    if biased := [module for module in trunk.modules() if hasattr(module, "attention_biases")]:
        return _Looked(_recompute(visual, biased, levit_weights, pixels), MEAN, ())
    blocks = getattr(trunk, "blocks", None)
    attentions = [getattr(block, "attn", None) for block in blocks] if blocks is not None else []
    if not attentions or not all(hasattr(attention, "qkv") for attention in attentions):
        raise _NoAttention("a convolutional tower has no class token whose attention could be shown")
    pool = getattr(trunk, "attn_pool", None)
    speaker = POOL if pool is not None else _speaker(getattr(trunk, "global_pool", ""))
    layers = _recompute(visual, attentions, timm_weights, pixels)
    last = _recompute(visual, [pool], pool_weights, pixels)[0] if pool is not None else None
    count = int(getattr(trunk, "num_prefix_tokens", 0))
    has_class = bool(getattr(trunk, "cls_token", None) is not None)
    return _Looked(layers, speaker, (*["class"] * has_class, *["register"] * (count - has_class)), last)


def _speaker(pool: str) -> str:
    if speaker := {"tok": CLASS, "token": CLASS, "avg": MEAN}.get(pool):
        return speaker
    raise _NoAttention("this tower answers neither from its class token nor from the mean of its patches")


def _recompute(
    visual: Any,
    attentions: Sequence[Any],
    weigh: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    pixels: torch.Tensor,
) -> list[Weights]:
    """Weights of each attention, from what goes into it; what comes out of it must agree with them."""
    import torch

    found: list[Weights] = []
    with torch.no_grad(), _listening(attentions) as heard:
        visual(pixels)
        for attention, (tokens, output) in zip(attentions, heard, strict=True):
            try:
                weights, expected = weigh(attention, tokens)
                agrees = expected.shape == output.shape and torch.allclose(
                    expected, output, rtol=TOLERANCE, atol=TOLERANCE
                )
            except (AttributeError, TypeError, RuntimeError):
                agrees = False
            if not agrees:
                raise _NoAttention(f"its attention ({type(attention).__name__}) is of a kind that cannot be recomputed")
            found.append(weights[0].numpy())
    return found


@contextmanager
def _listening(modules: Sequence[Any]) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """What goes into each module and what comes out, in the order in which they run."""
    heard: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hear(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        result = output[0] if isinstance(output, tuple) else output
        swap = isinstance(getattr(module, "batch_first", None), bool) and not module.batch_first
        heard.append(tuple(t.transpose(0, 1) if swap else t for t in (inputs[0], result)))

    handles = [module.register_forward_hook(hear) for module in modules]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _maps(looked: _Looked, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """What the answer attends to, in the last layer and rolled out (rows, columns)."""
    before, shape = len(looked.prefix), (grid.rows, grid.columns)
    count, at_last = looked.layers[0].shape[-1], looked.layers[-1].shape[-1]
    is_chain = all(after.shape[-1] == layer.shape[-2] for layer, after in pairwise(looked.layers))
    if count != before + grid.rows * grid.columns or not is_chain or (before and at_last != count):
        raise _NoAttention(f"its {count} tokens are not {grid.rows * grid.columns} patches and {before} before them")
    narrow = shape if at_last == count else (round(at_last**0.5),) * 2  # LeViT's grids are squares
    flow = rollout(looked.layers)
    if looked.pool is not None:
        last = looked.pool.mean(axis=0)[0]  # (tokens,)
        rolled = last @ flow
    else:
        asking = slice(0, 1) if looked.speaker == CLASS else slice(before, None)
        last, rolled = looked.layers[-1].mean(axis=0)[asking].mean(axis=0), flow[asking].mean(axis=0)
    return last[before:].reshape(narrow).astype(np.float32), rolled[before:].reshape(shape).astype(np.float32)


def _of_layers(looked: _Looked, grid: Grid) -> Iterator[FloatArray]:
    """What the answer attends to in each layer and head: (heads, rows, columns), first layer first."""
    before, whole = len(looked.prefix), (grid.rows, grid.columns)
    asking = slice(0, 1) if looked.speaker == CLASS else slice(before, None)
    asked = [layer[:, asking].mean(axis=1) for layer in looked.layers]  # each (heads, tokens)
    if looked.pool is not None:
        asked.append(looked.pool[:, 0])
    for heads in asked:
        patches = heads[:, before:]
        side = round(patches.shape[1] ** 0.5)  # of a layer that narrows the grid: a square
        shape = whole if patches.shape[1] == grid.rows * grid.columns else (side, side)
        yield np.asarray(patches.reshape(len(heads), *shape), np.float32)


def _grid(network: Any, pixels: torch.Tensor, run: Callable[[], Any]) -> Grid:
    """From the first convolution where it cuts patches, else from the last feature map."""
    import torch

    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad(), _listening(convolutions) as heard:
        run()
    image = (int(pixels.shape[2]), int(pixels.shape[3]))
    first = convolutions[0]
    cuts = first.kernel_size == first.stride
    shape = heard[0][1].shape if cuts else next(output.shape for _, output in reversed(heard) if output.shape[-1] > 1)
    rows, columns = int(shape[2]), int(shape[3])
    patch = tuple(first.kernel_size) if cuts else (image[0] // rows, image[1] // columns)
    tokens = rows * columns if cuts and len(convolutions) == 1 else 0
    return Grid(image, (int(patch[0]), int(patch[1])), rows, columns, (), tokens)


def _as_canvas(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> Canvas:
    values = pixels[0].numpy().transpose(1, 2, 0) * np.array(std) + np.array(mean)
    return np.ascontiguousarray((values * 255).round().clip(0, 255).astype(np.uint8))


def _rounded(table: FloatArray) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in table]


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
