"""open_clip models: the network, its tokenizer, and the encoder around them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings, check_embeddings
from clipkit.errors import ModelError
from clipkit.images.recipe import PixelRecipe
from clipkit.models.backbone import pooled, without_projection
from clipkit.models.base import EncoderBase
from clipkit.models.byte_pairs import as_lines
from clipkit.models.conversion import trunk_folder
from clipkit.models.devices import Towers, at_once, is_out_of_memory, place_network
from clipkit.models.encoder import Encoder, encoder_repr
from clipkit.models.exports import model_cfg_sha256
from clipkit.models.hub import Notify
from clipkit.models.registry import TOKENIZER_FILES, Catalogue, Pretrained, Weights, fetch_files
from clipkit.models.tokenizer import Tokenizer, byte_pairs, lengths

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch

    Features: TypeAlias = Callable[[slice], torch.Tensor]


CUT_TOLERANCE = 0.03  # length of the difference: rounding in bfloat16 reaches .01, a text that lost a word .1
TEXTS_FOR_A_PICTURE = 16  # in a batch: ten tokens, not fifty patches; 404 texts/s of ViT-B/32 on 2 cores, 122 at 1


def load_network(weights: Weights, notify: Notify | None = None) -> tuple[Any, Callable[[list[str]], torch.Tensor]]:
    """The network in float32, on the CPU and frozen, and its tokenizer; ModelError where they cannot be had."""
    import open_clip
    import torch
    from safetensors import SafetensorError

    known = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError)
    try:
        config = open_clip.get_model_config(weights.architecture)
        with torch.random.fork_rng(devices=[]):  # a network draws its first weights before it is given ours
            network = _build(weights, config, notify)
        check_weights(weights, network)
        return network, _tokenizer(weights, config["text_cfg"], notify)
    except (*known, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{weights.model} cannot be loaded from {weights.file.parent}: {reason}",
            hint="fetch or copy it again, or another: clipkit models",
        ) from error


def model_config(weights: Weights) -> dict[str, Any]:
    """open_clip's `model_cfg` of these weights, QuickGELU included where only the tag says it."""
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(weights.architecture)
    return {**config, "quick_gelu": True} if weights.pretrained and weights.pretrained.quick_gelu else config


def published_templates() -> tuple[str, ...]:
    """The 80 ImageNet templates of the CLIP paper, with `{}` where the class goes."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def published_class_names() -> tuple[str, ...]:
    """The words of ImageNet's 1,000 classes, in its order; two are there twice."""
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def open_clip_catalogue() -> Catalogue:
    """Every set of weights that open_clip knows by name, with what it says of them; read when it is looked into."""
    return _OpenClipCatalogue()


def has_architecture(name: str) -> bool:
    """Whether open_clip ships a config of that name; costs no import."""
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec else ()
    return any((Path(folder) / "model_configs" / f"{name}.json").is_file() for folder in folders or ())


class _OpenClipCatalogue(Mapping[str, Mapping[str, Pretrained]]):
    def __getitem__(self, architecture: str) -> Mapping[str, Pretrained]:
        return self._entries[architecture]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @cached_property
    def _entries(self) -> Catalogue:
        return _read_catalogue()


def _read_catalogue() -> Catalogue:
    import open_clip

    catalogue: dict[str, dict[str, Pretrained]] = {}
    for architecture, tag in open_clip.list_pretrained():
        entry = open_clip.get_pretrained_cfg(architecture, tag)
        repo, _, file = entry.get("hf_hub", "").rpartition("/")
        fields = {key: entry.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
        pretrained = Pretrained(repo, file, bool(entry.get("quick_gelu")), **fields)
        catalogue.setdefault(architecture, {})[tag] = pretrained
    return catalogue


class OpenClipEncoder(EncoderBase):
    """An open_clip model on one device, as an `Encoder`; safe to share between threads.

    Made by `load_encoder`.

    Parameters
    ----------
    network : torch.nn.Module
        The open_clip model, in float32 on the CPU.
    tokenizer : callable
        Texts to tokens (n, context).
    weights : Weights
        Names and fingerprint.
    recipe : PixelRecipe
        How the model wants its pictures.
    towers : Towers
        Device and precision.
    batch_size : int
        Pictures read and encoded together.
    most : int, optional
        Pictures through the image tower at once; by default all of a batch, on a CPU as many as are fastest.
    load : callable, optional
        Gives the same encoder from its source in another process: what pickle keeps. Must be picklable itself.
    notify : callable, optional
        Given a sentence when a batch is made smaller.

    Attributes
    ----------
    model, source, fingerprint, engine, precision, dim, recipe, logit_scale, logit_bias
        As `Encoder` has them.
    model_cfg_sha256 : str
        Of open_clip's `model_cfg`: the same weights read by another are another model.
    batch_size : int
        Halves when memory runs out, and stays there.
    towers : Towers
        Device and precision of the image tower and the text tower.
    weights : Weights
        Where they are.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    .. [2] M. Cherti et al., "Reproducible Scaling Laws for Contrastive Language-Image Learning", CVPR 2023.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> encoder.model
    'starter'
    >>> embeddings = encoder.encode_images(["photos/chelsea.png", "photos/coffee.png"])
    >>> embeddings.shape, embeddings.dtype
    ((2, 384), dtype('float32'))
    >>> bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5))
    True
    """

    engine = "torch"

    def __init__(
        self,
        network: Any,
        tokenizer: Callable[[list[str]], torch.Tensor],
        *,
        weights: Weights,
        recipe: PixelRecipe,
        towers: Towers,
        batch_size: int,
        most: int | None = None,
        load: Callable[[str], Encoder] | None = None,
        notify: Notify | None = None,
    ) -> None:
        self.weights, self._load = weights, load
        self.model, self.source, self.fingerprint = weights.model, weights.source, weights.fingerprint
        self.model_cfg_sha256 = model_cfg_sha256(model_config(weights))
        self.recipe, self.towers, self.batch_size = recipe, towers, batch_size
        self.logit_scale = float(network.logit_scale.exp())
        self.logit_bias = 0.0 if network.logit_bias is None else float(network.logit_bias)
        self._network = place_network(network, towers)
        self._tokenizer, self._tokenizer_lock = tokenizer, Lock()
        self._notify, self._most = notify, most
        self._causal_tower = None  # nothing is cut before this model has shown that cutting changes nothing
        full = self.encode_texts(_TWO_PROMPTS)
        self.dim = int(full.shape[1])
        self._causal_tower = causal_tower(network)
        if np.linalg.norm(self.encode_texts(_TWO_PROMPTS) - full, axis=1).max() > CUT_TOLERANCE:
            self._causal_tower = None

    def __repr__(self) -> str:
        return encoder_repr(self)

    @property
    def precision(self) -> str:
        """Precision of the image and the text tower, once where they are the same: "float32", "float32 bfloat16"."""
        return " ".join(
            dict.fromkeys(str(kind).removeprefix("torch.") for kind in (self.towers.image, self.towers.text))
        )

    def _encode_pixels(self, pixels: npt.NDArray[np.uint8], space: str) -> Embeddings:
        tower = self._tower(space)
        if not len(pixels):
            return np.empty((0, self._width(space)), np.float32)
        rows = self._in_batches(len(pixels), lambda part: self._image_features(pixels[part], tower), most=self._at_once)
        return check_embeddings(rows, self.dim if space == "projected" else rows.shape[1])

    def _encode_unique(self, texts: list[str]) -> Embeddings:
        with self._tokenizer_lock:  # a tokenizer of transformers raises "Already borrowed" in a second thread
            tokens = self._tokenizer(texts)  # (n, context)
        sizes = lengths(tokens.numpy(), end_token(self._causal_tower))
        order = np.argsort(sizes, kind="stable")  # short texts together, since each batch is as long as its longest
        in_order = self._in_batches(
            len(order), lambda batch: self._text_features(tokens[order[batch]]), times=TEXTS_FOR_A_PICTURE
        )
        embeddings = np.empty_like(in_order)
        embeddings[order] = check_embeddings(in_order, in_order.shape[1])
        return embeddings

    def _tower(self, space: str) -> Callable[[torch.Tensor], Any]:
        return self._backbone if space == "backbone" else self._network.encode_image  # type: ignore[no-any-return]

    @cached_property
    def _at_once(self) -> int:
        if self._most or self.towers.device.type != "cpu":
            return self._most or self.batch_size
        black = np.zeros((1, 3, *self.recipe.size), np.uint8)
        return at_once(self._network.visual, lambda: self._image_features(black, self._network.encode_image))

    @cached_property
    def _backbone(self) -> Any:
        return without_projection(self._network.visual)

    def _width(self, space: str) -> int:
        if space == "projected":
            return self.dim
        black = np.zeros((1, 3, *self.recipe.size), np.uint8)
        return int(self.encode_pixels(black, space=space).shape[1])

    def _image_features(self, pixels: npt.NDArray[np.uint8], tower: Callable[[torch.Tensor], Any]) -> torch.Tensor:
        import torch

        batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(self.towers.device)
        mean, std = (torch.tensor(v, device=batch.device).view(3, 1, 1) for v in (self.recipe.mean, self.recipe.std))
        # Normalised in float32 and rounded once: in bfloat16 each of the three steps would round.
        batch = batch.float().div_(255).sub_(mean).div_(std).to(self.towers.image)
        layout = torch.channels_last if self.towers.channels_last else torch.contiguous_format
        return pooled(tower(batch.contiguous(memory_format=layout)))

    def _text_features(self, tokens: torch.Tensor) -> torch.Tensor:
        tower = self._causal_tower
        if tower is None:
            return pooled(self._network.encode_text(tokens.to(self.towers.device)))
        length = int(lengths(tokens.numpy(), end_token(tower)).max())
        short = cut(tower, length)
        encode = short.encode_text if tower is self._network else short
        return pooled(encode(tokens[:, :length].to(self.towers.device)))

    def _in_batches(self, count: int, features: Features, *, times: int = 1, most: int = 0) -> Embeddings:
        import torch

        parts: list[Embeddings] = []
        start = 0
        while start < count:
            size = min(self.batch_size * times, most or count, count - start)
            try:
                with torch.inference_mode():
                    rows = features(slice(start, start + size)).float()
                    parts.append((rows / rows.norm(dim=-1, keepdim=True)).cpu().numpy())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = 0
            if size:
                start += size
            else:  # outside of `except`, whose traceback keeps the batch's memory
                self._halve(min(self.batch_size, most or count, count - start))
        return np.concatenate(parts)

    def _halve(self, size: int) -> None:
        import torch

        if size <= 1:
            raise ModelError(f"{self.model} does not fit into memory", hint="--model fast, --device cpu")
        self.batch_size = min(self.batch_size, size // 2)
        if self.towers.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._notify:
            self._notify(f"out of memory with {size} at a time: going on with {size // 2}")


_TWO_PROMPTS = ("a photo of a dog", "a photograph of two small red boats on a lake at dawn")


def _build(weights: Weights, config: dict[str, Any], notify: Notify | None) -> Any:
    """The network with its weights, in float32, with everything said that open_clip only knows for its own tags.

    Given a file instead of a tag, open_clip silently takes GELU for QuickGELU and the default mean and std (#771).
    """
    import open_clip

    options: dict[str, Any] = {}
    text = config["text_cfg"]
    if name := text.get("hf_model_name"):  # a tower of transformers: its config from our cache, no weights of its own
        folder = fetch_files(name, ("config.json",), notify)
        options["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    if trunk := trunk_folder(config["vision_cfg"], weights.file.parent):
        options["vision_cfg"] = {**config["vision_cfg"], "timm_model_name": f"local-dir:{trunk}"}
    if tag := weights.pretrained:
        options["pretrained"] = str(weights.file)
        options["force_quick_gelu"] = tag.quick_gelu
        fields = ("mean", "std", "interpolation", "resize_mode")
        options["force_preprocess_cfg"] = {field: getattr(tag, field) for field in fields}
    return open_clip.create_model(weights.architecture, require_pretrained=True, **options).eval().requires_grad_(False)


def _tokenizer(weights: Weights, text: dict[str, Any], notify: Notify | None) -> Callable[[list[str]], torch.Tensor]:
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.get_tokenizer(weights.architecture)  # type: ignore[no-any-return]  # open_clip is untyped
    own = Path(weights.architecture.removeprefix("local-dir:"))
    has_own = not weights.model.startswith("hf-hub:") and any((own / file).is_file() for file in TOKENIZER_FILES[:2])
    return HFTokenizer(  # type: ignore[no-any-return]
        str(own if has_own else fetch_files(name, TOKENIZER_FILES, notify)),
        context_length=text.get("context_length", 77),
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )


def check_weights(weights: Weights, network: Any) -> None:
    """Refuses what would be wrong without a word: NaN, and positions that open_clip stretched to another resolution."""
    import torch
    from safetensors import safe_open

    state = network.state_dict()
    if not all(torch.isfinite(value.sum()) for value in state.values() if value.is_floating_point()):
        raise ModelError(f"{weights.model} has weights that are NaN or infinite", hint=f"fetch {weights.file} again")
    if weights.file.suffix != ".safetensors":
        return
    with safe_open(weights.file, "pt") as stored:
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118  no dict
    for name in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding"):
        if name in shapes and name in state and shapes[name] != tuple(state[name].shape):
            has, wants = shapes[name][0], state[name].shape[0]
            raise ModelError(
                f"{weights.model}: the weights have {has} positions in {name}, the config {wants}",
                hint="config and weights of one model: fetch both again",
            )


def pixel_recipe(model: str, network: Any, *, exact: bool) -> PixelRecipe:
    """What open_clip says of the model's pictures; ModelError for what clipkit does not do."""
    from open_clip import get_model_preprocess_cfg

    config = get_model_preprocess_cfg(network)
    size, interpolation = config["size"], config["interpolation"]
    if interpolation not in ("bicubic", "bilinear"):
        raise ModelError(
            f"{model} wants its pictures resized by {interpolation!r}, which clipkit does not know",
            hint="another model: clipkit models",
        )
    if config["resize_mode"] not in ("shortest", "longest", "squash"):
        raise ModelError(
            f"{model} wants its pictures resized {config['resize_mode']!r}, which clipkit does not know",
            hint="another model: clipkit models",
        )
    height, width = (size, size) if isinstance(size, int) else size
    inner = getattr(getattr(getattr(network.visual, "trunk", None), "patch_embed", None), "img_size", None)
    if inner is not None and tuple(inner) != (height, width):
        raise ModelError(
            f"{model} says {height}x{width} pixels, but its image tower reads {inner[0]}x{inner[1]}",
            hint="correct size in preprocess_cfg, or image_size in vision_cfg",
        )
    return PixelRecipe(
        size=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation,
        resize_mode=config["resize_mode"],
        fill_color=config["fill_color"],
        exact=exact,
    )


def causal_tower(network: Any) -> Any:
    """The module that holds the text tower's positions and mask, if what follows the end of a text cannot matter."""
    tower = getattr(network, "text", network)
    pool = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)
    is_causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    return tower if is_causal and pool in ("argmax", "eos") else None


def end_token(tower: Any) -> str | int | None:
    """The token that the tower pools: of the greatest id ("argmax"), or of this id; None where it cannot be cut."""
    if tower is None:
        return None
    pool = getattr(tower, "pool_type", None) or tower.text_pool_type
    return "argmax" if pool == "argmax" else int(tower.eos_id if hasattr(tower, "eos_id") else tower.text_eos_id)


def tokenizer_data(tokenize: Callable[[list[str]], torch.Tensor]) -> Tokenizer | None:
    """open_clip's tokenizer as data; None for kinds that are not known."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    clean = getattr(getattr(tokenize, "clean_fn", None), "__name__", "").removeprefix("_clean_")
    if isinstance(tokenize, SimpleTokenizer) and tokenize.reduction_fn is None:
        special = [name for name in tokenize.encoder if tokenize.encoder[name] in tokenize.all_special_ids]
        model = byte_pairs(tokenize.encoder, list(tokenize.bpe_ranks), special)
        begin, end = tokenize.sot_token_id, tokenize.eot_token_id
        merges = as_lines(tokenize.encoder, list(tokenize.bpe_ranks))
        return Tokenizer(model, tokenize.context_length, clean, begin, end, merges=merges)
    if isinstance(tokenize, HFTokenizer) and not tokenize.tokenizer_mode and not tokenize.strip_sep_token:
        inner = tokenize.tokenizer
        if inner.is_fast:
            left = inner.padding_side == "left"
            model = inner.backend_tokenizer.to_str()
            return Tokenizer(model, tokenize.context_length, clean, pad=inner.pad_token_id, pad_left=left)
    return None


def cut(tower: Any, length: int) -> Any:
    """The same text tower for `length` tokens: it shares all weights, and the original is not touched.

    open_clip has no call for it: positions and mask have the full context, whatever the text.
    """
    import torch

    short = copy.copy(tower)
    positions = torch.nn.Parameter(tower.positional_embedding[:length], requires_grad=False)
    short._parameters = {**tower._parameters, "positional_embedding": positions}
    short._buffers = {**tower._buffers, "attn_mask": tower.attn_mask[:length, :length]}
    return short
