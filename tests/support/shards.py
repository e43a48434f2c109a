"""Shards without a cluster: of pictures, by an encoder, or of made-up vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipkit.bulk.shards import Manifest, Row, Shards, shard_bytes, shard_name, write_manifest
from clipkit.bulk.storage import Storage
from clipkit.models.encoder import Encoder


def manifest_of(encoder: Encoder, source: str, *, shard_rows: int = 3) -> Manifest:
    """What an engine would write of shards by this encoder."""
    facts = (encoder.model, encoder.fingerprint, encoder.engine, encoder.precision, encoder.dim, str(encoder.recipe))
    return Manifest(*facts, "clipkit test", source, shard_rows, model_source=encoder.source)


def write_shards(
    out: str | Path, photos: Path, encoder: Encoder, *, source: str = "", names: Sequence[str] = (), first: int = 0
) -> Shards:
    """Shards of three pictures each: of those below `photos`, or of `names`; first: number of the first shard."""
    storage = Storage(out)
    write_manifest(storage, manifest_of(encoder, source or str(photos)))
    paths = sorted(names or (str(file.relative_to(photos)) for file in photos.rglob("*.png")))
    for start in range(0, len(paths), 3):
        some = paths[start : start + 3]
        vectors = encoder.encode_images([photos / path for path in some])
        rows = [_row(photos, path, vector) for path, vector in zip(some, vectors, strict=True)]
        write_shard(storage, first + start // 3, rows, encoder.dim)
    return Shards(out)


def write_shard(storage: Storage, number: int, rows: Sequence[Row], dim: int) -> str:
    """One shard; its name."""
    name = shard_name(number, [row.path for row in rows])
    storage.write(name, shard_bytes(rows, dim))
    return name


def write_vectors(
    out: str | Path, vectors: np.ndarray, encoder: Encoder, *, shard_rows: int = 1000, first: int = 0
) -> Shards:
    """Shards of vectors (n, d); picture 7 is called 7.jpg."""
    storage = Storage(out)
    write_manifest(storage, manifest_of(encoder, "s3://bucket/photos", shard_rows=shard_rows))
    for start in range(0, len(vectors), shard_rows):
        some = vectors[start : start + shard_rows]
        rows = [
            Row(f"{first * shard_rows + start + i}.jpg", None, 640, 480, f"20{i % 20 + 10}-01-02T00:00:00", None, row)
            for i, row in enumerate(some)
        ]
        write_shard(storage, first + start // shard_rows, rows, vectors.shape[1])
    return Shards(out)


def failed(path: str, error: str = "not a picture") -> Row:
    """A picture without an embedding."""
    return Row(path, None, None, None, None, error, None)


def _row(photos: Path, path: str, vector: np.ndarray) -> Row:
    content = (photos / path).read_bytes()
    with Image.open(photos / path) as picture:
        width, height = picture.size
    return Row(path, hashlib.sha256(content).digest(), width, height, "2023-05-06T07:08:09", None, vector)
