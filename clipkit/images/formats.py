"""Picture formats by the suffix of a file's name; no decoder is loaded for it."""

from __future__ import annotations

from importlib.util import find_spec

RAW = frozenset([".cr2", ".cr3", ".nef", ".arw", ".raf", ".dng", ".orf", ".rw2", ".pef", ".srw"])
CAMERA = frozenset([".jpg", ".jpeg", ".jpe", ".heic", ".heif", ".hif"])  # what cameras write beside a RAW, or a video
SUFFIXES = RAW | frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heif", ".hif", ".heics", ".heifs", ".jp2", ".j2k", ".jpx", ".jpf", ".jpc"),
        *(".tga", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"),
    ]
)


def is_picture(name: str) -> bool:
    """Whether the suffix is one of a format that clipkit reads; what is inside decides later."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in SUFFIXES


def is_raw(name: str) -> bool:
    """Whether the suffix is that of a camera's RAW file, which the extra `raw` reads."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in RAW


def can_read_raw() -> bool:
    """Whether the extra `raw` is installed."""
    return find_spec("rawpy") is not None
