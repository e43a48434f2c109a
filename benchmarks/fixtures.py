"""Benchmark inputs: photographs, tiny pictures, a random model, random vectors; all made on the spot."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import kept
from PIL import Image

from clipkit.core.arrays import Embeddings
from clipkit.images.recipe import PixelRecipe

BUNDLED = {
    "skimage/data": ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png"],
    "sklearn/datasets/images": ["china.jpg", "flower.jpg"],
}  # colour photographs that come inside scikit-image and scikit-learn
DIM = 512
NOISE = 5.0  # of 255: a 12 MP file made from a small photograph comes to about 2 MB
BLOCK = 65_536  # rows of random vectors made at a time


class BlockEncoder:
    """Costs next to nothing: a picture is its 8 x 8 block means, repeated up to `DIM` values with random signs."""

    model = source = "blocks"
    fingerprint = "b1" * 32
    engine = "numpy"
    precision = "float32"
    dim = DIM
    logit_scale = 100.0
    logit_bias = 0.0
    batch_size = 32

    def __init__(self, side: int) -> None:
        self.recipe = PixelRecipe((side, side), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        rng = np.random.default_rng(0)
        self._picks, self._signs = rng.integers(3 * 64, size=DIM), rng.choice(np.float32([-1, 1]), size=DIM)

    def encode_pixels(self, pixels: npt.NDArray[np.uint8], *, space: str = "projected") -> Embeddings:
        step = self.recipe.size[0] // 8
        means = pixels.reshape(len(pixels), 3, 8, step, 8, step).mean(axis=(3, 5), dtype=np.float32)
        centred = means.reshape(len(pixels), -1) / 255 - 0.5
        rows = centred[:, self._picks] * self._signs  # no matrix product: its threads would be measured too
        unit: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def photographs(count: int, size: tuple[int, int]) -> Path:
    """A folder of `count` different JPEGs of (width, height): crops of real photographs, with a camera's noise."""
    return kept(f"photographs-{size[0]}x{size[1]}-{count}", lambda folder: _make_photographs(folder, count, size))


def tiny_pictures(count: int) -> Path:
    """A folder of `count` PNGs of 8 x 8 random pixels, in 100 subfolders; no two have the same bytes."""
    return kept(f"tiny-{count}", lambda folder: _make_tiny(folder, count))


def random_vit() -> Path:
    """A folder with a full-size ViT-B-32 of open_clip, weights random."""
    return kept("ViT-B-32-random", _make_vit)


def unit_rows(count: int, *, seed: int = 0) -> Iterator[npt.NDArray[np.float16]]:
    """Random directions, float16 (m, DIM), in blocks of at most BLOCK rows."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        rows = rng.standard_normal((min(BLOCK, count - start), DIM), dtype=np.float32)
        yield (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def unit_queries(count: int) -> Embeddings:
    """Random directions, float32 (count, DIM)."""
    rows = next(unit_rows(count, seed=1)).astype(np.float32)
    unit: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _make_photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    sources = [Image.open(file).convert("RGB") for file in _bundled()]
    rng = np.random.default_rng(0)
    for number in range(count):
        crop = _random_crop(sources[number % len(sources)], size, rng)
        noise = rng.standard_normal((size[1], size[0], 1), dtype=np.float32) * NOISE
        pixels = np.clip(np.asarray(crop) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=85)


def _random_crop(image: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.6, 1) * min(image.width / size[0], image.height / size[1])
    width, height = int(size[0] * scale), int(size[1] * scale)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))


def _bundled() -> list[Path]:
    import skimage

    packages = Path(skimage.__file__).parent.parent
    return [packages / folder / name for folder, names in BUNDLED.items() for name in names]


def _make_tiny(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        below = folder / f"{number % 100:02d}"
        below.mkdir(exist_ok=True)
        (below / f"{number:06d}.png").write_bytes(_png(rng.bytes(8 * 8 * 3)))


def _png(pixels: bytes) -> bytes:
    rows = b"".join(b"\0" + pixels[start : start + 24] for start in range(0, len(pixels), 24))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)  # width, height, 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _make_vit(folder: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32", load_weights=False)
    state = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    pixels = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-32"),
        "preprocess_cfg": {**pixels, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
