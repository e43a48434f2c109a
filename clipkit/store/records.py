"""Rows of the index database as records."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import NamedTuple

from clipkit.images.recipe import Metadata

SHOWN_ONLY = ("lens", "exposure")  # metadata that is read when a picture is looked at, and not searched by


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
    """A file that the scan met. path: relative to the root, `/` between names, surrogateescape for odd bytes.

    sidecar: what tells the XMP file beside it from any other, "" where there is none.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sidecar: str = ""

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
    sidecar: str | None = None  # as it was when its metadata was read; None: that was never read
    is_hashed: bool = False  # whether it has a perceptual hash

    @property
    def stamp(self) -> FileStamp:
        """Its stamp when it was last read."""
        return FileStamp(self.size_bytes, self.mtime_ns, self.ctime_ns, self.inode)


@dataclass(frozen=True)
class PictureRow:
    """A picture as the index will hold it.

    share: of its rows that the file has, less than 1 for a JPEG that was cut off; None where nobody looked. embedding:
    float16 bytes, or None where reading failed. tags: a JSON list. sidecar: as in `Known`.
    """

    found: ScannedFile
    sha256: bytes | None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    share: float | None = None
    error: str | None = None
    embedding: bytes | None = None
    phash: bytes | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None
    tags: str | None = None
    title: str | None = None
    sidecar: str | None = None

    def described(self, metadata: Metadata) -> PictureRow:
        """The same with the metadata that is read by now."""
        tags = json.dumps(metadata.tags, ensure_ascii=False) if metadata.tags else None
        kept = {name: value for name, value in vars(metadata).items() if name not in SHOWN_ONLY}
        return replace(self, **{**kept, "tags": tags, "sidecar": self.found.sidecar})


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
    searches: tuple[tuple[str, str], ...] = ()  # that were saved: name and query
    ann: str = "auto"  # approximate search: "auto", "off" or "ivf"
    ann_quality: str = ""  # JSON: what it was measured to find when its lists were made
    video: str = ""  # "on" where frames of videos are pictures too
    excluded: tuple[str, ...] = ()  # folders that `index` leaves out, as FolderPatterns remembers them
