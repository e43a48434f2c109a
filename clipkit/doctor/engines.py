"""Engine facts of torch and faiss, asked in a process of their own, because what is wrong can end one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from clipkit.errors import ClipkitError
from clipkit.models.devices import pick_towers
from clipkit.search.vectors import faiss_build

ANSWER_SECONDS = 30.0  # a cold disk reads torch in ten; a warm one in two
SMI_SECONDS = 5.0
_ASK = "import json; from clipkit.doctor.engines import ask; print(json.dumps(vars(ask())))"


@dataclass(frozen=True)
class Engines:
    """What torch and faiss say of this machine.

    device, precision: what "auto" picks for a transformer. cpu: the code torch uses, AVX2 say. cuda: the CUDA that
    torch was built for. openmp: the OpenMP libraries that both have loaded.
    """

    device: str
    precision: str
    cpu: str
    cuda: str | None
    faiss_code: str
    faiss_gpus: int
    openmp: tuple[str, ...]


def ask() -> Engines:
    """By import of torch and faiss, here."""
    import torch

    faiss = faiss_build()
    towers = pick_towers(SimpleNamespace(visual=torch.nn.Identity()), "auto", "auto")
    return Engines(
        device=towers.device.type,
        precision=str(towers.image).removeprefix("torch."),
        cpu=torch.backends.cpu.get_cpu_capability(),
        cuda=torch.version.cuda or torch.version.hip,
        faiss_code=faiss.code,
        faiss_gpus=faiss.gpus,
        openmp=_openmp_libraries(),
    )


def ask_apart() -> Engines:
    """The same from a process of its own; ClipkitError with its last words where it fails, or takes too long."""
    command = [sys.executable, "-P", "-c", _ASK]  # -P: nothing is imported from the folder the user stands in
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        fact = f"torch and faiss took more than {ANSWER_SECONDS:.0f} s to import"
        raise ClipkitError(fact, hint="the same command again: the disk may have been cold") from error
    if done.returncode:
        end = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        last = (done.stderr.strip().splitlines() or [end])[-1]
        hint = "install torch and faiss again, both from one place (pip, or conda-forge)"
        raise ClipkitError(f"torch and faiss cannot be imported together: {last}", hint=hint)
    answer = json.loads(done.stdout.splitlines()[-1])
    return Engines(**{**answer, "openmp": tuple(answer["openmp"])})


def cpu_flags() -> set[str]:
    """What the CPU can do, where the system says it."""
    info = Path("/proc/cpuinfo")
    return set(info.read_text().split()) if info.is_file() else set()


def nvidia_gpus() -> list[str]:
    """What the driver says, whatever torch and faiss make of it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [line.partition(" (UUID")[0] for line in lines if line.startswith("GPU ")]


def _openmp_libraries() -> tuple[str, ...]:
    from threadpoolctl import threadpool_info  # it comes with scikit-learn

    return tuple(str(library["filepath"]) for library in threadpool_info() if library["user_api"] == "openmp")
