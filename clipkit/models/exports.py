"""Exported models on this disk: an ONNX graph for each tower, the tokenizer, and what else an encoder needs to know."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clipkit.core.cache import cache_key
from clipkit.core.files import replace_file
from clipkit.core.folders import cache_folder
from clipkit.errors import ModelError
from clipkit.images.recipe import PixelRecipe
from clipkit.models import registry
from clipkit.models.conversion import converted_folder
from clipkit.models.devices import FLOAT32
from clipkit.models.hub import fingerprint
from clipkit.models.registry import CONFIG, Weights
from clipkit.models.tokenizer import Tokenizer

FORM = "clipkit-export-3"
RECORD, IMAGE, TEXT, WEIGHTS, VOCABULARY = "export.json", "image.onnx", "text.onnx", ".weights", "vocabulary.json"
MERGES = "merges.txt"  # of the vocabulary, where that is CLIP's


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """One exported model.

    Attributes
    ----------
    folder : Path
        Where the graphs are.
    config : str
        SHA-256 of the model's own config; "" where the name decides it.
    model_cfg_sha256 : str
        As `model_cfg_sha256` has it.
    model, source, fingerprint, dim, recipe, logit_scale, logit_bias
        As `Encoder` has them.
    tokenization : mapping
        The text tower's tokenizer without its vocabulary, which is a file of its own.
    end : {"argmax", int, None}
        The token up to which a text is read: the greatest id, this id, or no such token: the whole row.
    precision : {"float32", "int8"}
        Of the image tower; the text tower is always float32.
    is_convolutional : bool
        Whether the image tower is mostly convolutions.
    graphs : mapping of str to str
        Name of each file to its SHA-256; a tower that could not be exported is not among them.
    """

    folder: Path
    config: str
    model_cfg_sha256: str
    model: str
    source: str
    fingerprint: str
    dim: int
    recipe: PixelRecipe
    logit_scale: float
    logit_bias: float
    tokenization: Mapping[str, Any]
    end: str | int | None
    is_convolutional: bool
    graphs: Mapping[str, str]
    precision: str = FLOAT32

    def graph(self, name: str) -> Path:
        """The file of a graph, its content checked; ModelError where it is damaged."""
        file = self.folder / name
        for part in (file, file.with_suffix(WEIGHTS)):
            if part.name in self.graphs and not self._is_whole(part.name):
                raise ModelError(
                    f"{part} is damaged: its content is not what was written",
                    hint=f"rm -r {shlex.quote(str(self.folder))}",
                )
        return file

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the text tower; its files are read when they are needed."""
        merges = self.graph(MERGES) if MERGES in self.graphs else ""
        return Tokenizer(self.graph(VOCABULARY), merges=merges, **self.tokenization)

    @property
    def is_intact(self) -> bool:
        """Whether every file is as it was written."""
        return all(self._is_whole(name) for name in self.graphs)

    def _is_whole(self, name: str) -> bool:
        file = self.folder / name
        return file.is_file() and fingerprint(file) == self.graphs[name]

    def with_exact_pixels(self, exact: bool) -> ExportedModel:
        """The same, with pixels exactly as open_clip's own transform makes them, or not."""
        return replace(self, recipe=replace(self.recipe, exact=exact))

    def save(self) -> None:
        """Write the record beside the graphs: from then on the export is there."""
        recipe = {**vars(self.recipe), "exact": False}
        names = (
            "config",
            "model_cfg_sha256",
            "model",
            "source",
            "fingerprint",
            "dim",
            "logit_scale",
            "logit_bias",
            "end",
            "is_convolutional",
            "tokenization",
            "precision",
        )
        record = {name: getattr(self, name) for name in names}
        record |= {"form": FORM, "recipe": recipe, "graphs": dict(self.graphs)}
        replace_file(self.folder / RECORD, json.dumps(record).encode())


def export_folder(weights_sha256: str, model: str, config: str, precision: str = FLOAT32) -> Path:
    """Where an export is kept: two names, and two configs, may read the same weights differently."""
    key = cache_key(model, config) if precision == FLOAT32 else cache_key(model, config, precision)
    return cache_folder() / "exports" / f"{weights_sha256[:32]}-{key[:8]}"


def find_export(
    weights_sha256: str,
    model: str,
    config: str | None = None,
    *,
    model_cfg_sha256: str = "",
    precision: str = FLOAT32,
) -> ExportedModel | None:
    """The export of these weights: beside the starter's own, or in the cache; None where there is none.

    config: as `config_of`; None where it is not known: an export is found then if there is only one, of those that have
    `model_cfg_sha256` where that is given. One whose files are not as they were written is not there.
    """
    folders = sorted((cache_folder() / "exports").glob(f"{weights_sha256[:32]}-*"))
    if model == "starter":  # its graphs read the weights beside them, whatever these are by now
        weights = registry.starter_folder() / registry.SAFE_WEIGHTS
        is_there = weights.is_file() and fingerprint(weights) == weights_sha256
        folders = [weights.parent, *folders] if is_there else folders
    exports = [found for folder in folders if (found := _read(folder))]
    exports = [one for one in exports if model_cfg_sha256 in ("", one.model_cfg_sha256)]
    wanted = (weights_sha256, model, precision)
    of_model = [one for one in exports if (one.fingerprint, one.model, one.precision) == wanted and one.is_intact]
    if config is None and len({one.config for one in of_model}) > 1:
        return None
    return next((one for one in of_model if config is None or one.config == config), None)


def publish(export: ExportedModel) -> ExportedModel:
    """Move a finished export from where it was written to its place in one step; what another has made stays."""
    place = export_folder(export.fingerprint, export.model, export.config, export.precision)
    there = find_export(export.fingerprint, export.model, export.config, precision=export.precision)
    if there is not None:
        shutil.rmtree(export.folder, ignore_errors=True)
        return there
    shutil.rmtree(place, ignore_errors=True)
    os.replace(export.folder, place)
    return replace(export, folder=place)


def config_beside(source: str) -> str | None:
    """SHA-256 of the config in a model's folder, or of what was made of it; None where there is no such folder."""
    file = open_clip_folder(Path(source)) / CONFIG
    return fingerprint(file) if file.is_absolute() and file.is_file() else None


def open_clip_folder(folder: Path) -> Path:
    """What was made of a model of transformers; any other folder is its own."""
    with suppress(ModelError):
        return converted_folder(folder)
    return folder


def model_cfg_sha256(model_cfg: Mapping[str, Any]) -> str:
    """SHA-256 of an open_clip `model_cfg`, which says how the weights are read, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(model_cfg, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def model_cfg_beside(model: str, source: str) -> str:
    """`model_cfg_sha256` of a model's folder as it is now, the starter's included; "" where there is none to read."""
    folder = registry.starter_folder() if model == "starter" else Path(source.removeprefix("local-dir:"))
    if folder.is_absolute():
        with suppress(OSError, ValueError, AttributeError):
            config = json.loads((open_clip_folder(folder) / CONFIG).read_bytes())
            return model_cfg_sha256(config.get("model_cfg", config))
    return ""


def config_of(weights: Weights) -> str:
    """SHA-256 of the config beside the weights; "" where open_clip has it by name."""
    if not weights.architecture.startswith("local-dir:"):
        return ""
    return fingerprint(Path(weights.architecture.removeprefix("local-dir:")) / CONFIG)


def find_export_of(model: str) -> ExportedModel | None:
    """The export of a model that open_clip knows by this name; None where there is none.

    Folders and repositories may change under the same name, and the starter changes with clipkit: they are found by
    their weights.
    """
    is_named = model != "starter" and not model.startswith(("hf-hub:", "local:"))
    plain = (one for one in all_exports() if is_named and one.precision == FLOAT32)
    named = (one for one in plain if model == one.model == one.source)
    return next((one for one in named if one.is_intact), None)


def all_exports() -> Iterator[ExportedModel]:
    """Every export in the cache."""
    for record in sorted((cache_folder() / "exports").glob(f"[!.]*/{RECORD}")):
        if found := _read(record.parent):
            yield found


def _read(folder: Path) -> ExportedModel | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
        if record.pop("form") != FORM:
            return None
        sizes = {"size": tuple(record["recipe"]["size"])}
        colours = {name: tuple(record["recipe"][name]) for name in ("mean", "std")}
        recipe = PixelRecipe(**{**record.pop("recipe"), **sizes, **colours})
        return ExportedModel(folder=folder, recipe=recipe, **record)
    return None
