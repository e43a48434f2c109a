"""Int8 image towers: an export quantized dynamically, and how well its neighbours agree with those in float32."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.files import replace_file
from clipkit.errors import ModelError
from clipkit.models.devices import INT8
from clipkit.models.export_cache import making, trim
from clipkit.models.exports import (
    IMAGE,
    MERGES,
    TEXT,
    VOCABULARY,
    WEIGHTS,
    ExportedModel,
    export_folder,
    find_export,
    publish,
)
from clipkit.models.hub import Notify, fingerprint

LEAST_OVERLAP = 0.95
NEIGHBORS = 10
AGREEMENT = "agreement.json"


@dataclass(frozen=True)
class Agreement:
    """The overlap of nearest neighbours in int8 and float32, and the number of pictures that it was measured on."""

    pictures: int
    overlap: float


def quantized(export: ExportedModel, notify: Notify | None = None) -> ExportedModel:
    """The same model with its image tower in int8, made the first time; ModelError for a convolutional tower."""
    if export.is_convolutional:
        fact = (
            f"int8 has nothing to gain in {export.model}: it computes matrix products, and the tower is convolutional"
        )
        raise ModelError(fact, hint="--precision float32")
    found = find_export(export.fingerprint, export.model, export.config, precision=INT8)
    if found is not None:
        return replace(found, source=export.source)
    place = export_folder(export.fingerprint, export.model, export.config, INT8)
    beside = place.with_name(f".{place.name}-{secrets.token_hex(4)}.part")
    try:
        with making(place, export.model, notify):
            made = publish(_write(export, beside, notify))  # what another has made meanwhile stays
            trim(made.folder)
            return replace(made, source=export.source)
    except OSError as error:
        raise ModelError(f"int8 needs a file in the cache: {error}", hint="--precision float32") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def neighbor_overlap(first: Embeddings, second: Embeddings) -> float:
    """Share of the nearest neighbours that two embeddings (n, d) of the same pictures have in common, 0 to 1.

    The 10 nearest, or half of the others where there are fewer than 20; 1 where there are no others.
    """
    k = min(NEIGHBORS, (len(first) - 1) // 2)
    if k < 1:
        return 1.0
    pairs = zip(_neighbors(first, k), _neighbors(second, k), strict=True)
    return float(np.mean([len(np.intersect1d(ours, theirs)) / k for ours, theirs in pairs]))


def read_agreement(export: ExportedModel) -> Agreement | None:
    """What was measured of an int8 export; None where nothing was."""
    with suppress(OSError, ValueError, TypeError):
        return Agreement(**json.loads((export.folder / AGREEMENT).read_bytes()))
    return None


def note_agreement(export: ExportedModel, agreement: Agreement) -> None:
    """Keep what was measured beside the graphs; where that cannot be written it is measured again."""
    with suppress(OSError):
        replace_file(export.folder / AGREEMENT, json.dumps(asdict(agreement)).encode())


def _neighbors(embeddings: Embeddings, k: int) -> IntArray:
    cosines = embeddings @ embeddings.T  # (n, n)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(np.argpartition(-cosines, k - 1, axis=1)[:, :k], np.int64)


def _write(export: ExportedModel, folder: Path, notify: Notify | None) -> ExportedModel:
    from clipkit.models.onnx_export import quantize_graph

    if notify:
        notify(f"preparing {export.model} in int8: once, it takes some seconds")
    folder.mkdir(parents=True)
    quantize_graph(export.graph(IMAGE), folder / IMAGE)
    for name in (TEXT, str(Path(TEXT).with_suffix(WEIGHTS)), VOCABULARY, MERGES):
        if name in export.graphs:
            _link(export.folder / name, folder / name)
    files = {file.name: fingerprint(file) for file in sorted(folder.iterdir())}
    made = replace(export, folder=folder, precision=INT8, graphs=files)
    made.save()
    return made


def _link(file: Path, link: Path) -> None:
    """The same file in another folder; a copy, where the disk has no links."""
    try:
        os.link(file, link)
    except OSError:
        shutil.copyfile(file, link)
