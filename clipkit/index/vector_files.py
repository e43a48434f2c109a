"""Vectors and names as other tools keep them: clip-retrieval, a parquet table, npy with names, Lance, Qdrant."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipkit.core.arrow import arrow
from clipkit.core.files import sync_file, synced
from clipkit.core.lance_tables import lance, write_table
from clipkit.errors import ClipkitError

LAYOUTS = ("clip-retrieval", "parquet", "npy", "lance", "qdrant")
SHARD_ROWS = 100_000  # 100 MB of float16 at 512 dimensions
READ_ROWS = 8192
ABOUT = "clipkit.json"  # what made the vectors; other tools' folders have none
TABLE, MATRIX, NAMES = "embeddings.parquet", "embeddings.npy", "paths.txt"
LANCE = "pictures.lance"
VECTORS, PAYLOAD, IDS = "vectors.npy", "payload.jsonl", "ids.txt"  # as QdrantClient.upload_collection takes them
POINTS = uuid.UUID("5b0a4a3e-3c0b-5c53-9a55-0c8f5a6a1d10")  # the namespace of ids: one path, one point

FloatRows = npt.NDArray[np.floating[Any]]  # (n, d), of the width that the disk has


class Entry(NamedTuple):
    """What is known of a picture beside its vector. path: as it was found, `/` between names, surrogateescape."""

    path: str
    sha256: bytes | None = None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None


@dataclass(frozen=True)
class Piece:
    """Some pictures and their vectors: embeddings[i] belongs to entries[i]."""

    entries: list[Entry]
    embeddings: FloatRows


@dataclass(frozen=True)
class Source:
    """What was found at a place, not read yet.

    about: what made the vectors, where that is said: model, weights_sha256, pixel_recipe, count. pieces: reads all of
    it, as often as it is called, in pieces that fit into memory; raises ClipkitError where the files do not agree.
    """

    layout: str
    about: Mapping[str, object]
    pieces: Callable[[], Iterator[Piece]]


def write_layout(
    folder: Path, layout: str, pieces: Iterable[Piece], *, count: int, dim: int, about: Mapping[str, object]
) -> None:
    """Write `count` pictures into an empty folder, synced. Raises OSError; ClipkitError for a name that does not fit.

    Names that are not UTF-8 stand escaped in parquet, with their bytes in the column `path_bytes`.
    """
    pieces = _counted(pieces, count)
    if layout == "clip-retrieval":
        _write_shards(folder, pieces, count, dim)
    elif layout == "parquet":
        _write_table(folder / TABLE, pieces, str(about["model"]))
    elif layout == "npy":
        with _npy_writer(folder / MATRIX, (count, dim), "<f4") as write_rows, synced(folder / NAMES) as names:
            for piece in pieces:
                write_rows(piece.embeddings)
                names.write(b"".join(_line(entry.path) for entry in piece.entries))
    elif layout == "lance":
        _write_lance(folder / LANCE, pieces, dim)
    elif layout == "qdrant":
        _write_points(folder, pieces, count, dim)
    else:
        raise ClipkitError(f"no layout is called {layout}", hint=f"one of {', '.join(LAYOUTS)}")
    with synced(folder / ABOUT) as stream:
        stream.write(json.dumps({**about, "layout": layout, "count": count}, indent=1).encode())


def open_layout(place: Path) -> Source:
    """What lies at `place`, a folder or a parquet file; ClipkitError if it is none of LAYOUTS."""
    if place.is_file() and place.suffix == ".parquet":
        return Source("parquet", {}, lambda: _read_table(place))
    about = _read_about(place / ABOUT)
    if (place / "img_emb").is_dir():
        return Source("clip-retrieval", about, lambda: _read_shards(place))
    if (place / TABLE).is_file():
        return Source("parquet", about, lambda: _read_table(place / TABLE))
    if (place / MATRIX).is_file():
        return Source("npy", about, lambda: _read_npy_and_names(place))
    if (place / LANCE).is_dir():
        return Source("lance", about, lambda: _read_lance(place / LANCE))
    if (place / PAYLOAD).is_file():
        return Source("qdrant", about, lambda: _read_points(place))
    fact = "holds no vectors that clipkit can read" if place.exists() else "is not there"
    raise ClipkitError(f"{place} {fact}", hint=f"a folder with img_emb/ and metadata/, {TABLE}, or {MATRIX} + {NAMES}")


def _write_shards(folder: Path, pieces: Iterable[Piece], count: int, dim: int) -> None:
    (folder / "img_emb").mkdir()
    (folder / "metadata").mkdir()
    starts = range(0, max(count, 1), SHARD_ROWS)
    digits = len(str(len(starts)))  # as clip-retrieval pads: 9 shards are 0 to 8, 10 are 00 to 09
    rest = _cut(pieces, SHARD_ROWS)
    for number, start in enumerate(starts):
        name, size = f"{number:0{digits}}", min(SHARD_ROWS, count - start)
        with (
            _npy_writer(folder / "img_emb" / f"img_emb_{name}.npy", (size, dim), "<f2") as write_rows,
            _parquet_writer(folder / "metadata" / f"metadata_{name}.parquet", "image_path") as write_facts,
        ):
            done = 0
            while done < size:
                piece = next(rest)
                write_rows(piece.embeddings)
                write_facts(piece, {})
                done += len(piece.entries)
    for _ in rest:  # nothing is left, and to ask for it is what lets `pieces` say that it is complete
        pass


def _write_table(file: Path, pieces: Iterable[Piece], model: str) -> None:
    with _parquet_writer(file, "path", embeddings=True) as write:
        for piece in pieces:
            write(piece, {"model": [model] * len(piece.entries)})


def _write_lance(place: Path, pieces: Iterable[Piece], dim: int) -> None:
    pa, _ = arrow()
    schema = pa.schema({**_fact_kinds("path"), "embedding": pa.list_(pa.float16(), dim)})

    def batches() -> Iterator[Any]:
        for piece in pieces:
            values = pa.array(piece.embeddings.astype(np.float16).ravel())
            columns = {**_facts(piece, "path"), "embedding": pa.FixedSizeListArray.from_arrays(values, dim)}
            table = pa.table(columns).select(schema.names).cast(schema)
            yield from table.to_batches()

    write_table(str(place), batches(), schema)
    for file in place.rglob("*"):
        if file.is_file():
            sync_file(file)


def _write_points(folder: Path, pieces: Iterable[Piece], count: int, dim: int) -> None:
    with (
        _npy_writer(folder / VECTORS, (count, dim), "<f4") as write_rows,
        synced(folder / PAYLOAD) as payload,
        synced(folder / IDS) as ids,
    ):
        for piece in pieces:
            write_rows(piece.embeddings)
            columns = _facts(piece, "path")
            columns["path_bytes"] = [raw.hex() if raw else None for raw in columns["path_bytes"]]
            for values in zip(*columns.values(), strict=True):
                point = {name: value for name, value in zip(columns, values, strict=True) if value is not None}
                payload.write(json.dumps(point).encode() + b"\n")
            ids.write(b"".join(_point_id(entry.path) for entry in piece.entries))


def _point_id(path: str) -> bytes:
    """A UUID of the path, by its bytes, as uuid5 makes it, and a line break."""
    digest = hashlib.sha1(POINTS.bytes + os.fsencode(path), usedforsecurity=False).digest()
    return f"{uuid.UUID(bytes=digest[:16], version=5)}\n".encode()


def _counted(pieces: Iterable[Piece], count: int) -> Iterator[Piece]:
    total = 0
    for piece in pieces:
        total += len(piece.entries)
        yield piece
    if total != count:
        raise ClipkitError(f"{total:,} pictures came where {count:,} were announced", hint="export again")


def _cut(pieces: Iterable[Piece], limit: int) -> Iterator[Piece]:
    """The same rows in pieces that end wherever `limit` rows are full."""
    room = limit
    for piece in pieces:
        start = 0
        while start < len(piece.entries):
            end = min(start + room, len(piece.entries))
            yield Piece(piece.entries[start:end], piece.embeddings[start:end])
            room = room - (end - start) or limit
            start = end


@contextmanager
def _npy_writer(file: Path, shape: tuple[int, int], dtype: str) -> Iterator[Callable[[FloatRows], object]]:
    # Not a memory map: on a full disk that kills the process.
    with synced(file) as stream:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        yield lambda rows: stream.write(rows.astype(dtype).tobytes())


@contextmanager
def _parquet_writer(
    file: Path, path_column: str, *, embeddings: bool = False
) -> Iterator[Callable[[Piece, Mapping[str, list[str]]], None]]:
    pa, pq = arrow()
    kinds = _fact_kinds(path_column)
    kinds |= {"model": pa.string(), "embedding": pa.list_(pa.float32())} if embeddings else {}

    def write(piece: Piece, more: Mapping[str, list[str]]) -> None:
        columns: dict[str, Any] = {**_facts(piece, path_column), **more}
        if embeddings:
            n, dim = piece.embeddings.shape
            offsets = np.arange(0, (n + 1) * dim, dim, dtype=np.int32)
            columns["embedding"] = pa.ListArray.from_arrays(offsets, piece.embeddings.astype("<f4").ravel())
        writer.write_table(pa.table(columns).select(list(kinds)).cast(schema))

    schema = pa.schema(kinds)
    with synced(file) as stream, pq.ParquetWriter(stream, schema) as writer:
        yield write


def _fact_kinds(path_column: str) -> dict[str, Any]:
    """Columns beside the vectors, and what Arrow calls their types."""
    pa, _ = arrow()
    kinds = {path_column: pa.string(), "path_bytes": pa.binary()}
    return {**kinds, "width": pa.int32(), "height": pa.int32(), "taken_at": pa.string(), "sha256": pa.string()}


def _facts(piece: Piece, path_column: str) -> dict[str, Any]:
    """These columns of a piece."""
    return {
        path_column: [entry.path.encode(errors="backslashreplace").decode() for entry in piece.entries],
        "path_bytes": [None if _is_utf8(entry.path) else os.fsencode(entry.path) for entry in piece.entries],
        "sha256": [entry.sha256.hex() if entry.sha256 else None for entry in piece.entries],
        **{name: [getattr(entry, name) for entry in piece.entries] for name in ("width", "height", "taken_at")},
    }


def _line(path: str) -> bytes:
    if "\n" in path or "\r" in path:
        raise ClipkitError(f"{path!r} has a line break in its name, which {NAMES} cannot hold", hint="--layout parquet")
    return os.fsencode(path) + b"\n"


def _is_utf8(path: str) -> bool:
    return path.isascii() or not any(0xDC80 <= ord(char) <= 0xDCFF for char in path)


def _read_about(file: Path) -> Mapping[str, object]:
    if not file.exists():
        return {}
    try:
        about = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ClipkitError(f"{file} cannot be read: {error}") from error
    return about if isinstance(about, dict) else {}


def _read_shards(folder: Path) -> Iterator[Piece]:
    vectors = {file.stem.removeprefix("img_emb_"): file for file in folder.glob("img_emb/img_emb_*.npy")}
    tables = {file.stem.removeprefix("metadata_"): file for file in folder.glob("metadata/metadata_*.parquet")}
    if alone := vectors.keys() ^ tables.keys():
        raise ClipkitError(
            f"{folder}: shard {min(alone)} lacks its img_emb or its metadata file",
            hint="copy the folder again, img_emb and metadata alike",
        )
    for name in sorted(vectors, key=lambda name: (len(name), name)):
        with ExitStack() as stack:
            take = stack.enter_context(_npy_reader(vectors[name]))
            for batch in stack.enter_context(_batches(tables[name])):
                entries = _entries(batch, tables[name])
                yield Piece(entries, take(len(entries)))


def _read_table(file: Path) -> Iterator[Piece]:
    with _batches(file) as batches:
        for batch in batches:
            entries = _entries(batch, file)
            yield Piece(entries, _matrix(batch, file))


def _read_npy_and_names(folder: Path) -> Iterator[Piece]:
    try:
        names = (folder / NAMES).read_bytes().split(b"\n")
    except OSError as error:
        raise ClipkitError(f"{folder / NAMES} cannot be read: {error.strerror}") from error
    paths = iter(names[:-1] if names[-1] == b"" else names)
    with _npy_reader(folder / MATRIX) as take:
        while entries := [Entry(os.fsdecode(name)) for name in islice(paths, READ_ROWS)]:
            yield Piece(entries, take(len(entries)))


def _read_lance(place: Path) -> Iterator[Piece]:
    try:
        table = lance().dataset(str(place))
        wanted = {"path", *Entry._fields, "path_bytes", "embedding"}
        columns = [name for name in table.schema.names if name in wanted]
        for batch in table.to_batches(columns=columns, batch_size=READ_ROWS):
            yield Piece(_entries(batch, place), _matrix(batch, place))
    except ClipkitError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise ClipkitError(f"{place} cannot be read: {str(error).partition(chr(10))[0]}") from error


def _read_points(folder: Path) -> Iterator[Piece]:
    with _npy_reader(folder / VECTORS) as take, open(folder / PAYLOAD, "rb") as lines:
        while points := [_point(line, folder / PAYLOAD) for line in islice(lines, READ_ROWS)]:
            yield Piece(points, take(len(points)))


def _point(line: bytes, file: Path) -> Entry:
    try:
        said = json.loads(line)
        raw = said.get("path_bytes")
        path = os.fsdecode(bytes.fromhex(raw)) if raw else said["path"]
        return _entry(path, *(said.get(name) for name in Entry._fields[1:]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ClipkitError(f"{file} has a line that is no payload with a path: {line[:60]!r}") from error


@contextmanager
def _npy_reader(file: Path) -> Iterator[Callable[[int], FloatRows]]:
    """Takes the next rows; ClipkitError where there are not that many, or where some are left in the end."""
    try:
        with open(file, "rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(stream)
            if len(shape) != 2 or is_fortran or dtype.kind != "f":
                raise ClipkitError(
                    f"{file} holds {dtype} {shape}, not rows of floating point numbers",
                    hint="write an array (n, d) of float32 with numpy.save",
                )
            if os.fstat(stream.fileno()).st_size - stream.tell() != shape[0] * shape[1] * dtype.itemsize:
                raise ClipkitError(
                    f"{file} is damaged: it is not as long as {shape[0]} rows of {shape[1]} numbers",
                    hint="copy it again, or export again: clipkit export PHOTOS FOLDER",
                )
            left = shape[0]

            def take(count: int) -> FloatRows:
                nonlocal left
                left -= count
                rows = np.frombuffer(stream.read(count * shape[1] * dtype.itemsize), dtype) if left >= 0 else None
                if rows is None:
                    raise ClipkitError(
                        f"{file} has {shape[0]} vectors, and there are more names",
                        hint="one name a vector, in their order",
                    )
                return rows.reshape(count, shape[1])

            yield take
            if left:
                raise ClipkitError(
                    f"{file} has {shape[0]} vectors for {shape[0] - left} names",
                    hint="one name a vector, in their order",
                )
    except ClipkitError:  # some of ours are ValueErrors
        raise
    except (OSError, ValueError) as error:
        raise ClipkitError(f"{file} cannot be read: {error}") from error


@contextmanager
def _batches(file: Path) -> Iterator[Iterator[Any]]:
    _, pq = arrow()
    wanted = {"image_path", "path", *Entry._fields, "path_bytes", "embedding"}
    try:
        with pq.ParquetFile(file) as table:
            columns = [name for name in table.schema_arrow.names if name in wanted]
            yield table.iter_batches(batch_size=READ_ROWS, columns=columns)
    except ClipkitError:
        raise
    except (OSError, ValueError, TypeError) as error:  # Arrow's own errors derive from these
        raise ClipkitError(f"{file} cannot be read: {str(error).partition(chr(10))[0]}") from error


def _entries(batch: Any, file: Path) -> list[Entry]:
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names if name != "embedding"}
    names = columns.get("image_path") or columns.get("path") or []
    if len(names) != batch.num_rows or not all(isinstance(name, str) for name in names):
        raise ClipkitError(
            f"{file} has no column image_path or path that names every row", hint="call the column of paths image_path"
        )
    if "path_bytes" not in columns:  # not ours: its sha256, say, may be of the picture before it was made smaller
        return [Entry(name) for name in names]
    raw, *facts = (columns.get(name) or [None] * len(names) for name in ("path_bytes", *Entry._fields[1:]))
    paths = [name if data is None else os.fsdecode(data) for name, data in zip(names, raw, strict=True)]
    return [_entry(path, *rest) for path, *rest in zip(paths, *facts, strict=True)]


def _entry(path: str, sha256: object, width: object, height: object, taken_at: object) -> Entry:
    digest = bytes.fromhex(sha256) if isinstance(sha256, str) else None
    if digest is not None and len(digest) != 32:
        raise ValueError(f"{sha256!r} is no SHA-256")
    date = datetime.fromisoformat(taken_at).isoformat() if isinstance(taken_at, str) else None
    return Entry(path, digest, _side(width), _side(height), date)


def _side(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 2**31 else None


def _matrix(batch: Any, file: Path) -> FloatRows:
    column: Any = batch.column("embedding") if "embedding" in batch.schema.names else None
    if not hasattr(column, "value_lengths"):
        raise ClipkitError(
            f"{file} has no column embedding that holds lists of numbers", hint="call the column of vectors embedding"
        )
    widths = column.value_lengths().unique().to_pylist() or [0]
    values = column.flatten().to_numpy(zero_copy_only=False)
    if len(widths) != 1 or widths[0] is None:
        raise ClipkitError(f"{file} has embeddings of different widths", hint="vectors of one model in one table")
    if values.dtype.kind != "f":
        raise ClipkitError(f"{file} has embeddings that are no floating point numbers", hint="write them as float32")
    return np.asarray(values.reshape(len(column), widths[0]))
