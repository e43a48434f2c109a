"""XMP sidecars: the file beside a picture, `photo.jpg.xmp` or `photo.xmp`, in which editors keep ratings and tags."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping

from clipkit.errors import ImageError
from clipkit.images.formats import CAMERA, RAW, file_of
from clipkit.images.recipe import NO_METADATA, Metadata

SUFFIX = ".xmp"


def sidecars_among(entries: Collection[os.DirEntry[str]]) -> dict[str, os.DirEntry[str]]:
    """Those entries of a folder that may be sidecars, by name."""
    return {entry.name: entry for entry in entries if entry.name[-len(SUFFIX) :].lower() == SUFFIX}


def sidecar_stamp(name: str, sidecars: Mapping[str, os.DirEntry[str]]) -> str:
    """Size and date of the sidecar of a picture, which change when it does; "" where it has none."""
    for candidate in sidecar_names(name) if sidecars else ():
        if (entry := sidecars.get(candidate)) is not None:
            try:
                info = entry.stat()
            except OSError:  # deleted by now, or a link to nothing
                continue
            if stat.S_ISREG(info.st_mode):
                return f"{info.st_size} {info.st_mtime_ns}"
    return ""


def read_sidecar(file: str) -> Metadata:
    """Metadata of the sidecar of a picture; none where there is none, or it cannot be read."""
    from clipkit.images.decode import read_file
    from clipkit.images.metadata import parse_xmp

    for candidate in sidecar_names(file_of(file)):
        if os.path.isfile(candidate):
            try:
                return parse_xmp(read_file(candidate))
            except ImageError:
                return NO_METADATA
    return NO_METADATA


def sidecar_names(name: str) -> Iterator[str]:
    """What a sidecar may be called, the most specific name first; last, that of the RAW file of the same shot."""
    stem, suffix = os.path.splitext(name)
    for one in (name, stem):
        yield one + SUFFIX
        yield one + SUFFIX.upper()
    for raw in sorted(RAW) if suffix.lower() in CAMERA else ():
        yield stem + raw + SUFFIX
        yield stem + raw.upper() + SUFFIX
