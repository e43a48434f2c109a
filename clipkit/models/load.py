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
    """Load an open_clip encoder by name.

    Weights that are not on this disk are fetched from the hub and cached.

    Parameters
    ----------
    model : str, default "auto"
        An alias ("fast", "balanced", "best", "multilingual", "starter"), an open_clip name
        ("ViT-B-32/laion2b_s34b_b79k", also with a comma or two underscores), a repository ("hf-hub:owner/name") or a
        folder. "auto" is "balanced" where its weights are on this disk or the hub answers, else "starter", which comes
        with clipkit.
    device : str, default "auto"
        "cpu", "cuda", "mps"; "auto" takes the fastest.
    precision : {"auto", "float32", "bfloat16", "float16"}, default "auto"
        "auto" is the fastest that keeps cosines to 1e-3 on this machine; the others hold for both towers.
    batch_size : int, optional
        Pictures through the image tower at once; by default what is fast on the device.
    exact_pixels : bool, default False
        Decode and resize exactly as open_clip's own transform does, instead of the fast path.
    allow_pickle : bool, default False
        Accept weights that are only there as a pickle, which can run code when it is read.
    notify : callable, optional
        Given a sentence when something is fetched, replaced or made smaller.

    Returns
    -------
    OpenClipEncoder
        Ready to encode.

    Raises
    ------
    ModelError
        If the model cannot be had, or does not fit this machine.

    See Also
    --------
    load_model : Also loads classifiers of transformers.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    .. [2] X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    Examples
    --------
    >>> encoder = clipkit.load_encoder("starter")
    >>> encoder.encode_texts(["a cat", "a dog"]).shape
    (2, 384)
    >>> encoder = clipkit.load_encoder("ViT-B-32/laion2b_s34b_b79k")  # doctest: +SKIP
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
    """Load any model by name: an open_clip encoder, or an image classifier of transformers.

    Parameters
    ----------
    name : str
        What `load_encoder` takes; or a repository "owner/name" that open_clip does not know, or a folder that
        `save_pretrained` wrote, for a `ViTClassifier`.
    device : str, default "auto"
        "cpu", "cuda", "mps"; "auto" takes the fastest.
    precision : {"auto", "float32", "bfloat16", "float16"}, default "auto"
        As in `load_encoder`.
    allow_pickle : bool, default False
        As in `load_encoder`; classifiers are never read from a pickle.
    notify : callable, optional
        Given a sentence when something is fetched, replaced or made smaller.

    Returns
    -------
    OpenClipEncoder or ViTClassifier
        Ready to use.

    Raises
    ------
    ModelError
        If the model cannot be had, or does not fit this machine.

    Examples
    --------
    >>> from clipkit.models import load_model
    >>> type(load_model("tiny-vit")).__name__
    'ViTClassifier'
    >>> load_model("google/vit-base-patch16-224").predict(["photos/chelsea.png"])  # doctest: +SKIP
    array(['Egyptian cat'], dtype='<U...')
    """
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
