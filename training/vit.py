"""A plain ViT-Ti/16 that learns to see what the starter's CNN sees, and goes on from its checkpoint when started."""

import argparse
import copy
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from evaluate import Model, recalls
from open_clip.transformer import VisionTransformer
from packed import Packed, packed
from PIL import Image
from sources import STARTER, WORK, photographs
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

FOLDER = WORK / "vit"
CHECKPOINT, CURVE = FOLDER / "last.pt", FOLDER / "curve.jsonl"
EMBED = 384
VISION = {"image_size": 144, "layers": 12, "width": 192, "head_width": 64, "patch_size": 16, "pool_type": "avg"}
SIZE, SMALL = 144, 96  # a small picture has 36 patches instead of 81 and costs a third
BATCH, RATE, KEEP = 128, 1e-3, 0.9995  # KEEP: of the running mean of the weights, a step
HINTED_BLOCK = 6  # what the CNN sees at stride 16 is asked for after this many blocks
MAP_CHANNELS = 256  # of the 640, the ones that vary most
SMALL_SHARE = ((400_000, 0.85), (1_200_000, 0.5), (float("inf"), 0.25))  # of the batches, until so many pictures


def main() -> None:
    """Trains for the given minutes or until it is told to stop; `--finish` is the slow end, kept apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long")
    parser.add_argument("--every", type=float, default=8, help="minutes from point to point of the curve")
    parser.add_argument("--finish", type=float, help="minutes in which the rate falls to zero; writes finished.pt")
    options = parser.parse_args()
    if options.finish:
        Training(FOLDER / "finished.pt").run(options.finish, options.every, falling=True)
    else:
        Training(CHECKPOINT).run(options.minutes, options.every)


def vit() -> VisionTransformer:
    """The tower exactly as open_clip builds it from VISION."""
    return VisionTransformer(
        image_size=SIZE,
        patch_size=VISION["patch_size"],
        width=VISION["width"],
        layers=VISION["layers"],
        heads=VISION["width"] // VISION["head_width"],
        mlp_ratio=4.0,
        pool_type=VISION["pool_type"],
        output_dim=EMBED,
    )


class Student(nn.Module):
    """The tower, and two projections that are thrown away."""

    def __init__(self, hint_channels: int) -> None:
        super().__init__()
        self.tower = vit()
        self.to_map = nn.Linear(VISION["width"], MAP_CHANNELS)
        self.to_hint = nn.Linear(VISION["width"], hint_channels)
        _begin_like_a_trained_one(self.tower)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, 3, s, s) -> embeddings (b, 384), the last map (b, 256, g, g) and the hint (b, 64, g, g), g = s / 16."""
        tower, side = self.tower, pixels.shape[-1] // VISION["patch_size"]
        x = tower.conv1(pixels).flatten(2).transpose(1, 2)
        first = (tower.class_embedding + tower.positional_embedding[0]).expand(len(x), 1, -1)
        x = tower.ln_pre(torch.cat([first, x + _places(tower, side)], 1))
        for number, block in enumerate(tower.transformer.resblocks, 1):
            x = block(x)
            if number == HINTED_BLOCK:
                hint = self.to_hint(x[:, 1:])
        x = tower.ln_post(x)[:, 1:]
        in_grid = [t.transpose(1, 2).unflatten(2, (side, side)) for t in (self.to_map(x), hint)]
        return x.mean(1) @ tower.proj, *in_grid


class Training:
    """What is kept from run to run: weights, their running mean, the optimizer, and how much was seen."""

    def __init__(self, target: Path) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.data, self.target = packed(), target
        self.student = Student(self.data.hints.shape[1])
        self.mean = copy.deepcopy(self.student.tower).requires_grad_(False)
        decayed = [p for n, p in self.student.named_parameters() if p.ndim >= 2 and "embedding" not in n]
        others = [p for n, p in self.student.named_parameters() if p.ndim < 2 or "embedding" in n]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), fused=True)
        self.seen, self.steps, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0
        start = next((file for file in (target, CHECKPOINT) if file.exists()), None)
        if start:
            self._load(torch.load(start, weights_only=True))
        self.measure = Measure()

    def run(self, minutes: float, every: float, *, falling: bool = False) -> None:
        """Steps until the time is over or a signal comes; a checkpoint with every point of the curve."""
        stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda which, _: stopped.append(which))
        started, cpu, before = time.time(), time.process_time(), (self.seconds, self.cpu_seconds)
        goals, losses, last = Goals(self.data), [], started
        for crops in batches(self.data, seed=self.seen, small=0.0 if falling else None, seen=lambda: self.seen):
            done = (time.time() - started) / 60 / minutes
            warm = min(1.0, (self.steps + 1) / 500)
            for group in self.optimizer.param_groups:
                group["lr"] = RATE * warm * (max(0.0, 1 - done) if falling else 1.0)
            losses.append(self._step(crops.pixels, goals(crops)))
            self.seconds = before[0] + time.time() - started
            self.cpu_seconds = before[1] + time.process_time() - cpu
            over = bool(stopped) or done >= 1
            if over or time.time() - last > every * 60:
                self._point(np.mean(losses, 0), finishing=falling)
                self._save()
                losses, last = [], time.time()
            if over:
                break

    def _step(self, pixels: Tensor, goals: tuple[Tensor, Tensor, Tensor]) -> list[float]:
        goal, maps, hints = goals
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            raw, own_maps, own_hints = self.student(pixels)
        own = F.normalize(raw.float(), dim=1)
        losses = [
            (1 - (own * goal).sum(1)).mean(),
            5 * ((own @ own.T - goal @ goal.T) ** 2).mean(),
            F.mse_loss(own_maps.float(), maps),
            0.5 * F.mse_loss(own_hints.float(), hints),
        ]
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.steps, self.seen = self.steps + 1, self.seen + len(pixels)
        keep = min(KEEP, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.student.tower.parameters()), 1 - keep)
        return torch.stack(losses).tolist()

    def _point(self, losses: np.ndarray, *, finishing: bool) -> None:
        point: dict[str, Any] = {"pictures_seen": self.seen, "minutes": self.seconds / 60}
        point |= {"cpu_minutes": self.cpu_seconds / 60, "finishing": finishing}
        point |= dict(zip(("embedding", "relation", "map", "hint"), losses.tolist(), strict=True))
        point |= self.measure(self.mean)
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in point.items()})
        with CURVE.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def _save(self) -> None:
        counts = {name: getattr(self, name) for name in ("seen", "steps", "seconds", "cpu_seconds")}
        state = {"student": self.student.state_dict(), "mean": self.mean.state_dict()}
        torch.save({**state, "optimizer": self.optimizer.state_dict(), **counts}, self.target.with_suffix(".part"))
        os.replace(self.target.with_suffix(".part"), self.target)

    def _load(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("seen", "steps", "seconds", "cpu_seconds"):
            setattr(self, name, state[name])


class Crops:
    """Pixels (b, 3, s, s), where they lie in the packed pictures, and what was mixed with what."""

    def __init__(self, data: Packed, rows: np.ndarray, size: int, chance: torch.Generator) -> None:
        self.rows, self.size = rows, size
        self.where = _where(torch.from_numpy(data.aspects[rows]), chance)
        mixed = torch.rand(len(rows), generator=chance) < 0.4
        self.share = torch.rand(len(rows), generator=chance) * 0.5 * mixed
        pixels = _sampled(torch.from_numpy(data.pixels[rows]).float(), self.where, SIZE)
        if size != SIZE:
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        contrast = 1 + 0.5 * (torch.rand(len(rows), 1, 1, 1, generator=chance) - 0.5)
        brightness = 50 * (torch.rand(len(rows), 1, 1, 1, generator=chance) - 0.5)
        middle = pixels.mean((1, 2, 3), keepdim=True)
        pixels = ((pixels - middle) * contrast + middle + brightness).clamp(0, 255)
        self.pixels = self.mix(pixels / 127.5 - 1)

    def mix(self, values: Tensor) -> Tensor:
        """Each with a share of its neighbour."""
        share = self.share.view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values, values.roll(1, 0), share)


class Goals:
    """The teacher's embedding of each crop, and its two maps there, with every channel about as loud as another."""

    def __init__(self, data: Packed) -> None:
        self.data = data
        self.back, self.mean = torch.from_numpy(data.back), torch.from_numpy(data.mean)
        self.head = Model(STARTER).model.visual.head
        self.loudness = [_loudness(array) for array in (data.maps[:256, :MAP_CHANNELS], data.hints[:256])]

    @torch.no_grad()
    def __call__(self, crops: Crops) -> tuple[Tensor, Tensor, Tensor]:
        side = crops.size // VISION["patch_size"]
        arrays = (torch.from_numpy(array[crops.rows]).float() for array in (self.data.maps, self.data.hints))
        maps, hints = (crops.mix(_sampled(array, crops.where, side)) for array in arrays)
        embeddings = F.normalize(self.head(maps.mean((2, 3)) @ self.back + self.mean), dim=1)
        return embeddings, maps[:, :MAP_CHANNELS] / self.loudness[0], hints / self.loudness[1]


class Measure:
    """Recall of the captions with the starter's words, and the agreement with its CNN, on validation photographs."""

    def __init__(self) -> None:
        rows = photographs("validation")
        starter = Model(STARTER)
        self.captions = starter.texts([text for group in rows.captions for text in group])
        self.owner = np.repeat(np.arange(len(rows)), rows.captions.map(len))
        self.teacher = _centred(starter.pictures(list(rows.file)))
        load = open_clip.image_transform(SIZE, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
        self.pixels = torch.stack([load(Image.open(file).convert("RGB")) for file in rows.file])

    @torch.inference_mode()
    def __call__(self, tower: nn.Module) -> dict[str, float]:
        embeddings = torch.cat([F.normalize(tower(part), dim=1) for part in self.pixels.split(50)]).numpy()
        agreement = float((_centred(embeddings) * self.teacher).sum(1).mean())
        return {"centred_cosine": agreement, **recalls(embeddings, self.captions, self.owner)}


def batches(data: Packed, *, seed: int, small: float | None, seen: Callable[[], int]) -> Iterator[Crops]:
    """Crops for ever, every picture once a round; `small` is the share of small batches, else it depends on `seen`."""
    chance = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(data.pixels), generator=chance).numpy()
        for start in range(0, len(order) - BATCH + 1, BATCH):
            share = next(s for until, s in SMALL_SHARE if seen() < until) if small is None else small
            size = SMALL if torch.rand((), generator=chance) < share else SIZE
            yield Crops(data, np.sort(order[start : start + BATCH]), size, chance)


def _where(aspects: Tensor, chance: torch.Generator) -> Tensor:
    """(b, 2, 3) affine maps of random crops, in pictures that were squashed to a square; half of them turned round.

    A fifth is the middle square that is looked at when the model is used.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(aspects), generator=chance)

    area, ratio = uniform(0.25, 1.0) * aspects, torch.exp(uniform(-0.29, 0.29))
    middle = uniform(0, 1) < 0.2
    square = aspects.clamp(max=1)
    width = torch.where(middle, square / aspects, ((area * ratio).sqrt() / aspects).clamp(max=1))
    height = torch.where(middle, square, (area / ratio).sqrt().clamp(max=1))
    left, down = (torch.where(middle, 0.0, uniform(-1, 1)) * (1 - side) for side in (width, height))
    turned = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    nothing = torch.zeros_like(width)
    rows = (torch.stack([width * turned, nothing, left], 1), torch.stack([nothing, height, down], 1))
    return torch.stack(rows, 1)


def _sampled(maps: Tensor, where: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(where, [len(maps), 1, side, side], align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def _loudness(maps: np.ndarray) -> Tensor:
    """Square roots of the deviations, (c, 1, 1): loud channels stay somewhat louder; the mean variance becomes 1."""
    deviation = torch.from_numpy(maps.astype(np.float32)).std((0, 2, 3))
    return (deviation * deviation.mean()).sqrt()[:, None, None]


def _places(tower: VisionTransformer, side: int) -> Tensor:
    """(side * side, width): the learnt places of 9 x 9 patches, between them where there are fewer."""
    places = tower.positional_embedding[1:]
    if side**2 == len(places):
        return places
    square = places.T.unflatten(1, (SIZE // VISION["patch_size"],) * 2)[None]
    return F.interpolate(square, size=(side, side), mode="bilinear", antialias=True)[0].flatten(1).T


def _centred(embeddings: np.ndarray) -> np.ndarray:
    moved = embeddings - embeddings.mean(0)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


@torch.no_grad()
def _begin_like_a_trained_one(tower: VisionTransformer) -> None:
    """Attention that begins as trained ViTs end: a patch looks at what is like it, and takes it off.

    "Mimetic initialization of self-attention layers" (Trockman, Kolter 2023): with Z random, query x key is about
    .7 Z + .7 I, value x projection .4 Z - .4 I, and places are sines.
    """
    width, head = VISION["width"], VISION["head_width"]
    for block in tower.transformer.resblocks:
        weight = block.attn.in_proj_weight
        for start in range(0, width, head):
            left, sizes, right = torch.linalg.svd(0.7 * torch.randn(width, width) / width**0.5 + 0.7 * torch.eye(width))
            weight[start : start + head] = (left[:, :head] * sizes[:head].sqrt()).T
            weight[width + start : width + start + head] = sizes[:head, None].sqrt() * right[:head]
        left, sizes, right = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * torch.eye(width))
        weight[2 * width :] = sizes[:, None].sqrt() * right
        block.attn.out_proj.weight.copy_(left * sizes.sqrt())
    side = SIZE // VISION["patch_size"]
    across, down = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy")
    speed = 100 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.cat([across.reshape(-1, 1) * speed, down.reshape(-1, 1) * speed], 1)
    tower.positional_embedding[1:] = 0.5 * torch.cat([angles.sin(), angles.cos()], 1)
    tower.positional_embedding[0] = 0


if __name__ == "__main__":
    main()
