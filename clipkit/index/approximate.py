"""Approximate search of an index: when an inverted file is made, how its recall is measured, and what remembers it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from clipkit.core.arrays import Embeddings
from clipkit.index.image_index import ImageIndex
from clipkit.search.inverted_file import AUTO_VALUES, LEAST_ROWS, Quality
from clipkit.search.vector_cache import STALE, IndexCache
from clipkit.store.database import writing

MODES = ("auto", "off", "ivf")


def refresh_ann(index: ImageIndex, mode: str | None, queries: Callable[[], Embeddings]) -> Quality | None:
    """Make or remove the inverted file as `mode` asks (None: as before); what was measured, if one was made now.

    queries gives embeddings of texts (q, d) by the index's model; it is called only where a file is made.
    """
    _remember(index, mode)
    mode = mode or index.info.ann
    cache = IndexCache(index.store)
    if mode == "off":
        cache.drop_inverted_file()
        return None
    if not _is_due(index, cache, mode):
        return None
    texts = queries()
    with writing(index.folder), suppress(OSError):  # a cache that cannot be written is only slower
        quality = cache.build_inverted_file(texts)
        _note(index, "ann_quality", str(quality))
        return quality
    return None


def _remember(index: ImageIndex, mode: str | None) -> None:
    if mode and mode != index.info.ann:
        with writing(index.folder):
            _note(index, "ann", mode)


def _note(index: ImageIndex, key: str, value: str) -> None:
    """The search cache stays that of the newest revision: no picture changes."""
    before = index.info
    with index.store.transaction() as writer:
        writer.note(key, value)
    IndexCache(index.store).advance(before)


def _is_due(index: ImageIndex, cache: IndexCache, mode: str) -> bool:
    info = index.info
    last = index.store.last_id()
    if last < LEAST_ROWS or (mode == "auto" and last * info.dim < AUTO_VALUES):
        return False
    count = index.counts()["ok"]
    if count < LEAST_ROWS or (mode == "auto" and count * info.dim < AUTO_VALUES):
        return False
    refused = Quality.parse(info.ann_quality)
    if refused is not None and not refused.nprobe and abs(count - refused.rows) <= STALE * refused.rows:
        return False
    return cache.needs_inverted_file()
