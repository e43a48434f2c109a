"""Perceptual hashes of an index's pictures, read from their files once and cached by content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.files import digest
from clipkit.core.progress import Progress
from clipkit.core.system import usable_cores
from clipkit.errors import ImageError
from clipkit.explore.metadata import Fact
from clipkit.images.perceptual_hash import phash
from clipkit.images.thumbnails import thumbnail
from clipkit.index.image_index import ImageIndex

SIDE = 256  # pixels of the longer side from which a hash is made
WORKERS = 8
SAVE_EVERY = 2_000  # pictures after which what is known so far is written
UNREADABLE = b""

Hashes = npt.NDArray[np.uint64]


def perceptual_hashes(
    index: ImageIndex, facts: Sequence[Fact], *, progress: Callable[[Progress], None] | None = None
) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """Hashes (n,), 64 bits each, of these pictures; and whether each has one (n,): a file that is gone has none."""
    cache = _HashCache(index.info.index_id)
    asked = {fact.sha256: fact for fact in facts if fact.sha256}
    missing = [fact for sha256, fact in asked.items() if sha256 not in cache.known]
    with ThreadPoolExecutor(min(WORKERS, usable_cores() + 1), thread_name_prefix="clipkit-hash") as pool:
        for start in range(0, len(missing), SAVE_EVERY):
            block = missing[start : start + SAVE_EVERY]
            results = pool.map(_hash_of, [str(index.root / fact.path) for fact in block], [f.sha256 for f in block])
            for done, (fact, value) in enumerate(zip(block, results, strict=True), start + 1):
                cache.known[fact.sha256] = value
                if progress:
                    progress(Progress(done, len(missing), fact.path))
            cache.save()
    found = [cache.known.get(fact.sha256, UNREADABLE) for fact in facts]
    numbers = np.frombuffer(b"".join(value or bytes(8) for value in found), dtype=">u8").astype(np.uint64)
    return numbers, np.array([value != UNREADABLE for value in found], dtype=np.bool_)


class _HashCache:
    """Hashes by SHA-256 of the bytes, in the user's cache; what could not be read is asked again the next time."""

    def __init__(self, index_id: str) -> None:
        self._cache = ArrayCache("phash", form="clipkit-phash-1", most=50)
        self._key = cache_key(index_id, SIDE)
        stored = self._cache.get(self._key)
        self.known: dict[str, bytes] = {}
        if stored is not None:
            sums, values = stored[0]["sha256"], stored[0]["phash"]
            self.known = {row.tobytes().hex(): value.tobytes() for row, value in zip(sums, values, strict=True)}

    def save(self) -> None:
        readable = {sha256: value for sha256, value in self.known.items() if value != UNREADABLE}
        sums = np.frombuffer(bytes.fromhex("".join(readable)), dtype=np.uint8).reshape(-1, 32)
        values = np.frombuffer(b"".join(readable.values()), dtype=np.uint8).reshape(-1, 8)
        self._cache.put(self._key, {"sha256": sums, "phash": values})


def _hash_of(file: str, sha256: str) -> bytes:
    """Of the file, unless it has changed since it was indexed."""
    if digest(file) != sha256:
        return UNREADABLE
    try:
        canvas = thumbnail(file, SIDE).canvas
    except ImageError:
        return UNREADABLE
    return phash(canvas.transpose(2, 0, 1))
