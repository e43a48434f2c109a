"""Contrastive tuning of the image head and the text tower on captioned photographs, from cached maps of the frozen CNN.

"Learning transferable visual models from natural language supervision" (Radford et al. 2021) with the images locked but
for their head; the names of the classes and phrases outside of captions are held where the distilled starter has them.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captioned_cells import load_captions, load_cells, tokenize
from contrastive_losses import mixed_caption_loss, naming_loss
from evaluate import PET_TEMPLATES, recalls
from image_head import WEIGHTS, load_image_head
from learning_curve import Curve, load_pooled
from mentions import find_mentions, load_mentions, mean_aurocs, mention_loss
from picture_sets import DISTILLED_STARTER, QUESTIONS, WORK, photographs
from safetensors.torch import load_file, save_file
from shared_space import unit
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel
from train_text_tower import cut_encode, text_tower

FOLDER = WORK / "contrastive"
NAMED_EVERY = 10  # steps, the class names are embedded anew
RIDGE = 1000.0  # of 100, 300 and 1,000, on captions/: learning_curve.py
NAME_SCALE = 30.0  # of the cosines between photographs and class names


@dataclass(frozen=True)
class Settings:
    """What an attempt is made with."""

    epochs: int = 10
    batch: int = 800  # captioned photographs
    captions: int = 1  # of each photograph in a batch
    others: int = 256  # photographs without captions in a batch
    phrases: int = 384  # outside of captions, in a batch
    image_rate: float = 1e-3
    text_rate: float = 2e-4
    stage_rate: float = 0.0  # of the CNN's last stage; 0 leaves it as it is
    attention_rate: float = 1e-3  # of a transformer on the cells: tune_hybrid.py
    decay: float = 0.1
    dropout: float = 0.2
    cells: int = 40  # of the 81, in a batch
    mixup: float = 0.0  # the largest share of another photograph's cells in each
    naming: float = 0.5  # weight of naming the 1,000 classes as the CNN does
    distilling: float = 1.0  # weight of the cosine to a ridge on the same captions, falling to 0
    anchoring: float = 1.0  # weight of the cosine of phrases to the distilled tower
    mentioning: float = 0.0  # weight of finding the photographs whose captions mention a noun, or two
    queries: int = 96  # of one noun in a batch, and as many of two
    keep: float = 0.97  # of the running mean of the weights, a step
    views: str = "plain"
    sets: str = "captioned flickr8k visual7w"
    uncaptioned: str = "imagenet"
    seed: int = 0


class Towers(nn.Module):
    """What learns: the image head, the text tower and the temperature."""

    def __init__(self, folder: Path, dropout: float = 0.0, *, with_stage: bool = False) -> None:
        super().__init__()
        stored = load_file(folder / WEIGHTS)
        self.image, self.text = load_image_head(folder, dropout, with_stage=with_stage), text_tower()
        wanted = self.text.state_dict().keys() & stored.keys()
        self.text.load_state_dict({name: stored[name].float() for name in wanted}, strict=False)
        self.text.token_embedding.requires_grad_(False)  # most of its words are in no caption
        self.logit_scale = nn.Parameter(stored["logit_scale"].float().clone())

    def words(self, tokens: Tensor) -> Tensor:
        """(n, 384), length 1; texts of like length together, so that padding costs little."""
        order = tokens.argmax(1).argsort()
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            out = torch.cat([cut_encode(self.text, tokens[rows]) for rows in order.split(256)])
        return F.normalize(out.float(), dim=1)[order.argsort()]


class Data:
    """Photographs with and without captions, class names and phrases, and what the distilled starter says of those."""

    def __init__(self, settings: Settings, distilled: Towers) -> None:
        sets, views = settings.sets.split(), settings.views.split()
        self.settings = settings
        below = settings.stage_rate > 0
        self.cells, self.captions = load_cells(sets, views, below=below), load_captions(sets)
        self.others = load_cells(settings.uncaptioned.split(), ["plain"], below=below)
        if settings.distilling:
            self.goals, self.other_goals = ridge_goals(sets), ridge_goals(sets, of=settings.uncaptioned.split())
        else:
            self.goals, self.other_goals = torch.zeros(len(self.cells), 384), torch.zeros(len(self.others), 384)
        self.mentions = load_mentions(sets) if settings.mentioning else None
        names = list(photographs("imagenet").label)
        self.names = torch.stack([tokenize([t.format(name) for name in names]) for t in QUESTIONS])
        self.phrases = anchor_phrases(self.names.flatten(0, 1))
        with torch.no_grad():
            self.anchors = torch.cat([distilled.words(part).half() for part in self.phrases.split(1024)]).clone()

    @torch.no_grad()
    def class_names(self, towers: Towers) -> Tensor:
        """(1000, 384): the mean over the templates, length 1."""
        each = torch.stack([towers.words(tokens) for tokens in self.names])
        return F.normalize(each.mean(0), dim=1).clone()

    def batches(self) -> Iterator[Tensor]:
        """Rows of captioned photographs, each once an epoch."""
        while True:
            order = torch.randperm(len(self.cells))
            yield from order[: len(order) // self.settings.batch * self.settings.batch].split(self.settings.batch)


def ridge_goals(sets: list[str], of: Sequence[str] = ()) -> Tensor:
    """(n, 384), length 1: what the ridge on the captions of `sets` says of the photographs of `of`, or of the same."""
    curve = Curve("squash", ["plain"])
    ridge = curve.fit({name: np.arange(len(curve.targets[name])) for name in sets}, RIDGE)
    goals = [unit(ridge.predict(load_pooled(name, "squash", "plain"))) for name in of or sets]
    return torch.from_numpy(np.concatenate(goals)).float()


def anchor_phrases(names: Tensor, count: int = 40_000) -> Tensor:
    """(m, 32) tokens of short phrases and of the class names: what must stay where it is."""
    from picture_sets import phrases  # reads 566,507 of them

    short = [text for text in phrases() if len(text.split()) <= 6]
    return torch.cat([tokenize(short[:count]), names])


def step_loss(towers: Towers, data: Data, rows: Tensor, names: Tensor, left: float) -> dict[str, Tensor]:
    """The losses of one batch, to be added; names (1000, 384) are the classes, left is the share of steps to come."""
    settings = data.settings
    other, phrase = (
        torch.randint(len(of), (count,))
        for of, count in ((data.others, settings.others), (data.phrases, settings.phrases))
    )
    cells = torch.cat([data.cells.batch(rows), data.others.batch(other)])
    odds = torch.cat([data.cells.class_odds[rows], data.others.class_odds[other]]).float()
    goals = torch.cat([data.goals[rows], data.other_goals[other]])
    shares = torch.zeros(len(rows))
    if settings.mixup:
        shares = torch.rand(len(rows)) * settings.mixup
        mix((cells, odds, goals), shares)
    with torch.autocast("cpu", torch.bfloat16):
        images = towers.image(cells, settings.cells)
    queries, mentioned_by = data.phrases[:0], torch.empty(0)
    if data.mentions:
        queries, mentioned_by = data.mentions.queries(rows, settings.queries)
    parts = [data.captions.batch(rows, settings.captions), data.phrases[phrase], queries]
    texts, anchored, asked = towers.words(torch.cat(parts)).split([len(part) for part in parts])
    scale, weights = towers.logit_scale.exp(), data.captions.weights[rows]
    mentioning = mention_loss(images[: len(rows)], asked, mentioned_by) if data.mentions else torch.zeros(())
    return {
        "captions": mixed_caption_loss(images[: len(rows)], texts, scale, weights, shares),
        "mentioning": settings.mentioning * mentioning,
        "naming": settings.naming * naming_loss(images @ names.T * NAME_SCALE, odds),
        "distilling": settings.distilling * left * (1 - (images * goals).sum(1)).mean(),
        "anchoring": settings.anchoring * (1 - (anchored * data.anchors[phrase].float()).sum(1)).mean(),
    }


def mix(batch: Sequence[Tensor], shares: Tensor) -> None:
    """Blend the share (b,) of the one before it into each of the first b rows."""
    before = torch.arange(len(shares)).roll(1)
    for values in batch:
        wide = shares.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
        values[: len(shares)] = values[: len(shares)].lerp(values[before], wide)


def main() -> None:
    """Writes work/contrastive/NAME.safetensors (the running mean) and a line of NAME.jsonl for each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--name", default="head")
    parser.add_argument("--start", type=Path, default=DISTILLED_STARTER)
    for field, value in vars(Settings()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(value), default=value)
    options = parser.parse_args()
    settings = Settings(**{field: getattr(options, field) for field in vars(Settings())})
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    below = settings.stage_rate > 0
    towers = Towers(options.start, settings.dropout, with_stage=below)
    train(towers, Data(settings, towers), Validation(below=below), FOLDER / options.name)


def train(towers: Towers, data: Data, validation: "Validation", target: Path) -> None:
    """Goes on from target's checkpoint if there is one."""
    settings = data.settings
    optimizer = _optimizer(towers, settings)
    rates = [group["lr"] for group in optimizer.param_groups]  # before a checkpoint's, which have fallen already
    mean = copy.deepcopy(towers).eval()
    done = _resume(target.with_suffix(".pt"), towers, mean, optimizer)
    if not done:
        _log(target, {"epoch": 0} | validation.measure(mean))
    steps = len(data.cells) // settings.batch
    batches, names = data.batches(), data.class_names(mean)
    for epoch in range(done, settings.epochs):
        started, sums = time.time(), {}
        towers.train()
        for step, rows in zip(range(epoch * steps, (epoch + 1) * steps), batches, strict=False):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(step, steps * settings.epochs)
            if step % NAMED_EVERY == 0:
                names = data.class_names(mean)
            losses = step_loss(towers, data, rows, names, 1 - step / (steps * settings.epochs))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
            optimizer.step()
            _follow(mean, towers, min(settings.keep, (1 + step) / (10 + step)))
            sums = {name: sums.get(name, 0.0) + float(value.detach()) / steps for name, value in losses.items()}
        row = {"epoch": epoch + 1, "seconds": time.time() - started} | sums | validation.measure(mean)
        _log(target, row)
        state = {"towers": towers.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"epoch": epoch + 1}, target.with_suffix(".pt"))
    save_file(
        {name: value.contiguous() for name, value in mean.state_dict().items()}, target.with_suffix(".safetensors")
    )
    target.with_suffix(".json").write_text(json.dumps(vars(settings)))


class Validation:
    """captions/ both ways, and Pets trainval by name: what the settings are chosen on."""

    def __init__(self, resize: str = "squash", *, below: bool = False) -> None:
        rows = photographs("validation")
        self.owner = np.repeat(np.arange(len(rows)), rows.captions.map(len))
        self.captions = tokenize([text for group in rows.captions for text in group])
        self.cells = load_cells(["validation"], ["plain"], resize, below=below).views[0]
        pets = photographs("pets_trainval")
        self.pets = load_cells(["pets_trainval"], ["plain"], resize, below=below).views[0]
        breeds = sorted(set(pets.label))
        self.breeds = {name: tokenize([form.format(breed) for breed in breeds]) for name, form in PET_TEMPLATES.items()}
        self.mentions = find_mentions(rows.captions)
        self.labels = torch.tensor([breeds.index(label) for label in pets.label])

    @torch.no_grad()
    def measure(self, towers: Towers) -> dict[str, float]:
        """Recalls, and Pets top-1 for each template."""
        images, pets = (
            torch.cat([towers.image(part.float()) for part in cells.split(256)]) for cells in (self.cells, self.pets)
        )
        texts = torch.cat([towers.words(part) for part in self.captions.split(500)])
        found = recalls(images.numpy(), texts.numpy(), self.owner)
        for name, tokens in self.breeds.items():
            right = (pets @ towers.words(tokens).T).argmax(1) == self.labels
            found[f"pets_trainval_top1_{name}"] = float(right.float().mean())
        return found | mean_aurocs(self.mentions, images, towers.words)


def _optimizer(towers: Towers, settings: Settings) -> torch.optim.Optimizer:
    rates = {"image.stage": settings.stage_rate, "image.attention": settings.attention_rate}
    rates |= {"image": settings.image_rate, "text": settings.text_rate}
    groups = {}
    for name, value in towers.named_parameters():
        if value.requires_grad:
            part = next((part for part in rates if name.startswith(part)), "image")
            groups.setdefault((rates[part], value.ndim > 1), []).append(value)
    decays = {True: settings.decay, False: 0.0}  # matrices, and what has one dimension
    return torch.optim.AdamW(
        [{"params": values, "lr": rate, "weight_decay": decays[wide]} for (rate, wide), values in groups.items()],
        betas=(0.9, 0.98),
    )


def _schedule(step: int, steps: int) -> float:
    """Warm-up over the first twentieth, then a cosine down to 0."""
    return min(1.0, (step + 1) / (0.05 * steps + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _follow(mean: nn.Module, towers: nn.Module, keep: float) -> None:
    learnt = [(a, b) for a, b in zip(mean.parameters(), towers.parameters(), strict=True) if b.requires_grad]
    torch._foreach_lerp_([a for a, _ in learnt], [b for _, b in learnt], 1 - keep)


def _resume(checkpoint: Path, towers: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not checkpoint.exists():
        return 0
    stored = torch.load(checkpoint, weights_only=True)
    towers.load_state_dict(stored["towers"])
    mean.load_state_dict(stored["mean"])
    optimizer.load_state_dict(stored["optimizer"])
    return int(stored["epoch"])


def _log(target: Path, row: dict[str, Any]) -> None:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
    print(json.dumps(rounded), flush=True)
    with target.with_suffix(".jsonl").open("a") as lines:
        lines.write(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
