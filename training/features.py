"""Pooled features of the frozen image tower for every set, size and view; cached in work/features."""

import argparse
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
from image_tower import image_tower
from picture_sets import TRAINING_SETS, WORK, photographs
from PIL import Image
from torch import Tensor

BATCH = 32
MEASURED_SETS = ("validation", "pets_trainval")


def preprocess(size: int, resize: str) -> Callable[[Image.Image], Tensor]:
    """open_clip's own evaluation transform, as the packaged model will use it."""
    return open_clip.image_transform(
        size, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode=resize, interpolation="bicubic"
    )


def features_file(name: str, size: int, resize: str, view: str) -> Path:
    """Where the features of one set lie: (n, 1280) float16, in the order of `photographs(name)`."""
    return WORK / "features" / f"{name}_{size}_{resize}_{view}.npy"


def main() -> None:
    """Extracts what is asked for and not yet there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--resize", default="shortest", choices=("shortest", "squash"))
    parser.add_argument("--sets", nargs="+", default=[*TRAINING_SETS, *MEASURED_SETS])
    parser.add_argument("--views", nargs="+", default=["plain", "flip"], help="plain, flip, or crop1, crop2, ...")
    options = parser.parse_args()
    tower = image_tower().to(memory_format=torch.channels_last)
    (WORK / "features").mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        for view in options.views:
            target = features_file(name, options.size, options.resize, view)
            if target.exists():
                continue
            out = [_pooled(tower, batch) for batch in batches(name, options.size, options.resize, view)]
            np.save(target, np.concatenate(out).astype(np.float16))
            print(target.name, flush=True)


@torch.inference_mode()
def _pooled(tower: torch.nn.Module, batch: Tensor) -> np.ndarray:
    maps = tower.forward_features(batch.contiguous(memory_format=torch.channels_last))
    return tower.forward_head(maps, pre_logits=True).numpy()


def batches(name: str, size: int, resize: str, view: str, *, start: int = 0) -> Iterator[Tensor]:
    """The pictures of one set from row `start` on as (b, 3, size, size), in order."""
    files = list(photographs(name).file)[start:]
    plain = preprocess(size, resize)

    def load(file: str) -> Tensor:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        if view == "flip":
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if view.startswith("crop"):
            picture = _crop(picture, random.Random(f"{view}{Path(file).name}"))
        return plain(picture)

    with ThreadPoolExecutor(2) as pool:
        chunks = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
        following = pool.map(load, chunks[0])
        for chunk in [*chunks[1:], []]:
            ready, following = following, pool.map(load, chunk)
            yield torch.stack(list(ready))


def _crop(picture: Image.Image, chance: random.Random) -> Image.Image:
    scale = chance.uniform(0.7, 1.0)  # of each side
    width, height = int(picture.width * scale), int(picture.height * scale)
    left, top = chance.randint(0, picture.width - width), chance.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


if __name__ == "__main__":
    main()
