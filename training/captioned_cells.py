"""Captioned photographs in memory: their cells in both views, their captions as tokens, and what the CNN names them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from feature_maps import CELLS, below_file, stage_file
from image_tower import image_tower
from learning_curve import load_pooled
from picture_sets import CAPTION_WEIGHTS, photographs
from text_teacher import CONTEXT
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Photographs of several sets, one after the other."""

    views: list[Tensor]  # of (n, 81, channels) bfloat16
    class_odds: Tensor  # (n, 1000) float16: the untouched CNN's probabilities of the ImageNet classes

    def __len__(self) -> int:
        return len(self.class_odds)

    def batch(self, rows: Tensor) -> Tensor:
        """(b, 81, channels) of the rows, each in a random view."""
        which = torch.randint(len(self.views), (len(rows),))
        found = torch.empty(len(rows), *self.views[0].shape[1:], dtype=torch.bfloat16)
        for number, view in enumerate(self.views):
            found[which == number] = view[rows[which == number]]
        return found


@dataclass(frozen=True)
class Captions:
    """The captions of the same photographs."""

    tokens: Tensor  # (m, 32)
    starts: Tensor  # (n,): where the captions of a photograph begin
    counts: Tensor  # (n,)
    weights: Tensor  # (n,): how much a photograph counts

    def batch(self, rows: Tensor, each: int) -> Tensor:
        """(b * each, 32): some captions of every row; different ones where there are enough."""
        first = (torch.rand(len(rows)) * self.counts[rows]).long()
        steps = torch.arange(each)
        chosen = self.starts[rows][:, None] + (first[:, None] + steps) % self.counts[rows][:, None]
        return self.tokens[chosen.flatten()]


def load_captions(names: list[str]) -> Captions:
    """Of the sets in this order."""
    groups = [group for name in names for group in photographs(name).captions]
    counts = torch.tensor([len(group) for group in groups])
    weights = torch.cat([torch.full((len(photographs(name)),), CAPTION_WEIGHTS[name]) for name in names])
    return Captions(tokenize([t for group in groups for t in group]), counts.cumsum(0) - counts, counts, weights)


def tokenize(texts: list[str]) -> Tensor:
    """(n, 32) token ids."""
    return open_clip.get_tokenizer("ViT-B-32", context_length=CONTEXT)(texts)


def load_cells(names: list[str], views: list[str], resize: str = "squash", *, below: bool = False) -> Cells:
    """Of the sets in this order; below: before the last stage, else before the last convolution."""
    loaded = [
        torch.cat(
            [_view(below_file(name, resize, view) if below else stage_file(name, resize, view)) for name in names]
        )
        for view in views
    ]
    classifier = image_tower().classifier
    pooled = np.concatenate([load_pooled(name, resize, "plain")[:, :1280] for name in names])
    with torch.no_grad():
        odds = [classifier(part).softmax(1).half() for part in torch.from_numpy(pooled).split(1024)]
    return Cells(loaded, torch.cat(odds).clone())


def _view(file: Path) -> Tensor:
    maps = np.load(file, mmap_mode="r")
    out = torch.empty(len(maps), CELLS * CELLS, maps.shape[1], dtype=torch.bfloat16)
    for start in range(0, len(maps), 256):
        part = torch.from_numpy(np.array(maps[start : start + 256]))
        out[start : start + len(part)] = part.flatten(2).transpose(1, 2)
    return out
