"""Tuning of a CLIP model: what learns in each recipe, the loop with its checkpoints, and weights between two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.progress import Progress
from clipkit.core.tensor_files import read_tensors, write_tensors
from clipkit.core.text import counted
from clipkit.errors import ClipkitError, ModelError
from clipkit.learn.captioned import Captioned
from clipkit.learn.contrastive import clip_loss, count_cut, rise_and_fall, siglip_loss
from clipkit.learn.trainer import check_identity, check_recipe
from clipkit.models.trainable import TunableEncoder

FORM = "clipkit adaptation 1"
RECIPES = ("words", "lora", "projection", "full")
OPEN = ("lora", "full")  # these change the picture tower
RANK = 8  # of the low-rank updates: .4 M of the starter's 2.1 M weights in MLPs of words
# By the validation pictures of 300 of Pets after 20 steps: words .68 before, .89 with 3e-3, .94 with 1e-2.
LR = {"words": 5e-3, "lora": 5e-4, "projection": 1e-3, "full": 1e-5}
WARMUP = 0.1  # share of all steps in which the learning rate rises
TOGETHER = 256  # texts through the tower at once, where none learns
PICTURES_TOGETHER = 16


@dataclass(frozen=True)
class AdaptRecipe:
    """How a model is adapted.

    Parameters
    ----------
    kind : {"words", "lora", "projection", "full"}, default "words"
        What learns. words: low-rank updates of the MLPs of the text tower. projection: the last matrix of the text
        tower. lora: low-rank updates of the MLPs of both towers. full: every weight of both.
    epochs : int, default 10
        Passes over all pairs of a picture and a text.
    batch_size : int, default 128
        Pairs that are told from each other.
    lr : float, optional
        Highest learning rate of AdamW; by default 5e-3 for words, 1e-3 for projection, 5e-4 for lora, 1e-5 for full.
    seed : int, default 42
        Of the split, of order and wordings.

    Raises
    ------
    ModelError
        If a value is out of range.

    References
    ----------
    .. [1] E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
    .. [2] X. Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022.

    Examples
    --------
    >>> from clipkit.learn import AdaptRecipe
    >>> AdaptRecipe(epochs=3).rate
    0.005
    """

    kind: Literal["words", "lora", "projection", "full"] = "words"
    epochs: int = 10
    batch_size: int = 128
    lr: float | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        rules = {
            "kind": self.kind in RECIPES,
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "lr": self.lr is None or 0 < self.lr < math.inf,
            "seed": 0 <= self.seed < 2**32,
        }
        check_recipe(self, rules, options=("lr",), usual={"lr": LR.get(self.kind)})

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.lr or LR[self.kind]

    @property
    def is_open(self) -> bool:
        """Whether the picture tower learns, so that an index must be made anew."""
        return self.kind in OPEN


@dataclass(frozen=True, eq=False)
class Tuned:
    """Weights that have learned, merged: (name -> before, after). losses: mean of each epoch."""

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    losses: tuple[float, ...]


class Towers:
    """The network of a model and what embeds with it. It stays as it is but for `put`."""

    def __init__(self, source: TunableEncoder) -> None:
        self.source = source
        self.network, self._tokenize = source.network()
        self.network.eval()

    def tokens(self, texts: Sequence[str]) -> int:
        """How many tokens these texts have, without the ends of a text and padding."""
        empty = self._tokenize([""])[0]
        return int((self._tokenize(list(texts)) != empty[-1]).sum()) - len(texts) * int((empty != empty[-1]).sum())

    def cut(self, texts: Sequence[str]) -> int:
        """How many of these texts are longer than the model reads."""
        return count_cut(texts, self._tokenize)

    def texts(self, wordings: Sequence[Sequence[str]]) -> Embeddings:
        """An embedding for each thing to say, the mean of its wordings: (m, d)."""
        flat = [text for words in wordings for text in words]
        with torch.no_grad():
            parts = [self.encode(flat[i : i + TOGETHER]) for i in range(0, len(flat), TOGETHER)]
        owners = torch.tensor([i for i, words in enumerate(wordings) for _ in words])
        sums = torch.zeros(len(wordings), parts[0].shape[1]).index_add_(0, owners, torch.cat(parts))
        return np.asarray(normalize(sums, dim=-1).numpy(), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts (n, d), with a graph where one is made."""
        return self.network.encode_text(self._tokenize(list(texts)), normalize=True)  # type: ignore[no-any-return]

    def pictures(self, files: Sequence[str]) -> Embeddings:
        """Embeddings of pictures (n, d) by the network as it is now."""
        step = PICTURES_TOGETHER
        with torch.no_grad():
            parts = [self.encode_files(files[i : i + step]) for i in range(0, len(files), step)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)

    def encode_files(self, files: Sequence[str]) -> Tensor:
        """The same, with a graph where one is made."""
        return self.network.encode_image(self.source.centre_inputs(files), normalize=True)  # type: ignore[no-any-return]

    def put(self, tuned: Tuned, share: float) -> None:
        """Weights between before (0) and after (1), in a straight line (WiSE-FT)."""
        parameters = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, before in tuned.before.items():
                parameters[name].copy_(before + share * (tuned.after[name] - before))


@dataclass(eq=False)
class Tuning:
    """One run of a recipe over training pictures; with `file`, a checkpoint after each epoch.

    identity: all that a checkpoint must agree on.
    """

    towers: Towers
    train: Captioned
    recipe: AdaptRecipe
    file: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def run(self, progress: Callable[[Progress], None] | None = None) -> Tuned:
        """Train, and leave the network as it was before."""
        network = self.towers.network
        torch.manual_seed(self.recipe.seed)
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        learning, adapted = open_weights(network, self.recipe.kind)
        losses = self._epochs(learning, progress)
        for module in adapted:
            remove_parametrizations(module, "weight", leave_parametrized=True)
        network.requires_grad_(False)
        after = {name: value.detach().clone() for name, value in network.named_parameters()}
        changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
        tuned = Tuned({name: before[name] for name in changed}, {name: after[name] for name in changed}, losses)
        self.towers.put(tuned, 0.0)
        return tuned

    def _epochs(
        self, learning: Mapping[str, nn.Parameter], progress: Callable[[Progress], None] | None
    ) -> tuple[float, ...]:
        optimizer = torch.optim.AdamW(learning.values(), lr=self.recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
        pairs = np.argwhere(self.train.right)
        per_epoch = -(-len(pairs) // self.recipe.batch_size)
        steps = per_epoch * self.recipe.epochs
        factor = rise_and_fall(steps, WARMUP)
        losses = self._resume(learning, optimizer)
        for epoch in range(len(losses), self.recipe.epochs):
            total = 0.0
            for step, batch in enumerate(self._batches(pairs, epoch, per_epoch), epoch * per_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = self.recipe.rate * factor(step)
                total += self._step(optimizer, batch, step)
                if progress:
                    progress(Progress(step + 1, steps, ""))
            losses.append(total / per_epoch)
            self._keep(learning, optimizer, losses)
        return tuple(losses)

    def _step(self, optimizer: torch.optim.Optimizer, batch: _Batch, step: int) -> float:
        network = self.towers.network
        optimizer.zero_grad(set_to_none=True)
        texts = self.towers.encode(batch.texts)
        images = self.towers.encode_files(batch.files) if self.recipe.is_open else torch.from_numpy(batch.rows)
        same, scale = torch.from_numpy(batch.same), network.logit_scale.exp()
        bias = getattr(network, "logit_bias", None)
        loss = clip_loss(images, texts, scale, same) if bias is None else siglip_loss(images, texts, scale, same, bias)
        if not torch.isfinite(loss):
            raise ModelError(
                f"the loss became {loss.item()} at step {step + 1}: nothing was written",
                hint=f"--lr {self.recipe.rate / 10:g}",
            )
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.detach())

    def _batches(self, pairs: IntArray, epoch: int, count: int) -> Iterator[_Batch]:
        """Every pair of a picture and a text once, each text in one of its wordings; the seed decides all of it."""
        rng = np.random.default_rng([self.recipe.seed, epoch])
        for part in np.array_split(rng.permutation(len(pairs)), count):
            pictures, texts = np.unique(pairs[part, 0]), np.unique(pairs[part, 1])
            words = [self.train.texts[i] for i in texts.tolist()]
            said = tuple(options[int(rng.integers(len(options)))] for options in words)
            same = self.train.right[np.ix_(pictures, texts)]
            files = tuple(self.train.files[i] for i in pictures.tolist())
            yield _Batch(files, self.train.embeddings[pictures], said, same)

    def _keep(
        self, learning: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, losses: list[float]
    ) -> None:
        """A checkpoint, whole or not at all."""
        if self.file is None:
            return
        arrays = {f"weight {name}": value.detach().numpy() for name, value in learning.items()}
        for name, value in learning.items():
            arrays |= {f"{key} {name}": entry.numpy() for key, entry in optimizer.state[value].items()}
        try:
            write_tensors(self.file, arrays, {"identity": self.identity, "losses": losses}, form=FORM)
        except OSError as error:
            raise ClipkitError(
                f"{self.file.parent} cannot take a checkpoint: {error.strerror or error}; the run stands at "
                f"{counted(len(losses) - 1, 'epoch')}",
                hint="make room, and give the same command: it goes on from there",
            ) from error

    def _resume(self, learning: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> list[float]:
        if self.file is None or not self.file.exists():
            return []
        hint = f"delete {self.file} to begin again, or begin elsewhere: --out FOLDER"
        found = read_tensors(self.file, forms=(FORM,), kind="checkpoint", hint=hint)
        check_identity(found.payload["identity"], self.identity, self.file.parent, hint)
        with torch.no_grad():
            for name, value in learning.items():
                value.copy_(torch.from_numpy(found.arrays[f"weight {name}"]))
                keys = ("step", "exp_avg", "exp_avg_sq")
                optimizer.state[value] = {key: torch.from_numpy(found.arrays[f"{key} {name}"]) for key in keys}
        return list(found.payload["losses"])


@dataclass(frozen=True, eq=False)
class _Batch:
    """Pictures of one step with their embeddings (b, d), texts, and which of them are right: (b, t)."""

    files: tuple[str, ...]
    rows: Embeddings
    texts: tuple[str, ...]
    same: npt.NDArray[np.bool_]


# ---- what learns -----------------------------------------------------------------------------------------------------


class LowRank(nn.Module):
    """A matrix plus the product of two thin ones, which begins at zero and learns.

    Torch's own parametrization does the rest: it merges them at the end, so that no library is needed for it. (peft
    would wrap modules and name their weights otherwise; on `nn.MultiheadAttention` it fails, here it is not needed.)
    """

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        rank = min(RANK, rows, columns)
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The sum: (rows, columns)."""
        return weight + self.up @ self.down


def open_weights(network: Any, kind: str) -> tuple[dict[str, nn.Parameter], list[nn.Module]]:
    """What learns in a recipe, by name, and the modules whose weights got a low-rank update."""
    network.requires_grad_(False)
    adapted: list[nn.Module] = []
    if kind == "full":
        chosen = [name for name, _ in network.named_parameters() if not name.startswith("logit_")]
    elif kind == "projection":
        chosen = _text_projection(network)
    else:
        adapted = [module for name, module in _mlps(network) if kind == "lora" or not name.startswith("visual.")]
        for module in adapted:
            rows, columns = module.get_parameter("weight").shape
            register_parametrization(module, "weight", LowRank(rows, columns))
        chosen = [name for name, _ in network.named_parameters() if name.endswith((".0.up", ".0.down"))]
    if not chosen:
        other = "projection" if kind == "words" else "full"
        raise ModelError(f"this model has nothing that {kind} could teach", hint=f"--recipe {other}")
    parameters = dict(network.named_parameters())
    for name in chosen:
        parameters[name].requires_grad_(True)
    return {name: parameters[name] for name in chosen}, adapted


def _mlps(network: Any) -> Iterator[tuple[str, Any]]:
    """Linear layers outside attention and projections: those of the MLPs of blocks, whatever the tower."""
    for name, module in network.named_modules():
        is_linear = type(module) is nn.Linear
        if is_linear and "attn" not in name and "attention" not in name and "text_projection" not in name:
            yield name, module


def _text_projection(network: Any) -> list[str]:
    ends = ("text_projection", "text_projection.weight", "text.proj.weight", "text.proj.0.weight", "text.proj.2.weight")
    names = (name for name, _ in network.named_parameters() if not name.startswith("visual."))
    return [name for name in names if name.endswith(ends)]
