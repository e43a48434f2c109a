"""Loading models by name: open_clip encoders and transformers classifiers."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from clipkit.core.requirements import missing_packages_named
from clipkit.errors import ModelError
from clipkit.models.conversion import check_architecture, is_pretrained_clip
from clipkit.models.devices import FLOAT32, INT8, check_engine, has_fast_bfloat16, pick_towers
from clipkit.models.encoder import Encoder
from clipkit.models.export_cache import making, trim
from clipkit.models.exports import (
    IMAGE,
    TEXT,
    ExportedModel,
    config_beside,
    config_of,
    export_folder,
    find_export,
    find_export_of,
    publish,
)
from clipkit.models.hub import Notify
from clipkit.models.int8 import quantized
from clipkit.models.onnx import OnnxEncoder
from clipkit.models.openclip import OpenClipEncoder, has_architecture, load_network, open_clip_catalogue, pixel_recipe
from clipkit.models.registry import ALIASES, CONFIG, Weights, canonical_name, find_weights, say_name
from clipkit.models.vit import CONFIG as TRANSFORMERS_CONFIG
from clipkit.models.vit import ViTClassifier

MANY = 1_000  # pictures from which loading torch has paid for itself, where the CPU has bfloat16
BATCH_SIZES = {"cpu": 32, "cuda": 256, "mps": 64}  # read and written together; a CPU's towers take fewer at once


@missing_packages_named()
def load_encoder(
    model: str | os.PathLike[str] = "auto",
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    exact_pixels: bool = False,
    allow_pickle: bool = False,
    notify: Notify | None = None,
) -> OpenClipEncoder | OnnxEncoder:
    """Load an open_clip encoder by name.

    Weights that are not on this disk are fetched from the hub and cached. The first time a model is loaded for a CPU it
    is exported to ONNX, compared with the original, and kept in the cache; from then on it loads without torch.

    Parameters
    ----------
    model : str or path, default "auto"
        An alias ("fast", "balanced", "best", "multilingual", "starter"), an open_clip name
        ("ViT-B-32/laion2b_s34b_b79k", also with a comma or two underscores), a repository whose weights open_clip has
        by name ("openai/clip-vit-base-patch32"), any other ("hf-hub:owner/name") or a folder; a
        CLIPModel or SiglipModel of transformers is converted once. "auto" is "balanced" where its weights are on this
        disk or the hub answers, else "starter", which comes with clipkit.
    engine : {"auto", "torch", "onnx"}, default "auto"
        What computes. "auto" takes torch on a GPU and ONNX Runtime on a CPU; a transformer on a CPU with bfloat16 goes
        on in torch after 1,000 pictures, or earlier where an index run knows that it pays.
    device : str, default "auto"
        "cpu", "cuda", "mps"; "auto" takes the fastest.
    precision : {"auto", "float32", "bfloat16", "float16", "int8"}, default "auto"
        "auto" is the fastest that keeps cosines to 1e-3 on this machine; the others hold for both towers, but "int8"
        (ONNX Runtime on a CPU) for the image tower alone.
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
    OpenClipEncoder or OnnxEncoder
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
    if not isinstance(model, str | os.PathLike):
        raise ModelError(f"{model!r} is no name of a model", hint="clipkit models")
    model = os.fspath(model)
    if batch_size is not None and batch_size < 1:
        raise ModelError(f"a batch of {batch_size} has no pictures in it", hint="--batch-size 16")
    refuse_empty_folder(model)
    say_name(model, notify)
    engine = check_engine(engine, device, precision)
    where = {"device": device, "precision": precision, "batch_size": batch_size}
    asked = partial(load_encoder, **where, exact_pixels=exact_pixels, allow_pickle=allow_pickle)  # type: ignore[arg-type]
    if engine == "torch":
        weights = find_weights(model, open_clip_catalogue(), allow_pickle=allow_pickle, notify=notify)
        return _in_torch(weights, device, precision, batch_size, exact_pixels, partial(asked, engine="torch"), notify)
    same, floating = partial(asked, engine="onnx"), "auto" if precision == INT8 else precision
    in_torch = partial(asked, model, engine="torch", precision=floating, notify=notify)
    export = find_export_of(canonical_name(model))
    if export is None:
        weights = find_weights(model, open_clip_catalogue(), allow_pickle=allow_pickle, notify=notify)
        export = find_export(weights.fingerprint, weights.model, config_of(weights)) or _exported(weights, notify)
        if export is None:
            if precision == INT8:
                raise ModelError("int8 needs an export, and the cache cannot be written", hint="--precision float32")
            return in_torch()
        export = replace(export, source=weights.source)  # its folder may have moved
    if IMAGE in export.graphs and precision == INT8:
        return _in_onnx(quantized(export, notify), in_torch, same, batch_size=batch_size, exact_pixels=exact_pixels)
    if IMAGE in export.graphs:
        is_best = engine == "onnx" or export.is_convolutional or precision == "float32" or not has_fast_bfloat16()
        many, same = (None, same) if is_best else (MANY, asked)
        return _in_onnx(export, in_torch, same, batch_size=batch_size, exact_pixels=exact_pixels, many=many)
    if engine == "onnx":
        hint = "--precision float32" if precision == INT8 else "--engine torch"
        raise ModelError(f"the image tower of {export.model} could not be exported", hint=hint)
    return in_torch()


def refuse_empty_folder(model: str) -> None:
    """ModelError for a folder that holds no model, before anything heavy is imported to look for one of its name."""
    is_name = model in (*ALIASES, "auto") or has_architecture(model.replace(",", "/").partition("/")[0])
    if not is_name and os.path.isdir(model) and not os.path.isfile(os.path.join(model, CONFIG)):
        if os.path.isfile(os.path.join(model, TRANSFORMERS_CONFIG)):
            return check_architecture(Path(model))
        hint = "a folder that has it beside its weights: --model FOLDER; or a name of clipkit models"
        raise ModelError(f"{model} is a folder without {CONFIG}", hint=hint)


def load_query_encoder(
    weights_sha256: str,
    model: str,
    source: str,
    *,
    model_cfg_sha256: str = "",
    exact_pixels: bool,
    load: Callable[[], Encoder],
    precision: str = FLOAT32,
    loaded: Encoder | None = None,
) -> Encoder:
    """What encodes the queries of an index: the export of its model where there is one, else what `load` gives.

    An export of an older starter is not asked, though it may still be in the cache, nor one of a folder that is gone:
    `load` refuses the index. precision: "int8" for an index of such pictures.
    loaded: returned where it is what would be loaded.
    """
    is_older = model == "starter" and find_weights(model, {}).fingerprint != weights_sha256
    config = config_beside(source)
    is_gone = config is None and Path(source).is_absolute()  # which of two configs it had, nobody can say
    find = partial(find_export, weights_sha256, model, config, model_cfg_sha256=model_cfg_sha256, precision=precision)
    export = None if is_older or is_gone else find()
    if export is None or TEXT not in export.graphs:
        return load()
    if isinstance(loaded, OnnxEncoder) and loaded.export == export.with_exact_pixels(exact_pixels):
        return loaded
    kind = precision if precision == INT8 else FLOAT32
    again = partial(load_encoder, engine="onnx", precision=kind, exact_pixels=exact_pixels)
    return _in_onnx(export, load, again, batch_size=None, exact_pixels=exact_pixels)


def as_open_clip(encoder: Encoder) -> OpenClipEncoder:
    """The open_clip network of an encoder, loaded if need be; ModelError where it has none."""
    if isinstance(encoder, str | os.PathLike):
        raise ModelError(
            f"{str(encoder)!r} is a name, and no model", hint=f"clipkit.models.load_model({str(encoder)!r}) loads it"
        )
    found = encoder.torch_encoder if isinstance(encoder, OnnxEncoder) else encoder
    if not isinstance(found, OpenClipEncoder):
        raise ModelError(f"{encoder.model} is no open_clip model", hint="clipkit models")
    return found


def ensure_export(encoder: Encoder, notify: Notify | None = None) -> None:
    """Export the model of an encoder whose queries will be asked for again, unless that was done before."""
    if isinstance(encoder, OpenClipEncoder):
        weights = encoder.weights
        if find_export(weights.fingerprint, weights.model, config_of(weights)) is None:
            _exported(weights, notify)


def _exported(weights: Weights, notify: Notify | None) -> ExportedModel | None:
    """The export, made now or by another process; None where the cache cannot be written: torch answers then."""
    config = config_of(weights)
    place = export_folder(weights.fingerprint, weights.model, config)
    try:
        with making(place, weights.model, notify):
            export = find_export(weights.fingerprint, weights.model, config) or export_weights(weights, notify)
            trim(export.folder)
            return export
    except (OSError, ModelError) as error:
        if notify:
            notify(f"torch computes {weights.model}: its export cannot be kept: {error}")
        return None


def export_weights(weights: Weights, notify: Notify | None = None) -> ExportedModel:
    """The export of these weights, made now."""
    from clipkit.models.onnx_export import export_encoder

    if notify:
        notify(f"preparing {weights.model} for quick answers: once, it takes a minute or less")
    network, tokenizer = load_network(weights, notify)
    recipe = pixel_recipe(weights.model, network, exact=False)
    place = export_folder(weights.fingerprint, weights.model, config_of(weights))
    beside = place.with_name(f".{place.name}-{secrets.token_hex(4)}.part")
    try:
        return publish(export_encoder(network, tokenizer, weights, recipe, beside))
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _in_onnx(
    export: ExportedModel,
    load: Callable[[], Encoder],
    again: Callable[[str], Encoder],
    *,
    batch_size: int | None,
    exact_pixels: bool,
    many: int | None = None,
) -> OnnxEncoder:
    size = batch_size or BATCH_SIZES["cpu"]
    wanted = export.with_exact_pixels(exact_pixels)
    return OnnxEncoder(wanted, batch_size=size, load_torch=lambda: as_open_clip(load()), load=again, many=many)


def _in_torch(
    weights: Weights,
    device: str,
    precision: str,
    batch_size: int | None,
    exact_pixels: bool,
    again: Callable[[str], Encoder],
    notify: Notify | None,
) -> OpenClipEncoder:
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
        load=again,
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
    """Load any model by name in torch: an open_clip encoder, or an image classifier of transformers.

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
    load = partial(load_encoder, name, engine="torch", device=device, precision=precision, notify=notify)
    return as_open_clip(load(allow_pickle=allow_pickle))


def is_transformers(name: str) -> bool:
    """Whether this is a folder that `save_pretrained` wrote, or an owner/name of which open_clip knows nothing."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        is_its_own = (folder / TRANSFORMERS_CONFIG).is_file() and not (folder / CONFIG).is_file()
        return is_its_own and not is_pretrained_clip(folder)
    if name in ALIASES or name.startswith((".", "~", "/")) or ":" in name or name.count("/") != 1:
        return False
    architecture, _, tag = canonical_name(name).partition("/")
    catalogue = open_clip_catalogue()
    return not {architecture, f"{architecture}-{tag}", name.replace("/", "-")} & set(catalogue)
