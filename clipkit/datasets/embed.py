"""Embeddings of a dataset's pictures, kept from run to run: the second evaluation opens no picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from clipkit.classify.head import Head
from clipkit.core.cache import cache_folder
from clipkit.core.files import digest
from clipkit.datasets.load import Dataset, EmbeddedDataset, embed_pictures
from clipkit.errors import ModelError
from clipkit.models.openclip import Encoder
from clipkit.store.records import Embeddings, Failure, Progress


def embed_once(
    dataset: Dataset,
    encoder: Encoder,
    *,
    space: str = "projected",
    progress: Callable[[Progress], None] | None = None,
) -> EmbeddedDataset:
    """As `embed_pictures`, from the cache where the same bytes were embedded by the same model and recipe before."""
    digests = [digest(file) or "unreadable" for file in dataset.files]
    file = cache_folder() / "pictures" / f"{_key(encoder, space, digests)}.safetensors"
    with suppress(ModelError):  # absent or damaged: it is a cache
        return _read(file, dataset, encoder, space)
    embedded = embed_pictures(dataset, encoder, space=space, progress=progress)
    with suppress(OSError):  # a cache that cannot be written is only slower
        _write(file, dataset, embedded, encoder, space)
    return embedded


def _read(file: Path, dataset: Dataset, encoder: Encoder, space: str) -> EmbeddedDataset:
    stored = Head.load(file)  # sealed by a checksum, as a head is
    failed = [Failure(dataset.files[i], reason) for i, reason in json.loads(stored.notes[0])]
    if (stored.fingerprint, stored.space) != (encoder.fingerprint, space):
        raise ModelError(f"{file} is of another model or space")
    if len(stored.classes) + len(failed) != len(dataset):
        raise ModelError(f"{file} is of other pictures")
    return EmbeddedDataset(dataset.without(failed), stored.weight)


def _write(file: Path, dataset: Dataset, embedded: EmbeddedDataset, encoder: Encoder, space: str) -> None:
    rows: Embeddings = embedded.embeddings
    if not len(rows):
        return
    place = {name: i for i, name in enumerate(dataset.files)}
    known = len(dataset.failed)
    failed = [(place[failure.path], failure.reason) for failure in embedded.dataset.failed[known:]]
    names = tuple(str(i) for i in range(len(rows)))
    bias = np.zeros(len(rows), np.float32)
    notes = (json.dumps(failed),)
    Head(names, rows, bias, 1.0, encoder.model, encoder.fingerprint, space=space, notes=notes).save(file)


def _key(encoder: Encoder, space: str, digests: Sequence[str]) -> str:
    precision = str(getattr(getattr(encoder, "towers", None), "image", ""))  # bfloat16 moves a cosine by 1e-3
    said = [encoder.model, encoder.fingerprint, str(encoder.recipe), precision, space, list(digests)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
