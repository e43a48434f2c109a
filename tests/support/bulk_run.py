"""A run of `clipkit.bulk.embed` with slow colours, to be killed; and what its workers and tests need.

`python -m tests.support.bulk_run SOURCE OUT SHARD SECONDS [ADDRESS]`: SECONDS a picture.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.bulk import BulkReport, embed
from clipkit.bulk.shards import Shards
from clipkit.bulk.storage import Storage
from clipkit.core.arrays import Embeddings
from clipkit.images import guarded_decoder
from clipkit.images.recipe import Picture, PixelRecipe
from tests.support.colours import ColourEncoder, paint, shade

HONEST = guarded_decoder.decode


class SlowEncoder(ColourEncoder):
    """Takes its time. `started` is where it says which process it is."""

    def __init__(self, *, seconds: float = 0.0, started: Path | None = None) -> None:
        super().__init__()
        self.seconds, self.started = seconds, started

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        if self.started:
            self.started.mkdir(exist_ok=True)
            (self.started / str(os.getpid())).touch()
        time.sleep(self.seconds * len(pixels))
        return super().encode_pixels(pixels, space=space)


class GpuEncoder(ColourEncoder):
    """Says which GPUs it sees."""

    def __init__(self, said: Path) -> None:
        super().__init__()
        self.said = said

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Embeddings:
        self.said.mkdir(exist_ok=True)
        (self.said / f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}").touch()
        time.sleep(0.01 * len(pixels))
        return super().encode_pixels(pixels, space=space)


class DownStorage(Storage):
    """A bucket that answers nothing but what lies in it."""

    is_local = False  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return DownStorage, (self.url,)

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        raise OSError("SlowDown")


class OtherEncoder(ColourEncoder):
    """Other weights."""

    def __init__(self) -> None:
        super().__init__(fingerprint="aa" * 32)


def prepare() -> None:
    """In each worker of a cluster: decoders die of files named boom, and the worker itself of those named doom."""
    guarded_decoder._POOL.program = (sys.executable, "-P", "-m", "tests.support.boom_decoder", "segfault")
    guarded_decoder.decode = _decode  # type: ignore[assignment]


def _decode(data: bytes, recipe: PixelRecipe, *, name: str, is_hashed: bool = False) -> Picture:
    if "doom" in os.path.basename(name):
        os.kill(os.getpid(), signal.SIGKILL)
    return HONEST(data, recipe, name=name, is_hashed=is_hashed)


def make_pictures(folder: Path, count: int) -> Path:
    """So many pictures, each of a colour of its own."""
    for number in range(count):
        paint(folder / f"{number:04d}.png", shade(number), (8, 8))
    return folder


def rows_of(out: Path | str) -> dict[str, np.ndarray]:
    """Embeddings by path of everything that is there; AssertionError where a picture is there twice."""
    shards = Shards(out)
    found: dict[str, np.ndarray] = {}
    for name in shards.names:
        for piece in shards.pieces(name):
            for entry, row in zip(piece.entries, piece.embeddings, strict=True):
                assert entry.path not in found, f"{entry.path} is there twice"
                found[entry.path] = row
    return found


def failures_of(out: Path | str) -> dict[str, str]:
    """Reasons by path of everything that has no embedding."""
    shards = Shards(out)
    return dict(failure for name in shards.names for failure in shards.failures(name))


def expected(folder: Path, paths: list[str]) -> np.ndarray:
    """What the encoder makes of these pictures."""
    return ColourEncoder().encode_images([folder / path for path in paths])


def main() -> BulkReport:
    source, out, shard, seconds = sys.argv[1:5]
    address = sys.argv[5] if len(sys.argv) > 5 else None
    encoder = SlowEncoder(seconds=float(seconds), started=Path(f"{out}.started"))
    return embed(source, out, model=encoder, shard=int(shard), address=address)


if __name__ == "__main__":
    print(main())
