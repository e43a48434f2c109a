"""Store of pictures that are no files yet: those of tables and of datasets in memory, each by its content."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clipkit.core.cache import cache_key
from clipkit.core.files import replacing
from clipkit.core.folders import cache_folder

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
        self._seen: Counter[str] = Counter()

    def keep(self, data: bytes, suffix: str = "") -> str:
        """The file that holds this picture; suffix: by its first bytes where none is given."""
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
