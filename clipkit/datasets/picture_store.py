"""Store of pictures that are no files yet: those of tables and of datasets in memory, each by its content."""

from __future__ import annotations

import atexit
import hashlib
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clipkit.core import folder_cache
from clipkit.core.cache import cache_key
from clipkit.core.files import replacing
from clipkit.core.folders import cache_folder
from clipkit.core.locks import mark_in_use

MOST_BYTES = 20 * 10**9  # of the datasets that stay in the cache: Food-101 takes 5 GB
RECORD = "bytes.txt"  # how many a dataset takes; its date says when it was loaded last
HEADS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}


@dataclass(frozen=True)
class Rows:
    """Files with what is said of each: labels, or captions, or neither."""

    files: tuple[str, ...]
    labels: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] = ()


class PictureStore:
    """A folder of pictures; one that is there is not written again, and equal ones have names of their own.

    key: what the folder in the cache is named after, where no `folder` is given. The cache may be deleted at any
    moment: whoever loads the dataset again writes the pictures again.
    """

    def __init__(self, *key: object, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "datasets" / cache_key(*key)[:16]
        self._is_cache, self._bytes = folder is None, 0
        self._seen: Counter[str] = Counter()

    def keep(self, data: bytes, suffix: str = "") -> str:
        """The file that holds this picture; suffix: by its first bytes where none is given."""
        if self._is_cache and not self._seen:
            _hold(self.folder / RECORD)
        self._bytes += len(data)
        suffix = suffix or next((kind for head, kind in HEADS.items() if data.startswith(head)), "")
        name = hashlib.sha256(data).hexdigest()[:32]
        number = self._seen[name]
        self._seen[name] += 1
        file = self.folder / name[:2] / f"{name}{f'-{number}' if number else ''}{suffix}"
        if not file.is_file() or file.stat().st_size != len(data):  # torn by a crash, where nothing was synced
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file, sync=False) as beside:
                beside.write_bytes(data)
        return str(file)

    def close(self) -> None:
        """All pictures are there; datasets of the cache that were not loaded for long go, beyond MOST_BYTES together.

        This one stays, and those that a process has loaded which still runs.
        """
        if not (self._is_cache and self._seen):
            return
        with suppress(OSError):
            (self.folder / RECORD).write_text(str(self._bytes))
            _trim(self.folder)


@cache
def _hold(record: Path) -> None:
    """Mark a dataset as in use until this process ends."""
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
        if handle := mark_in_use(record):
            atexit.register(handle.close)


def _trim(newest: Path) -> None:
    for leftover in newest.parent.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder_cache.trim(newest.parent.glob("[!.]*"), newest, RECORD, most_bytes=MOST_BYTES, size=_size_bytes)


def _size_bytes(folder: Path) -> int:
    with suppress(OSError, ValueError):
        return int((folder / RECORD).read_text())
    return folder_cache.size_bytes(folder)
