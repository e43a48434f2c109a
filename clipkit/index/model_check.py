"""Model check of an index: whether an encoder gives the embeddings that the index holds."""

from __future__ import annotations

import shlex
from pathlib import Path

from clipkit.errors import ModelMismatch
from clipkit.models.encoder import Encoder, embeddings_agree
from clipkit.models.exports import find_export, model_cfg_beside
from clipkit.models.image_tower import image_tower_sha256
from clipkit.store.records import IndexInfo


def check_model(encoder: Encoder, info: IndexInfo, *, root: Path, command: str) -> None:
    """ModelMismatch where the encoder is not the one of the index. command: `clipkit index` as typed for this index."""
    rebuild = f"{command} --rebuild"
    if not makes_its_embeddings(encoder, info):
        name = "other weights of the same name" if encoder.model == info.model else encoder.model
        hint = rebuild if encoder.model == info.model else f"{rebuild} --model {shlex.quote(encoder.source)}"
        raise ModelMismatch(f"{root} was indexed with {info.model}, not {name}", hint=hint)
    check_model_cfg(encoder_model_cfg(encoder), info, root=root, command=command, source=encoder.source)
    if str(encoder.recipe) != info.pixel_recipe:
        flag = " --exact-pixels" if encoder.recipe.exact else ""
        raise ModelMismatch(
            f"{root} was indexed with other pixels ({info.pixel_recipe}) than asked for ({encoder.recipe})",
            hint=f"{rebuild}{flag}",
        )
    if not embeddings_agree((info.engine, info.precision), (encoder.engine, encoder.precision)):
        raise ModelMismatch(
            f"{root} was indexed with {info.engine} in {info.precision}, not {encoder.engine} in {encoder.precision}",
            hint=rebuild + _model_option(encoder.source, info),
        )


def makes_its_embeddings(encoder: Encoder, info: IndexInfo) -> bool:
    """Whether pictures get the embeddings of the index: the same weights, or others with the same image tower.

    What `adapt` has made of the model of an index has its image tower. That is compared by content: no file's word is
    taken for it, and where one of the two is not on this disk they are different.
    """
    if encoder.dim != info.dim or encoder.fingerprint == info.weights_sha256:
        return encoder.dim == info.dim
    ours = image_tower_sha256(encoder.fingerprint, encoder.source)
    return bool(ours) and ours == image_tower_sha256(info.weights_sha256, info.model_source)


def is_same_model(encoder: Encoder, info: IndexInfo) -> bool:
    """Whether an encoder reads the weights of the index by its config."""
    is_config = info.model_cfg_sha256 in ("", encoder_model_cfg(encoder))
    return is_config and encoder.fingerprint == info.weights_sha256


def check_model_cfg(found: str, info: IndexInfo, *, root: Path, command: str, source: str = "") -> None:
    """ModelMismatch where the config that reads the weights is another; "" on either side is one that nobody knows."""
    if found and info.model_cfg_sha256 and found != info.model_cfg_sha256:
        raise ModelMismatch(
            f"{root} was indexed with another config of {info.model}: it has changed since",
            hint=f"{command} --rebuild{_model_option(source, info)}",
        )


def encoder_model_cfg(encoder: Encoder) -> str:
    """`model_cfg_sha256` of an encoder; "" for those that have no config of open_clip."""
    return str(getattr(encoder, "model_cfg_sha256", ""))


def current_model_cfg(info: IndexInfo) -> str:
    """`model_cfg_sha256` of the model of an index as it is now, without loading it; "" where that cannot be said."""
    if found := model_cfg_beside(info.model, info.model_source):
        return found
    export = find_export(info.weights_sha256, info.model)
    return export.model_cfg_sha256 if export else ""


def _model_option(source: str, info: IndexInfo) -> str:
    return f" --model {shlex.quote(source)}" if source not in ("", info.model_source) else ""
