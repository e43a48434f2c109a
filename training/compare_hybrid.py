"""Attention on the grid against the starter: paired intervals of the recalls on captions/, and its cost in time."""

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from evaluate import RESULTS, caption_ranks, picture_ranks
from feature_maps import CELLS, CHANNELS
from grid_transformer import AttentionPool
from picture_sets import STARTER
from safetensors.torch import load_file
from torch import Tensor, nn
from tune_hybrid import FOLDER, HybridSettings, HybridTowers, HybridValidation

from clipkit.metrics import bootstrap

BATCH, ROUNDS = 8, 40  # of the timing
MEASURED = (("text_to_image", 1), ("text_to_image", 10), ("image_to_text", 1), ("image_to_text", 10))


def main() -> None:
    """A line for each tuning; with --tried NAME=SENTENCE, a row of results.json for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="what tune_hybrid.py has written")
    parser.add_argument("--against", help="another tuning, instead of the starter")
    parser.add_argument("--tried", nargs="*", default=[], help="NAME=SENTENCE")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    sentences = dict(part.split("=", 1) for part in options.tried)
    validation = HybridValidation("shortest")
    starter = HybridTowers(STARTER, HybridSettings(layers=0)).eval()
    before = hits(validation, load(options.against) if options.against else starter)
    for name in options.names:
        towers = load(name)
        row = validation.measure(towers) | differences(before, hits(validation, towers))
        row |= {"attention_parameters": sum(value.numel() for value in attention_of(towers).parameters())}
        row |= {"time": slowdown(attention_of(towers))} if options.speed else {}
        row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        print(json.dumps({"name": name} | row), flush=True)
        if name in sentences:
            dated = {"tried": sentences[name], "date": datetime.date.today().isoformat()} | row | {"sha256": None}
            RESULTS.write_text(json.dumps([*json.loads(RESULTS.read_text()), dated], indent=1) + "\n")


def load(name: str) -> HybridTowers:
    """The running mean of a tuning."""
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    towers = HybridTowers(STARTER, HybridSettings(**stored)).eval()
    towers.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))
    return towers


def attention_of(towers: HybridTowers) -> nn.Module:
    """An empty module where there is none."""
    return towers.image.attention or nn.Module()


@torch.no_grad()
def hits(validation: HybridValidation, towers: HybridTowers) -> dict[str, np.ndarray]:
    """Of each measure (400,): the share of a photograph's captions, or the photograph itself, that is answered."""
    pictures = torch.cat([towers.image(part.float()) for part in validation.cells.split(256)]).numpy()
    captions = torch.cat([towers.words(part) for part in validation.captions.split(500)]).numpy()
    owner = validation.owner
    ranks = {"text_to_image": caption_ranks(pictures, captions, owner)}
    ranks["image_to_text"] = picture_ranks(pictures, captions, owner)
    found = {}
    for way, k in MEASURED:
        right = ranks[way] < k
        of_captions = way == "text_to_image"
        found[f"{way}_r{k}"] = np.bincount(owner, right) / np.bincount(owner) if of_captions else right.astype(float)
    return found


def differences(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, Any]:
    """Gains over the starter with 95 % intervals, by paired bootstrap over the photographs."""
    found: dict[str, Any] = {}
    for name, values in after.items():
        gain = values - before[name]
        ends = bootstrap(lambda rows, gain=gain: float(gain[rows].mean()), len(gain))
        found[f"{name}_gain"], found[f"{name}_gain_ci95"] = float(gain.mean()), [round(end, 4) for end in ends]
    return found


@torch.inference_mode()
def slowdown(attention: nn.Module) -> float:
    """Time with attention over time without: the median of interleaved rounds, float32, pixels ready."""
    if not list(attention.parameters()):
        return 1.0
    model = open_clip.create_model(f"local-dir:{STARTER}").eval().to(memory_format=torch.channels_last)
    pixels = torch.randn(BATCH, 3, *model.visual.image_size).contiguous(memory_format=torch.channels_last)
    run = attention_run(attention)
    ratios = []
    for _ in range(ROUNDS):
        alone = _seconds(lambda: model.encode_image(pixels))
        ratios.append((alone + _seconds(run)) / alone)
    return statistics.median(ratios)


def attention_run(attention: nn.Module) -> Callable[[], Tensor]:
    """What attention does for a batch; the pool as open_clip builds it, keys and values for every cell."""
    if isinstance(attention, AttentionPool):
        maps = torch.rand(BATCH, attention.weight.shape[1], CELLS, CELLS)
        return lambda: attention.pool(maps)
    cells, places = torch.randn(BATCH, CELLS**2, CHANNELS), torch.arange(CELLS**2)
    return lambda: attention(cells, places)


def _seconds(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
