"""Contrastive training: CLIP's own objective on pairs of pictures and texts, from data to saved model in one file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clipkit.core.files import check_writable
from clipkit.core.progress import Progress
from clipkit.core.requirements import missing_packages_named
from clipkit.core.text import counted, described
from clipkit.datasets.load import Dataset
from clipkit.errors import DatasetError, ModelError
from clipkit.learn.trainer import check_recipe
from clipkit.models.encoder import Encoder, read_picture
from clipkit.models.trainable import TunableEncoder

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    from clipkit.images.recipe import PictureSource

    Pairs: TypeAlias = Dataset | Sequence[tuple[PictureSource, str | Sequence[str]]]

REPORT = "training.json"
TOGETHER = 256  # texts to tokens at once
_END = re.compile(r"\W+$")  # what some tokenizers leave out
TEMPLATE = "a photo of a {}."  # makes a caption of a label
MOST_SCALE = math.log(100)  # of the logits, as the CLIP paper has it
READERS = 8  # threads that decode pictures


@dataclass(frozen=True)
class ContrastiveRecipe:
    """Hyperparameters of `train_clip`.

    Parameters
    ----------
    epochs : int, default 10
        Passes over the pictures; each draws one text of a picture.
    batch_size : int, default 64
        Pairs that are told from each other.
    piece : int, default 0
        Pairs that are in memory at once, if fewer than a batch: the gradient stays that of the whole batch. 0: all.
    lr : float, default 1e-4
        Highest learning rate of AdamW; it rises in a line, then falls along half a cosine.
    weight_decay : float, default 0.1
        Of matrices; biases, norms and the scale have none.
    warmup : float, default 0.1
        Share of all steps in which the learning rate rises.
    loss : {"clip", "siglip"}, default "clip"
        Softmax over the batch, or a sigmoid for each pair.
    locked : {"", "image", "text"}, default ""
        The tower that stays as it is: "image" is locked-image tuning.
    seed : int, default 42
        Of order and texts.

    Raises
    ------
    ModelError
        If a value is out of range.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    .. [2] X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [3] X. Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022.

    Examples
    --------
    >>> from clipkit.learn import ContrastiveRecipe
    >>> ContrastiveRecipe(epochs=3, locked="image").batch_size
    64
    """

    epochs: int = 10
    batch_size: int = 64
    piece: int = 0
    lr: float = 1e-4
    weight_decay: float = 0.1
    warmup: float = 0.1
    loss: Literal["clip", "siglip"] = "clip"
    locked: Literal["", "image", "text"] = ""
    seed: int = 42

    def __post_init__(self) -> None:
        rules = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "piece": self.piece >= 0,
            "lr": 0 < self.lr < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "warmup": 0 <= self.warmup < 1,
            "loss": self.loss in ("clip", "siglip"),
            "locked": self.locked in ("", "image", "text"),
            "seed": 0 <= self.seed < 2**32,
        }
        check_recipe(self, rules)


@dataclass(frozen=True)
class TrainedClip:
    """A model that `train_clip` has trained.

    Attributes
    ----------
    folder : Path
        Where it is, in open_clip's own layout: `load_encoder(trained.folder)`.
    losses : tuple of float
        Mean loss of each epoch.
    pairs : int
        Pictures that were learned from.
    logit_scale : float
        Learned factor of the cosines.
    cut : int
        Texts that are longer than the model reads: their ends were not learned.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.learn import TrainedClip
    >>> TrainedClip(Path("my-model"), losses=(2.1, 0.4), pairs=300, logit_scale=18.2)
    TrainedClip('my-model', 300 pairs, loss 2.1 -> 0.4)
    """

    folder: Path
    losses: tuple[float, ...]
    pairs: int
    logit_scale: float
    cut: int = 0

    def __repr__(self) -> str:
        ends = f"loss {self.losses[0]:.4g} -> {self.losses[-1]:.4g}"
        cut = [f"{counted(self.cut, 'text')} cut"] if self.cut else []
        return described(self, repr(self.folder.name), counted(self.pairs, "pair"), *cut, ends)


@missing_packages_named()
def train_clip(
    pairs: Pairs,
    encoder: Encoder,
    out: str | Path,
    *,
    recipe: ContrastiveRecipe | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainedClip:
    """Train a CLIP model on pairs of pictures and texts, from the weights that it has.

    Normalisation by batch statistics stays as it was learned before, so that a picture's embedding does not depend on
    the others of its batch. This says nothing of whether the model is better afterwards: on few pairs it is mostly
    worse at everything else.

    Parameters
    ----------
    pairs : Dataset, or sequence of (picture, text or texts)
        Pictures with one or several texts each; labels become "a photo of a {}.". Equal texts in a batch are right for
        each other's pictures.
    encoder : Encoder
        An open_clip model, as `load_encoder` gives it; it stays as it is.
    out : str or Path
        Folder for the trained model; it may be empty, or not there.
    recipe : ContrastiveRecipe, optional
        Hyperparameters.
    progress : callable, optional
        Given a `Progress` in steps.

    Returns
    -------
    TrainedClip
        `folder`, `losses`, `pairs`, `logit_scale`, and how many texts were `cut`.

    Raises
    ------
    DatasetError
        If there are fewer than two pairs, or pictures without a text.
    ModelError
        If the folder is not empty, the model is none of open_clip, or the loss wants what it does not have.
    ImageError
        Names the first picture that cannot be read.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    .. [2] L. Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021.

    Examples
    --------
    >>> from clipkit.learn import ContrastiveRecipe
    >>> pairs = [("photos/chelsea.png", "a cat on a sofa"), ("photos/rocket.jpg", "a rocket at its launch")]
    >>> recipe = ContrastiveRecipe(epochs=2, locked="image")
    >>> trained = clipkit.train_clip(pairs, clipkit.load_encoder("starter"), "tuned-starter", recipe=recipe)
    >>> trained.losses[1] < trained.losses[0]
    True
    >>> clipkit.load_encoder(trained.folder).dim
    384
    """

    recipe = recipe or ContrastiveRecipe()
    items, folder = _items(pairs), _empty(Path(out))
    towers = TunableEncoder(encoder)
    network, tokenize = towers.network()
    losses = tuple(_epochs(network, _Batches(items, towers, tokenize, recipe), recipe, progress))
    towers.save_network(network, folder)
    cut = count_cut(sorted({text for _, texts in items for text in texts}), tokenize)
    trained = TrainedClip(folder, losses, len(items), network.logit_scale.exp().item(), cut)
    report = {"model": encoder.model, "pairs": len(items), "logit_scale": trained.logit_scale, "losses": losses}
    report |= {"cut": cut, "recipe": asdict(recipe)}
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return trained


def _epochs(
    network: Any, batches: _Batches, recipe: ContrastiveRecipe, progress: Callable[[Progress], None] | None
) -> Iterator[float]:
    """Train the network epoch by epoch; the mean loss of each."""
    import torch

    steps = recipe.epochs * len(batches)
    optimizer = torch.optim.AdamW(_groups(network, recipe), lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rise_and_fall(steps, recipe.warmup))
    for epoch in range(recipe.epochs):
        total = 0.0
        for step, batch in enumerate(batches.of_epoch(epoch), epoch * len(batches) + 1):
            optimizer.zero_grad()
            total += backward(network, batch, recipe)
            optimizer.step()
            schedule.step()
            network.logit_scale.data.clamp_(0, MOST_SCALE)
            if progress:
                progress(Progress(step, steps, ""))
        yield total / len(batches)


# ---- the objective ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Pairs of one step. pixels: (n, 3, h, w), normalised. tokens: (n, context). same: (n, n), which are right."""

    pixels: torch.Tensor
    tokens: torch.Tensor
    same: torch.Tensor


def clip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy over cosines of embeddings (n, d): each picture must find its texts, and they it.

    same (n, n): which texts are right for which pictures; where several are, each counts alike.
    """
    logits = scale * images @ texts.T  # (n, n)
    right = same / same.sum(dim=1, keepdim=True)
    towards = -(right * logits.log_softmax(dim=1)).sum(dim=1).mean()
    right = same / same.sum(dim=0, keepdim=True)
    return (towards - (right * logits.log_softmax(dim=0)).sum(dim=0).mean()) / 2


def siglip_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, same: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """A sigmoid for each pair of embeddings (n, d): is this text right for this picture?"""
    from torch.nn.functional import logsigmoid

    logits = scale * images @ texts.T + bias
    return -logsigmoid((2 * same.float() - 1) * logits).sum() / len(images)


def backward(network: Any, batch: Batch, recipe: ContrastiveRecipe) -> float:
    """Gradients of the loss of a whole batch, with `recipe.piece` pairs in memory at once; the loss.

    The embeddings of all pairs are computed without a graph, the loss gives a gradient for each embedding, and the
    towers are run again piece by piece to carry it on: the same sums in another order.
    """
    import torch

    size = recipe.piece or len(batch.pixels)
    towers = (network.encode_image, batch.pixels), (network.encode_text, batch.tokens)
    if size >= len(batch.pixels):
        images, texts = (encode(inputs, normalize=True) for encode, inputs in towers)
        loss = _loss(network, images, texts, batch, recipe)
        torch.autograd.backward(loss)
        return loss.item()
    with torch.no_grad():
        images, texts = (_in_pieces(encode, inputs, size) for encode, inputs in towers)
    images.requires_grad_(recipe.locked != "image")
    texts.requires_grad_(recipe.locked != "text")
    loss = _loss(network, images, texts, batch, recipe)
    torch.autograd.backward(loss)
    for (encode, inputs), rows in zip(towers, (images, texts), strict=True):
        if rows.grad is not None:  # this tower learns
            for start in range(0, len(inputs), size):
                part = slice(start, start + size)
                torch.autograd.backward(encode(inputs[part], normalize=True), rows.grad[part])
    return loss.item()


def _loss(
    network: Any, images: torch.Tensor, texts: torch.Tensor, batch: Batch, recipe: ContrastiveRecipe
) -> torch.Tensor:
    scale = network.logit_scale.exp()
    if recipe.loss == "siglip":
        return siglip_loss(images, texts, scale, batch.same, network.logit_bias)
    return clip_loss(images, texts, scale, batch.same)


def _in_pieces(encode: Callable[..., torch.Tensor], inputs: torch.Tensor, size: int) -> torch.Tensor:
    import torch

    return torch.cat([encode(inputs[i : i + size], normalize=True) for i in range(0, len(inputs), size)])


# ---- what learns, and how fast ---------------------------------------------------------------------------------------


def _groups(network: Any, recipe: ContrastiveRecipe) -> list[dict[str, Any]]:
    """Parameters that learn, in two groups: matrices decay, all else does not."""
    if recipe.loss == "siglip" and network.logit_bias is None:
        raise ModelError(
            "this model has no bias of its logits, which the sigmoid loss wants", hint='loss="clip" wants none'
        )
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        tower = "image" if name.startswith("visual.") else "" if name.startswith("logit_") else "text"
        if tower and tower == recipe.locked:
            continue
        parameter.requires_grad_(True)
        groups[parameter.ndim >= 2].append(parameter)
    return [
        {"params": groups[True], "weight_decay": recipe.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def rise_and_fall(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at a step: up in a line, then down along half a cosine."""
    rising = max(1, round(steps * warmup)) if warmup else 0

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2

    return factor


# ---- the pairs -------------------------------------------------------------------------------------------------------


class _Batches:
    """Batches of an epoch, in an order and with texts that the seed decides; pictures are decoded a batch ahead."""

    def __init__(
        self,
        items: Sequence[tuple[Any, tuple[str, ...]]],
        towers: TunableEncoder,
        tokenize: Callable[[list[str]], torch.Tensor],
        recipe: ContrastiveRecipe,
    ) -> None:
        self._items, self._towers, self._tokenize, self._recipe = items, towers, tokenize, recipe

    def __len__(self) -> int:
        return -(-len(self._items) // self._recipe.batch_size)

    def of_epoch(self, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self._recipe.seed, epoch])
        parts = np.array_split(rng.permutation(len(self._items)), len(self))  # of nearly one size: none is a pair alone
        texts = [[str(rng.choice(self._items[i][1])) for i in part] for part in parts]
        with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(READERS) as readers:
            waiting = ahead.submit(self._read, parts[0], readers)
            for at, words in enumerate(texts):
                pixels = waiting.result()
                if at + 1 < len(parts):
                    waiting = ahead.submit(self._read, parts[at + 1], readers)
                yield self._batch(pixels, parts[at], words)

    def _read(self, part: Any, readers: ThreadPoolExecutor) -> torch.Tensor:
        recipe = self._towers.recipe
        pixels = readers.map(lambda i: read_picture(self._items[i][0], recipe).pixels, part.tolist())
        return self._towers.inputs(np.stack(list(pixels)))

    def _batch(self, pixels: torch.Tensor, part: Any, words: list[str]) -> Batch:
        import torch

        known = [set(self._items[i][1]) for i in part]
        same = torch.tensor([[text in texts for text in words] for texts in known])
        return Batch(pixels, self._tokenize(words), same)


def count_cut(texts: Sequence[str], tokenize: Callable[[list[str]], torch.Tensor]) -> int:
    """How many texts are longer than the model reads: those whose last letter is in none of their tokens (n, context).

    A text of a few letters always fits, since a token has one at least.
    """
    context = tokenize([""]).shape[1]
    ended = (_END.sub("", text) for text in texts)
    long = [text for text in ended if len(text.encode()) > context - 4]  # begin, end, and a space that some put before
    parts = [long[start : start + TOGETHER] for start in range(0, len(long), TOGETHER)]
    same = [(tokenize(part) == tokenize([text[:-1] for text in part])).all(dim=1) for part in parts]
    return sum(int(found.sum()) for found in same)


def _items(pairs: Pairs) -> list[tuple[Any, tuple[str, ...]]]:
    """Pictures, each with its texts; DatasetError where there is nothing to learn from."""
    if isinstance(pairs, Dataset):
        words = pairs.captions or tuple((TEMPLATE.format(label),) for label in pairs.labels)
        pairs = list(zip(pairs.files, words, strict=True)) if words else [(file, ()) for file in pairs.files]
    items = [(picture, (texts,) if isinstance(texts, str) else tuple(texts)) for picture, texts in pairs]
    if len(items) < 2:
        raise DatasetError(f"{counted(len(items), 'pair')} cannot be told apart", hint="two at least")
    if bare := [place for place, (_, texts) in enumerate(items) if not any(text.strip() for text in texts)]:
        raise DatasetError(f"the pair {bare[0]} has no text", hint="a caption for each picture, or a label")
    return items


def _empty(folder: Path) -> Path:
    """A folder that can be written into; ModelError where it holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} is not an empty folder", hint="another place for the trained model")
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder)
    return folder
