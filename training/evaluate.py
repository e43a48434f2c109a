"""Measures a folder as open_clip loads it, and appends one row to results.json."""

import argparse
import datetime
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from picture_sets import STARTER, photographs
from PIL import Image

RESULTS = Path(__file__).parent / "results.json"
WEIGHTS = "open_clip_model.safetensors"
PET_TEMPLATES = {"template": "a photo of a {}, a type of pet.", "plain": "{}"}


class Model:
    """A local open_clip folder in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model = self.model.eval().to(memory_format=torch.channels_last)
        self.tokenizer = open_clip.get_tokenizer(name)

    def open(self, file: str) -> torch.Tensor:
        """One picture as the model sees it, (3, h, w)."""
        with Image.open(file) as opened:
            return self.preprocess(opened.convert("RGB"))

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> np.ndarray:
        """(n, d), length 1."""
        parts = [self.model.encode_text(part, normalize=True) for part in self.tokenizer(texts).split(256)]
        return torch.cat(parts).numpy()

    @torch.inference_mode()
    def pictures(self, files: list[str]) -> np.ndarray:
        """(n, d), length 1."""
        out = []
        for start in range(0, len(files), 32):
            batch = torch.stack([self.open(file) for file in files[start : start + 32]])
            batch = batch.contiguous(memory_format=torch.channels_last)
            out.append(self.model.encode_image(batch, normalize=True))
        return torch.cat(out).numpy()


def retrieval(model: Model) -> dict[str, float]:
    """Of 2,000 captions over 400 photographs, and of the photographs over the captions."""
    rows = photographs("validation")
    captions = model.texts([text for group in rows.captions for text in group])
    owner = np.repeat(np.arange(len(rows)), rows.captions.map(len))
    return recalls(model.pictures(list(rows.file)), captions, owner)


def recalls(pictures: np.ndarray, captions: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """R@1, 5, 10 both ways; pictures (n, d), captions (m, d), owner (m,): the picture of each caption."""
    found = {"text_to_image": caption_ranks(pictures, captions, owner)}
    found["image_to_text"] = picture_ranks(pictures, captions, owner)
    return {f"{way}_r{k}": float((ranks < k).mean()) for way, ranks in found.items() for k in (1, 5, 10)}


def caption_ranks(pictures: np.ndarray, captions: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(m,): how many pictures are nearer to each caption than its own."""
    scores = pictures @ captions.T  # (n, m)
    return (scores > scores[owner, np.arange(len(owner))]).sum(0)


def picture_ranks(pictures: np.ndarray, captions: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(n,): how many captions are nearer to each picture than the best of its own."""
    scores = pictures @ captions.T  # (n, m)
    own = np.where(owner == np.arange(len(pictures))[:, None], scores, -2).max(1)
    return (scores > own[:, None]).sum(1)


def zero_shot(model: Model, split: str) -> dict[str, float]:
    """Top-1 and the mean over the 37 classes, for each template."""
    rows = photographs(split)
    pictures = model.pictures(list(rows.file))
    breeds = sorted(set(rows.label))
    truth = np.array([breeds.index(label) for label in rows.label])
    found = {}
    for name, template in PET_TEMPLATES.items():
        right = (pictures @ model.texts([template.format(breed) for breed in breeds]).T).argmax(1) == truth
        found[f"{split}_top1_{name}"] = float(right.mean())
        found[f"{split}_class_mean_{name}"] = float(np.mean([right[truth == c].mean() for c in range(len(breeds))]))
    return found


@torch.inference_mode()
def pictures_per_second(model: Model) -> float:
    """Median of ten batches of 32, channels_last float32, 2 threads, pixels ready."""
    torch.set_num_threads(2)
    size = model.model.visual.image_size
    batch = torch.randn(32, 3, *size).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(12):
        start = time.perf_counter()
        model.model.encode_image(batch)
        times.append(time.perf_counter() - start)
    return 32 / float(np.median(times[2:]))


def fingerprint(folder: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def main() -> None:
    """Prints and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=STARTER)
    parser.add_argument("--tried", help="one sentence for results.json; without it nothing is written")
    parser.add_argument("--test", action="store_true", help="Pets test as well: only for what ships")
    parser.add_argument("--quick", action="store_true", help="captions only")
    options = parser.parse_args()
    model = Model(options.folder)
    row: dict[str, Any] = {"tried": options.tried, "date": datetime.date.today().isoformat()}
    row |= retrieval(model)
    if not options.quick:
        row |= zero_shot(model, "pets_trainval") | (zero_shot(model, "pets_test") if options.test else {})
        row["pictures_per_second"] = pictures_per_second(model)
    weights = options.folder / WEIGHTS
    config = options.folder / "open_clip_config.json"
    row |= {"megabytes": (weights.stat().st_size + config.stat().st_size) / 1e6}
    row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    row["sha256"] = fingerprint(options.folder)
    print(json.dumps(row, indent=1))
    if options.tried:
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
