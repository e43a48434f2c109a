"""Storage of shards and pictures: a folder or a bucket, through fsspec."""

from __future__ import annotations

import errno
import glob
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from clipkit.core.files import replace_file
from clipkit.errors import ClipkitError

Answer = TypeVar("Answer")

PATIENCE = (
    1.0,
    2.0,
    4.0,
    8.0,
)  # seconds between two tries; s3fs and gcsfs have tried five times themselves before each
HALF, HALF_SECONDS = ".clipkit-shard", 3600.0  # how the name of a file begins that is not whole yet
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "http": "aiohttp"}
# What another try does not change.
FINAL = frozenset(
    [
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR),
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    ]
)


class Storage:
    """A folder, or a URL that fsspec knows (s3://, gs://, memory://), whose files are read and written whole.

    A bucket that does not answer is asked again some times, and is an OSError then, whatever its library raises.

    Parameters
    ----------
    url : str or Path
        Need not exist. Picklable, so that workers elsewhere open it again.
    """

    def __init__(self, url: str | Path) -> None:
        self._fs, self.path = _open(str(url))
        self.url = self.path if self.is_local else str(url).rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.url,)

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, or one that is mounted."""
        return "file" in self.protocols

    @property
    def protocols(self) -> tuple[str, ...]:
        """What its URLs may begin with: "file", "s3" and "s3a", and so on."""
        protocol = self._fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def is_file(self) -> bool:
        """Whether the URL itself is that of one file."""
        return bool(self._patiently(lambda: self._fs.isfile(self.path)))

    def is_there(self) -> bool:
        """Whether the folder or file is there."""
        return bool(self._patiently(lambda: self._fs.exists(self.path)))

    def names(self, suffix: str = "") -> list[str]:
        """Names of its files, in order; not those of folders in it, nor what begins with a dot."""
        try:
            self._fs.invalidate_cache()  # s3fs remembers listings; others write too
            found = self._patiently(lambda: self._fs.ls(self.path, detail=True))
        except FileNotFoundError:
            return []
        names = [str(entry["name"]).rsplit("/", 1)[-1] for entry in found if entry["type"] == "file"]
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def walk(self) -> dict[str, int]:
        """All files below it, at any depth, with their sizes; not what begins with a dot, nor what lies below such."""
        found = self._patiently(lambda: self._fs.find(self.path, detail=True))
        start = len(self.path) + 1 if self.path else 0
        sizes = {str(path)[start:]: int(entry.get("size") or 0) for path, entry in found.items()}
        return {path: size for path, size in sizes.items() if path and not f"/{path}".count("/.")}

    def matches(self) -> list[str]:
        """Where the URL has `*` or `?` in it: the URLs of the files that it means."""
        found = self._patiently(lambda: self._fs.glob(self.path))
        return sorted(path if self.is_local else str(self._fs.unstrip_protocol(path)) for path in found)

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The content of a file, or its bytes from `start` to `end`; FileNotFoundError if it is not there."""
        return bytes(self._patiently(lambda: self._fs.cat_file(self._place(name), start=start, end=end)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole, or not at all, replacing what has this name. A bucket's own upload is whole."""
        if self.is_local:
            Path(self.path).mkdir(parents=True, exist_ok=True)
            replace_file(Path(self.path) / name, content, stem=HALF)
        else:
            self._patiently(lambda: self._fs.pipe_file(self._place(name), content))

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            self._patiently(lambda: self._fs.rm_file(self._place(name)))
        except FileNotFoundError:
            return

    def sweep(self) -> None:
        """Remove what a write that was killed has left in a folder, once it is too old to be on its way."""
        for file in Path(self.path).glob(f"{HALF}*.part") if self.is_local else ():
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > HALF_SECONDS:
                    file.unlink()

    def open(self, name: str) -> Any:
        """A file for reading at any place (seek)."""
        return self._patiently(lambda: self._fs.open(self._place(name), "rb"))

    def _place(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        """What `call` gives; of a bucket, asked again after a while where it does not answer."""
        for pause in () if {"file", "http"} & set(self.protocols) else PATIENCE:  # of many web servers some are gone
            try:
                return call()
            except Exception as error:  # noqa: BLE001  botocore's errors, aiohttp's and Google's share no base
                is_final = getattr(error, "errno", None) in FINAL or isinstance(error, ImportError | FileNotFoundError)
                if is_final or "Credentials" in type(error).__name__:
                    break
            time.sleep(pause)
        try:
            return call()
        except OSError:
            raise
        except Exception as error:  # the same
            if "Credentials" in type(error).__name__:
                hint = "for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, here and on every worker; docs/scale.md"
                raise ClipkitError(f"{self.url}: there are no credentials for it", hint=hint) from error
            raise OSError(f"{self.url}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


def is_pattern(url: str) -> bool:
    """Whether a URL means several files: `photos/*.tar`."""
    return glob.has_magic(url) and not os.path.exists(url)


def _open(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ClipkitError(f"{url} is read with fsspec", hint="pip install 'clipkit[ray]'") from error
    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:  # a protocol without its package
        package = PACKAGES.get(url.partition("://")[0], "s3fs")
        raise ClipkitError(f"cannot open {url}: {error}", hint=f"pip install {package}") from error
    except ValueError as error:
        raise ClipkitError(f"cannot open {url}: {error}", hint="a folder, or a URL as s3://BUCKET/NAME") from error
    return filesystem, str(path).rstrip("/")
