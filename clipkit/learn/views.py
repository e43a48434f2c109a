"""Random views of a picture for training, and the features of each, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clipkit.core.cache import cache_folder
from clipkit.core.files import digest
from clipkit.core.tensor_files import read_sealed, write_sealed
from clipkit.errors import ImageError, ModelError
from clipkit.images.thumbnails import Canvas, thumbnail
from clipkit.store.records import Failure, FloatArray, PixelRecipe, Pixels, Progress

FORM = "clipkit views 1"
CANVAS = 2  # times the model's side: crops of less than a quarter of the area are enlarged
RATIOS = (3 / 4, 4 / 3)  # of width to height, as everywhere since GoogLeNet
TRIES = 10
BLOCK = 32  # pictures a file of the cache: a killed run loses a few seconds


class Reader(Protocol):
    """A frozen image tower. key: everything that changes its features; recipe: the pixels it reads."""

    @property
    def key(self) -> str: ...
    @property
    def recipe(self) -> PixelRecipe: ...
    def features(self, pixels: npt.NDArray[np.uint8]) -> FloatArray: ...
    def centre_features(self, files: Sequence[str]) -> FloatArray: ...


@dataclass(frozen=True, eq=False)
class Seen:
    """The features of those pictures that could be read. rows: (n, views, d) float16. places: which of the files."""

    rows: npt.NDArray[np.float16]
    places: npt.NDArray[np.int64]
    failed: tuple[Failure, ...]


def read_canvas(file: str | os.PathLike[str], recipe: PixelRecipe) -> Canvas:
    """The whole picture, upright, at a size that is enough to cut views from: (h, w, 3)."""
    return thumbnail(file, CANVAS * max(recipe.size)).canvas


def random_view(canvas: Canvas, recipe: PixelRecipe, dice: np.random.Generator, *, smallest: float) -> Pixels:
    """A random part of the picture at the model's size, mirrored or not: (3, height, width).

    The part has at least `smallest` of the area and 3:4 to 4:3 of proportions: random resized crop and flip.
    """
    from torch import from_numpy
    from torch.nn.functional import interpolate

    top, left, height, width = random_box(canvas.shape[0], canvas.shape[1], dice, smallest=smallest)
    part = canvas[top : top + height, left : left + width]
    if dice.random() < 0.5:
        part = part[:, ::-1]
    batch = from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]  # uint8: torch stays in this thread
    view: Pixels = interpolate(batch, size=recipe.size, mode=recipe.interpolation, antialias=True)[0].numpy()
    return np.ascontiguousarray(view)


def random_box(height: int, width: int, dice: np.random.Generator, *, smallest: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part; where none fits, the largest of the nearest proportions."""
    for _ in range(TRIES):
        area = height * width * dice.uniform(smallest, 1)
        ratio = math.exp(dice.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(dice.integers(height - h + 1)), int(dice.integers(width - w + 1)), h, w
    w = max(1, min(width, round(height * RATIOS[1])))
    h = max(1, min(height, round(width / RATIOS[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def dice_for(content: str, *numbers: int) -> np.random.Generator:
    """The same for the same content and numbers, wherever the picture lies and whatever others are there."""
    return np.random.default_rng([int(hashlib.sha256(content.encode()).hexdigest()[:16], 16), *numbers])


def see(
    files: Sequence[str],
    reader: Reader,
    *,
    views: int,
    smallest: float,
    progress: Callable[[Progress], None] | None = None,
) -> Seen:
    """Features of `views` random views of each picture, or for 0 of its centre, as the model is asked later.

    Each picture is decoded once for all its views. Views are drawn from the picture's own content, so that any
    training on it, at any seed, shares them; what was computed before comes from the cache. Rounded to float16.
    """
    folder = _folder(reader, views, smallest)
    contents = [digest(file) or "unreadable" for file in files]
    known = _known(folder, set(contents))
    missing = [i for i, content in enumerate(contents) if content not in known]
    failed: list[Failure] = []
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        names = [files[i] for i in block]
        rows, bad = _compute(names, [contents[i] for i in block], reader, views, smallest)
        failed += bad
        gone = {failure.path for failure in bad}
        fresh = [contents[i] for i in block if files[i] not in gone]
        known.update(zip(fresh, rows, strict=True))
        _keep(folder, fresh, rows)
        if progress:
            progress(Progress(start + len(block), len(missing), names[-1]))
    gone = {failure.path for failure in failed}
    places = np.array([i for i, file in enumerate(files) if file not in gone], np.int64)
    if not len(places):
        raise ImageError(f"none of {len(files)} pictures can be read; the first: {failed[0].reason}")
    return Seen(np.stack([known[contents[i]] for i in places]), places, tuple(failed))


def _compute(
    files: Sequence[str], contents: Sequence[str], reader: Reader, views: int, smallest: float
) -> tuple[npt.NDArray[np.float16], list[Failure]]:
    """(n, views, d) of those that can be read, and the others."""
    if not views:
        return _centres(files, reader)

    def draw(file: str, content: str) -> npt.NDArray[np.uint8] | Failure:
        try:
            canvas = read_canvas(file, reader.recipe)
        except ImageError as error:
            return Failure(file, error.message)
        return np.stack(
            [random_view(canvas, reader.recipe, dice_for(content, view), smallest=smallest) for view in range(views)]
        )

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        drawn = list(pool.map(draw, files, contents))
    stacks = [item for item in drawn if not isinstance(item, Failure)]
    failed = [item for item in drawn if isinstance(item, Failure)]
    if not stacks:
        return np.empty((0, views, 0), np.float16), failed
    rows = reader.features(np.concatenate(stacks)).astype(np.float16)
    return rows.reshape(len(stacks), views, -1), failed


def _centres(files: Sequence[str], reader: Reader) -> tuple[npt.NDArray[np.float16], list[Failure]]:
    parts: list[FloatArray] = []
    failed: list[Failure] = []
    try:
        parts.append(reader.centre_features(files))
    except ImageError:
        for file in files:
            try:
                parts.append(reader.centre_features([file]))
            except ImageError as error:
                failed.append(Failure(file, error.message))
    rows = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    return rows.astype(np.float16)[:, None], failed


def _folder(reader: Reader, views: int, smallest: float) -> Path:
    said = [FORM, reader.key, views, smallest if views else None]
    return cache_folder() / "views" / hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def _known(folder: Path, wanted: set[str]) -> dict[str, npt.NDArray[np.float16]]:
    rows: dict[str, npt.NDArray[np.float16]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if not wanted & set(_contents(file)):
            continue
        with suppress(ModelError):  # damaged: it is a cache
            arrays, contents = read_sealed(file, form=FORM)
            rows.update((name, row) for name, row in zip(contents, arrays["rows"], strict=True) if name in wanted)
    return rows


def _contents(file: Path) -> list[str]:
    """Which pictures a file of the cache holds, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as stored:
            said: Any = json.loads((stored.metadata() or {}).get("said", "[]"))
    except (OSError, SafetensorError, ValueError):
        return []
    return said if isinstance(said, list) else []


def _keep(folder: Path, contents: Sequence[str], rows: npt.NDArray[np.float16]) -> None:
    if not contents:
        return
    name = hashlib.sha256("".join(contents).encode()).hexdigest()[:32]
    with suppress(OSError):  # a cache that cannot be written is only slower
        write_sealed(folder / f"{name}.safetensors", {"rows": rows}, list(contents), form=FORM)
