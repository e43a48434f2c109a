"""Contrastive tuning of a transformer, or of open_clip's attention pool, on the grid of the starter's own CNN.

The starter's last stage is frozen, its pooled head and text tower go on learning; attention begins as nothing beside
them (its projection is zero) or, with `--pooled 0`, alone and from random weights. `--layers 0` is the control without.
"""

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captioned_cells import Cells
from feature_maps import CELLS, CHANNELS, below_file
from grid_transformer import AttentionPool, GridTransformer, HybridHead
from image_head import load_image_head
from picture_sets import STARTER, WORK
from torch import Tensor, nn
from tune_contrastive import Data, Settings, Towers, Validation, train

FOLDER = WORK / "hybrid"
LAYERS, POOL = "layers", "pool"


@dataclass(frozen=True)
class HybridSettings(Settings):
    """What an attempt is made with; the rates of what has learnt already are lower than those it learnt with."""

    epochs: int = 8
    image_rate: float = 2e-4
    text_rate: float = 5e-5
    attention_rate: float = 5e-4
    distilling: float = 0.0
    attention: str = LAYERS  # or "pool"
    layers: int = 1
    width: int = 384
    pooled: int = 1  # 0: attention alone


class HybridTowers(Towers):
    """The starter's towers with attention beside the pooled head."""

    def __init__(self, folder: Path, settings: HybridSettings) -> None:
        super().__init__(folder, settings.dropout)
        attention = new_attention(settings)
        if settings.pooled and attention is not None:
            nn.init.zeros_(attention.project.weight)
        self.image = HybridHead(attention, self.image if settings.pooled else None)
        self.text.requires_grad_(settings.text_rate > 0)
        self.text.token_embedding.requires_grad_(False)
        self.remembered: dict[bytes, Tensor] | None = None if settings.text_rate else {}

    def words(self, tokens: Tensor) -> Tensor:
        """As `Towers`; each text once where the text tower does not learn."""
        if self.remembered is None:
            return super().words(tokens)
        keys = [row.tobytes() for row in tokens.numpy()]
        new = [i for i, key in enumerate(keys) if key not in self.remembered]
        if new:
            with torch.no_grad():
                self.remembered |= dict(zip([keys[i] for i in new], super().words(tokens[new]), strict=True))
        return torch.stack([self.remembered[key] for key in keys])


class HybridData(Data):
    """The same captions and names; cells are what the starter's own last stage makes of the frozen ones before."""

    def __init__(self, settings: HybridSettings, towers: Towers) -> None:
        super().__init__(settings, towers)
        self.cells = staged(self.cells, settings.sets.split(), settings.views.split())
        self.others = staged(self.others, settings.uncaptioned.split(), ["plain"])


class HybridValidation(Validation):
    """captions/ and Pets trainval after the starter's last stage."""

    def __init__(self, resize: str) -> None:
        super().__init__(resize)
        self.cells = staged_view("validation", "plain", resize)
        self.pets = staged_view("pets_trainval", "plain", resize)


def new_attention(settings: HybridSettings) -> nn.Module | None:
    """None with `layers` 0."""
    if settings.attention == POOL:
        return AttentionPool()
    return GridTransformer(settings.layers, settings.width) if settings.layers else None


def staged(cells: Cells, names: list[str], views: list[str]) -> Cells:
    """The same photographs, (n, 81, 352) of each view."""
    found = [torch.cat([staged_view(name, view) for name in names]) for view in views]
    return dataclasses.replace(cells, views=found)


def staged_view(name: str, view: str, resize: str = "squash") -> Tensor:
    """(n, 81, 352) bfloat16: the starter's last stage on the frozen CNN's maps; cached as float16."""
    cached = FOLDER / f"{name}_{resize}_{view}.npy"
    if not cached.exists():
        _extract(cached, below_file(name, resize, view))
    return torch.from_numpy(np.load(cached)).bfloat16()


@torch.inference_mode()
def _extract(target: Path, below: Path) -> None:
    stage = load_image_head(STARTER, with_stage=True).stage.eval()
    maps = np.load(below, mmap_mode="r")
    part = target.with_suffix(".part")
    store = np.lib.format.open_memmap(part, "w+", np.float16, (len(maps), CELLS**2, CHANNELS))
    for start in range(0, len(maps), 64):
        batch = torch.from_numpy(np.array(maps[start : start + 64])).float()
        made = stage(batch.contiguous(memory_format=torch.channels_last)).flatten(2).transpose(1, 2)
        store[start : start + len(made)] = made.half().numpy()
    store.flush()
    part.rename(target)


def main() -> None:
    """Writes work/hybrid/NAME.safetensors and a line of NAME.jsonl for each epoch; goes on from NAME.pt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--name", default="hybrid")
    parser.add_argument("--start", type=Path, default=STARTER, help="of the pooled head and the words")
    for field, value in vars(HybridSettings()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    settings = HybridSettings(**{field: getattr(options, field) for field in vars(HybridSettings())})
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    towers = HybridTowers(options.start, settings)
    learnt = sum(value.numel() for value in towers.image.parameters())
    print(json.dumps({"image parameters that learn": learnt}), flush=True)
    data = HybridData(settings, Towers(options.start))
    train(towers, data, HybridValidation("shortest"), FOLDER / options.name)


if __name__ == "__main__":
    main()
