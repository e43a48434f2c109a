"""Inverted-file (IVF) search beside an exact cache: FAISS's IVF,SQfp16, its measured recall, and its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.files import replace_file, replacing
from clipkit.search.vectors import Half, Neighbors, import_faiss, is_own, part

RECALL = 0.98  # recall@10 that the number of probed lists is chosen for
MAX_K = 100  # above it the search is exact: the recall was measured at 10
FEW = 0.1  # share of the rows that a filter leaves, from which exact search over them is as fast
LEAST_ROWS = 256  # k-means needs some
AUTO_VALUES = 5_000_000 * 512  # there exact search takes 0.2 s on two AVX-512 cores; docs/performance.md
_K = 10
_MARGIN = 16  # answers asked for beyond k: equal rows are put in the order of their ids afterwards
_TRAINING = 64  # rows a list that k-means sees; FAISS's own choice is up to 256, for the same recall
_ITERATIONS = 10
_BLOCK = 65_536
_FILES = ("ivf", "members")


@dataclass(frozen=True)
class Quality:
    """What an inverted file was measured to find. nprobe: lists a query looks into; 0 where exact search is better.

    recall: share of the 10 nearest rows of exact search that it finds, for `queries` texts over `rows` rows.
    """

    nlist: int
    nprobe: int
    recall: float
    queries: int
    rows: int

    @classmethod
    def parse(cls, text: str) -> Quality | None:
        """From the JSON that `str` gives; None where it is none."""
        try:
            values = json.loads(text)
            found = cls(**values)
            numbers = (found.nlist, found.nprobe, found.queries, found.rows)
            return found if all(type(n) is int for n in numbers) and 0 <= found.recall <= 1 else None
        except (ValueError, TypeError, RecursionError):
            return None

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class InvertedFile:
    """Rows of an exact matrix, sorted into lists by k-means; a query looks into the nearest lists only.

    Attributes:
        members: (m, 3) int64, one row a vector of FAISS's index: picture id, hash of the vector, and its position in
            the exact matrix, -1 where the matrix does not have it any more.
        quality: what was measured when it was made.
        uncovered: (u,) positions of the exact matrix that are in no list; they are searched exactly.
    """

    def __init__(self, engine: Any, members: IntArray, quality: Quality, *, count: int) -> None:
        self._engine = engine
        self.members = members
        self.quality = quality
        positions = members[:, 2]
        is_covered = np.zeros(count, dtype=np.bool_)
        is_covered[positions[positions >= 0]] = True
        self.uncovered = np.flatnonzero(~is_covered)

    @classmethod
    def build(cls, base: Neighbors, queries: Embeddings) -> InvertedFile:
        """By k-means; as many lists are probed as `queries` need. quality.nprobe is 0 where that is no gain."""
        nlist = lists_for(len(base))
        engine = _trained(base, nlist)
        hashes = [np.empty(0, dtype=np.int64)]
        for rows in _row_blocks(base):
            engine.add(rows.astype(np.float32))
            hashes.append(_hash(rows))
        members = np.stack([base.ids, np.concatenate(hashes), np.arange(len(base))], axis=1)
        return cls(engine, members, _measure(engine, base, queries), count=len(base))

    def search(
        self,
        base: Neighbors,
        queries: Embeddings,
        k: int,
        *,
        without: IntArray | None = None,
        only: IntArray | None = None,
    ) -> tuple[FloatArray, IntArray] | None:
        """As `Neighbors.search` of `base`, nearly; None where exact search answers better: few rows, or a large k."""
        allowed = base.allowed(without, only)
        count = len(base) if allowed is None else int(allowed.sum())
        k = min(k, count)
        if not 0 < k <= MAX_K or count <= FEW * len(base) or not len(queries):
            return None
        near = self._listed(queries, k, allowed, share=count / len(base))
        if len(self.uncovered):
            fresh = self.uncovered if allowed is None else self.uncovered[allowed[self.uncovered]]
            near = np.concatenate([near, base.nearest_among(queries, min(k, len(fresh)), fresh)], axis=1)
        if ((near >= 0).sum(axis=1) < k).any():
            return None
        scores, positions = base.ordered(queries, [row[row >= 0] for row in near], k)
        return scores, base.ids[positions]

    def _listed(self, queries: Embeddings, k: int, allowed: npt.NDArray[np.bool_] | None, *, share: float) -> IntArray:
        """Positions (q, k + margin) from the lists, -1 where there are fewer. A filter leaves `share` of the rows."""
        faiss = import_faiss()
        positions = self.members[:, 2]
        is_wanted = positions >= 0
        if allowed is not None:
            is_wanted &= allowed[positions]
        selector = {} if is_wanted.all() else {"sel": faiss.IDSelectorBitmap(np.packbits(is_wanted, bitorder="little"))}
        nprobe = min(self.quality.nlist, int(np.ceil(self.quality.nprobe / share)))  # the nearest lie further off
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, **selector)
        found: IntArray = self._engine.search(queries, k + _MARGIN, params=parameters)[1]
        return np.where(found >= 0, positions[found], -1)

    def save(self, prefix: Path) -> None:
        """Write `prefix`.ivf, .members and .ann, the last last."""
        with replacing(part(prefix, "ivf"), stem=prefix.name) as file:
            try:
                import_faiss().write_index(self._engine, str(file))
            except RuntimeError as error:
                raise OSError(f"faiss cannot write it: {error}") from error
        _write_members(prefix, self.members, self.quality, ivf_sha256=_sha256(part(prefix, "ivf")))

    @classmethod
    def load(cls, prefix: Path, base: Neighbors, *, verify: bool = False) -> InvertedFile | None:
        """What `save` or `carry` wrote for `base`, opened by mmap; None where it is absent, damaged or not ours."""
        try:
            found = _read(prefix, verify=verify)
            if found is None or not cls._fits(*found, base):
                return None
            return cls(*found, count=len(base))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    @staticmethod
    def _fits(engine: Any, members: IntArray, quality: Quality, base: Neighbors) -> bool:
        positions = members[:, 2]
        is_inside = bool(((positions >= -1) & (positions < len(base))).all())
        sizes = (engine.d, engine.ntotal, engine.nlist)
        return is_inside and quality.nprobe > 0 and sizes == (base.dim, len(members), quality.nlist)


def carry(old: Path, new: Path, base: Neighbors, *, verify: bool = False) -> None:
    """Let the inverted file at `old` answer for the matrix at `new`; where it is damaged it goes."""
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):
        found = _read(old, verify=verify)
        if found is not None:
            _, members, quality = found
            sha256 = json.loads(part(old, "ann").read_bytes())["sha256"]["ivf"]
            if old != new:
                os.replace(part(old, "ivf"), part(new, "ivf"))
            _write_members(new, _members_in(base, members), quality, ivf_sha256=sha256)
            return
    with suppress(OSError):
        part(old, "ann").unlink(missing_ok=True)


def covers(prefix: Path) -> tuple[int, int] | None:
    """Rows in lists, and rows of the matrix that are in none, by the header alone; None where there is no header."""
    try:
        header = json.loads(part(prefix, "ann").read_bytes())
        return int(header["covered"]), int(header["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lists_for(count: int) -> int:
    """Number of lists for so many rows: the power of two below 2 sqrt(n)."""
    return 1 << max(0, int(np.log2(2 * np.sqrt(max(count, 1)))))


def _members_in(base: Neighbors, members: IntArray) -> IntArray:
    """Members with their positions in another matrix: the same id, and the same vector to the last bit."""
    moved = members.copy()
    moved[:, 2] = -1
    if len(base):
        hashes = np.concatenate([_hash(rows) for rows in _row_blocks(base)])
        positions = np.minimum(np.searchsorted(base.ids, members[:, 0]), len(base) - 1)
        is_same = (base.ids[positions] == members[:, 0]) & (hashes[positions] == members[:, 1])
        moved[is_same, 2] = positions[is_same]
    return moved


def _trained(base: Neighbors, nlist: int) -> Any:
    faiss = import_faiss()
    rng = np.random.default_rng(0)
    picks = np.sort(rng.choice(len(base), min(len(base), _TRAINING * nlist), replace=False))
    sample = base.rows()[picks].astype(np.float32)
    means = faiss.Kmeans(base.dim, nlist, niter=_ITERATIONS, spherical=True, seed=1, min_points_per_centroid=1)
    means.train(sample)
    quantizer = faiss.IndexFlatIP(base.dim)
    quantizer.add(means.centroids)
    kind = faiss.ScalarQuantizer.QT_fp16
    engine = faiss.IndexIVFScalarQuantizer(quantizer, base.dim, nlist, kind, faiss.METRIC_INNER_PRODUCT, False)
    engine.train(sample[:1])
    return engine


def _measure(engine: Any, base: Neighbors, queries: Embeddings) -> Quality:
    """The fewest lists with RECALL; 0 where it would take more than a quarter of them."""
    faiss = import_faiss()
    _, ids = base.search(queries, _K)
    nlist = int(engine.nlist)
    recall, nprobe = 0.0, 0
    for nprobe in _ladder(max(1, nlist // 4)):
        found = engine.search(queries, ids.shape[1], params=faiss.SearchParametersIVF(nprobe=nprobe))[1]
        pairs = zip(np.where(found >= 0, base.ids[found], -1).tolist(), ids.tolist(), strict=True)
        recall = float(np.mean([len(set(near) & set(exact)) for near, exact in pairs])) / max(1, ids.shape[1])
        if recall >= RECALL:
            return Quality(nlist, nprobe, round(recall, 4), len(queries), len(base))
    return Quality(nlist, 0, round(recall, 4), len(queries), len(base))


def _ladder(most: int) -> Iterable[int]:
    """1, 2, 3, 4, 5, 6, 8, 10, 12, ...: steps of an eighth up to `most`."""
    steps = {min(most, int(np.ceil(1.2**step))) for step in range(80)}
    return sorted(steps)


def _row_blocks(base: Neighbors) -> Iterator[Half]:
    rows = base.rows()
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _hash(rows: Half) -> IntArray:
    """A 64-bit hash of each row's bytes (n,): against mistaking one vector for another, not against malice."""
    weights = np.random.default_rng(7).integers(1 << 62, size=rows.shape[1], dtype=np.uint64) * 2 + 1
    words = np.ascontiguousarray(rows).view(np.uint16)
    pieces = [words[start : start + 4096].astype(np.uint64) @ weights for start in range(0, len(words), 4096)]
    return np.concatenate([np.empty(0, dtype=np.uint64), *pieces]).view(np.int64)


def _read(prefix: Path, *, verify: bool = False) -> tuple[Any, IntArray, Quality] | None:
    if not part(prefix, "ann").exists() or not is_own(prefix, (*_FILES, "ann")):
        return None
    header = json.loads(part(prefix, "ann").read_bytes())
    quality = Quality.parse(json.dumps(header["quality"]))
    for suffix in _FILES:
        is_known = not verify and header["stamp"][suffix] == _stamp(part(prefix, suffix))
        if not is_known and header["sha256"][suffix] != _sha256(part(prefix, suffix)):
            return None
    members = np.frombuffer(part(prefix, "members").read_bytes(), dtype="<i8").astype(np.int64).reshape(-1, 3)
    engine = import_faiss().read_index(str(part(prefix, "ivf")), import_faiss().IO_FLAG_MMAP)
    return None if quality is None else (engine, members, quality)


def _write_members(prefix: Path, members: IntArray, quality: Quality, *, ivf_sha256: str) -> None:
    content = members.astype("<i8").tobytes()
    replace_file(part(prefix, "members"), content, stem=prefix.name)
    header = {
        "quality": asdict(quality),
        "covered": int((members[:, 2] >= 0).sum()),
        "rows": len(members),
        "sha256": {"ivf": ivf_sha256, "members": hashlib.sha256(content).hexdigest()},
        "stamp": {suffix: _stamp(part(prefix, suffix)) for suffix in _FILES},
    }
    replace_file(part(prefix, "ann"), json.dumps(header).encode(), stem=prefix.name)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stamp(file: Path) -> list[int]:
    info = os.stat(file)
    return [info.st_size, info.st_mtime_ns, info.st_ino]
