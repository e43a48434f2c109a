"""Arrow tables: pyarrow, loaded when it is needed, and the rows of parquet and Arrow files in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".parquet", ".arrow")
BLOCK_ROWS = 256  # pictures at a time


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa, pq


def read_schema(file: Path) -> Any:
    """The pyarrow schema of a parquet or Arrow file, its metadata too; OSError or ValueError where it is none."""
    pa, pq = arrow()
    if file.suffix == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as stream:
        return _reader(stream).schema


def read_blocks(file: Path, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Those columns, some rows at a time, as Python values; errors as `read_schema`."""
    pa, pq = arrow()
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=BLOCK_ROWS, columns=columns):
                yield batch.to_pydict()
        return
    with pa.memory_map(str(file)) as stream:
        for batch in _batches(_reader(stream)):
            for start in range(0, batch.num_rows, BLOCK_ROWS):
                yield batch.select(columns).slice(start, BLOCK_ROWS).to_pydict()


def _reader(stream: Any) -> Any:
    """Arrow's stream, which `datasets` writes, or its file format."""
    from pyarrow import ipc

    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    return ipc.open_file(stream) if is_file else ipc.open_stream(stream)


def _batches(reader: Any) -> Iterator[Any]:
    if not hasattr(reader, "num_record_batches"):
        yield from reader
        return
    for i in range(reader.num_record_batches):
        yield reader.get_batch(i)
