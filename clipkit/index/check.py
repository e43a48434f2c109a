"""Looking an index over: structure, vectors, search cache, and, if asked, whether pictures still give their vectors."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from clipkit.core.arrays import FloatArray
from clipkit.core.progress import Progress
from clipkit.core.text import described
from clipkit.errors import ClipkitError, ImageError
from clipkit.images.decode import read_file
from clipkit.images.formats import file_of
from clipkit.images.guarded_decoder import decode, warm_up
from clipkit.images.recipe import Pixels
from clipkit.index.image_index import ImageIndex
from clipkit.index.places import refuse_url
from clipkit.search.vector_cache import IndexCache
from clipkit.store.database import writing
from clipkit.store.records import RawRow
from clipkit.store.schema import NORM_TOLERANCE

AGREEMENT = 0.99  # cosine of a picture's vector made again; another precision or machine stays above .999
SAMPLE = 200


@dataclass(frozen=True)
class Damage:
    """Something that is not as clipkit wrote it. path: "" where it is not about one picture."""

    path: str
    what: str
    id: int | None = None


@dataclass(frozen=True)
class CheckReport:
    """What a check found and what a repair mended. rows: looked at. encoded_again: compared with their picture."""

    rows: int
    encoded_again: int
    damage: tuple[Damage, ...]
    repaired: int = 0

    def __repr__(self) -> str:
        counts = {"damaged": len(self.damage), "repaired": self.repaired, "encoded_again": self.encoded_again}
        return described(self, f"rows={self.rows}", *(f"{name}={count}" for name, count in counts.items()))


def check(
    index: ImageIndex,
    *,
    sample: int | None = 0,
    repair: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> CheckReport:
    """Look at every row and at the search cache; encode `sample` pictures again (None: all) and compare.

    repair: rows that are damaged are read and encoded again, what dead runs left is dropped, the search cache
    is made anew; damage that remains is in the report. Raises IndexDamaged where the file itself cannot be trusted.
    """
    if sample != 0 or repair:
        refuse_url(index.root, "encoding again")
    index.store.check_structure()
    rows, damage = 0, []
    for row in index.store.raw_rows():
        rows += 1
        what = _fault(row, index.info.dim)
        if what:
            damage.append(Damage(row.path, what, row.id))
    bad = {found.id for found in damage}
    again, changed = _encode_again(index, sample, bad, progress)
    damage += changed
    cache = IndexCache(index.store)
    if not cache.verify(with_rows=not damage):  # damaged rows differ from a sound cache
        damage.append(Damage("", "the search cache is damaged"))
    if not repair or not damage:
        return CheckReport(rows, again, tuple(damage))
    _repair(index, [found.id for found in damage if found.id is not None])
    cache.write(afresh=True)
    left = check(index)
    return CheckReport(rows, again, left.damage, repaired=len(damage) - len(left.damage))


def _fault(row: RawRow, dim: int) -> str | None:
    if os.path.isabs(row.path) or ".." in row.path.split("/") or not row.path or "\0" in row.path:
        return "its name leads out of the folder"
    if row.state == "replaced":
        return "left behind by a run that did not finish"
    if row.state == "failed" or (row.state == "missing" and row.embedding is None):
        return "it counts as failed but has a vector" if row.embedding is not None else None
    if row.embedding is None or len(row.embedding) != 2 * dim:
        return f"it has no vector of {dim} values"
    norm = float(np.linalg.norm(_vector(row)))
    if not abs(norm - 1) <= NORM_TOLERANCE:  # written so that a NaN is wrong
        return f"its vector has length {norm:.4g}, not 1"
    return None


def _encode_again(
    index: ImageIndex, sample: int | None, bad: set[int | None], progress: Callable[[Progress], None] | None
) -> tuple[int, list[Damage]]:
    if sample == 0:
        return 0, []
    rows = [row for row in index.store.raw_rows() if row.state == "ok" and row.id not in bad]
    if sample is not None and sample < len(rows):
        rows = random.Random(0).sample(rows, sample)
    compared, damage = 0, []
    warm_up()  # while the model is loaded
    step = index.encoder.batch_size if rows else 1
    for start in range(0, len(rows), step):
        pairs = _pixels(index, rows[start : start + step])
        if pairs:
            made = index.encoder.encode_pixels(np.stack([pixels for _, pixels in pairs]))
        for number, (row, _) in enumerate(pairs):
            cosine = float(_vector(row) @ made[number])
            if cosine < AGREEMENT:
                damage.append(Damage(row.path, f"its vector is not that of the picture (cosine {cosine:.3f})", row.id))
        compared += len(pairs)
        if progress:
            progress(Progress(start + len(rows[start : start + step]), len(rows), rows[start].path))
    return compared, damage


def _pixels(index: ImageIndex, rows: list[RawRow]) -> list[tuple[RawRow, Pixels]]:
    """Of those whose file still has the bytes that were encoded; the others are for `clipkit index` to find."""
    found = []
    for row in rows:
        file = os.path.join(index.root, row.path)
        with suppress(ImageError):
            data = read_file(file)
            if hashlib.sha256(data).digest() == row.sha256:
                found.append((row, decode(data, index.encoder.recipe, name=file).pixels))
    return found


def _vector(row: RawRow) -> FloatArray:
    return np.frombuffer(row.embedding or b"", "<f2").astype(np.float32)


def _repair(index: ImageIndex, ids: list[int]) -> None:
    with writing(index.folder), index.store.transaction() as writer:
        writer.distrust(ids)
        writer.drop_replaced()
    index.update()


def prune(index: ImageIndex, *, dry_run: bool = False, force: bool = False) -> list[str]:
    """Forget the pictures that are missing, and give their space back.

    A picture that is there again is not forgotten.

    Parameters
    ----------
    index : ImageIndex
        Whose missing pictures are deleted.
    dry_run : bool, default False
        Only say which.
    force : bool, default False
        Also where every picture is missing, as with an unplugged disk.

    Returns
    -------
    list of str
        Paths of the pictures that were, or would be, forgotten.

    Raises
    ------
    ClipkitError
        If every picture is missing, unless `force`.
    IndexLocked
        While another process writes.

    Examples
    --------
    >>> import os
    >>> from clipkit.index import prune
    >>> index = clipkit.ImageIndex.open("photos")
    >>> os.remove("photos/coffee.png")
    >>> report = index.update()
    >>> prune(index)
    ['coffee.png']
    """
    missing = [row for row in index.store.raw_rows() if row.state == "missing"]
    gone = [row for row in missing if not os.path.lexists(os.path.join(index.root, file_of(row.path)))]
    if gone and not force and not index.counts()["ok"]:
        raise ClipkitError(
            f"every picture of {index.root} is missing: is a disk unplugged?",
            hint="clipkit prune --force, if it is not",
        )
    if gone and not dry_run:
        with writing(index.folder), index.store.transaction() as writer:
            writer.delete([row.id for row in gone])
        index.store.compact()
    return [row.path for row in gone]
