"""Tunes the CNN's last convolution and the head together, so that they say what the ridge says of the untouched CNN.

The two-layer head alone loses .02 of R@10 against the ridge: 768 units are too few for powers of 1,280 features and for
1,000 classes. The convolution before it has 1,280 units at each of 81 places.
"""

import argparse
import json
import math
from typing import Any

import numpy as np
import torch
from feature_maps import CELLS, stage_file
from image_tower import image_tower
from picture_sets import TRAINING_SETS
from safetensors.torch import load_file, save_file
from shared_space import Ridge
from timm.layers import Mlp
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from train_projection import DEEPER, DISTILLED, HEAD, in_torch, lifts, load_ridge, new_head

BATCH, RATE, KEEP = 192, 1e-3, 0.998  # KEEP: of the running mean of the weights, a step
NAMING, SCALE = 0.5, 30.0  # weight of naming the 1,000 classes alike: without it Pets trainval falls from .46 to .43
MIXED, PUSHED = 0.35, 0.5  # pictures with another's cells; pictures moved towards a class


def main() -> None:
    """Writes work/head.safetensors: the tuned convolution, the head and the temperature."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=700, help="more bring it closer to the ridge, and cost breeds")
    options = parser.parse_args()
    torch.manual_seed(0)
    ridge, used = load_ridge(DEEPER)
    teacher, before = in_torch(ridge), last_convolution()
    push, names = Push(ridge, before[0]), torch.from_numpy(ridge.names).float()
    weight, bias = (part.clone().requires_grad_(True) for part in before)
    head = new_head()
    head.load_state_dict(load_file(DISTILLED))
    learnt = [weight, bias, *head.parameters()]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / options.steps)) / 2
    )
    mean = [value.detach().clone() for value in learnt]
    maps = Maps()
    for step, cells in zip(range(options.steps), maps, strict=False):
        shares, cells = windows(len(cells)), mixed(cells)
        with torch.no_grad():
            cells = push(cells, features(cells, shares, *before))
            earlier = torch.einsum("bt,btc->bc", shares, cells)
            goal = F.normalize(teacher(torch.cat([features(cells, shares, *before), earlier], 1)), dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            raw = head(features(cells, shares, weight, bias))
        own = F.normalize(raw.float(), dim=1)
        loss = (1 - (own * goal).sum(1)).mean() + 5 * ((own @ own.T - goal @ goal.T) ** 2).mean()
        loss = loss + NAMING * _disagreement(own @ names.T, goal @ names.T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(mean, learnt, 1 - min(KEEP, (1 + step) / (10 + step)))
        if step % 100 == 0:
            print(f"step {step + 1} cosine {(own * goal).sum(1).mean():.4f}", flush=True)
    with torch.no_grad():
        for value, kept in zip(learnt, mean, strict=True):
            value.copy_(kept)
    plain = np.concatenate([features(part, None, weight, bias).detach().numpy() for part in maps.of("imagenet")])
    _save_head(head, ridge, plain, {**used, "tuned_steps": options.steps}, trunk_parts(weight, bias))


class Maps:
    """Batches of the stored maps as cells (b, 81, 352), for ever, every training picture once a round."""

    def __init__(self) -> None:
        self.arrays = [np.load(stage_file(name), mmap_mode="r") for name in TRAINING_SETS]
        self.rows = np.array([(i, row) for i, array in enumerate(self.arrays) for row in range(len(array))])

    def __iter__(self) -> "Maps":
        self.order, self.chance = np.empty(0, np.int64), np.random.default_rng(0)
        return self

    def __next__(self) -> Tensor:
        if len(self.order) < BATCH:
            self.order = self.chance.permutation(len(self.rows))
        rows, self.order = np.sort(self.order[:BATCH]), self.order[BATCH:]  # sorted: read in the order of the file
        found = np.stack([self.arrays[i][row] for i, row in self.rows[rows]])
        return _cells(found)[torch.randperm(len(found))]

    def of(self, name: str) -> list[Tensor]:
        """The cells of one set, in order."""
        array = np.load(stage_file(name), mmap_mode="r")
        return [_cells(np.array(array[start : start + BATCH])) for start in range(0, len(array), BATCH)]


class Push:
    """Moves half of the pictures towards a class, at every cell: few photographs lie where classes meet."""

    def __init__(self, ridge: Ridge, weight: Tensor) -> None:
        self.weight, self.bias = torch.from_numpy(ridge.weight), torch.from_numpy(ridge.bias)
        towards = (self.weight - self.weight.mean(0)) @ weight.T  # (1000, 352)
        self.towards = towards / (towards**2).sum(1, keepdim=True)

    def __call__(self, cells: Tensor, pooled: Tensor) -> Tensor:
        wanted, lift = lifts(pooled @ self.weight.T + self.bias, near=0.6, moved=PUSHED)
        lift *= torch.empty(len(cells)).uniform_(0.5, 2)
        return cells + (lift[:, None] * self.towards[wanted])[:, None]


def last_convolution() -> tuple[Tensor, Tensor]:
    """(352, 1280) and (1280,): EfficientNet's 1 x 1 convolution with its batch normalisation taken in."""
    tower = image_tower()
    scale = tower.bn2.weight / torch.sqrt(tower.bn2.running_var + tower.bn2.eps)
    weight = (tower.conv_head.weight[:, :, 0, 0] * scale[:, None]).T
    return weight.detach().contiguous(), (tower.bn2.bias - tower.bn2.running_mean * scale).detach()


def trunk_parts(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The same as timm stores it, with a normalisation that changes nothing."""
    norm = image_tower().bn2
    ones = torch.ones_like(bias)
    parts = {"conv_head.weight": weight.T[:, :, None, None], "bn2.bias": bias, "bn2.weight": ones}
    parts |= {"bn2.running_mean": torch.zeros_like(bias), "bn2.running_var": ones - norm.eps}
    return {f"trunk.{name}": value.detach().contiguous() for name, value in parts.items()}


def features(cells: Tensor, shares: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """(b, 1280): the convolution's ReLU6, averaged with `shares` (b, 81) of the cells, or alike."""
    with torch.autocast("cpu", torch.bfloat16):
        seen = cells @ weight + bias
    seen = seen.clamp(0, 6).float()
    return seen.mean(1) if shares is None else torch.einsum("bt,btc->bc", shares, seen)


def windows(count: int, *, least: int = 5) -> Tensor:
    """(count, 81): which cells a random window of least to 9 a side holds, adding up to 1; two fifths see all."""
    sides = torch.randint(least, CELLS + 1, (count, 2))
    sides[torch.rand(count) < 0.4] = CELLS
    starts = (torch.rand(count, 2) * (CELLS + 1 - sides)).long()
    places = torch.arange(CELLS)
    down, across = (
        (places >= starts[:, axis : axis + 1]) & (places < (starts + sides)[:, axis : axis + 1]) for axis in (0, 1)
    )
    shares = (down[:, :, None] & across[:, None]).flatten(1).float()
    return shares / shares.sum(1, keepdim=True)


def mixed(cells: Tensor) -> Tensor:
    """A third of the pictures with the cells of another on one side of a line."""
    count, places = len(cells), torch.arange(CELLS)
    line, is_down = torch.randint(2, CELLS - 1, (count, 1)), torch.rand(count, 1) < 0.5
    rows, columns = places.repeat_interleave(CELLS)[None], places.repeat(CELLS)[None]
    other = torch.where(is_down, rows < line, columns < line) & (torch.rand(count, 1) < MIXED)
    return torch.where(other[..., None], cells.roll(1, 0), cells)


def _disagreement(own: Tensor, goal: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence from the cosines to all names, (b, 1000) each."""
    own, goal = (F.log_softmax(SCALE * cosines, 1) for cosines in (own, goal))
    return F.kl_div(own, goal, log_target=True, reduction="batchmean")


def _save_head(
    head: Mlp,
    ridge: Ridge,
    features: np.ndarray,
    used: dict[str, Any],
    trunk: dict[str, Tensor],
) -> None:
    """The head, and the temperature that suits the features of the 1,000 pictures of `imagenet`."""
    scale = _logit_scale(head, ridge.names, features)
    save_file({**head.state_dict(), **trunk, "logit_scale": torch.tensor(scale)}, HEAD)
    HEAD.with_suffix(".json").write_text(json.dumps(used))


def _logit_scale(head: Mlp, names: np.ndarray, features: np.ndarray) -> float:
    """ln of the scale with the least cross-entropy over the 1,000 ImageNet labels, one picture each."""
    with torch.inference_mode():
        cosines = F.normalize(head(torch.from_numpy(features)), dim=1) @ torch.from_numpy(names).float().T
        scales = torch.linspace(10, 100, 46)
        losses = [F.cross_entropy(scale * cosines, torch.arange(len(cosines))) for scale in scales]
    best = scales[int(torch.stack(losses).argmin())]
    top1 = (cosines.argmax(1) == torch.arange(len(cosines))).float().mean()
    print(f"logit scale {best:.0f}, top-1 on imagenet_sample {top1:.3f}")
    return float(best.log())


def _cells(maps: np.ndarray) -> Tensor:
    return torch.from_numpy(maps).float().flatten(2).transpose(1, 2)


if __name__ == "__main__":
    main()
