"""Trainable image towers: a body that can learn, its pixels, and a way to save it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray
from clipkit.errors import ModelError
from clipkit.images.decode import read_file
from clipkit.images.guarded_decoder import decode
from clipkit.images.recipe import PixelRecipe
from clipkit.models.backbone import pooled, without_projection
from clipkit.models.conversion import TRUNK_CONFIG
from clipkit.models.encoder import Encoder
from clipkit.models.load import as_open_clip
from clipkit.models.openclip import load_network, model_config, open_clip_catalogue
from clipkit.models.registry import CONFIG, SAFE_WEIGHTS, TOKENIZER_FILES, find_weights
from clipkit.models.vit import ViTClassifier, quietly

if TYPE_CHECKING:
    import torch


UNFREEZE = "head, all, last:N or patch-embedding"


@dataclass(frozen=True, eq=False)
class Body:
    """An image tower that can learn, in float32. forward: normalised pixels (n, 3, h, w) -> features (n, width).

    whole: the network it is part of, with which it shares its weights.
    """

    module: torch.nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    width: int
    whole: Any


@dataclass(frozen=True)
class Counts:
    """Number of parameters of tower and head.

    Attributes
    ----------
    trainable : int
        Those that learn.
    frozen : int
        Those that do not.
    """

    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        """Both."""
        return self.trainable + self.frozen


class TunableEncoder:
    """The image tower of an open_clip model, without its projection.

    A head learns from rows of length 1 times sqrt(width), so that their entries are about 1 as those of a normalised
    layer are, and a learning rate means the same for every tower. The factor goes into the head's weights at the end.
    """

    def __init__(self, model: Encoder) -> None:
        encoder = as_open_clip(model)
        self.encoder, self.recipe = encoder, encoder.recipe
        self.model, self.fingerprint, self.source = encoder.model, encoder.fingerprint, encoder.source
        self.towers = encoder.towers
        self.key = f"{self.fingerprint} {self.recipe} {self.towers.image} scaled"

    def features(self, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        """(n, width) of pixels (n, 3, height, width) at the recipe's size."""
        rows = self.encoder.encode_pixels(pixels, space="backbone")
        return rows * np.float32(rows.shape[1] ** 0.5)

    def centre_features(self, files: Sequence[str]) -> FloatArray:
        """(n, width) of pictures as the model reads them when it is asked; ImageError names the first bad one."""
        return self.features(self._decode(files))

    def inputs(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalised float32 pixels for a body."""
        return normalised(pixels, self.recipe)

    def centre_inputs(self, files: Sequence[str]) -> torch.Tensor:
        """The same of pictures as the model reads them when it is asked."""
        return self.inputs(self._decode(files))

    def body(self) -> Body:
        """A tower of its own, from the weights' file: the encoder's is fused and may be in bfloat16."""
        whole, _ = self.network()
        module = without_projection(whole.visual)

        def forward(pixels: torch.Tensor) -> torch.Tensor:
            rows = pooled(module(pixels)).float()
            length = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            return rows / length * rows.shape[-1] ** 0.5  # type: ignore[no-any-return]  # torch's norm is untyped

        return Body(module, forward, _width(forward, self.recipe), whole)

    def network(self) -> tuple[Any, Callable[[list[str]], torch.Tensor]]:
        """The whole network in float32, frozen, and its tokenizer, from the weights' file."""
        weights = find_weights(self.source, open_clip_catalogue(), allow_pickle=True)  # loaded once already
        if weights.fingerprint != self.fingerprint:
            raise ModelError(
                f"the weights of {self.model} have changed on the disk since they were loaded",
                hint="load the model again",
            )
        return load_network(weights)

    @property
    def folder(self) -> Path:
        """Where the weights lie."""
        return find_weights(self.source, open_clip_catalogue(), allow_pickle=True).file.parent

    def save(self, body: Body, folder: Path) -> None:
        """The whole model in open_clip's own layout, with the tower as it is now."""
        self.save_network(body.whole, folder)

    def save_network(self, network: Any, folder: Path) -> None:
        """A network of this architecture in open_clip's own layout."""
        from safetensors.torch import save_file

        weights = find_weights(self.source, open_clip_catalogue(), allow_pickle=True)
        folder.mkdir(parents=True, exist_ok=True)
        source = weights.file.parent
        for name in (*TOKENIZER_FILES, TRUNK_CONFIG):
            if (source / name).is_file() and not (folder / name).exists():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        config = {"model_cfg": model_config(weights), "preprocess_cfg": self._preprocess()}
        (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        save_file(state, folder / SAFE_WEIGHTS, metadata={"format": "pt"})

    def _decode(self, files: Sequence[str]) -> npt.NDArray[np.uint8]:
        def read(file: str) -> npt.NDArray[np.uint8]:
            return decode(read_file(file), self.recipe, name=file).pixels

        with ThreadPoolExecutor(max_workers=8) as pool:
            return np.stack(list(pool.map(read, files)))

    def _preprocess(self) -> dict[str, Any]:
        names = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
        return {name: getattr(self.recipe, name) for name in names}


class TunableClassifier:
    """A classifier of transformers without its last layer."""

    def __init__(self, classifier: ViTClassifier) -> None:
        self.source = classifier.source
        self.model, self.fingerprint, self.towers = classifier.model, classifier.fingerprint, classifier.towers
        self._classifier = classifier
        self.processor = centred(classifier.processor)
        self._reader = ViTClassifier.of(classifier, without_head(classifier.network), self.processor)
        self.recipe = self._reader.recipe
        settings = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        self.key = f"{self.fingerprint} {settings} {self.towers.image} {classifier.interpolates}"

    def features(self, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        """(n, width) of pixels (n, 3, height, width) at the recipe's size."""
        parts = [self._reader.compute(self.inputs(pixels[i : i + 32])) for i in range(0, len(pixels), 32)]
        return np.concatenate(parts)

    def centre_features(self, files: Sequence[str]) -> FloatArray:
        """(n, width) of pictures as the model reads them when it is asked; ImageError names the first bad one."""
        return self._reader.compute(self._reader.pixels(files))

    def inputs(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalised float32 pixels for a body."""
        return normalised(pixels, self.recipe)

    def centre_inputs(self, files: Sequence[str]) -> torch.Tensor:
        """The same of pictures as the model reads them when it is asked."""
        return self._reader.pixels(files)

    def body(self) -> Body:
        """A copy of the network in float32."""
        whole = self._classifier.copy_network().requires_grad_(False)
        module = without_head(whole)
        options = {"interpolate_pos_encoding": True} if self._classifier.stretches else {}

        def forward(pixels: torch.Tensor) -> torch.Tensor:
            return module(pixel_values=pixels, **options).logits.float()  # type: ignore[no-any-return]

        return Body(module, forward, last_linear(whole).in_features, whole)

    def with_head(self, body: Body, classes: Sequence[str], head: torch.nn.Linear) -> ViTClassifier:
        """A classifier of these classes, where and as the first one computes; the body stays as it is."""
        return ViTClassifier.of(self._classifier, _headed(body.whole, classes, head), self.processor)

    def save(self, body: Body, classes: Sequence[str], head: torch.nn.Linear, folder: Path) -> None:
        """As `save_pretrained` does, in float32, with the classes in config.id2label."""
        with quietly():
            _headed(body.whole, classes, head).save_pretrained(folder)
            self.processor.save_pretrained(folder)


Tunable = TunableEncoder | TunableClassifier


def tunable(model: Encoder | ViTClassifier) -> Tunable:
    return TunableClassifier(model) if isinstance(model, ViTClassifier) else TunableEncoder(model)


def unfreeze(module: torch.nn.Module, what: str) -> None:
    """Lets part of a body learn and freezes the rest.

    "head": nothing. "all". "last:N": the last N blocks and what follows them. "patch-embedding": the first convolution.
    What is frozen keeps the behaviour of evaluation: no dropout, no statistics of a batch.
    """
    chosen = set(_chosen(module, what))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)


def count_parameters(*modules: torch.nn.Module) -> Counts:
    every = [parameter for module in modules for parameter in module.parameters()]
    trainable = sum(parameter.numel() for parameter in every if parameter.requires_grad)
    return Counts(trainable, sum(parameter.numel() for parameter in every) - trainable)


def normalised(pixels: npt.NDArray[np.uint8], recipe: PixelRecipe) -> torch.Tensor:
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (recipe.mean, recipe.std))
    return torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255).sub_(mean).div_(std)


def centred(processor: Any) -> Any:
    """The same that resizes the shorter side and crops the centre, where it would squash: a breed has proportions."""
    settings = processor.to_dict()
    if settings.get("do_center_crop") or "height" not in settings["size"]:
        return processor
    side = {"height": settings["size"]["height"], "width": settings["size"]["width"]}
    if side["height"] != side["width"]:
        return processor
    changed = {"size": {"shortest_edge": side["height"]}, "do_center_crop": True, "crop_size": side}
    return type(processor).from_dict({**settings, **changed})


def without_head(network: Any) -> Any:
    """The same network whose logits are the features that went into its last layer; all weights are shared."""
    import torch

    last_linear(network)
    bare = copy.copy(network)
    head = network.classifier
    rest = list(head)[:-1] if isinstance(head, torch.nn.Sequential) else [torch.nn.Identity()]
    bare._modules = {**network._modules, "classifier": torch.nn.Sequential(*rest)}
    return bare


def _headed(whole: Any, classes: Sequence[str], head: torch.nn.Linear) -> Any:
    import torch

    network = copy.deepcopy(whole)
    path = next(name for name, module in network.named_modules() if module is last_linear(network))
    parent, _, name = path.rpartition(".")
    layer = torch.nn.Linear(head.in_features, head.out_features).requires_grad_(False)
    layer.load_state_dict(head.state_dict())
    setattr(network.get_submodule(parent), name, layer)
    network.config.id2label = dict(enumerate(classes))  # num_labels is their number
    network.config.label2id = {label: i for i, label in enumerate(classes)}
    network.config.problem_type = "single_label_classification"
    return network


def last_linear(network: Any) -> Any:
    """The layer that says the classes; ModelError where it is not where transformers usually has it."""
    import torch

    head = getattr(network, "classifier", None)
    last = head[-1] if isinstance(head, torch.nn.Sequential) and len(head) else head
    if not isinstance(last, torch.nn.Linear):
        raise ModelError(
            f"{type(network).__name__} has no linear layer called classifier: it cannot be fine-tuned",
            hint="google/vit-base-patch16-224, or an open_clip model: clipkit models",
        )
    return last


def _chosen(module: torch.nn.Module, what: str) -> list[str]:
    import torch

    names = [name for name, _ in module.named_parameters()]
    kind, _, number = what.partition(":")
    if what in ("head", "all"):
        return names if what == "all" else []
    if what == "patch-embedding":
        first = next((name for name, part in module.named_modules() if isinstance(part, torch.nn.Conv2d)), None)
        if first is None:
            raise ModelError("this tower has no patch embedding", hint="--unfreeze all")
        return [name for name in names if name.startswith(f"{first}.")]
    path, blocks = _blocks(module)
    if kind != "last" or not number.isdecimal() or not 1 <= int(number) <= len(blocks):
        raise ModelError(f"{what!r} cannot be unfrozen", hint=f"{UNFREEZE}, with N from 1 to {len(blocks)}")
    first_free = len(blocks) - int(number)
    frozen = [f"{path}.{key}." for key in list(blocks._modules)[:first_free]]
    inside = [i for i, name in enumerate(names) if name.startswith(f"{path}.")]
    after = names[inside[0] :]  # in the order of the forward pass: what stands before the blocks feeds them
    return [name for name in after if not name.startswith(tuple(frozen))]


def _blocks(module: torch.nn.Module) -> tuple[str, Any]:
    """The list of blocks or stages that makes up most of a tower."""
    import torch

    lists = [
        (sum(parameter.numel() for parameter in part.parameters()), name, part)
        for name, part in module.named_modules()
        if name and isinstance(part, torch.nn.ModuleList | torch.nn.Sequential) and len(part) > 1
    ]
    if not lists:
        raise ModelError("this tower has no list of blocks", hint="--unfreeze all")
    _, path, blocks = max(lists, key=lambda entry: entry[0])
    return path, blocks


def _width(forward: Callable[[torch.Tensor], torch.Tensor], recipe: PixelRecipe) -> int:
    import torch

    with torch.no_grad():
        return forward(torch.zeros(1, 3, *recipe.size)).shape[-1]
