"""Shared pieces of the benchmarks: where it ran, how times are summed up, and the file the result goes to."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipkit.core import system
from clipkit.core.system import versions
from clipkit.doctor.engines import cpu_flags

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
PACKAGES = ("clipkit", "torch", "open_clip_torch", "faiss-gpu", "faiss-cpu", "numpy", "pillow", "simplejpeg")
MB = 1e6
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
HELD_BY = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode, and so has what is measured


@dataclass(frozen=True)
class Target:
    """A number that was promised. limit: the value may not be above it; with is_floor, not below it."""

    name: str
    value: float
    limit: float
    is_floor: bool = False

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.is_floor else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.is_floor else "<="
        return f"{'met   ' if self.is_met else 'MISSED'}  {self.name}: {self.value:.3g} (target {sign} {self.limit:g})"


def read_arguments(description: str) -> argparse.Namespace:
    """--quick; --child, by which a script calls itself in a fresh process; and how busy the machine was before."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes: a trial of the script, no measurement")
    parser.add_argument("--child", nargs="+", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.load_average = list(os.getloadavg()) if hasattr(os, "getloadavg") else None  # 1, 5 and 15 minutes
    return arguments


def photographs() -> Path | None:
    """The folder of real photographs, CLIPKIT_TEST_DATA; None, and a line that says so, where there is none."""
    folder = os.environ.get("CLIPKIT_TEST_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    print("CLIPKIT_TEST_DATA does not point at the photographs: nothing to measure")
    return None


def work_folder() -> Path:
    """Where what the benchmarks make is kept from run to run: CLIPKIT_BENCH, or below the system's temporary folder."""
    folder = Path(os.environ.get("CLIPKIT_BENCH") or Path(tempfile.gettempdir()) / "clipkit-bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name, made by `make` unless an earlier run has completed it; the name says its contents."""
    folder = work_folder() / name
    complete = folder / ".complete"
    if not complete.exists():
        print(f"making {name}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        complete.touch()
    return folder


def scratch(name: str) -> Path:
    """An empty folder of that name; what an earlier run left there is deleted."""
    folder = work_folder() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def private_cache(name: str) -> Path:
    """An empty cache folder for this process and its children, and no request to any hub."""
    folder = scratch(name)
    os.environ["CLIPKIT_CACHE"] = str(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"
    return folder


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call took."""
    started = clock()
    run()
    return clock() - started


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each, A B C A B C, so that a slow minute of a shared machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, clock))
            if times[name][-1] > 1:
                print(f"round {number + 1} of {rounds}: {name} {times[name][-1]:.1f} s", flush=True)
    return times


def summary(raw: Sequence[float]) -> dict[str, Any]:
    """Median and spread beside all that was measured."""
    return {"median": statistics.median(raw), "lowest": min(raw), "highest": max(raw), "raw": list(raw)}


def fresh(script: str, *arguments: object) -> dict[str, Any]:
    """What the script says, as JSON on its last line, when a new process runs it with --child."""
    command = [sys.executable, script, "--child", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin with the parent's size
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def command_seconds(command: Sequence[str]) -> float:
    """Wall time of a command that must succeed; what it prints is dropped."""
    started = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    taken = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} {' '.join(command[1:])} failed: {done.stderr}")
    return taken


def clipkit_command() -> str:
    """The `clipkit` beside this Python."""
    return str(Path(sys.executable).with_name("clipkit"))


def available_bytes() -> int:
    """Memory that could be had without swapping; 0 where the system does not say."""
    return _memory("MemAvailable")


def result_file(name: str, *, quick: bool) -> Path:
    """Where `write` puts the result: trials do not replace measurements."""
    return work_folder() / f"{name}.quick.json" if quick else RESULTS / f"{name}.json"


def write(name: str, results: Mapping[str, Any], targets: Sequence[Target], arguments: argparse.Namespace) -> None:
    """Print which targets were met and keep everything as JSON, with the machine, the date and the commit."""
    for target in targets:
        print(target)
    record = {
        "benchmark": name,
        "command": f"python benchmarks/{name}.py{' --quick' if arguments.quick else ''}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {**machine(), "load_average_before": arguments.load_average},
        "versions": versions(PACKAGES),
        "results": results,
        "targets": [{**vars(target), "is_met": target.is_met} for target in targets],
    }
    file = result_file(name, quick=arguments.quick)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(f"-> {file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file.name}")


def commit() -> dict[str, Any]:
    """The commit that ran, and whether anything but earlier results differed from it."""
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return {"sha": _git("rev-parse", "HEAD"), "dirty": bool(changed) if changed is not None else None}


def machine() -> dict[str, Any]:
    """What ran it; nothing that names it."""
    return {**system.machine(), "instructions": _instructions(), "memory_gb": round(_memory("MemTotal") / 1e9, 1)}


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, numbers to three digits."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked archive
        return None


def _instructions() -> list[str]:
    """Which of the processor's instruction sets decide how fast a tower runs; less where the environment says so."""
    held = [f"{name}={value}" for name, value in os.environ.items() if name in HELD_BY]
    return [name for name in INSTRUCTIONS if name in cpu_flags()] + held


def _memory(field: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
