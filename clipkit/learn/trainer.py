"""Trainer: batches, a schedule that steps every batch, the best epoch, and checkpoints to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import IntArray
from clipkit.core.tensor_files import read_tensors, write_tensors
from clipkit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from clipkit.models.trainable import Body

FORM = "clipkit checkpoint 1"
LAST, BEST = "last.safetensors", "best.safetensors"
_OPTIONS = ("lr", "weight_decay", "warmup")  # of the command line that may be out of range there
HEAD_STD = 0.02  # as transformers starts a new classifier


def check_recipe(
    recipe: object,
    rules: Mapping[str, bool],
    *,
    options: Collection[str] = (),
    usual: Mapping[str, object] | None = None,
) -> None:
    """ModelError for the first field of a recipe whose rule does not hold, with what is usual there.

    options: fields that the command line has, named as it names them. usual: instead of defaults.
    """
    name = next((name for name, is_right in rules.items() if not is_right), None)
    if name is None:
        return
    value = (usual or {}).get(name, getattr(type(recipe), name))
    option = f"--{name.replace('_', '-')} {value} (in Python {name}={value!r})"
    hint = option if name in options else f"{name}={value!r}, as it is by default"
    raise ModelError(f"a recipe with {name} = {getattr(recipe, name)!r} cannot be followed", hint=hint)


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of `finetune`; the defaults are the usual ones of ViT fine-tuning tutorials.

    Parameters
    ----------
    epochs : int, default 50
        At most.
    batch_size : int, default 32
        Pictures a step.
    lr : float, default 3e-4
        Highest learning rate of AdamW; it rises in a line, then falls along half a cosine.
    weight_decay : float, default 1e-4
        Of AdamW.
    warmup : float, default 0.1
        Share of all steps in which the learning rate rises.
    unfreeze : str, default "head"
        What learns: "head", "all", "last:N" (the last N blocks) or "patch-embedding"; the head always does.
    views : int or None, default 8
        Random views of each picture whose features are computed once; 0: the centre only, no augmentation; None: fresh
        views every epoch. A tower that learns reads fresh views unless this is 0.
    smallest : float, default 0.08
        Share of a picture's area that a view shows at least.
    patience : int or None, default 10
        Epochs without a better one on validation before it stops; None: never.
    seed : int, default 42
        Of views, order and weights.

    Raises
    ------
    ModelError
        If a value is out of range.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.

    Examples
    --------
    >>> from clipkit.learn import Recipe
    >>> Recipe(epochs=5).is_frozen
    True
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
        ...
    clipkit.errors.ModelError: a recipe with epochs = 0 cannot be followed
    """

    epochs: int = 50
    batch_size: int = 32
    lr: float = 3e-4
    weight_decay: float = 1e-4
    warmup: float = 0.1
    unfreeze: str = "head"
    views: int | None = 8
    smallest: float = 0.08
    patience: int | None = 10
    seed: int = 42

    def __post_init__(self) -> None:
        rules = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": 0 < self.lr < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "warmup": 0 <= self.warmup < 1,
            "views": self.views is None or self.views >= 0,
            "smallest": 0 < self.smallest <= 1,
            "patience": self.patience is None or self.patience >= 1,
            "seed": 0 <= self.seed < 2**32,  # torch takes no more once epochs are mixed in
        }
        check_recipe(self, rules, options=_OPTIONS)

    @property
    def is_frozen(self) -> bool:
        """Whether the backbone stays as it is and only a head learns."""
        return self.unfreeze == "head"


@dataclass(frozen=True)
class Epoch:
    """One epoch of training.

    Attributes
    ----------
    number : int
        From 1.
    lr : float
        Learning rate at its last step.
    loss : float
        Mean over its training pictures.
    val_loss, val_acc1 : float
        On the validation pictures, after it.
    seconds : float
        Wall time.
    """

    number: int
    lr: float
    loss: float
    val_loss: float
    val_acc1: float
    seconds: float


Batch = tuple[Any, Any]  # inputs and targets, as tensors


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What there is to learn from: train(epoch) and validation() give batches, always the same ones for an epoch."""

    count: int
    train: Callable[[int], Iterator[Batch]]
    validation: Callable[[], Iterator[Batch]]


class Trainee:
    """A head, perhaps behind a body, with the optimizer that moves what is not frozen."""

    def __init__(
        self, width: int, count: int, recipe: Recipe, *, body: Body | None, device: Any = "cpu", autocast: Any = None
    ) -> None:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.head = torch.nn.Linear(width, count)
            torch.nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
            torch.nn.init.zeros_(self.head.bias)
        self.body, self.device, self.autocast = body, torch.device(device), autocast
        self.head.to(self.device)
        learning = [p for p in body.module.parameters() if p.requires_grad] if body else []
        self._learning = [*learning, *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(self._learning, lr=recipe.lr, weight_decay=recipe.weight_decay)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, c) of features (n, width), or of normalised pixels where there is a body."""
        import torch

        batch = inputs.to(self.device)
        if self.body is not None:
            with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
                batch = self.body.forward(batch)
        return self.head(batch.float())  # type: ignore[no-any-return]

    def mode(self, *, is_training: bool) -> None:
        if self.body is not None:
            train_mode(self.body.module, is_training=is_training)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that learning changes: weights that are not frozen, and the statistics of normalisations."""
        tensors = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        if self.body is not None:
            learning = {name for name, p in self.body.module.named_parameters() if p.requires_grad}
            kept = learning | {name for name, _ in self.body.module.named_buffers()}
            tensors |= {f"body.{n}": value for n, value in self.body.module.state_dict().items() if n in kept}
        return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}

    def load(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        import torch

        parts = {"head": self.head, **({"body": self.body.module} if self.body else {})}
        for part, module in parts.items():
            own = {name.removeprefix(f"{part}."): v for name, v in state.items() if name.startswith(f"{part}.")}
            module.load_state_dict({name: torch.from_numpy(v) for name, v in own.items()}, strict=False)

    def moments(self) -> dict[str, npt.NDArray[Any]]:
        """The optimizer's memory."""
        return {
            f"optimizer.{i}.{name}": value.detach().cpu().numpy().copy()
            for i, entry in self.optimizer.state_dict()["state"].items()
            for name, value in entry.items()
        }

    def load_moments(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        import torch

        state: dict[int, dict[str, Any]] = {}
        for key, value in arrays.items():
            if key.startswith("optimizer."):
                _, place, name = key.split(".")
                state.setdefault(int(place), {})[name] = torch.from_numpy(value)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """The factor of the learning rate at a step: up in a line, then down along half a cosine, to 0."""
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * share)))


def order(count: int, size: int, seed: int, epoch: int) -> list[IntArray]:
    """The pictures of an epoch in batches. One picture left over, without statistics of a batch, joins others."""
    places = np.random.default_rng([seed, epoch]).permutation(count)
    batches = [places[start : start + size] for start in range(0, count, size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def train(
    learner: Trainee,
    data: TrainingData,
    recipe: Recipe,
    *,
    identity: Mapping[str, Any],
    out: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple[tuple[Epoch, ...], int]:
    """The epochs and the number of the best, whose weights the learner has at the end.

    Best: the highest validation accuracy, of equal ones the lowest loss. With `out` each epoch leaves a checkpoint,
    from which a later call goes on as if nothing had happened; ModelError where it is damaged or of another run.
    """
    import torch

    history, best = _resume(learner, identity, out) if out else ([], learner.state())
    per_epoch = len(order(data.count, recipe.batch_size, recipe.seed, 0))
    devices = [learner.device] if learner.device.type == "cuda" else []
    while not _is_over(history, recipe):
        number = len(history) + 1
        began = time.perf_counter()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(recipe.seed * 1_000_003 + number)  # dropout; nothing of the last epoch is left in it
            lr, loss = _one_epoch(learner, data.train(number), recipe, (number - 1) * per_epoch, per_epoch)
        val_loss, val_acc1 = _validate(learner, data.validation())
        history.append(Epoch(number, lr, loss, val_loss, val_acc1, time.perf_counter() - began))
        is_best = best_epoch(history) == number
        best = learner.state() if is_best else best
        if out:
            if is_best:
                write_tensors(out / BEST, best, {"identity": identity, "epoch": number}, form=FORM)
            payload = {"identity": identity, "history": [asdict(epoch) for epoch in history]}
            write_tensors(out / LAST, {**learner.state(), **learner.moments()}, payload, form=FORM)
        if on_epoch:
            on_epoch(history[-1])
    learner.load(best)
    learner.mode(is_training=False)
    return tuple(history), best_epoch(history)


def train_mode(module: torch.nn.Module, *, is_training: bool) -> None:
    """Modules whose parameters all learn behave as in training, all others as in evaluation."""

    def apply(part: torch.nn.Module, inherited: bool) -> None:
        own = [parameter.requires_grad for parameter in part.parameters()]
        part.training = all(own) if own else inherited
        for child in part.children():
            apply(child, part.training)

    module.eval()
    if is_training:
        apply(module, False)


def best_epoch(history: list[Epoch]) -> int:
    return min(history, key=lambda epoch: (-epoch.val_acc1, epoch.val_loss)).number


def _is_over(history: list[Epoch], recipe: Recipe) -> bool:
    if not history or len(history) >= recipe.epochs:
        return bool(history)
    return recipe.patience is not None and len(history) - best_epoch(history) >= recipe.patience


def _one_epoch(
    learner: Trainee, batches: Iterator[Batch], recipe: Recipe, done: int, per_epoch: int
) -> tuple[float, float]:
    """(learning rate of the last step, mean loss)."""
    import torch

    learner.mode(is_training=True)
    steps = per_epoch * recipe.epochs
    warmup_steps = math.ceil(recipe.warmup * steps)
    total, seen, lr = 0.0, 0, 0.0
    for step, (inputs, targets) in enumerate(batches, start=done):
        lr = recipe.lr * schedule(step + 1, steps + 1, warmup_steps)  # from 1: at step 0 nothing would be learned
        for group in learner.optimizer.param_groups:
            group["lr"] = lr
        loss = torch.nn.functional.cross_entropy(learner.logits(inputs), targets.to(learner.device))
        if not torch.isfinite(loss):
            raise ModelError(f"the loss became {loss.item()} at step {step + 1}", hint=f"--lr {recipe.lr / 10:g}")
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        learner.optimizer.step()
        total, seen = total + float(loss.detach()) * len(targets), seen + len(targets)
    return lr, total / max(1, seen)


def _validate(learner: Trainee, batches: Iterator[Batch]) -> tuple[float, float]:
    import torch

    learner.mode(is_training=False)
    total, right, seen = 0.0, 0, 0
    with torch.no_grad():
        for inputs, targets in batches:
            logits = learner.logits(inputs)
            there = targets.to(learner.device)
            total += float(torch.nn.functional.cross_entropy(logits, there, reduction="sum"))
            right += int((logits.argmax(dim=1) == there).sum())
            seen += len(targets)
    return total / seen, right / seen


def _resume(
    learner: Trainee, identity: Mapping[str, Any], out: Path
) -> tuple[list[Epoch], dict[str, npt.NDArray[Any]]]:
    if not (out / LAST).exists():
        return [], learner.state()
    hint = f"delete {out / LAST} and {BEST} beside it to begin again, or begin elsewhere: --out FOLDER"
    last, best = (read_tensors(out / name, forms=(FORM,), hint=hint) for name in (LAST, BEST))
    for checkpoint in (last, best):
        check_identity(checkpoint.payload["identity"], identity, out, hint)
    history = [Epoch(**epoch) for epoch in last.payload["history"]]
    learner.load(last.arrays)
    learner.load_moments(last.arrays)
    return history, best.arrays


def check_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], out: Path, hint: str) -> None:
    for key in wanted:
        if found.get(key) == wanted[key]:
            continue
        if key == "recipe":
            names = [name for name in wanted[key] if found[key].get(name) != wanted[key][name]]
            fact = ", ".join(f"{name} {found[key].get(name)}, not {wanted[key][name]}" for name in names)
        else:
            fact = f"other {key}" if key in ("pictures", "classes", "weights") else f"{key} {found.get(key)}"
        raise ModelError(f"{out} holds a checkpoint of another run: {fact}", hint=hint)
