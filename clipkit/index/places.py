"""Places of indexes: the folder of pictures, and where the files of its index lie."""

from __future__ import annotations

import os
from pathlib import Path

from clipkit.errors import ClipkitError

FOLDER = ".clipkit"
AGAIN = "clipkit merge OUT --index FOLDER, after more pictures were embedded there"
FETCH = "the bucket's own tool, for the URLs that a search prints"


class UrlPath(type(Path())):  # type: ignore[misc]
    """The root of pictures that lie in a bucket or on another machine: a URL, where ImageIndex has a folder.

    Paths below it are made as of a folder, and read as URLs; nothing there is opened.
    """

    def __str__(self) -> str:
        text: str = super().__str__()  # pathlib makes one slash of two
        return text.replace(":/", ":///" if text.startswith("file:") else "://", 1)

    def __fspath__(self) -> str:
        return str(self)


def is_url(text: str | None) -> bool:
    """Whether a root is a URL, not a folder of this machine."""
    return "://" in (text or "")


def root_of(text: str | os.PathLike[str]) -> Path:
    """A root as ImageIndex has it: a folder, absolute, or a URL."""
    name = os.fspath(text)
    return UrlPath(name) if is_url(name) else Path(os.path.abspath(name))


def refuse_url(root: str | os.PathLike[str] | None, what: str, *, hint: str = AGAIN) -> None:
    """ClipkitError where the pictures below `root` are not on this machine; what: that needs them."""
    name = os.fspath(root or "")
    if is_url(name):
        raise ClipkitError(f"{what} needs the pictures, which lie in {name}, not on this machine", hint=hint)


def real_folder(root: str | Path) -> Path:
    """The folder as an absolute path; ClipkitError if it is none."""
    if is_url(os.fspath(root)):
        hint = f"clipkit index {root} --engine ray --out FOLDER"
        raise ClipkitError(f"{root} is a URL, and an index is of a folder on this machine", hint=hint)
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
