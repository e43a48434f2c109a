"""Growth of an index: `clipkit index` and a cold `search`, whole commands, over 1,000 to 100,000 pictures.

The pictures are PNGs of 8 x 8 pixels, whose rows are written with random vectors and not encoded: nothing here looks
at them. The one new picture of each round is a photograph, and is encoded by the starter.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Target,
    clipkit_command,
    command_seconds,
    print_table,
    private_cache,
    read_arguments,
    scratch,
    summary,
    write,
)
from fixtures import _bundled, tiny_pictures

SIZES = (1000, 10_000, 50_000, 100_000)
ROUNDS = 3
COMMIT = 10_000


def main() -> None:
    arguments = read_arguments(__doc__ or "")
    private_cache("growth-cache")
    runs = {str(count): _grown(count) for count in ((100, 1000) if arguments.quick else SIZES)}
    header = ("pictures", *next(iter(runs.values())))
    lines = [(f"{int(count):,}", *(taken["median"] for taken in run.values())) for count, run in runs.items()]
    print_table([header, *lines])
    targets = [
        Target(f"one new picture in {int(count):,}, whole command, seconds", run["one new"]["median"], 3)
        for count, run in runs.items()
        if int(count) == 50_000 or arguments.quick
    ]
    write("growth", {"seconds": runs}, targets, arguments)


def _grown(count: int) -> dict[str, Any]:
    photos, at = tiny_pictures(count), scratch("growth-index")
    for file in photos.glob("new-*.png"):
        file.unlink()
    _fill(photos, at)
    index = [clipkit_command(), "index", str(photos), "--index", str(at)]
    search = [clipkit_command(), "search", "a red bicycle", str(photos), "--index", str(at)]
    command_seconds(index)  # writes the search cache
    return {
        "nothing new": summary([command_seconds(index) for _ in range(ROUNDS)]),
        "one new": summary([_with_one_new(photos, number, index) for number in range(ROUNDS)]),
        "search": summary([command_seconds(search) for _ in range(ROUNDS)]),
    }


def _with_one_new(photos: Path, number: int, command: list[str]) -> float:
    shutil.copy(_bundled()[number], photos / f"new-{number}.png")
    return command_seconds(command)


def _fill(photos: Path, at: Path) -> None:
    from clipkit import ImageIndex, load_encoder
    from clipkit.index.scan import find_images
    from clipkit.store.records import PictureRow

    index = ImageIndex.create(photos, load_encoder("starter"), at=at)
    rng, found = np.random.default_rng(0), find_images(str(photos)).found
    for start in range(0, len(found), COMMIT):
        rows = rng.standard_normal((COMMIT, index.info.dim)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        with index.store.transaction() as writer:
            for file, row in zip(found[start : start + COMMIT], rows.astype(np.float16), strict=False):
                writer.put(PictureRow(file, secrets.token_bytes(32), 8, 8, embedding=row.tobytes()))


if __name__ == "__main__":
    main()
