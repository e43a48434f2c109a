"""Loading models by name: open_clip encoders and transformers classifiers."""

from __future__ import annotations

from pathlib import Path

from clipkit.errors import ModelError
from clipkit.models.devices import pick_towers
from clipkit.models.hub import Notify
from clipkit.models.openclip import OpenClipEncoder, load_network, open_clip_catalogue, pixel_recipe
from clipkit.models.registry import ALIASES, CONFIG, canonical_name, find_weights
from clipkit.models.vit import CONFIG as TRANSFORMERS_CONFIG
from clipkit.models.vit import ViTClassifier

BATCH_SIZES = {"cpu": 32, "cuda": 256, "mps": 64}  # read and written together; a CPU's towers take fewer at once


def load_encoder(
    model: str = "auto",
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    exact_pixels: bool = False,
    allow_pickle: bool = False,
    notify: Notify | None = None,
) -> OpenClipEncoder:
    """An encoder for any name that `clipkit models` explains; ModelError if it cannot be had or does not fit.

    precision: "auto" is the fastest that keeps cosines to 1e-3 on this machine; "float32", "bfloat16" and "float16"
    hold for both towers. `notify` gets a sentence when something is fetched, replaced or made smaller.
    """
    if batch_size is not None and batch_size < 1:
        raise ModelError(f"a batch of {batch_size} has no pictures in it")
    weights = find_weights(model, open_clip_catalogue(), allow_pickle=allow_pickle, notify=notify)
    network, tokenizer = load_network(weights, notify)
    towers = pick_towers(network, device, precision)
    return OpenClipEncoder(
        network,
        tokenizer,
        weights=weights,
        recipe=pixel_recipe(weights.model, network, exact=exact_pixels),
        towers=towers,
        batch_size=batch_size or BATCH_SIZES.get(towers.device.type, BATCH_SIZES["cpu"]),
        most=batch_size,
        notify=notify,
    )


def load_model(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    allow_pickle: bool = False,
    notify: Notify | None = None,
) -> OpenClipEncoder | ViTClassifier:
    """An open_clip model for every name and folder that `load_encoder` knows, else a classifier of transformers."""
    if is_transformers(name):
        return ViTClassifier(name, device=device, precision=precision, notify=notify)
    return load_encoder(name, device=device, precision=precision, allow_pickle=allow_pickle, notify=notify)


def is_transformers(name: str) -> bool:
    """Whether this is a folder that `save_pretrained` wrote, or an owner/name of which open_clip knows nothing."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return (folder / TRANSFORMERS_CONFIG).is_file() and not (folder / CONFIG).is_file()
    if name in ALIASES or name.startswith((".", "~", "/")) or ":" in name or name.count("/") != 1:
        return False
    architecture, _, tag = canonical_name(name).partition("/")
    catalogue = open_clip_catalogue()
    return not {architecture, f"{architecture}-{tag}", name.replace("/", "-")} & set(catalogue)
