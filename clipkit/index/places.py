"""Places of indexes: the folder of pictures, and where the files of its index lie."""

from __future__ import annotations

import os
from pathlib import Path

from clipkit.errors import ClipkitError

FOLDER = ".clipkit"


def real_folder(root: str | Path) -> Path:
    """The folder as an absolute path; ClipkitError if it is none."""
    place = Path(os.path.abspath(root))
    if not place.exists():
        raise ClipkitError(f"{root} is not there", hint="clipkit index FOLDER")
    if not place.is_dir():
        raise ClipkitError(f"{root} is a file, not a folder", hint=f"clipkit index {Path(root).parent}")
    return place


def index_folder(root: Path, at: str | Path | None) -> Path:
    """Where the files of the index of `root` are."""
    return Path(os.path.abspath(at)) if at is not None else root / FOLDER


def place_of(root: str | Path, at: str | Path | None) -> Path:
    """Where the files of the index of `root` are, or would be; ClipkitError if `root` is no folder."""
    return index_folder(real_folder(root), at)
