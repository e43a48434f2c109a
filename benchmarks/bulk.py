"""Embedding on Ray against `clipkit index`: the same photographs in turn; and more encoders, computing and waiting.

Every time is kept as soon as it is measured: a run that was interrupted goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import (
    Target,
    clipkit_command,
    command_seconds,
    fresh,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    work_folder,
    write,
)
from fixtures import BlockEncoder, photographs

from clipkit.core.arrays import Embeddings

SIZE = (500, 375)
WAIT = 0.01  # seconds a picture that an encoder elsewhere takes, as one on a GPU would
SIDE = 288  # the starter's


class WaitingEncoder(BlockEncoder):
    """Takes no processor's time, as an encoder on a GPU."""

    batch_size = 64

    def encode_pixels(self, pixels: npt.NDArray[np.uint8], *, space: str = "projected") -> Embeddings:
        time.sleep(WAIT * len(pixels))
        return super().encode_pixels(pixels, space=space)


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    if arguments.child:
        print(json.dumps(_waiting(Path(arguments.child[0]), int(arguments.child[1]))))
        return
    count, few, rounds = (200, 64, 1) if arguments.quick else (2000, 64, 2)
    growth = max(count // 4, 4 * few)  # pictures with which encoders are counted
    private_cache("bulk")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers find WaitingEncoder
    folders = {number: photographs(number, SIZE) for number in {count, few, growth}}
    _run("index", folders[few])  # the first run of a model is slower
    times = _Times(work_folder() / f"bulk-times{'-quick' if arguments.quick else ''}.json")
    for number in range(rounds):  # A B A B: a slow minute of a shared machine meets both
        for size in (few, count):
            for what in ("index", "ray"):
                times.measure(f"{what} {size} round {number}", lambda w=what, s=size: _run(w, folders[s]))
    for workers in (1, 2, 4):
        run = ["--workers", str(workers)]
        times.measure(f"ray {growth} workers {workers}", lambda more=run: _run("ray", folders[growth], *more))
        times.measure(
            f"waiting {growth} workers {workers}",
            lambda n=workers: fresh(__file__, folders[growth], n)["seconds"],
        )
    results = _results(times.found, count=count, few=few, growth=growth, rounds=rounds)
    print_table([["what", "value"], *([name, value] for name, value in results.items() if name != "raw")])
    target = Target("overhead beyond start-up, percent", results["overhead_percent"], 15)
    write("bulk", results, [target], arguments)
    times.file.unlink()


class _Times:
    """Seconds by name, in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def measure(self, name: str, run: Callable[[], float]) -> None:
        if name in self.found:
            return
        self.found[name] = run()
        print(f"{name}: {self.found[name]:.1f} s", flush=True)
        self.file.write_text(json.dumps(self.found))


def _run(what: str, photos: Path, *more: str) -> float:
    """Wall time of the whole command on a folder without an index or shards."""
    out = scratch("bulk-out")
    shutil.rmtree(photos / ".clipkit", ignore_errors=True)
    where = ["--index", str(out)] if what == "index" else ["--engine", "ray", "--out", str(out)]
    return command_seconds([clipkit_command(), "index", str(photos), "--model", "starter", *where, *more])


def _waiting(photos: Path, workers: int) -> dict[str, Any]:
    """Seconds from the first picture that is done to the last, with encoders that take no processor's time."""
    from bulk import WaitingEncoder as Importable  # of this module by its name, as workers see it

    from clipkit.bulk import embed

    moments: list[tuple[int, float]] = []
    embed(
        photos,
        scratch("bulk-out"),
        model=Importable(SIDE),
        workers=workers,
        progress=lambda progress: moments.append((progress.done, time.perf_counter())),
    )
    (first, began), (last, ended) = moments[0], moments[-1]
    return {"seconds": (ended - began) * last / max(last - first, 1)}


def _results(times: dict[str, float], *, count: int, few: int, growth: int, rounds: int) -> dict[str, Any]:
    def median(what: str, size: int) -> float:
        return statistics.median(times[f"{what} {size} round {number}"] for number in range(rounds))

    beyond = {what: median(what, count) - median(what, few) for what in ("index", "ray")}
    facts: dict[str, Any] = {
        "pictures": count,
        "growth_pictures": growth,
        "index_seconds": median("index", count),
        "ray_seconds": median("ray", count),
        "index_start_seconds": median("index", few),
        "ray_start_seconds": median("ray", few),
        "overhead_percent": 100 * (beyond["ray"] / beyond["index"] - 1),
    }
    for workers in (1, 2, 4):
        seconds = times[f"ray {growth} workers {workers}"] - median("ray", few)
        facts[f"pictures_per_second_{workers}"] = (growth - few) / max(seconds, 1e-3)
        facts[f"waiting_pictures_per_second_{workers}"] = growth / times[f"waiting {growth} workers {workers}"]
    return {**facts, "raw": times}


if __name__ == "__main__":
    sys.exit(main())
