"""Image classifiers of transformers: ViT, DeiT, Swin, BEiT, ConvNeXT, each with its own processor and labels."""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import FloatArray
from clipkit.core.requirements import missing_packages_named
from clipkit.core.text import counted, described, some
from clipkit.errors import ModelError, NotFittedError, ShapeError
from clipkit.images.recipe import PixelRecipe
from clipkit.models.devices import Towers, is_out_of_memory, pick_towers
from clipkit.models.hub import Hub, Notify, signed

if TYPE_CHECKING:
    import torch

    from clipkit.images.recipe import PictureSource

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WEIGHTS, SHARDS, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
BATCH_SIZES = {"cpu": 8, "cuda": 256, "mps": 64}  # CPU: a layer of ViT-B/16 writes 20 MB; see devices.at_once
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as processors keep them


@dataclass(frozen=True)
class LabelProbability:
    """One class with its probability.

    Attributes
    ----------
    label : str
        The class.
    probability : float
        From 0 to 1.
    """

    label: str
    probability: float


class ViTClassifier:
    """A trained image classifier of transformers on one device: ViT, DeiT, Swin, BEiT, ConvNeXT.

    Any `AutoModelForImageClassification` with safetensors weights, with its own processor and labels.

    Parameters
    ----------
    model : str or path
        A name on the hub, or a folder that `save_pretrained` wrote.
    device : str, default "auto"
        "cpu", "cuda", "mps"; "auto" takes the fastest.
    precision : {"auto", "float32", "bfloat16", "float16"}, default "auto"
        "auto" is the fastest that is accurate on this machine.
    revision : str, optional
        A commit of the hub, or the SHA-256 of a folder's weights; what is there must agree with it.
    interpolate_pos_encoding : bool, default False
        Stretch the positions of a model whose processor makes pictures of another size than it was built for.
    notify : callable, optional
        Given a sentence when something is fetched.

    Attributes
    ----------
    model, source : str
        Canonical name, and what finds the model again.
    revision : str
        The commit, or for a folder the fingerprint.
    fingerprint : str
        SHA-256 of the weights.
    classes_ : ndarray of shape (c,), str
        Labels in the order of the logits.
    image_size : tuple of int
        (height, width) of what the processor makes.
    network, processor
        Those of transformers.
    has_head : bool
        False where the weights bring no head, and only `finetune` can use the model.
    batch_size : int
        Halves when memory runs out, and stays there.

    Raises
    ------
    ModelError
        If the model cannot be had, is damaged, or its processor makes pictures of another size than it was built for.

    References
    ----------
    .. [1] A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
       ICLR 2021.

    Examples
    --------
    >>> vit = clipkit.ViTClassifier("tiny-vit")  # random weights: the labels mean nothing
    >>> vit.classes_.tolist()
    ['cat', 'dog', 'boat']
    >>> vit.predict_proba(["photos/chelsea.png", "photos/coffee.png"]).shape
    (2, 3)
    >>> vit = clipkit.ViTClassifier("google/vit-base-patch16-224")  # doctest: +SKIP
    >>> vit.predict(["photos/chelsea.png"])  # doctest: +SKIP
    array(['Egyptian cat'], dtype='<U...')
    """

    @missing_packages_named()
    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "auto",
        precision: str = "auto",
        revision: str | None = None,
        interpolate_pos_encoding: bool = False,
        notify: Notify | None = None,
    ) -> None:
        place = _find(os.fspath(model), revision, notify)
        network, processor, has_head = _load(place)
        towers = pick_towers(SimpleNamespace(visual=network), device, precision)
        self._keep(place, network, processor, towers, interpolates=interpolate_pos_encoding, has_head=has_head)

    @classmethod
    def of(cls, other: ViTClassifier, network: Any, processor: Any) -> ViTClassifier:
        """A classifier of `network` and `processor`, on the device and at the precision of `other`.

        It lies in no folder before it is saved, so that it has no revision and no fingerprint.

        Parameters
        ----------
        other : ViTClassifier
            The classifier that both were made from.
        network : transformers.PreTrainedModel
            The changed network.
        processor : transformers.BaseImageProcessor
            Its processor.

        Returns
        -------
        ViTClassifier
            Named after `other`, with ", changed".
        """
        self, place = cls.__new__(cls), Place(None, f"{other.model}, changed", other.source, "", "")
        self._keep(place, network, processor, other.towers, interpolates=other.interpolates, has_head=True)
        return self

    def copy_network(self) -> Any:
        """The network in float32, read from its file where it has one.

        The one at hand may have been rounded to bfloat16.

        Returns
        -------
        transformers.PreTrainedModel
            A copy.
        """
        return _load(self._place)[0] if self._place.folder else copy.deepcopy(self.network).float()

    def _keep(
        self, place: Place, network: Any, processor: Any, towers: Towers, *, interpolates: bool, has_head: bool
    ) -> None:
        import torch

        self._place = place
        self.model, self.source, self.revision, self.fingerprint = place.name, place.source, place.revision, place.seal
        self.processor, self.towers, self.interpolates, self.has_head = processor, towers, interpolates, has_head
        self.image_size = _processed_size(processor)
        takes_size = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        _check_size(place.name, network.config, self.image_size, interpolates, takes_size)
        self.stretches = interpolates and takes_size
        layout = torch.channels_last if towers.channels_last else torch.preserve_format
        self.network = network.to(towers.device, towers.image, memory_format=layout).eval()
        self.classes_ = np.array([network.config.id2label[i] for i in range(network.config.num_labels)])
        self.batch_size = BATCH_SIZES.get(towers.device.type, BATCH_SIZES["cpu"])

    def __repr__(self) -> str:
        labels = f"{counted(len(self.classes_), 'class')}: {some(self.classes_.tolist())}"
        height, width = self.image_size
        return described(self, repr(self.model), labels if self.has_head else "no head", f"{width} x {height} pixels")

    @property
    def recipe(self) -> PixelRecipe:
        """The size, mean, std and interpolation of its processor, for whoever makes pixels without it."""
        processor = self.processor
        return PixelRecipe(
            size=self.image_size,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            interpolation=INTERPOLATIONS.get(int(processor.resample), "bicubic"),
        )

    def predict(self, pictures: Sequence[PictureSource]) -> npt.NDArray[np.str_]:
        """Label of the likeliest class.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            RGB, of any sizes.

        Returns
        -------
        ndarray of shape (n,), str
            In order.

        Raises
        ------
        ImageError
            Names the first picture that cannot be read.
        NotFittedError
            If the weights bring no head.
        """
        return np.asarray(self.classes_[self.logits(pictures).argmax(axis=1)])

    def predict_proba(self, pictures: Sequence[PictureSource]) -> FloatArray:
        """Probabilities of the classes: by softmax, or by a sigmoid for a model of several labels a picture.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            RGB, of any sizes.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        logits = self.logits(pictures).astype(np.float64)
        if self.network.config.problem_type == "multi_label_classification":
            return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
        table = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(table / table.sum(axis=1, keepdims=True), np.float32)

    def top_k(self, pictures: Sequence[PictureSource], k: int = 5) -> list[tuple[LabelProbability, ...]]:
        """The k likeliest classes of each picture, likeliest first.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            RGB, of any sizes.
        k : int, default 5
            Cut to the number of classes.

        Returns
        -------
        list of tuple of LabelProbability
            Each answer has a `label` and a `probability`.
        """
        table = self.predict_proba(pictures)
        best = np.argsort(-table, axis=1, kind="stable")[:, :k]
        return [
            tuple(LabelProbability(str(self.classes_[place]), float(row[place])) for place in places)
            for row, places in zip(table, best, strict=True)
        ]

    def logits(self, pictures: Sequence[PictureSource]) -> FloatArray:
        """Logits of the classes.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            RGB, of any sizes.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.

        Raises
        ------
        NotFittedError
            If the weights bring no head.
        ShapeError
            If `pictures` is one picture instead of a list.
        """
        if not self.has_head:
            raise NotFittedError(
                f"{self.model} brings no head, so that its answers would be random",
                hint=f"clipkit finetune DATASET --model {self.source} --out FOLDER",
            )
        _check_list(pictures)
        parts = [np.empty((0, len(self.classes_)), np.float32)]
        step = self.batch_size
        for start in range(0, len(pictures), step):
            parts.append(self.compute(self.pixels(pictures[start : start + step])))
        return np.concatenate(parts)

    def pixels(self, pictures: Sequence[PictureSource]) -> torch.Tensor:
        """Pixels of pictures, as the model's own processor makes them.

        Parameters
        ----------
        pictures : sequence of path, PIL.Image.Image or ndarray of shape (h, w, 3), uint8
            Turned upright first.

        Returns
        -------
        torch.Tensor of shape (n, 3, height, width), float32
            Normalised by mean and std.
        """
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            arrays = list(pool.map(read_whole, pictures))
        batch: torch.Tensor = self.processor(images=arrays, return_tensors="pt", input_data_format="channels_last")[
            "pixel_values"
        ]
        return batch

    def compute(self, pixels: torch.Tensor) -> FloatArray:
        """Logits of pixels that are normalised already.

        Parameters
        ----------
        pixels : torch.Tensor of shape (n, 3, height, width)
            As `pixels` makes them.

        Returns
        -------
        ndarray of shape (n, c), float32
            In the order of `classes_`.
        """
        import torch

        parts, start = [], 0
        while start < len(pixels):
            size = min(self.batch_size, len(pixels) - start)
            try:
                with torch.no_grad():
                    parts.append(self.forward(pixels[start : start + size]).logits.float().cpu().numpy())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise ModelError(f"{self.model} does not fit into memory", hint="--device cpu") from error
                self.batch_size = size // 2
                continue
            start += size
        return np.concatenate(parts)

    def forward(self, pixels: torch.Tensor, **options: Any) -> Any:
        """The network's output for pixels, at its device and precision.

        Parameters
        ----------
        pixels : torch.Tensor of shape (n, 3, height, width)
            As `pixels` makes them.
        **options
            For the network's own `forward`.

        Returns
        -------
        transformers.modeling_outputs.ImageClassifierOutput
            With `logits` (n, c).
        """
        import torch

        layout = torch.channels_last if self.towers.channels_last else torch.contiguous_format
        batch = pixels.to(self.towers.device, self.towers.image).contiguous(memory_format=layout)
        if self.stretches:
            options["interpolate_pos_encoding"] = True
        return self.network(pixel_values=batch, **options)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save config, safetensors and processor, as `save_pretrained` does, at the network's precision.

        Parameters
        ----------
        folder : str or path
            Made if need be; `ViTClassifier(folder)` reads it.
        """
        with quietly():
            self.network.save_pretrained(folder)
            self.processor.save_pretrained(folder)


def _check_list(pictures: object) -> None:
    """ShapeError for one picture instead of a list, be it a path, a Pillow image or an array, and for a generator."""
    if isinstance(pictures, str | os.PathLike):
        raise ShapeError("this takes a list of pictures", hint=f"a list: [{str(pictures)!r}]")
    if not hasattr(pictures, "__len__") or getattr(pictures, "ndim", 0) in (2, 3):
        raise ShapeError(
            f"this takes a list of pictures, and this is one {type(pictures).__name__}",
            hint="predict([picture]), or a list of what a generator gives",
        )


def read_whole(picture: PictureSource) -> npt.NDArray[np.uint8]:
    """All of a picture, upright, over white: (h, w, 3). Hostile files are refused as for the encoder."""
    from clipkit.images.decode import read_file, whole_image
    from clipkit.images.guarded_decoder import decode_whole

    if isinstance(picture, str | os.PathLike):
        return decode_whole(read_file(picture), name=os.fspath(picture))
    return whole_image(picture)


@contextmanager
def quietly() -> Iterator[None]:
    """transformers without its progress bars and its remarks, which are put back as they were."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def find_saved(folder: Path) -> Place:
    """What lies in a folder that `save_pretrained` wrote; ModelError where weights, config or processor are missing."""
    return _find(str(folder), None, None)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a saved model, one or several."""
    return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else [folder / name for name in _shards(folder)]


def read_configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and image processor of a model in a folder that `save_pretrained` wrote, all defaults filled in."""
    from transformers import AutoConfig, AutoImageProcessor

    configs: Any = AutoConfig
    processors: Any = AutoImageProcessor
    options = {"local_files_only": True, "trust_remote_code": False}
    with quietly():
        config = configs.from_pretrained(folder, **options).to_dict()
        return config, processors.from_pretrained(folder, **options).to_dict()


@dataclass(frozen=True)
class Place:
    """Where a model lies on this disk, if it does. revision: commit or fingerprint. seal: SHA-256 of the weights."""

    folder: Path | None
    name: str
    source: str
    revision: str
    seal: str


def _find(model: str, revision: str | None, notify: Notify | None) -> Place:
    folder = Path(os.path.abspath(os.path.expanduser(model)))
    if not folder.is_dir() and not model.startswith((".", "/", "~")):
        return _from_hub(model, revision, Hub(notify))
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG}", hint="a folder that save_pretrained wrote")
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise ModelError(f"{folder} has no {PROCESSORS[0]}", hint="save its processor too: processor.save_pretrained")
    seal = _seal(model, folder, [name for name in (WEIGHTS, SHARDS) if (folder / name).is_file()])
    if revision is not None and revision != seal:
        raise ModelError(
            f"{folder} holds other weights than {revision[:16]}: {seal[:16]}",
            hint="the model that was used, or begin again elsewhere: --out FOLDER",
        )
    return Place(folder, f"local:{folder.name}", str(folder), seal, seal)


def _from_hub(repo: str, revision: str | None, hub: Hub) -> Place:
    try:
        config = hub.file(repo, CONFIG, revision)
        if config is None:
            raise ModelError(
                f"{repo} is no model of transformers: it has no {CONFIG}",
                hint="a classifier of transformers, as google/vit-base-patch16-224",
            )
        commit = config.parent.name  # from here on the same one, whatever is pushed meanwhile
        processor, weights = (
            next((name for name in names if hub.file(repo, name, commit)), None)
            for names in (PROCESSORS, (WEIGHTS, SHARDS))
        )
        for shard in _shards(config.parent) if weights == SHARDS else []:
            hub.file(repo, shard, commit)
    except ModelError as error:
        hint = f"on a machine with a network: hf download {repo}; or give a folder that save_pretrained wrote"
        raise ModelError(error.message, hint=hint) from error
    if processor is None:
        raise ModelError(
            f"{repo} has no {PROCESSORS[0]}",
            hint="save it too: AutoImageProcessor.from_pretrained(NAME).save_pretrained(FOLDER)",
        )
    return Place(config.parent, repo, repo, commit, _seal(repo, config.parent, [weights] if weights else []))


def _seal(model: str, folder: Path, weights: Sequence[str]) -> str:
    if not weights:
        fact = f"only as a pickle ({PICKLE}), which can run code when it is read" if _has_pickle(folder) else "nowhere"
        raise ModelError(f"{model} has its weights {fact}", hint="save_pretrained writes them as safetensors")
    if weights[0] == WEIGHTS:
        return signed(folder / WEIGHTS)
    return sha256("".join(signed(folder / name) for name in _shards(folder)).encode()).hexdigest()


def _shards(folder: Path) -> list[str]:
    try:
        return sorted(set(json.loads((folder / SHARDS).read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / SHARDS} cannot be read", hint="fetch it again") from error


def _has_pickle(folder: Path) -> bool:
    return (folder / PICKLE).is_file()


def _load(place: Place) -> tuple[Any, Any, bool]:
    """Network, processor, and whether the weights bring the head; every other missing weight is an error."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    assert place.folder is not None
    processors: Any = AutoImageProcessor
    known = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError, SafetensorError)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quietly():
            processor = processors.from_pretrained(place.folder, **options)
            network, info = AutoModelForImageClassification.from_pretrained(
                place.folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
    except known as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{place.name} cannot be loaded from {place.folder}: {reason}", hint="fetch it again, or another"
        ) from error
    missing = {*info["missing_keys"], *(str(entry) for entry in info["mismatched_keys"])}
    in_body = sorted(name for name in missing if not name.startswith(("classifier", "cls_", "distillation_", "head")))
    if in_body:
        raise ModelError(
            f"{place.name}: its weights lack {len(in_body)} of the network's, the first is {in_body[0]}",
            hint="weights and config of one model: fetch both again",
        )
    if not all(torch.isfinite(value.sum()) for value in network.state_dict().values() if value.is_floating_point()):
        raise ModelError(f"{place.name} has weights that are NaN or infinite", hint="fetch it again")
    return network, processor, not missing


def _processed_size(processor: Any) -> tuple[int, int]:
    """(height, width) of what the processor makes."""
    wanted = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    sides = wanted if isinstance(wanted, dict) else vars(wanted)
    short = sides.get("shortest_edge")
    height, width = sides.get("height") or short, sides.get("width") or short
    if not height or not width:
        raise ModelError(f"the processor makes pictures of no fixed size ({sides})", hint="set crop_size")
    return int(height), int(width)


def _check_size(name: str, config: Any, size: tuple[int, int], interpolates: bool, takes_size: bool) -> None:
    configured = getattr(config, "image_size", None)
    built = (configured, configured) if isinstance(configured, int) else tuple(configured or size)
    if not takes_size or interpolates or built == size:  # a convolutional network has no positions
        return
    raise ModelError(
        f"the processor of {name} makes {size[0]}x{size[1]} pixels, and the model was built for {built[0]}x{built[1]}",
        hint="interpolate_pos_encoding=True stretches its positions; or correct size in preprocessor_config.json",
    )
