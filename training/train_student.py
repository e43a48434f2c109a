"""A student learns to see what the starter's CNN sees, and goes on from its checkpoint when it is started again."""

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
from optimizers import muon_and_adamw
from packed_pictures import CELLS, Packed, packed
from picture_sets import STARTER, WORK, photographs
from PIL import Image
from students import MAP_CHANNELS, STUDENTS, Grids, Student, look_at
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel
from train_projection import RIDGE, in_torch, load_ridge

INNER = ("tower.trunk.stages", "tower.transformer")
BATCH, RATE, KEEP = 128, 1e-3, 0.9995  # KEEP: of the running mean of the weights, a step


def main() -> None:
    """Trains for the given minutes or until it is told to stop; `--finish` is the slow end, kept apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long")
    parser.add_argument("--every", type=float, default=8, help="minutes from point to point of the curve")
    parser.add_argument("--finish", type=float, help="minutes in which the rate falls to zero; writes finished.pt")
    parser.add_argument("--student", choices=sorted(STUDENTS), default="levit")
    parser.add_argument("--starter", type=Path, default=STARTER, help="whose words and CNN it is measured by")
    options = parser.parse_args()
    training = Training(options.student, "finished.pt" if options.finish else "last.pt", options.starter)
    training.run(options.finish or options.minutes, options.every, falling=bool(options.finish))


def folder(student: str) -> Path:
    """Where its checkpoints last.pt and finished.pt and its curve.jsonl lie."""
    return WORK / student


class Training:
    """What is kept from run to run: weights, their running mean, the optimizer, and how much was seen."""

    def __init__(self, name: str, target: str, starter: Path) -> None:
        self.folder = folder(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        self.data, self.target = packed(), self.folder / target
        self.student: Student = STUDENTS[name]()
        self.mean = copy.deepcopy(self.student.tower).requires_grad_(False).eval()
        self.optimizers = muon_and_adamw(self.student, INNER, RATE, _free)
        self.seen, self.steps, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0
        start = next((file for file in (self.target, self.folder / "last.pt") if file.exists()), None)
        if start:
            self._load(torch.load(start, weights_only=True))
        self.measure = Measure(starter)

    def run(self, minutes: float, every: float, *, falling: bool) -> None:
        """Steps until the time is over or a signal comes; a checkpoint with every point of the curve."""
        stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda which, _: stopped.append(which))
        started, cpu, before = time.time(), time.process_time(), (self.seconds, self.cpu_seconds)
        goals, losses, last = Goals(self.data), [], started
        for crops in batches(self.data, self.seen, lambda: self._shares(falling)):
            done = (time.time() - started) / 60 / minutes
            warm = min(1.0, (self.steps + 1) / 500)
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = RATE * warm * (max(0.0, 1 - done) if falling else 1.0)
            losses.append(self._step(crops, goals))
            self.seconds = before[0] + time.time() - started
            self.cpu_seconds = before[1] + time.process_time() - cpu
            over = bool(stopped) or done >= 1
            if over or time.time() - last > every * 60:
                self._point(np.mean(losses, 0), falling)
                self._save()
                losses, last = [], time.time()
            if over:
                break

    def _shares(self, falling: bool) -> dict[int, float]:
        if falling:
            return {self.student.config["image_size"]: 1.0}
        return next(shares for until, shares in self.student.sizes if self.seen < until)

    def _step(self, crops: "Crops", goals: "Goals") -> list[float]:
        self.student.look_at(crops.size)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            raw, grids = self.student(crops.pixels)
        goal, maps = goals(crops, grids)
        own = F.normalize(raw.float(), dim=1)
        losses = [(1 - (own * goal).sum(1)).mean(), 5 * ((own @ own.T - goal @ goal.T) ** 2).mean()]
        losses += [weight * F.mse_loss(said.float(), to) for (_, weight, said), to in zip(grids, maps, strict=True)]
        self.student.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps, self.seen = self.steps + 1, self.seen + len(crops.pixels)
        keep = min(KEEP, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            now = self.student.tower.state_dict()
            for name, value in self.mean.state_dict().items():  # the running means of batch norms too
                value.lerp_(now[name], 1 - keep) if value.is_floating_point() else value.copy_(now[name])
        return torch.stack(losses).tolist()

    def _point(self, losses: np.ndarray, falling: bool) -> None:
        point: dict[str, Any] = {"pictures_seen": self.seen, "minutes": self.seconds / 60}
        point |= {"cpu_minutes": self.cpu_seconds / 60, "finishing": falling}
        point |= {"embedding": losses[0], "relation": losses[1], "grids": losses[2:].tolist()}
        point |= self.measure(self.mean, max(self._shares(falling)))
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in point.items()})
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def _save(self) -> None:
        counts = {name: getattr(self, name) for name in ("seen", "steps", "seconds", "cpu_seconds")}
        state = {"student": self.student.state_dict(), "mean": self.mean.state_dict()}
        torch.save(
            {**state, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers], **counts},
            self.target.with_suffix(".part"),
        )
        os.replace(self.target.with_suffix(".part"), self.target)

    def _load(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.mean.load_state_dict(state["mean"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for name in ("seen", "steps", "seconds", "cpu_seconds"):
            setattr(self, name, state[name])


class Crops:
    """Pixels (b, 3, s, s), where they lie in the packed pictures, and what was mixed with what."""

    def __init__(self, data: Packed, rows: np.ndarray, size: int, chance: torch.Generator) -> None:
        self.rows, self.size = rows, size
        self.where = _where(torch.from_numpy(data.aspects[rows]), chance)
        mixed = torch.rand(len(rows), generator=chance) < 0.4
        self.share = torch.rand(len(rows), generator=chance) * 0.5 * mixed
        pixels = _sampled(torch.from_numpy(data.pixels[rows]).float(), self.where, max(size, 144))
        if size < 144:  # a picture that is halved would lose lines
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
        self.ridge = in_torch(load_ridge(RIDGE)[0])
        self.sources = {"maps": data.maps, "hints": data.hints}
        self.loudness = {"maps": _loudness(data.maps[:256, :MAP_CHANNELS]), "hints": _loudness(data.hints[:256])}

    @torch.no_grad()
    def __call__(self, crops: Crops, grids: Grids) -> tuple[Tensor, list[Tensor]]:
        """Embeddings (b, 384), and for each grid of the student what it should say."""
        arrays = {name: torch.from_numpy(array[crops.rows]).float() for name, array in self.sources.items()}
        whole = crops.mix(_sampled(arrays["maps"], crops.where, CELLS)).mean((2, 3))
        embeddings = F.normalize(self.ridge((whole @ self.back + self.mean).clamp(min=0)), dim=1)
        asked = []
        for which, _, said in grids:
            channels, side = said.shape[1:3]
            # finer than asked for, then averaged: a wide cell is all that is in it
            finer = _sampled(arrays[which][:, :channels], crops.where, side * max(1, round(CELLS / side)))
            asked.append(crops.mix(F.adaptive_avg_pool2d(finer, side)) / self.loudness[which])
        return embeddings, asked


class Measure:
    """Recall of the captions with the starter's words, and the agreement with its CNN, on validation photographs."""

    def __init__(self, folder: Path) -> None:
        rows = photographs("validation")
        starter = Model(folder)
        self.captions = starter.texts([text for group in rows.captions for text in group])
        self.owner = np.repeat(np.arange(len(rows)), rows.captions.map(len))
        self.teacher = _centred(starter.pictures(list(rows.file)))
        self.files = list(rows.file)
        self.pixels: dict[int, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, tower: nn.Module, size: int) -> dict[str, float]:
        if size not in self.pixels:
            half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
            load = open_clip.image_transform(size, is_train=False, interpolation="bicubic", **half)
            self.pixels = {size: torch.stack([load(Image.open(file).convert("RGB")) for file in self.files])}
        look_at(tower, size)
        embeddings = torch.cat([F.normalize(tower(part), dim=1) for part in self.pixels[size].split(50)]).numpy()
        agreement = float((_centred(embeddings) * self.teacher).sum(1).mean())
        return {"size": size, "centred_cosine": agreement, **recalls(embeddings, self.captions, self.owner)}


def batches(data: Packed, seed: int, shares: Callable[[], dict[int, float]]) -> Iterator[Crops]:
    """Crops for ever, every picture once a round; `shares` are of the batches of each size."""
    chance = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(data.pixels), generator=chance).numpy()
        for start in range(0, len(order) - BATCH + 1, BATCH):
            sizes = shares()
            size = list(sizes)[int(torch.multinomial(torch.tensor(list(sizes.values())), 1, generator=chance))]
            yield Crops(data, np.sort(order[start : start + BATCH]), size, chance)


def _free(name: str) -> bool:
    return "embedding" in name or "attention_biases" in name  # of weight decay


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


def _centred(embeddings: np.ndarray) -> np.ndarray:
    moved = embeddings - embeddings.mean(0)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
