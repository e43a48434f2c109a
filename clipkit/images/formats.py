"""Picture formats by the suffix of a file's name; no decoder is loaded for it."""

from __future__ import annotations

SUFFIXES = frozenset(
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
