"""Backbone features: the image tower without its projection, for every kind of tower open_clip builds."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def without_projection(visual: Any) -> Any:
    """The same image tower up to where its projection into the space shared with texts begins.

    It shares all weights, and the original is not touched. VisionTransformer, CoCa's too: the pooled token before
    `proj`. ModifiedResNet: the attention pool's output before its c_proj, not the mean of the feature map, because the
    pool is trained with CLIP and c_proj is the linear map that a ViT calls `proj`. timm: what goes into `head` behind
    any pooling there, or into the trunk's own classifier where that is the projection. A tower without a projection,
    as SigLIP's, comes back as it is: its backbone features are its projected ones.
    """
    if hasattr(visual, "attnpool"):
        return _with_identity_c_proj(visual)
    if hasattr(visual, "trunk"):
        return _without_timm_projection(visual)
    if getattr(visual, "proj", None) is None:
        return visual
    bare = copy.copy(visual)
    bare._parameters = {**visual._parameters, "proj": None}
    return bare


def pooled(output: Any) -> torch.Tensor:
    """The pooled features of towers that also return their tokens."""
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]  # open_clip is untyped


def _with_identity_c_proj(visual: Any) -> Any:
    import torch

    old = visual.attnpool.c_proj  # its weights go into torch's attention by name, so an Identity would not do
    width = old.in_features
    new = torch.nn.Linear(width, width, device=old.weight.device, dtype=old.weight.dtype).requires_grad_(False)
    torch.nn.init.eye_(new.weight)
    torch.nn.init.zeros_(new.bias)
    return _replaced(visual, "attnpool.c_proj", new)


def _without_timm_projection(visual: Any) -> Any:
    import torch

    behind = dict(visual.head.named_children())
    last = next((name for name in ("proj", "mlp") if name in behind), None)
    if last:
        return _replaced(visual, f"head.{last}", torch.nn.Identity())
    if "pool" in behind:
        return _replaced(visual, "head.pool.proj", torch.nn.Identity())
    classifier = visual.trunk.get_classifier()
    if not isinstance(classifier, torch.nn.Linear | torch.nn.Conv2d):
        return visual
    path = next(name for name, module in visual.named_modules() if module is classifier)
    return _replaced(visual, path, torch.nn.Identity())


def _replaced(module: Any, path: str, new: Any) -> Any:
    """A copy of the modules on the way to `path`, which is `new` there; all others are shared."""
    name, _, rest = path.partition(".")
    outer = copy.copy(module)
    inner = _replaced(module._modules[name], rest, new) if rest else new
    outer._modules = {**module._modules, name: inner}
    return outer
