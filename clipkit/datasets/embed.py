"""Embeddings of a dataset's pictures, computed once and cached."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clipkit.core.arrays import Embeddings, FloatArray
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.files import digest
from clipkit.core.progress import Failure, Progress
from clipkit.core.text import described
from clipkit.datasets.load import Dataset
from clipkit.errors import ImageError
from clipkit.index.scan import is_unsettled
from clipkit.models.encoder import Encoder, identity

HEX = frozenset("0123456789abcdef")
PIECE = 1024  # files before the first write of the cache, then twice as many: what breaks off later keeps them
MOST_REMEMBERED = 1 << 17  # checksums of files in memory: 75 MB
MOST_ROWS = 1 << 14  # in each of sixteen files: 260,000 pictures a model, 400 MB at 384 values


def embed_once(
    dataset: Dataset,
    encoder: Encoder,
    *,
    space: str = "projected",
    progress: Callable[[Progress], None] | None = None,
) -> EmbeddedDataset:
    """Embeddings of a dataset's pictures, from the cache where they were computed before.

    The cache is keyed by the bytes of the pictures, the model, its precision and its pixel recipe.

    Parameters
    ----------
    dataset : Dataset
        Its pictures are encoded.
    encoder : Encoder
        By this model.
    space : {"projected", "backbone"}, default "projected"
        The space of the texts, or the features before the projection.
    progress : callable, optional
        Given a `Progress` after each batch.

    Returns
    -------
    EmbeddedDataset
        Pictures that cannot be read are in `dataset.failed`, with the reason.

    Examples
    --------
    >>> from clipkit.datasets import embed_once
    >>> embedded = embed_once(clipkit.load_dataset("animals"), clipkit.load_encoder("starter"))
    >>> embedded.embeddings.shape
    (10, 384)
    """
    digests = [digest(file) or "unreadable" for file in dataset.files]
    cache = ArrayCache("pictures", form="clipkit pictures 1")
    key = cache_key(identity(encoder), space, digests)
    if (stored := cache.get(key)) is not None:
        arrays, unread = stored
        failed = [Failure(dataset.files[i], reason) for i, reason in unread]
        return EmbeddedDataset(dataset.without(failed), arrays["embeddings"])
    embedded = embed_pictures(dataset, encoder, space=space, progress=progress)
    place = {name: i for i, name in enumerate(dataset.files)}
    new = embedded.dataset.failed[len(dataset.failed) :]
    if len(embedded.embeddings):
        cache.put(key, {"embeddings": embedded.embeddings}, [(place[failure.path], failure.reason) for failure in new])
    return embedded


@dataclass(frozen=True)
class EmbeddedDataset:
    """A dataset and the embeddings of its pictures.

    Attributes
    ----------
    dataset : Dataset
        The pictures that could be read.
    embeddings : ndarray of shape (n, d), float32
        Row i belongs to `dataset.files[i]`.

    Examples
    --------
    >>> from clipkit.datasets import embed_once
    >>> embedded = embed_once(clipkit.load_dataset("animals"), clipkit.load_encoder("starter"))
    >>> len(embedded.embeddings) == len(embedded.dataset)
    True
    """

    dataset: Dataset
    embeddings: Embeddings

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        return described(self, repr(self.dataset), f"embeddings {self.embeddings.shape}")


def embed_pictures(
    dataset: Dataset,
    encoder: Encoder,
    *,
    space: str = "projected",
    progress: Callable[[Progress], None] | None = None,
) -> EmbeddedDataset:
    """Embeddings (n, d) of every picture that can be read, in `space`; the others move to `failed`, with the reason."""
    parts: list[Embeddings] = []
    failed: list[Failure] = []
    step = max(1, encoder.batch_size)
    for start in range(0, len(dataset), step):
        batch = dataset.files[start : start + step]
        try:
            parts.append(encoder.encode_images(batch, space=space))
        except ImageError:
            parts += _one_by_one(batch, encoder, space, failed)
        if progress:
            progress(Progress(start + len(batch), len(dataset), batch[-1]))
    rows = np.concatenate(parts) if parts else encoder.encode_images([], space=space)
    return EmbeddedDataset(dataset.without(failed), rows)


def embed_files(files: Sequence[str], encoder: Encoder, *, space: str = "projected") -> Embeddings:
    """Embeddings of picture files (n, d), each file's from the cache where its bytes were encoded before.

    Unlike `embed_once`, which keeps a dataset as a whole, this serves any part of one: the folds of a cross-validation.
    ImageError names the first file that cannot be read.
    """
    cache = _RowCache(encoder, space)
    digests = [_digest(file) or f"unreadable {file}" for file in files]
    rows = cache.get(digests)
    missing = {key: file for key, file in zip(digests, files, strict=True) if key not in rows}
    keys = list(missing)
    while keys:
        piece = keys[: max(PIECE, len(rows))]
        keys = keys[len(piece) :]
        made = encoder.encode_images([missing[key] for key in piece], space=space)
        new = dict(zip(piece, made, strict=True))
        cache.put(new)
        rows |= new
    return np.stack([rows[key] for key in digests]) if digests else encoder.encode_images([], space=space)


def _digest(file: str) -> str | None:
    """As `digest`, from memory where this process has read the file before and it is as it was: a fold reads nothing.

    A file that changes while it is read is remembered by the stamp of before, which does not come back.
    """
    try:
        info = os.stat(file)
    except OSError:
        return digest(file)
    if is_unsettled(info):
        return digest(file)
    return _digest_of(file, (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))


@lru_cache(maxsize=MOST_REMEMBERED)
def _digest_of(file: str, stamp: tuple[int, ...]) -> str | None:
    return digest(file)


class _RowCache:
    """Embeddings by the SHA-256 of a picture's bytes, in sixteen files for each model, by the first digit."""

    def __init__(self, encoder: Encoder, space: str) -> None:
        self._cache = ArrayCache("rows", form="clipkit rows 1")
        self._whose = [*identity(encoder), space]

    def get(self, digests: Collection[str]) -> dict[str, FloatArray]:
        found = {}
        for digit in sorted({key[0] for key in digests} & HEX):
            known = self._part(digit)
            found.update({key: known[key] for key in digests if key in known})
        return found

    def put(self, rows: Mapping[str, FloatArray]) -> None:
        for digit in sorted({key[0] for key in rows} & HEX):
            known = self._part(digit) | {key: row for key, row in rows.items() if key[0] == digit}
            whole = dict(list(known.items())[-MOST_ROWS:])  # the oldest go
            sums = np.frombuffer(bytes.fromhex("".join(whole)), np.uint8).reshape(len(whole), -1)
            self._cache.put(self._key(digit), {"sha256": sums, "embeddings": np.stack(list(whole.values()))})

    def _part(self, digit: str) -> dict[str, FloatArray]:
        stored = self._cache.get(self._key(digit))
        if stored is None:
            return {}
        arrays, _ = stored
        return {bytes(key).hex(): row for key, row in zip(arrays["sha256"], arrays["embeddings"], strict=True)}

    def _key(self, digit: str) -> str:
        return cache_key(self._whose, digit)


def _one_by_one(files: Sequence[str], encoder: Encoder, space: str, failed: list[Failure]) -> list[Embeddings]:
    parts = []
    for file in files:
        try:
            parts.append(encoder.encode_images([file], space=space))
        except ImageError as error:
            failed.append(Failure(file, error.message))
    return parts
