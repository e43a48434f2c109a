"""Rows of the index database as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class FileStamp(NamedTuple):
    """What a stat says of a file: while it is the same, so is the file."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def agrees(self, other: FileStamp) -> bool:
        """Whether both are of one content, as far as a stat can tell.

        The inode is left out: FAT, exFAT, sshfs and other file systems number their files anew at every mount, and a
        file that replaced another has another ctime.
        """
        return self[:3] == other[:3]


class ScannedFile(NamedTuple):
    """A file that the scan met. path: relative to the root, `/` between names, surrogateescape for odd bytes."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def stamp(self) -> FileStamp:
        """Its stamp as it is now."""
        return FileStamp(self.size_bytes, self.mtime_ns, self.ctime_ns, self.inode)


class Known(NamedTuple):
    """What the index remembers of a file: its stamp when it was last read, and how that went."""

    id: int
    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: bytes | None
    state: str  # "ok" | "missing" | "failed"; replaced rows are not among them
    is_embedded: bool

    @property
    def stamp(self) -> FileStamp:
        """Its stamp when it was last read."""
        return FileStamp(self.size_bytes, self.mtime_ns, self.ctime_ns, self.inode)


@dataclass(frozen=True)
class PictureRow:
    """A picture as the index will hold it.

    share: of its rows that the file has, less than 1 for a JPEG that was cut off; None where nobody looked. embedding:
    float16 bytes, or None where reading failed.
    """

    found: ScannedFile
    sha256: bytes | None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    share: float | None = None
    error: str | None = None
    embedding: bytes | None = None


@dataclass(frozen=True)
class Written:
    """Where a row was written. replaced_id: the row that has the vector of what its path held before, if it did."""

    id: int
    replaced_id: int | None = None


@dataclass(frozen=True)
class RawRow:
    """A row as the file has it; nothing about it was checked."""

    id: int
    path: str
    state: str
    sha256: bytes | None
    embedding: bytes | None


@dataclass(frozen=True)
class IndexInfo:
    """What an index says of itself."""

    index_id: str
    revision: int
    token: str  # random, new with every transaction: two copies that went separate ways never share it
    model: str
    model_source: str  # what load_encoder needs to find the model again
    weights_sha256: str
    engine: str  # what computed the vectors, and how: see models.encoder.embeddings_agree
    precision: str
    dim: int
    pixel_recipe: str
    created_by: str
    root: str | None  # only where the index lies outside its folder
    model_cfg_sha256: str = ""  # of the config by which the weights are read; "" where nobody knew it
    excluded: tuple[str, ...] = ()  # folders that `index` leaves out, as FolderPatterns remembers them
