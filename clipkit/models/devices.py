"""Devices and precision: where a model runs, how it computes, and how much it takes at once."""

from __future__ import annotations

import copy
import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipkit.errors import ModelError

if TYPE_CHECKING:
    import torch


STEM_CONVOLUTIONS = 4  # a transformer has one, or a few in its stem; a convolutional tower has dozens
REUSED_BLOCK, KEPT_FREE = 32 << 20, 256 << 20  # bytes; glibc allows no more for the first
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
GPU_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_BUILT_FOR = re.compile(r"^(cuda|hip)\b[^=\n]*=\s*(\S+)", re.MULTILINE)  # cuda: Optional[str] = '13.0'
ENGINES = ("auto", "torch", "onnx")
FLOAT32, INT8 = "float32", "int8"  # of an image tower in ONNX Runtime
PRECISIONS = (FLOAT32, "bfloat16", "float16")  # of torch


@dataclass(frozen=True)
class Towers:
    """Where and how the two halves of a model run."""

    device: torch.device
    image: torch.dtype
    text: torch.dtype
    channels_last: bool


def check_engine(engine: str, device: str, precision: str) -> str:
    """The engine, or "torch" instead of "auto" where only that will do; ModelError for what does not go together."""
    if engine not in ENGINES:
        raise ModelError(f"no engine is called {engine!r}", hint=f"--engine {', '.join(ENGINES)}")
    is_plain = device in ("auto", "cpu") and precision in ("auto", "float32", INT8)
    if engine == "torch" and precision == INT8:
        place = "cpu" if device == "auto" else device
        raise ModelError(f"precision int8 does not go with {place} in torch", hint="--engine onnx")
    if precision == INT8 and not is_plain:
        raise ModelError(f"int8 is computed on the CPU, not on {device}", hint="--device cpu")
    engine = "onnx" if precision == INT8 else engine
    if engine == "onnx" and not is_plain:
        wanted = [f"in {precision}"] * (precision not in ("auto", "float32"))
        wanted += [f"on {device}"] * (device not in ("auto", "cpu"))
        fact = f"engine onnx computes in float32 on the CPU, not {' '.join(wanted)}"
        raise ModelError(fact, hint="--engine torch")
    is_on_gpu = device == "auto" and has_gpu()
    return "torch" if engine == "auto" and (is_on_gpu or not is_plain) else engine


def has_gpu() -> bool:
    """Whether this machine seems to have a GPU that torch can use; costs no import."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return any(Path(place).exists() for place in GPU_DEVICES) and not _is_for_cpu_alone()


def _is_for_cpu_alone() -> bool:
    """Whether the torch that is installed was built without CUDA and ROCm: its version.py says so."""
    spec = find_spec("torch")
    if spec is None or not spec.origin:
        return False
    try:
        version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    built_for = dict(_BUILT_FOR.findall(version))
    return bool(built_for) and set(built_for.values()) == {"None"}


def has_fast_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, and torch is not told to do without; costs no import.

    Where the system has no list of them, torch knows, if it is loaded.
    """
    if os.environ.get("ATEN_CPU_CAPABILITY", "").lower() in ("default", "avx2"):
        return False
    cpu = getattr(sys.modules.get("torch"), "cpu", None)
    checks = (getattr(cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if any(check is not None and check() for check in checks):
        return True
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(info.read_text().split()))


def pick_towers(network: Any, device: str, precision: str) -> Towers:
    """Each tower at the fastest precision that is right.

    CPU: bfloat16 where the hardware has it, never float16, which is slower than float32 there. CUDA: bfloat16, whose
    range no model exceeds, from Ampere on; else float16. MPS: float32, since nobody has measured the others for us.
    """
    place = pick_device(device)
    convolutional = is_convolutional(network.visual)
    text = pick_dtype(place, precision)
    # Depthwise convolutions gain nothing from bfloat16 on a CPU, and lose precision.
    image = pick_dtype(place, precision, convolutional=convolutional)
    return Towers(place, image, text, channels_last=convolutional and place.type != "mps")


def pick_device(device: str) -> torch.device:
    """The device of that name; for "auto" the fastest that is there. ModelError where it is not."""
    import torch

    if device == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"this machine has no device {device!r} for torch", hint="--device auto") from error


def pick_dtype(place: torch.device, precision: str, *, convolutional: bool = False) -> torch.dtype:
    """How a network computes there, as `pick_towers` says; on a CPU a convolutional one in float32, unless asked."""
    import torch

    if precision != "auto":
        if precision not in PRECISIONS or (place.type == "cpu" and precision == "float16"):
            raise ModelError(
                f"precision {precision} does not go with {place.type}", hint="--precision float32, or bfloat16"
            )
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if place.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(place)[0] >= 8 else torch.float16
    return torch.bfloat16 if place.type == "cpu" and not convolutional and has_fast_bfloat16() else torch.float32


def is_convolutional(visual: Any) -> bool:
    """Whether an image tower is mostly convolutions."""
    import torch

    return sum(isinstance(module, torch.nn.Conv2d) for module in visual.modules()) > STEM_CONVOLUTIONS


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
