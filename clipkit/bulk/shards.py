"""Shards of embeddings: parquet files beside one `clipkit.json`, which the cluster writes and all else reads."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.bulk.places import ABOUT, LAYOUT
from clipkit.bulk.storage import Storage
from clipkit.core.arrays import Embeddings
from clipkit.core.arrow import arrow
from clipkit.core.text import counted, described
from clipkit.errors import ClipkitError, IndexDamaged
from clipkit.index.vector_files import Entry, Piece
from clipkit.search.vectors import Half
from clipkit.store.columns import Mask
from clipkit.store.schema import NORM_TOLERANCE

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".parquet"
READ_ROWS = 8192  # rows in memory at a time
_FACTS = ("path", "path_bytes", "sha256", "width", "height", "taken_at")
_AGAIN = "clipkit index SOURCE --engine ray --out OUT"


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


@dataclass(frozen=True)
class Block:
    """Rows of a shard. start: place of the first in it. embeddings: float16 (n, d), zeros where there is none.

    is_embedded (n,): no error. is_unit (n,): and the embedding has length 1, without which it never answers. batch:
    the columns that were asked for, as Arrow has them.
    """

    start: int
    embeddings: Half
    is_embedded: Mask
    is_unit: Mask
    batch: Any


class Shards:
    """A folder or URL of shards: embeddings of pictures in parquet files, as `clipkit index --engine ray` writes them.

    `len(shards)` is the number of their rows, those of pictures that failed too.

    Parameters
    ----------
    url : str or Path
        A folder, or a URL that fsspec knows (`s3://bucket/out`).

    Attributes
    ----------
    storage : Storage
        Where they lie.
    manifest : Manifest
        What made them: `clipkit.json`.

    Raises
    ------
    ClipkitError
        If there is no `clipkit.json`, or it is none of shards.

    Examples
    --------
    >>> from clipkit.bulk import Shards
    >>> shards = Shards("shards")
    >>> len(shards), shards.manifest.model
    (4, 'starter')
    """

    def __init__(self, url: str | Path) -> None:
        self.storage = Storage(url)
        self.manifest = _read_manifest(self.storage)

    def __len__(self) -> int:
        return sum(self.count(name) for name in self.names)

    def __repr__(self) -> str:
        return described(self, repr(self.storage.url), counted(len(self.names), "shard"), self.manifest.model)

    @property
    def names(self) -> list[str]:
        """Names of the shards that are there, in order; each is whole."""
        return self.storage.names(SUFFIX)

    def count(self, name: str) -> int:
        """Rows of a shard, those with an error too; the footer is read, no more."""
        with self._opened(name) as file:
            return int(file.metadata.num_rows)

    def stamp(self, name: str) -> str:
        """What tells the content of a shard from any other under its name: a hash of the footer, which is all it reads.

        The footer has the sizes and the least and greatest values of every column, of checksums too.
        """
        with self.storage.open(name) as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 8))
            tail = stream.read(8)  # the length of the footer, and what ends a parquet file
            if tail[4:] != b"PAR1":
                raise IndexDamaged(f"{self.storage.url}/{name} is no whole shard", hint=f"delete it, then run {_AGAIN}")
            stream.seek(max(0, size - 8 - int.from_bytes(tail[:4], "little")))
            return hashlib.sha256(stream.read()).hexdigest()[:16]

    def pieces(self, name: str) -> Iterator[Piece]:
        """Pictures of a shard that have an embedding, float32 of length 1 within float16, some rows at a time.

        Raises IndexDamaged for an embedding that has another length, or a NaN.
        """
        for block in self.blocks(name, [*_FACTS, "embedding"]):
            wrong = np.flatnonzero(block.is_embedded & ~block.is_unit)
            if wrong.size:
                path = _paths(block.batch)[wrong[0]]
                length = np.linalg.norm(block.embeddings[wrong[0]].astype(np.float32))
                fact = f"{self.storage.url}/{name}: the embedding of {path!r} has length {length:.4g}, not 1"
                raise IndexDamaged(fact, hint=f"delete that shard, then run {_AGAIN}")
            keep = block.is_embedded
            yield Piece(_entries(block.batch, keep), block.embeddings[keep].astype(np.float32))

    def failures(self, name: str) -> Iterator[tuple[str, str]]:
        """Paths of a shard that have no embedding, each with its reason."""
        for batch in self._batches(name, ["path", "path_bytes", "error"]):
            errors = batch.column("error").to_pylist()
            yield from ((path, error) for path, error in zip(_paths(batch), errors, strict=True) if error)

    def blocks(self, name: str, columns: Sequence[str] = ("embedding",)) -> Iterator[Block]:
        """A shard in blocks of at most 8,192 rows, with these columns and `error`; all rows, also those that failed."""
        start, dim = 0, self.manifest.dim
        for batch in self._batches(name, [*columns, "error"]):
            kind = batch.schema.field("embedding").type
            if getattr(kind, "list_size", None) != dim:
                fact = f"{self.storage.url}/{name} has embeddings of type {kind}, not of {dim} values as {ABOUT} says"
                raise IndexDamaged(fact, hint=f"delete that shard, then run {_AGAIN}")
            rows = _half_rows(batch, dim)
            is_embedded = np.asarray(batch.column("error").is_null())
            yield Block(start, rows, is_embedded, is_embedded & has_unit_length(rows), batch)
            start += len(rows)

    def paths(self, name: str, rows: Sequence[int]) -> list[str]:
        """Paths of some rows of a shard, by their places in it."""
        chunks = [_paths(batch) for batch in self._batches(name, ["path", "path_bytes"])]
        every = list(chain.from_iterable(chunks))
        return [every[row] for row in rows]

    def to_frame(self, name: str) -> pd.DataFrame:
        """A shard as a pandas table, without its embeddings.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        pandas.DataFrame
            With the columns path (escaped where it is no UTF-8), sha256 (hex), width, height, taken_at and error.

        Examples
        --------
        >>> from clipkit.bulk import Shards
        >>> shards = Shards("shards")
        >>> shards.to_frame(shards.names[0])[["path", "width"]].head(2)
                    path  width
        0  astronaut.png    512
        1    chelsea.png    451
        """
        import pandas as pd

        rows: list[tuple[object, ...]] = []
        for batch in self._batches(name, ["path", "sha256", "width", "height", "taken_at", "error"]):
            sums = [value.hex() if value else None for value in batch.column("sha256").to_pylist()]
            others = (batch.column(column).to_pylist() for column in ("width", "height", "taken_at", "error"))
            rows += zip(batch.column("path").to_pylist(), sums, *others, strict=True)
        return pd.DataFrame(rows, columns=["path", "sha256", "width", "height", "taken_at", "error"])

    def _batches(self, name: str, columns: Sequence[str]) -> Iterator[Any]:
        with self._opened(name) as file:
            yield from file.iter_batches(READ_ROWS, columns=list(columns))

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        """IndexDamaged where it is no parquet file, or a part of one, also while it is read."""
        pa, pq = arrow()
        try:
            with self.storage.open(name) as stream, pq.ParquetFile(stream) as file:
                yield file
        except (pa.ArrowException, KeyError, OSError) as error:  # KeyError: a column is missing
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk; Arrow's own, for a damaged page, have no number
            first = str(error).partition("\n")[0].rstrip(".")
            fact = f"{self.storage.url}/{name} is no whole shard: {first}"
            raise IndexDamaged(fact, hint=f"delete it, then run {_AGAIN}") from error


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
    # A dictionary of float16 values, or of paths, is read four times as slowly, and saves nothing.
    pq.write_table(table, stream, compression="zstd", row_group_size=READ_ROWS, use_dictionary=["taken_at", "error"])
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


def has_unit_length(rows: Half) -> Mask:
    """Which rows (n, d) have length 1, as far as float16 keeps it; a NaN has none."""
    wide = rows.astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    return np.asarray(np.abs(lengths - 1) <= NORM_TOLERANCE)


def _half_rows(batch: Any, dim: int) -> Half:
    """The column `embedding` of an Arrow batch as float16 (n, dim), without a copy; a null row is zeros."""
    column = batch.column("embedding")
    flat = np.asarray(column.values)[column.offset * dim : (column.offset + len(column)) * dim]
    rows: Half = flat.reshape(-1, dim)
    return rows if rows.dtype == np.float16 else rows.astype(np.float16)


def _read_manifest(storage: Storage) -> Manifest:
    hint = f"make them with: {_AGAIN}"
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
