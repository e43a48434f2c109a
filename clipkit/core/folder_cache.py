"""Folders of a cache, as exported models and unpacked datasets: the least recently used ones go."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from clipkit.core.locks import is_in_use


def size_bytes(folder: Path) -> int:
    """Of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def trim(
    folders: Iterable[Path],
    newest: Path,
    record: str,
    *,
    most: int = sys.maxsize,
    most_bytes: int = sys.maxsize,
    size: Callable[[Path], int] = size_bytes,
) -> None:
    """Remove the least recently used folders beyond `most` and `most_bytes`; never `newest`, nor one that is in use.

    record: a file in each, whose date says when it was used last, and by which `mark_in_use` marks it.
    """
    total = 0
    for rank, folder in enumerate(sorted(folders, key=lambda one: (one != newest, -_last_used(one, record)))):
        total += size(folder)
        if rank and (rank >= most or total > most_bytes) and not is_in_use(folder / record):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder in one step, so that nobody meets half of it; a kill leaves `.NAME-old.part`."""
    beside = folder.with_name(f".{folder.name}-old.part")
    shutil.rmtree(beside, ignore_errors=True)
    os.replace(folder, beside)
    shutil.rmtree(beside, ignore_errors=True)


def _last_used(folder: Path, record: str) -> int:
    file = folder / record  # none where a run was killed, nor of an earlier clipkit
    return (file if file.exists() else folder).stat().st_mtime_ns
