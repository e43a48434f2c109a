"""Storage of shards: a folder or a bucket, through fsspec."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from clipkit.core.files import replace_file
from clipkit.errors import ClipkitError


class Storage:
    """A folder, or a URL that fsspec knows (s3://, gs://, memory://), whose files are read and written whole.

    Parameters
    ----------
    url : str or Path
        Need not exist. Picklable, so that workers elsewhere open it again.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._fs, self.path = _open(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.url,)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, or one that is mounted."""
        return "file" in _protocols(self._fs)

    def names(self, suffix: str = "") -> list[str]:
        """Names of its files, in order; not those of folders in it, nor what begins with a dot."""
        try:
            found = self._fs.ls(self.path, detail=True)
        except FileNotFoundError:
            return []
        names = [str(entry["name"]).rsplit("/", 1)[-1] for entry in found if entry["type"] == "file"]
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def read(self, name: str) -> bytes:
        """The whole content of a file; FileNotFoundError if it is not there."""
        return bytes(self._fs.cat_file(f"{self.path}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole, or not at all, replacing what has this name. A bucket's own upload is whole."""
        if self.is_local:
            Path(self.path).mkdir(parents=True, exist_ok=True)
            replace_file(Path(self.path) / name, content, stem=f".{secrets.token_hex(4)}")
        else:
            self._fs.pipe_file(f"{self.path}/{name}", content)

    def open(self, name: str) -> Any:
        """A file for reading at any place (seek)."""
        return self._fs.open(f"{self.path}/{name}", "rb")


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ClipkitError(f"{url} is read with fsspec", hint="pip install 'clipkit[ray]'") from error
    try:
        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # a protocol without its package, or none at all
        raise ClipkitError(f"cannot open {url}: {error}", hint="pip install s3fs") from error
    return filesystem, str(path).rstrip("/")


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
