"""The nouns: small frozen records that pass between the floors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Embeddings = npt.NDArray[np.float32]  # (n, d), every row finite and of length 1
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]  # (3, height, width), RGB


@dataclass(frozen=True)
class PixelRecipe:
    """How a model wants its pictures: what open_clip calls `preprocess`, as data.

    size: (height, width) in pixels. interpolation: "bicubic" | "bilinear". resize_mode: "shortest" (resize the shorter
    side, crop the centre), "longest" (resize the longer side, pad with `fill_color`), "squash" (ignore proportions).
    exact: decode and resize exactly as open_clip's own transform does, instead of the fast path.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    exact: bool = False

    def __str__(self) -> str:
        """One line that says everything that changes a pixel; the index stores it and compares it."""
        numbers = ",".join(f"{value:.6g}" for value in (*self.mean, *self.std))
        fill = f" fill={self.fill_color}" if self.resize_mode == "longest" else ""
        return (
            f"{'exact' if self.exact else 'fast'}-1 {self.size[0]}x{self.size[1]} "
            f"{self.resize_mode} {self.interpolation}{fill} {numbers}"
        )


@dataclass(frozen=True)
class Picture:
    """A decoded picture, ready for the model but for mean and std.

    pixels: uint8 (3, height, width) at the recipe's size. width, height: of the upright original, in pixels.
    taken_at: EXIF date as "YYYY-MM-DDTHH:MM:SS", or None.
    """

    pixels: Pixels
    width: int
    height: int
    taken_at: str | None = None


class Found(NamedTuple):
    """A file that the scan met. path: relative to the root, `/` between names, surrogateescape for odd bytes."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Known(NamedTuple):
    """What the index remembers of a file: its stamp when it was last read, and how that went."""

    id: int
    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: bytes | None
    state: str  # "ok" | "missing" | "failed"
    is_embedded: bool


@dataclass(frozen=True)
class Row:
    """A picture as the index will hold it. embedding: float16 bytes, or None where reading failed."""

    found: Found
    sha256: bytes | None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    error: str | None = None
    embedding: bytes | None = None


@dataclass(frozen=True)
class RawRow:
    """A row as the file has it; nothing about it was checked."""

    id: int
    path: str
    state: str
    sha256: bytes | None
    embedding: bytes | None


@dataclass(frozen=True)
class Failure:
    """A file that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a run is: pictures done of those to read, and the one at hand."""

    done: int
    total: int
    path: str


@dataclass(frozen=True)
class IndexReport:
    """What one run of `update` did, in pictures.

    found: met by the scan. encoded: through the model. reused: moved, copied or merely touched, embedding kept.
    restored: back after they were missing. missing: newly hidden. unchanged: not opened at all.
    failed: unreadable pictures met in this run. unreadable: folders and files the scan could not enter.
    """

    found: int
    encoded: int
    reused: int
    restored: int
    unchanged: int
    missing: int
    failed: tuple[Failure, ...]
    unreadable: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True)
class IndexInfo:
    """What an index says of itself."""

    index_id: str
    revision: int
    token: str  # random, new with every transaction: two copies that went separate ways never share it
    model: str
    model_source: str  # what load_encoder needs to find the model again
    weights_sha256: str
    dim: int
    pixel_recipe: str
    created_by: str
    root: str | None  # only where the index lies outside its folder


@dataclass(frozen=True)
class Hit:
    """One answer. score: cosine of query and picture, -1 to 1. path: relative to the root. file: on this disk."""

    score: float
    path: str
    file: str
    id: int


class Hits(list[Hit]):
    """Answers, best first."""

    def to_frame(self) -> pd.DataFrame:
        """A table with the columns score, path, file and id."""
        import pandas as pd

        return pd.DataFrame(
            {
                "score": [hit.score for hit in self],
                "path": [hit.path for hit in self],
                "file": [hit.file for hit in self],
                "id": [hit.id for hit in self],
            }
        )
