"""Cache of exported models: one process at a time makes an export, and the least recently used ones go."""

from __future__ import annotations

import os
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from clipkit.core import folder_cache
from clipkit.core.folders import cache_folder
from clipkit.core.locks import exclusive_lock, mark_in_use
from clipkit.models.exports import RECORD
from clipkit.models.hub import Notify

MOST, MOST_BYTES = 10, 5 * 10**9  # what stays: a ViT-B/32 takes 600 MB, the largest model of the list 3.5 GB
WAIT_SECONDS = 600.0  # for another process that makes the same export; none was measured to take a tenth of it
LEFTOVER_SECONDS = 86_400.0  # after which what a process that died was writing is nobody's


@contextmanager
def making(place: Path, model: str, notify: Notify | None = None) -> Iterator[None]:
    """Be the one that makes the export at `place`; who comes second waits, and finds it made. OSError if that fails."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.with_name(f".{place.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(lock, seconds=0))
        except TimeoutError:
            if notify:
                notify(f"another clipkit is preparing {model}: waiting for it")
            stack.enter_context(exclusive_lock(lock, seconds=WAIT_SECONDS))
        yield


def use(folder: Path, by: object) -> None:
    """Note that an export is used now; it stays as long as `by` lives."""
    if folder.parent != _place():  # the starter's own, which comes with clipkit
        return
    with suppress(OSError):
        os.utime(folder / RECORD)
    if handle := mark_in_use(folder / RECORD):
        weakref.finalize(by, handle.close)


def trim(newest: Path) -> None:
    """Remove the least recently used exports beyond MOST and MOST_BYTES; never `newest`, nor one that is in use."""
    with suppress(OSError):
        _remove_leftovers()
        exports = (record.parent for record in _place().glob(f"[!.]*/{RECORD}"))
        folder_cache.trim(exports, newest, RECORD, most=MOST, most_bytes=MOST_BYTES)


def _remove_leftovers() -> None:
    """What processes that were killed have left: half exports."""
    old = time.time() - LEFTOVER_SECONDS
    for entry in _place().glob(".*.part"):
        if entry.stat().st_mtime < old:
            shutil.rmtree(entry, ignore_errors=True)


def _place() -> Path:
    return cache_folder() / "exports"
