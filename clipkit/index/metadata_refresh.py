"""Metadata refresh: pictures whose metadata is read again, without encoding them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from clipkit.core.progress import Progress
from clipkit.errors import ImageError
from clipkit.images import guarded_decoder
from clipkit.images.decode import read_file
from clipkit.images.recipe import Metadata, PixelRecipe
from clipkit.index.sidecars import read_sidecar
from clipkit.store.database import Store
from clipkit.store.records import Known, PictureRow, ScannedFile

BATCH = 256  # pictures a transaction
# Perceptual hashes of the same picture by two recipes differ in 2 bits of 64 at most: tests/images/test_metadata.py.
_RECIPE = PixelRecipe((64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def refresh_metadata(
    store: Store,
    files: Sequence[ScannedFile],
    known: Mapping[str, Known],
    *,
    root: str,
    workers: int,
    progress: Callable[[Progress], None] | None = None,
) -> int:
    """Read their metadata again, a transaction a batch; how many were read. Vectors stay as they are.

    A file that cannot be read, or that holds another picture by now, is left for the next run.
    """
    count = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="clipkit-read") as pool:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            rows = list(pool.map(partial(_read, known=known, root=root), batch))
            with store.transaction() as writer:
                for row in rows:
                    if row is not None:
                        writer.describe(known[row.found.path].id, row)
                        count += 1
            if progress:
                progress(Progress(start + len(batch), len(files), batch[-1].path))
    return count


def _read(found: ScannedFile, *, known: Mapping[str, Known], root: str) -> PictureRow | None:
    file, row = os.path.join(root, found.path), known[found.path]
    try:
        data = read_file(file)
    except ImageError:
        return None
    sha256 = hashlib.sha256(data).digest()
    if sha256 != row.sha256:
        return None
    metadata, phash = _metadata_and_hash(data, file, row)
    if found.sidecar:
        metadata = read_sidecar(file).over(metadata)
    return PictureRow(found, sha256, phash=phash).described(metadata)


def _metadata_and_hash(data: bytes, file: str, row: Known) -> tuple[Metadata, bytes | None]:
    """Pixels are decoded only where the row has no perceptual hash yet."""
    if not row.is_hashed:
        try:
            picture = guarded_decoder.decode(data, _RECIPE, name=file, is_hashed=True)
            return picture.metadata, picture.phash
        except ImageError:
            pass
    return guarded_decoder.metadata(data, name=file), None
