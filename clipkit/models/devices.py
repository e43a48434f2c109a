"""The two towers of a model: where they run, at which precision, and how a text tower is cut to its texts."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.errors import ModelError
from clipkit.store.records import PixelRecipe

if TYPE_CHECKING:
    import torch

    from clipkit.models.registry import Weights

STEM_CONVOLUTIONS = 4  # a transformer has one, or a few in its stem; a convolutional tower has dozens
REUSED_BLOCK, KEPT_FREE = 32 << 20, 256 << 20  # bytes; glibc allows no more for the first
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Towers:
    """Where and how the two halves of a model run."""

    device: torch.device
    image: torch.dtype
    text: torch.dtype
    channels_last: bool


def pick_towers(network: Any, device: str, precision: str) -> Towers:
    """Each tower at the fastest precision that is right.

    CPU: bfloat16 where the hardware has it, never float16, which is slower than float32 there. CUDA: bfloat16, whose
    range no model exceeds, from Ampere on; else float16. MPS: float32, since nobody has measured the others for us.
    """
    import torch

    place = _pick_device(device)
    is_convolutional = sum(isinstance(m, torch.nn.Conv2d) for m in network.visual.modules()) > STEM_CONVOLUTIONS
    channels_last = is_convolutional and place.type != "mps"
    if precision != "auto":
        if precision not in PRECISIONS or (place.type == "cpu" and precision == "float16"):
            raise ModelError(f"precision {precision} does not go with {place.type}", hint="float32 or bfloat16")
        dtype: torch.dtype = getattr(torch, precision)
        return Towers(place, dtype, dtype, channels_last)
    if place.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.get_device_capability(place)[0] >= 8 else torch.float16
        return Towers(place, dtype, dtype, channels_last)
    dtype = torch.bfloat16 if place.type == "cpu" and _has_fast_bfloat16() else torch.float32
    # Depthwise convolutions gain nothing from bfloat16 on a CPU, and lose precision.
    return Towers(place, torch.float32 if is_convolutional else dtype, dtype, channels_last)


def place_network(network: Any, towers: Towers) -> Any:
    import torch

    visual, network.visual = network.visual, None  # CLIP keeps its text tower loose in the network
    network.to(towers.device, towers.text)
    layout = torch.channels_last if towers.channels_last else torch.preserve_format
    if towers.device.type == "cpu":
        _keep_freed_memory()
        visual = _fused(visual) if towers.channels_last else visual
    network.visual = visual.to(towers.device, towers.image, memory_format=layout)
    return network


def check_weights(weights: Weights, network: Any) -> None:
    """Refuses what would be wrong without a word: NaN, and positions that open_clip stretched to another resolution."""
    import torch
    from safetensors import safe_open

    state = network.state_dict()
    if not all(torch.isfinite(value.sum()) for value in state.values() if value.is_floating_point()):
        raise ModelError(f"{weights.model} has weights that are NaN or infinite", hint=f"fetch {weights.file} again")
    if weights.file.suffix != ".safetensors":
        return
    with safe_open(weights.file, "pt") as stored:
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118  no dict
    for name in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding"):
        if name in shapes and name in state and shapes[name] != tuple(state[name].shape):
            has, wants = shapes[name][0], state[name].shape[0]
            raise ModelError(f"{weights.model}: the weights have {has} positions in {name}, the config {wants}")


def pixel_recipe(model: str, network: Any, config: Mapping[str, Any], *, exact: bool) -> PixelRecipe:
    """What open_clip says of the model's pictures in `config`; ModelError for what clipkit does not do."""
    size, interpolation = config["size"], config["interpolation"]
    if interpolation not in ("bicubic", "bilinear"):
        raise ModelError(f"{model} wants its pictures resized by {interpolation!r}, which clipkit does not know")
    if config["resize_mode"] not in ("shortest", "longest", "squash"):
        raise ModelError(f"{model} wants its pictures resized {config['resize_mode']!r}, which clipkit does not know")
    height, width = (size, size) if isinstance(size, int) else size
    inner = getattr(getattr(getattr(network.visual, "trunk", None), "patch_embed", None), "img_size", None)
    if inner is not None and tuple(inner) != (height, width):
        raise ModelError(f"{model} says {height}x{width} pixels, but its image tower reads {inner[0]}x{inner[1]}")
    return PixelRecipe(
        size=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation,
        resize_mode=config["resize_mode"],
        fill_color=config["fill_color"],
        exact=exact,
    )


def causal_tower(network: Any) -> Any:
    """The module that holds the text tower's positions and mask, if what follows the end of a text cannot matter."""
    tower = getattr(network, "text", network)
    pool = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)
    is_causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    return tower if is_causal and pool in ("argmax", "eos") else None


def lengths(tokens: torch.Tensor, tower: Any) -> npt.NDArray[np.int64]:
    """(n,): up to and with the token that the tower pools; the whole row where it cannot be cut."""
    if tower is None:
        return np.full(len(tokens), tokens.shape[1])
    pool = getattr(tower, "pool_type", None) or tower.text_pool_type
    end_id = tower.eos_id if hasattr(tower, "eos_id") else tower.text_eos_id
    ends = tokens if pool == "argmax" else (tokens == end_id).int()
    return np.asarray(ends.argmax(dim=-1) + 1, np.int64)


def cut(tower: Any, length: int) -> Any:
    """The same text tower for `length` tokens: it shares all weights, and the original is not touched.

    open_clip has no call for it: positions and mask have the full context, whatever the text.
    """
    import torch

    short = copy.copy(tower)
    positions = torch.nn.Parameter(tower.positional_embedding[:length], requires_grad=False)
    short._parameters = {**tower._parameters, "positional_embedding": positions}
    short._buffers = {**tower._buffers, "attn_mask": tower.attn_mask[:length, :length]}
    return short


def at_once(visual: Any, show_one: Callable[[], object]) -> int:
    """Pictures that a CPU takes together: the widest layer of so many writes no more than REUSED_BLOCK.

    show_one: sends one picture through `visual`.
    """
    import torch

    sizes = [1]

    def look(_module: Any, _given: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            sizes.append(made.nbytes)

    hooks = [module.register_forward_hook(look) for module in visual.modules()]
    try:
        with torch.inference_mode():
            show_one()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, REUSED_BLOCK // max(sizes))


def is_out_of_memory(error: Exception) -> bool:
    """CUDA has a class for it; the CPU's allocator and MPS only say so."""
    import torch

    words = ("not enough memory", "DefaultCPUAllocator", "out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def _pick_device(device: str) -> torch.device:
    import torch

    if device == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"this machine has no device {device!r} for torch", hint="--device auto") from error


def _has_fast_bfloat16() -> bool:
    import torch

    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if any(check is not None and check() for check in checks):
        return True
    info = Path("/proc/cpuinfo")  # another torch may have renamed its private functions
    return info.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(info.read_text().split()))


def _keep_freed_memory() -> None:
    """Has glibc give freed memory out again, for the whole process, unless MALLOC_... in the environment decides.

    As it is, it hands the memory of each layer back to the kernel, and gets it again page by page: with this, and
    `at_once`, the starter indexes more than twice as many pictures a second (benchmarks/batches.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt(M_MMAP_THRESHOLD, REUSED_BLOCK)
    mallopt(M_TRIM_THRESHOLD, KEPT_FREE)


def _fused(visual: Any) -> Any:
    """The tower with each batch normalisation taken into its convolution: 1.6 times the pictures a second on a CPU.

    Which convolution feeds which normalisation is taken from their order, so the result is compared, and the tower left
    as it was where it differs.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    fused = copy.deepcopy(visual)
    for module in list(fused.modules()):
        for (name, first), (next_name, second) in pairwise(list(module._modules.items())):
            if not isinstance(first, torch.nn.Conv2d) or not isinstance(second, torch.nn.BatchNorm2d):
                continue
            if first.out_channels == second.num_features:
                setattr(module, name, fuse_conv_bn_eval(first, second))
                # timm keeps the activation in the normalisation
                setattr(module, next_name, getattr(second, "act", torch.nn.Identity()))
    try:
        probe = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64).sin()
        with torch.inference_mode():
            agrees = torch.allclose(visual(probe), fused(probe), rtol=1e-3, atol=1e-4)
    except (RuntimeError, AssertionError):  # a tower that reads one size only
        return visual
    return fused if agrees else visual
