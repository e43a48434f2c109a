"""The image projection: a ridge to the student's text embeddings, distilled into the MLP head of open_clip."""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feature_maps import stage_file
from features import features_file
from packed_pictures import pooled
from picture_sets import QUESTIONS, WORK, photographs
from safetensors.torch import load_file, save_file
from shared_space import Ridge, unit
from timm.layers import Mlp
from torch.nn import functional as F  # noqa: N812
from train_text_tower import CHECKPOINT, EMBED, encode, text_tower

HEAD = WORK / "head.safetensors"
DISTILLED, RIDGE = WORK / "distilled.safetensors", WORK / "ridge.npz"
DEEPER = WORK / "ridge_deeper.npz"  # the ridge that also sees what lies before the last convolution
LOUD = ("mix", "power", "loudness", "earlier")  # of `Weights`, what `Ridge` has too
ROUNDS = 2000  # batches of the distillation
CLASS_THRESHOLD = 4.0  # logits: about what a photograph's fifth class reaches
STRAIGHT = 4.0  # deviations above 0, where GELU is a line
View = tuple[int, str, str]  # size, resize mode, view: see features.py
EncodeTexts = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Weights:
    """How much one picture of each kind counts in the ridge."""

    captioned: float = 1.0
    imagenet: float = 0.3
    labelled: float = 0.0
    ridge: float = 400.0
    mix: float = 24.0  # of the class names: from 12 to 24 takes .01 from R@10 and gives Pets trainval .42 to .47
    power: float = 0.7  # of the features: a root gives +.015 at R@10 over 1, and the head learns .7 better than .5
    loudness: float = 1.2  # of the features
    earlier: float = 0.4  # of what lies before the last convolution: R@10 .671 to .688, Pets .471 to .466


def main() -> None:
    """Writes two ridges and the head (fc1, fc2) that `tune_last_convolution.py` begins with.

    The head learns from the ridge over the last features, as the students do; `tune_last_convolution.py` from the
    deeper one.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--resize", default="shortest")
    parser.add_argument("--views", nargs="+", default=["plain", "flip"])
    parser.add_argument("--tower", type=Path, default=CHECKPOINT)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    for field, value in vars(Weights()).items():
        parser.add_argument(f"--{field}", type=float, default=value)
    options = parser.parse_args()
    torch.manual_seed(0)
    weights = Weights(**{field: getattr(options, field) for field in vars(Weights())})
    views = [(options.size, options.resize, view) for view in options.views]
    tower = text_tower().eval()
    tower.load_state_dict(load_file(options.tower))
    used = {"size": options.size, "resize": options.resize, "views": options.views, "rounds": options.rounds}
    used |= vars(weights)
    words = cache(lambda texts: encode(tower, list(texts)))  # both ridges ask for the same
    deeper, model = (solve(views, weights, lambda texts: words(tuple(texts)), deeper=yes) for yes in (True, False))
    for target, solved in ((DEEPER, deeper), (RIDGE, model)):
        np.savez(target, names=solved.names, coef=solved.coef_, used=json.dumps(used))
    save_file(distil(model, views, options.rounds).state_dict(), DISTILLED)


def load_ridge(path: Path) -> tuple[Ridge, dict[str, Any]]:
    """What `main` has solved, and with what."""
    stored = np.load(path)
    used = json.loads(str(stored["used"]))
    ridge = Ridge(stored["names"], used["ridge"], **{key: used[key] for key in LOUD})
    ridge.coef_ = stored["coef"]
    return ridge, used


def new_head() -> Mlp:
    """The two layers that open_clip builds as `timm_proj: mlp`."""
    return Mlp(1280, 2 * EMBED, EMBED)


def load(name: str, views: list[View], *, deeper: bool = False) -> np.ndarray:
    """(n, 1280) float32, the mean over the views; deeper: (n, 1280 + 352), of `feature_maps.py`'s one view."""
    last = np.mean([np.load(features_file(name, *view)).astype(np.float32) for view in views], 0)
    return np.concatenate([last, np.load(stage_file(name)).mean((2, 3), np.float32)], 1) if deeper else last


def solve(views: list[View], weights: Weights, encode_texts: EncodeTexts, *, deeper: bool = False) -> Ridge:
    """The ridge over the mean view of every captioned and labelled picture."""
    captions = photographs("captioned").captions
    owners = np.repeat(np.arange(len(captions)), captions.map(len))
    embedded = encode_texts([text for group in captions for text in group])
    means = unit(np.array([embedded[owners == i].mean(0) for i in range(len(captions))]))
    parts = [(load("captioned", views, deeper=deeper), means, weights.captioned)]
    names = label_embeddings(list(photographs("imagenet").label), encode_texts)
    parts.append((load("imagenet", views, deeper=deeper), names, weights.imagenet))
    if weights.labelled:
        labels = photographs("labelled").label
        known = sorted(set(labels))
        rows = label_embeddings(known, encode_texts)[[known.index(label) for label in labels]]
        share = 1 / np.sqrt(labels.map(labels.value_counts()).to_numpy())  # a class of 500 counts as one of 22
        parts.append((load("labelled", views, deeper=deeper), rows, weights.labelled * share))
    each = np.concatenate([np.broadcast_to(weight, len(rows)) for _, rows, weight in parts])
    return Ridge(names, weights.ridge, **{key: getattr(weights, key) for key in LOUD}).fit(
        np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), each
    )


def distil(model: Ridge, views: list[View], rounds: int) -> Mlp:
    """The MLP that gives the ridge's directions on every photograph, on its views and on mixtures of photographs."""
    fitted = [load(name, [view]) for name in ("captioned", "imagenet") for view in views]
    features = torch.from_numpy(np.concatenate([*fitted, pooled()]))
    mean, spread = features.mean(0), features.std(0) + 0.05
    head, teacher = new_head(), in_torch(model)
    _begin(head, model, features, mean, spread)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1.5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / rounds)) / 2
    )
    for step in range(rounds):
        rows = features[torch.randint(len(features), (512,))]
        share = torch.rand(512, 1) * 0.5 * (torch.rand(512, 1) < 0.3)  # some are mixtures of two photographs
        rows = _towards_a_class((1 - share) * rows + share * rows.roll(1, 0), model)
        goal = F.normalize(teacher(rows), dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            raw = head((rows - mean) / spread)
        out = F.normalize(raw.float(), dim=1)
        loss = (1 - (out * goal).sum(1)).mean() + 5 * ((out @ out.T - goal @ goal.T) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == 0 or (step + 1) % 300 == 0:
            print(f"step {step + 1} cosine {(out * goal).sum(1).mean():.4f}", flush=True)
    with torch.no_grad():  # the standardisation goes into the first layer
        head.fc1.weight /= spread
        head.fc1.bias -= head.fc1.weight @ mean
    return head.eval()


def in_torch(model: Ridge) -> Callable[[torch.Tensor], torch.Tensor]:
    """`model.predict` for tensors; the class-name mix and its coefficients become one product."""
    weight, coef = torch.from_numpy(model.weight), torch.from_numpy(model.coef_).float()
    bias, names = torch.from_numpy(model.bias), torch.from_numpy(model.names).float()
    width, mixed = weight.shape[1], len(coef) - 1 - names.shape[1]
    classes = model.mix * names @ coef[mixed:-1]  # (1000, d)

    def predict(rows: torch.Tensor) -> torch.Tensor:
        last, earlier = rows[:, :width], rows[:, width:]
        heard = model.loudness * last**model.power @ coef[:width] + model.earlier * earlier @ coef[width:mixed]
        return heard + (last @ weight.T + bias).softmax(1) @ classes + coef[-1]

    return predict


def label_embeddings(labels: list[str], encode_texts: EncodeTexts) -> np.ndarray:
    """(n, d), length 1: the mean over the ways a label is asked for."""
    return unit(np.mean([encode_texts([question.format(label) for label in labels]) for question in QUESTIONS], 0))


@torch.no_grad()
def _begin(head: Mlp, model: Ridge, features: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> None:
    """Half of the hidden units begin as the first 384 ImageNet classes (animals), half as the best line to the ridge.

    What the second layer makes of them is least squares: R@10 is where hundreds of rounds from a random start end.
    """
    rows = torch.cat([features, _towards_a_class(features, model), _towards_a_class(features, model)])
    goal, rows = in_torch(model)(rows), (rows - mean) / spread
    line = _least_squares(rows, goal, 1.0)
    straight, count = _with_one(rows) @ line, head.fc1.out_features // 2
    spans = straight.std(0)
    head.fc1.weight[count:] = (line[:-1] / spans).T
    head.fc1.bias[count:] = (line[-1] - straight.mean(0)) / spans + STRAIGHT
    weight, bias = torch.from_numpy(model.weight)[:count], torch.from_numpy(model.bias)[:count]
    head.fc1.weight[:count] = weight * spread
    head.fc1.bias[:count] = weight @ mean + bias - CLASS_THRESHOLD
    hidden = F.gelu(head.fc1(rows))
    second = _least_squares(hidden, goal, 1e-3 * float((hidden**2).sum(0).mean()))
    scale = (_with_one(hidden) @ second).norm(dim=1).mean()
    head.fc2.weight.copy_(second[:-1].T / scale)
    head.fc2.bias.copy_(second[-1] / scale)


def _least_squares(inputs: torch.Tensor, goal: torch.Tensor, ridge: float) -> torch.Tensor:
    inputs = _with_one(inputs).double()
    gram = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, inputs.T @ goal.double()).float()


def _with_one(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows, torch.ones(len(rows), 1)], 1)


def _towards_a_class(rows: torch.Tensor, model: Ridge) -> torch.Tensor:
    """The same features (n, 1280), two thirds of them moved so that another class is about as likely as the first.

    The ridge bends only where the likeliest class changes, and few photographs lie there.
    """
    weight = torch.from_numpy(model.weight)
    logits = rows @ weight.T + torch.from_numpy(model.bias)
    wanted, lift = lifts(logits, near=0.5, moved=0.67)
    direction = (weight - weight.mean(0))[wanted]
    return (rows + (lift / (direction**2).sum(1))[:, None] * direction).clamp(min=0)


def lifts(logits: torch.Tensor, *, near: float, moved: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) a class for each row of `logits` (n, classes), and what its logit lacks to be about the first.

    near: share of the rows whose class is one of the 30 likeliest. moved: share that moves at all; the others lack 0.
    """
    count, classes = logits.shape
    likely = logits.topk(30).indices.gather(1, torch.randint(30, (count, 1)))[:, 0]
    any_class = torch.randint(classes, (count,))
    wanted = torch.where(torch.rand(count) < near, likely, any_class)
    lack = logits.amax(1) - logits.gather(1, wanted[:, None])[:, 0] + torch.empty(count).uniform_(-2, 5)
    return wanted, torch.where(torch.rand(count) < moved, lack, 0.0)


if __name__ == "__main__":
    main()
