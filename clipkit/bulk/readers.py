"""Readers of sources: pictures in folders, buckets, webdataset tars and parquet tables, listed and read by place."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from clipkit.bulk.places import ABOUT, PART
from clipkit.bulk.storage import Storage, is_pattern
from clipkit.core.arrow import arrow
from clipkit.errors import ClipkitError, ImageError
from clipkit.images.decode import MAX_FILE_BYTES, read_file
from clipkit.images.formats import can_read_raw, is_picture, is_raw
from clipkit.images.recipe import Metadata
from clipkit.index.scan import find_images
from clipkit.index.sidecars import read_sidecar

TAR, TABLE = ".tar", ".parquet"
PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
NAMES = ("path", "image_path", "file_name", "filename", "url", "__key__", "key", "id")  # columns that name a picture
PICTURES = ("image", "bytes", "jpg", "jpeg", "png", "webp", "img", "picture", "content")  # columns that hold one


class Member(NamedTuple):
    """A picture inside a tar: `size` bytes from `offset`."""

    file: str
    offset: int
    size: int


class Cell(NamedTuple):
    """A picture inside a parquet file: a row of a row group; inner: the field of a struct that holds the bytes."""

    file: str
    group: int
    row: int
    column: str
    inner: str | None


class Item(NamedTuple):
    """A picture of a source, or what is known to be none.

    path: below the source, its name in shards. place: where its bytes are, if they are no file of that path; a text is
    a path or URL of its own. sidecar: whether an XMP file lies beside it. error: why it cannot be read.
    """

    path: str
    size: int = 0
    place: Member | Cell | str | None = None
    sidecar: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Source:
    """Pictures that lie somewhere, sorted by name, each name once. left_out: files that are no pictures, and RAWs."""

    storage: Storage
    items: list[Item] = field(repr=False)
    left_out: int = 0

    @property
    def url(self) -> str:
        """As the manifest has it."""
        return self.storage.url


def list_source(url: str) -> Source:
    """All pictures of a folder, a URL, tars (one, several by `*`, or those of a folder) or parquet tables.

    Raises ClipkitError where nothing can be listed. A tar that cannot be read is one item with an error.
    """
    _refuse(url)
    try:
        found = _listed(url)
    except OSError as error:
        hint = "are its name, region and credentials right, here and on the workers?"
        raise ClipkitError(f"cannot list {url}: {error.strerror or error}", hint=hint) from error
    by_path = {item.path: item for item in found.items}  # of two members of a tar with one name the last counts
    return replace(found, items=[by_path[path] for path in sorted(by_path)])


def read_item(storage: Storage, item: Item) -> bytes:
    """The bytes of a picture. ImageError where it cannot be had at all, OSError where the bucket does not answer."""
    if item.error is not None:
        raise ImageError(item.error)
    if item.size > MAX_FILE_BYTES:
        raise ImageError(f"{item.size:,} bytes are more than {MAX_FILE_BYTES:,}")
    place = item.place
    try:
        if isinstance(place, Member):
            return storage.read(place.file, place.offset, place.offset + place.size)
        if isinstance(place, Cell):
            return _cell(storage, place)
        if isinstance(place, str) and "://" in place:
            return _fetched(place)
        if storage.is_local:
            file = os.path.join(storage.path, item.path if place is None else place)
            return _local(file)
        return storage.read(item.path if place is None else place)
    except (FileNotFoundError, PermissionError) as error:
        raise ImageError(_reason(error)) from error


def read_beside(storage: Storage, item: Item) -> Metadata | None:
    """What the XMP file beside a picture says; None where there is none."""
    return read_sidecar(os.path.join(storage.path, item.path)) if item.sidecar else None


def _refuse(url: str) -> None:
    protocol = url.partition("://")[0] if "://" in url else ""
    if protocol in ("http", "https") and not url.endswith((TAR, TABLE)):
        hint = "a parquet table with a column of these URLs, or the URL of a tar"
        raise ClipkitError(f"{url} cannot be listed: a web server says not what lies on it", hint=hint)
    if protocol == "memory":
        raise ClipkitError(f"{url} is memory of one process, which workers do not see", hint="a folder or a bucket")
    if url.endswith(PACKED):
        raise ClipkitError(f"{url} is compressed: nothing in it can be read by its place", hint="unpack it to a .tar")


def _listed(url: str) -> Source:
    if is_pattern(url):
        return _matched(url)
    storage = Storage(url)
    if url.endswith((TAR, TABLE)) and storage.is_file():
        above, _, name = storage.url.rpartition("/")
        return _opened(Storage(above or "/"), [name])
    if storage.is_local:
        return _folder(storage)
    files = storage.walk()
    pictures = [path for path in files if is_picture(path) and (can_read_raw() or not is_raw(path))]
    items = [Item(path, files[path]) for path in pictures]
    return _with_containers(storage, items, list(files), len(files) - len(items))


def _folder(storage: Storage) -> Source:
    """A folder of this machine: the same pictures as `clipkit index` takes."""
    scan = find_images(storage.path)
    items = [Item(found.path, found.size_bytes, sidecar=bool(found.sidecar)) for found in scan.found]
    items += [Item(failure.path, error=failure.reason) for failure in scan.unreadable]
    has_more = any(scan.skipped[suffix] for suffix in (TAR, TABLE))
    files = list(storage.walk()) if has_more else []
    return _with_containers(storage, items, files, scan.skipped.total() + len(scan.unread_raws))


def _with_containers(storage: Storage, items: list[Item], files: list[str], left_out: int) -> Source:
    """With what lies in tars; tables are opened where there is nothing else, for they may be about the pictures."""
    tars = [path for path in files if path.endswith(TAR)]
    of_tables = [] if items or tars else [path for path in files if path.endswith(TABLE)]
    tables = [path for path in of_tables if not _is_shard(path, files)]
    inside = _opened(storage, tars + tables)
    return Source(storage, items + inside.items, max(0, left_out - len(tars) - len(tables)))


def _is_shard(path: str, files: list[str]) -> bool:
    """Whether a table is a shard of embeddings: OUT may lie in the source."""
    above, slash, name = path.rpartition("/")
    return name.startswith(PART) and f"{above}{slash}{ABOUT}" in files


def _matched(url: str) -> Source:
    files = [path for path in Storage(url).matches() if path.endswith((TAR, TABLE)) or is_picture(path)]
    if not files:
        raise ClipkitError(f"{url} matches no tar, no parquet table and no picture", hint="quotes around the pattern")
    above = os.path.commonpath([path.rpartition("/")[0] for path in files])
    if "://" in url:  # commonpath takes the two slashes for one
        above = above.replace(":/", "://", 1)
    storage, names = Storage(above), [path[len(above) :].lstrip("/") for path in files]
    pictures = [Item(name) for name in names if is_picture(name)]
    return replace(found := _opened(storage, names), items=pictures + found.items)


def _opened(storage: Storage, files: list[str]) -> Source:
    items: list[Item] = []
    for file in files:
        if file.endswith(TAR):
            items += _members(storage, file)
        elif file.endswith(TABLE):
            items += _rows(storage, file)
    return Source(storage, items)


def _members(storage: Storage, file: str) -> Iterator[Item]:
    """The pictures of a tar, and an item with an error where it is cut off or none."""
    try:
        with storage.open(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.isreg() and is_picture(member.name):
                    place = Member(file, member.offset_data, member.size)
                    yield Item(f"{file}/{member.name.removeprefix('./')}", member.size, place)
    except tarfile.TarError as error:
        yield Item(file, error=f"the tar cannot be read to its end: {error}")
    except OSError as error:
        if not storage.is_local:
            raise  # the bucket does not answer: that is no fault of the tar
        yield Item(file, error=error.strerror or str(error))


def _rows(storage: Storage, file: str) -> Iterator[Item]:
    """The pictures of a parquet table: those in a column of bytes, or where a column of paths says."""
    pa, pq = arrow()
    try:
        table = pq.ParquetFile(storage.open(file))
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        yield Item(file, error=f"no parquet table: {str(error).partition(chr(10))[0]}")
        return
    with table:
        column, inner = _picture_column(table.schema_arrow)
        naming = _name_column(table.schema_arrow)
        if column is None and naming is None:
            columns = ", ".join(table.schema_arrow.names)
            hint = "call it image, for bytes, or path, for paths and URLs"
            raise ClipkitError(f"{file} has no column of pictures among {columns}", hint=hint)
        if column is None:
            yield from _paths(table, str(naming))
            return
        names = _unique_names(table, naming)
        number = 0
        for group in range(table.num_row_groups):
            for row in range(table.metadata.row_group(group).num_rows):
                name = names[number] if names else f"{number:09d}"
                yield Item(f"{file}/{name}", place=Cell(file, group, row, column, inner))
                number += 1


def _picture_column(schema: Any) -> tuple[str | None, str | None]:
    """The column that holds pictures, and the field of it where it is a struct, as `datasets` writes them."""
    pa, _ = arrow()

    def holds(kind: Any) -> tuple[bool, str | None]:
        if pa.types.is_struct(kind):
            inner = next((one.name for one in kind if one.name == "bytes" and _is_binary(one.type)), None)
            return inner is not None, inner
        return _is_binary(kind), None

    found = {one.name: holds(one.type)[1] for one in schema if holds(one.type)[0]}
    named = [name for name in PICTURES if name in found]
    column = named[0] if named else next(iter(found)) if len(found) == 1 else None
    return column, found.get(column) if column else None


def _name_column(schema: Any) -> str | None:
    pa, _ = arrow()
    kinds = {one.name: one.type for one in schema}
    return next((n for n in NAMES if n in kinds and (pa.types.is_string(kinds[n]) or _is_large(kinds[n]))), None)


def _is_large(kind: Any) -> bool:
    pa, _ = arrow()
    return bool(pa.types.is_large_string(kind))


def _is_binary(kind: Any) -> bool:
    pa, _ = arrow()
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _unique_names(table: Any, column: str | None) -> list[str]:
    """What a column calls the rows, if it calls each by a name of its own; else nothing, and rows are numbered."""
    if column is None:
        return []
    names = table.read(columns=[column]).column(column).to_pylist()
    return names if all(names) and len(set(names)) == len(names) else []


def _paths(table: Any, column: str) -> Iterator[Item]:
    for batch in table.iter_batches(columns=[column]):
        for path in batch.column(column).to_pylist():
            if path:
                yield Item(path, place=path)


def _cell(storage: Storage, cell: Cell) -> bytes:
    value = _column(storage.url, cell.file, cell.group, cell.column)[cell.row].as_py()
    data = value.get(cell.inner) if cell.inner and value is not None else value
    if data is None:
        raise ImageError("the row has no picture")
    return bytes(data)


@lru_cache(maxsize=1)
def _column(url: str, file: str, group: int, column: str) -> Any:
    """A column of a row group: the pictures of a chunk follow each other."""
    _, pq = arrow()
    with Storage(url).open(file) as stream, pq.ParquetFile(stream) as table:
        return table.read_row_group(group, columns=[column]).column(column)


def _fetched(url: str) -> bytes:
    """A picture with a URL of its own. A web server that does not answer costs its pictures; a bucket has them all."""
    try:
        return Storage(url).read("")
    except OSError as error:
        if not url.startswith(("http://", "https://")):
            raise
        raise ImageError(_reason(error)) from error


def _reason(error: OSError) -> str:
    return error.strerror or ("not found" if isinstance(error, FileNotFoundError) else str(error))


def _local(file: str) -> bytes:
    try:
        return read_file(file)
    except ImageError as error:
        raise ImageError(error.message.removeprefix(f"{file}: ")) from error
