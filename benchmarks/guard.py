"""Cost of guarded decoding: 200 photographs encoded, indexed and as thumbnails, and the first answer."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import (
    Target,
    clipkit_command,
    command_seconds,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    seconds,
    write,
)
from fixtures import photographs

from clipkit.images.guarded_decoder import UNGUARDED
from clipkit.images.thumbnails import thumbnail
from clipkit.index.image_index import ImageIndex
from clipkit.models.load import load_encoder

COUNT = 200
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # else threads that wait for a busy machine's cores count as work
    arguments = read_arguments(__doc__ or "")
    private_cache("guard")
    folder = photographs(20 if arguments.quick else COUNT, (500, 375))
    files = sorted(file for file in folder.iterdir() if file.suffix == ".jpg")
    encoder = load_encoder("starter")
    place = scratch("guard-index")
    ImageIndex.create(folder, encoder, at=place).update()
    search = [clipkit_command(), "search", str(files[0]), str(folder), "--index", str(place)]
    tasks: dict[str, Callable[[], object]] = {
        "encode_images": lambda: encoder.encode_images([str(file) for file in files]),
        "update": lambda: ImageIndex.create(folder, encoder, at=scratch("guard-update")).update(),
        "thumbnails": lambda: [thumbnail(file, 320) for file in files],
        "first answer": lambda: command_seconds(search),
    }
    results: dict[str, Any] = {"pictures": len(files)}
    rows: list[list[object]] = [["task", "CPU s", "unguarded", "cost %", "wall s", "unguarded"]]
    for name, task in tasks.items():
        result = results[name] = _compare(task, 3 if arguments.quick else 9)
        cpu, wall = result["cpu_seconds"], result["wall_seconds"]
        rows.append(
            [name, cpu["guarded"], cpu["unguarded"], result["cost_percent"], wall["guarded"], wall["unguarded"]]
        )
    print_table(rows)
    promised = (
        "encode_images",
        "update",
        "first answer",
    )  # a thumbnail costs a millisecond anyway, and so shows its way there
    targets = [Target(f"cost of the guard to {name}, percent", results[name]["cost_percent"], 5) for name in promised]
    write("guard", results, targets, arguments)


def _compare(task: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Medians of rounds in turn; the cost is of processor time, since others may use the cores."""
    runs = {"guarded": task, "unguarded": lambda: _unguarded(task)}
    cpu: dict[str, list[float]] = {kind: [] for kind in runs}
    wall: dict[str, list[float]] = {kind: [] for kind in runs}
    for round_ in range(rounds + 1):
        for kind, run in runs.items():
            before = _cpu_seconds()
            taken = seconds(run)
            if round_:  # the first run of a model is slower, and starts the decoders
                wall[kind].append(taken)
                cpu[kind].append(_cpu_seconds() - before)
    medians = {kind: statistics.median(values) for kind, values in cpu.items()}
    return {
        "cpu_seconds": medians,
        "wall_seconds": {kind: statistics.median(values) for kind, values in wall.items()},
        "cost_percent": 100 * (medians["guarded"] / medians["unguarded"] - 1),
        "raw": {"cpu_seconds": cpu, "wall_seconds": wall},
    }


def _cpu_seconds() -> float:
    """Of this process, of the children that have ended, and of those that are alive."""
    total = sum(os.times()[:4])
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def _unguarded(task: Callable[[], object]) -> None:
    os.environ[UNGUARDED] = "1"
    try:
        task()
    finally:
        del os.environ[UNGUARDED]


if __name__ == "__main__":
    main()
