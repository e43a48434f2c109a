"""Shards of embeddings: parquet files beside one `clipkit.json`, which the cluster writes and all else reads."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.bulk.storage import Storage
from clipkit.core.arrays import Embeddings
from clipkit.core.arrow import arrow
from clipkit.errors import ClipkitError, IndexDamaged
from clipkit.index.vector_files import ABOUT, Entry, Piece

LAYOUT = "shards"
SUFFIX = ".parquet"
READ_ROWS = 8192  # rows in memory at a time


@dataclass(frozen=True)
class Manifest:
    """What made the shards of a folder: `clipkit.json`. Another one is another folder.

    source: where the pictures lie, a folder or a URL; paths of rows are relative to it. shard_rows: pictures a shard.
    """

    model: str
    weights_sha256: str
    engine: str
    precision: str
    dim: int
    pixel_recipe: str
    created_by: str
    source: str
    shard_rows: int
    model_source: str | None = None
    layout: str = LAYOUT


@dataclass(frozen=True)
class Row:
    """A picture of a shard. path: as it lies below the source, `/` between names, surrogateescape for odd bytes.

    embedding: (dim,), or None where `error` says why there is none.
    """

    path: str
    sha256: bytes | None
    width: int | None
    height: int | None
    taken_at: str | None
    error: str | None
    embedding: np.ndarray[Any, Any] | None


class Shards:
    """A folder or URL of shards.

    Raises
    ------
    ClipkitError
        If there is no `clipkit.json`, or it is none of shards.
    """

    def __init__(self, url: str | Path) -> None:
        self.storage = Storage(url)
        self.manifest = _read_manifest(self.storage)

    @property
    def names(self) -> list[str]:
        """Names of the shards that are there, in order; each is whole."""
        return self.storage.names(SUFFIX)

    def count(self, name: str) -> int:
        """Rows of a shard, those with an error too; the footer is read, no more."""
        with self._open(name) as file:
            return int(file.metadata.num_rows)

    def pieces(self, name: str) -> Iterator[Piece]:
        """Pictures of a shard that have an embedding, float32 of length 1 within float16, some rows at a time."""
        with self._open(name) as file:
            for batch in file.iter_batches(READ_ROWS):
                keep = np.asarray(batch.column("error").is_null())
                yield Piece(_entries(batch, keep), embeddings_of(batch, self.manifest.dim)[keep])

    def failures(self, name: str) -> Iterator[tuple[str, str]]:
        """Paths of a shard that have no embedding, each with its reason."""
        with self._open(name) as file:
            for batch in file.iter_batches(READ_ROWS, columns=["path", "path_bytes", "error"]):
                errors = batch.column("error").to_pylist()
                yield from ((path, error) for path, error in zip(_paths(batch), errors, strict=True) if error)

    def _open(self, name: str) -> Any:
        pa, pq = arrow()
        try:
            return pq.ParquetFile(self.storage.open(name))
        except pa.ArrowInvalid as error:
            fact = f"{self.storage.url}/{name} is no parquet file"
            raise IndexDamaged(fact, hint="delete it and run clipkit index --engine ray again") from error


def shard_name(number: int, paths: Sequence[str]) -> str:
    """The name of the shard that holds these pictures, in this order: the same pictures, the same name."""
    content = "\0".join(paths).encode("utf-8", "surrogateescape")
    return f"part-{number:06d}-{hashlib.sha256(content).hexdigest()[:12]}{SUFFIX}"


def shard_bytes(rows: Sequence[Row], dim: int) -> bytes:
    """A shard as a parquet file; embeddings are float16, those of failed pictures null."""
    pa, pq = arrow()
    whole = np.zeros((len(rows), dim), np.float16)
    for i, row in enumerate(rows):
        if row.embedding is not None:
            whole[i] = row.embedding
    missing = pa.array([row.embedding is None for row in rows], pa.bool_())
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), dim, mask=missing)
    odd = [None if _is_utf8(row.path) else row.path.encode("utf-8", "surrogateescape") for row in rows]
    table = pa.table(
        {
            "path": pa.array([row.path.encode("utf-8", "backslashreplace").decode() for row in rows], pa.string()),
            "path_bytes": pa.array(odd, pa.binary()),
            "sha256": pa.array([row.sha256 for row in rows], pa.binary(32)),
            "width": pa.array([row.width for row in rows], pa.int32()),
            "height": pa.array([row.height for row in rows], pa.int32()),
            "taken_at": pa.array([row.taken_at for row in rows], pa.string()),
            "error": pa.array([row.error for row in rows], pa.string()),
            "embedding": vectors,
        }
    )
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", row_group_size=READ_ROWS)
    return stream.getvalue()


def write_manifest(storage: Storage, manifest: Manifest) -> None:
    """Write `clipkit.json`."""
    storage.write(ABOUT, json.dumps(asdict(manifest), indent=1).encode())


def embeddings_of(batch: Any, dim: int) -> Embeddings:
    """The column `embedding` of an Arrow batch or table as float32 (n, dim); a null row is zeros."""
    column = batch.column("embedding")
    flat = (column.combine_chunks() if hasattr(column, "combine_chunks") else column).values
    start = getattr(column, "offset", 0) * dim
    return np.asarray(flat)[start : start + len(column) * dim].reshape(-1, dim).astype(np.float32)


def _read_manifest(storage: Storage) -> Manifest:
    hint = "make them with: clipkit index SOURCE --engine ray --out OUT"
    try:
        said = json.loads(storage.read(ABOUT))
        return Manifest(**{field.name: said[field.name] for field in fields(Manifest) if field.name in said})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClipkitError(f"{storage.url} holds no shards of clipkit", hint=hint) from error
    except (ValueError, TypeError) as error:
        raise ClipkitError(f"{storage.url}/{ABOUT} is not of shards: {error}", hint=hint) from error


def _entries(batch: Any, keep: np.ndarray[Any, Any]) -> list[Entry]:
    facts = [batch.column(name).to_pylist() for name in ("sha256", "width", "height", "taken_at")]
    rows = zip(keep.tolist(), _paths(batch), *facts, strict=True)
    return [Entry(*row) for is_kept, *row in rows if is_kept]


def _paths(batch: Any) -> list[str]:
    odd = batch.column("path_bytes").to_pylist()
    shown = batch.column("path").to_pylist()
    return [
        path if raw is None else raw.decode("utf-8", "surrogateescape") for path, raw in zip(shown, odd, strict=True)
    ]


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
