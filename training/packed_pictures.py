"""Packed training pictures: small pixels and the CNN's feature maps of each, made once for `train_student.py`."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from image_tower import image_tower
from picture_sets import TRAINING_SETS, WORK, photographs
from PIL import Image
from torch import Tensor

FOLDER = WORK / "packed"
BATCH = 32
TEACHER_SIZE, PIXELS = 256, 160  # the whole picture, squashed: a crop undoes it
CELLS, CHANNELS = 8, 640  # the last map: stride 32, 1,280 channels along their principal directions
HINT_CELLS, HINT_CHANNELS = 16, 64  # the map at stride 16, 120 channels
HINT_STAGE = 4  # of timm's blocks
SAMPLE = 960  # pictures the principal directions come from


@dataclass(frozen=True)
class Packed:
    """Memory-mapped, row by row the same picture.

    pixels (n, 3, 160, 160) uint8, maps (n, 640, 8, 8) and hints (n, 64, 16, 16) float16, aspects (n,) width / height.
    """

    pixels: np.ndarray
    maps: np.ndarray
    hints: np.ndarray
    aspects: np.ndarray
    back: np.ndarray  # (640, 1280) and
    mean: np.ndarray  # (1280,): features = map @ back + mean
    spread: np.ndarray  # (640,) standard deviation of each channel of the maps


class Teacher:
    """The CNN that the starter is made from, with its published weights."""

    def __init__(self) -> None:
        self.trunk = image_tower().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def see(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, 256, 256) -> the map at stride 16 (b, 120, 16, 16) and the last one (b, 1280, 8, 8)."""
        kept = []
        hook = self.trunk.blocks[HINT_STAGE].register_forward_hook(lambda *call: kept.append(call[2]))
        last = self.trunk.forward_features(batch.contiguous(memory_format=torch.channels_last))
        hook.remove()
        return kept[0], last


def packed() -> Packed:
    """What `main` has written; a FileNotFoundError before that."""
    directions = np.load(FOLDER / "directions.npz")
    files = {name: np.load(FOLDER / f"{name}.npy", mmap_mode="r") for name in ("pixels", "maps", "hints", "aspects")}
    return Packed(**files, back=directions["last"].T, mean=directions["last_mean"], spread=directions["last_spread"])


def pooled() -> np.ndarray:
    """(n, 1280) float32, never negative: the features of every training picture as far as the maps hold them."""
    data = packed()
    means = [data.maps[start : start + 512].astype(np.float32).mean((2, 3)) for start in range(0, len(data.maps), 512)]
    return (np.concatenate(means) @ data.back + data.mean).clip(min=0)


def training_files() -> list[str]:
    """The pictures of `starter_train` and `imagenet_sample`; nothing that is measured on."""
    return [file for name in TRAINING_SETS for file in photographs(name).file]


def main() -> None:
    """Goes on where it was stopped."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    files, teacher = training_files(), Teacher()
    if not (FOLDER / "directions.npz").exists():
        np.savez(FOLDER / "directions.npz", **_directions(teacher, files))
    directions = {name: torch.from_numpy(value) for name, value in np.load(FOLDER / "directions.npz").items()}
    store, progress = _files(len(files)), FOLDER / "done.json"
    done = json.loads(progress.read_text()) if progress.exists() else 0
    for number, (small, large, aspects) in enumerate(_pictures(files[done:])):
        rows = slice(done, done + len(small))
        hint, last = teacher.see(large)
        store["pixels"][rows], store["aspects"][rows] = small, aspects
        store["hints"][rows] = _along(hint, directions["hint"], directions["hint_mean"])
        store["maps"][rows] = _along(last, directions["last"], directions["last_mean"])
        done = rows.stop
        if number % 50 == 49 or done == len(files):
            for array in store.values():
                array.flush()
            progress.write_text(json.dumps(done))
            print(f"{done} of {len(files)}, agreement {_agreement(last, directions):.5f}", flush=True)


def _files(count: int) -> dict[str, np.memmap]:
    shapes = {
        "pixels": ((count, 3, PIXELS, PIXELS), np.uint8),
        "maps": ((count, CHANNELS, CELLS, CELLS), np.float16),
        "hints": ((count, HINT_CHANNELS, HINT_CELLS, HINT_CELLS), np.float16),
        "aspects": ((count,), np.float32),
    }
    files = {name: FOLDER / f"{name}.npy" for name in shapes}
    return {
        name: np.lib.format.open_memmap(files[name], "r+" if files[name].exists() else "w+", dtype, shape)
        for name, (shape, dtype) in shapes.items()
    }


def _directions(teacher: Teacher, files: list[str]) -> dict[str, np.ndarray]:
    some = np.random.default_rng(0).choice(len(files), SAMPLE, replace=False)
    seen = [teacher.see(large) for _, large, _ in _pictures([files[i] for i in some])]
    found = {}
    for name, position, count in (("hint", 0, HINT_CHANNELS), ("last", 1, CHANNELS)):
        rows = torch.cat([pair[position].flatten(2).transpose(1, 2).flatten(0, 1) for pair in seen])
        mean = rows.mean(0)
        sizes, turned = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        sizes, turned = sizes.flip(0), turned.flip(1)
        print(f"{name}: {count} directions hold {float(sizes[:count].sum() / sizes.sum()):.4f} of the variance")
        found |= {name: turned[:, :count].numpy(), f"{name}_mean": mean.numpy()}
        found[f"{name}_spread"] = sizes[:count].clamp(min=0).sqrt().numpy()
    return {key: np.ascontiguousarray(value) for key, value in found.items()}


def _along(maps: Tensor, directions: Tensor, mean: Tensor) -> np.ndarray:
    turned = torch.einsum("bchw,cd->bdhw", maps - mean[:, None, None], directions)
    return turned.to(torch.float16).numpy()


@torch.inference_mode()
def _agreement(last: Tensor, directions: dict[str, Tensor]) -> float:
    """Cosine of the whole features, less their mean, to those that are kept."""
    pooled, mean = last.mean((2, 3)), directions["last_mean"]
    again = (pooled - mean) @ directions["last"] @ directions["last"].T
    return float(torch.cosine_similarity(pooled - mean, again).mean())


def _pictures(files: list[str]) -> Iterator[tuple[np.ndarray, Tensor, list[float]]]:
    def load(file: str) -> tuple[np.ndarray, np.ndarray, float]:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        sizes = ((PIXELS, PIXELS), (TEACHER_SIZE, TEACHER_SIZE))
        small, large = (np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) for size in sizes)
        return small.transpose(2, 0, 1), large, picture.width / picture.height

    with ThreadPoolExecutor(1) as pool:
        chunks = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
        following = pool.map(load, chunks[0])
        for chunk in [*chunks[1:], []]:
            ready, following = list(following), pool.map(load, chunk)
            small, large, aspects = zip(*ready, strict=True)
            pixels = torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).float()  # mean and deviation .5
            yield np.stack(small), pixels / 127.5 - 1, list(aspects)


if __name__ == "__main__":
    main()
