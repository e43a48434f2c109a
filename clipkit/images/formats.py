"""Picture formats by the suffix of a file's name, and the names of frames of videos; no decoder is loaded for it."""

from __future__ import annotations

import re
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

VIDEO = frozenset(
    [".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp", ".wmv", ".flv"]
)
# A frame of a video is named by a media fragment (W3C, "Media Fragments URI 1.0"): clip.mp4#t=12.48, in seconds.
_FRAME = re.compile(r"(.+)#t=([0-9]{1,12}(?:\.[0-9]{1,6})?)", re.DOTALL)


def is_picture(name: str) -> bool:
    """Whether the suffix is one of a format that clipkit reads, or it is a frame; what is inside decides later."""
    stem, _, suffix = name.rpartition(".")
    return (bool(stem) and f".{suffix.lower()}" in SUFFIXES) or split_frame(name) is not None


def is_raw(name: str) -> bool:
    """Whether the suffix is that of a camera's RAW file, which the extra `raw` reads."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in RAW


def can_read_raw() -> bool:
    """Whether the extra `raw` is installed."""
    return find_spec("rawpy") is not None


def is_video(name: str) -> bool:
    """Whether the suffix is that of a video, whose frames the extra `video` reads."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in VIDEO


def can_read_video() -> bool:
    """Whether the extra `video` is installed."""
    return find_spec("av") is not None


def frame_name(video: str, seconds: float) -> str:
    """The name of a frame of a video."""
    return f"{video}#t={seconds:.2f}"


def split_frame(name: str) -> tuple[str, float] | None:
    """The video of a frame, and its time in seconds; None for the name of a file."""
    match = _FRAME.fullmatch(name)
    return (match[1], float(match[2])) if match and is_video(match[1]) else None


def file_of(name: str) -> str:
    """The file that a picture lies in: its own, or the video of a frame."""
    frame = split_frame(name) if "#t=" in name else None
    return frame[0] if frame else name
