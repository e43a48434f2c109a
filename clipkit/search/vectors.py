"""Exact vector search over float16 rows with FAISS, and the cache file it opens from."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.files import replace_file, replacing

SMALL = 1 << 25  # values (64 MB): a matrix product over them is done before faiss would be imported
MANY = 16  # queries from which a blocked matrix product beats FAISS's scan of the scalar quantizer
_BLOCK = 65_536  # rows of one product: 128 MB as float32 at 512 dimensions
WIDER, MOST_WIDE = 4, 2_000  # answers of all rows that are asked for where most are allowed
ROUNDING = 1e-5  # two float32 sums of the same 1,000 products differ by less
GPU_MARGIN = 32  # answers asked for beyond k
_GPU_K = 2048  # FAISS's own limit on a GPU
_GPU_TEMP_BYTES = 256 << 20  # FAISS would take 1.5 GB for itself, beside the model on the same device

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class FaissBuild:
    """What the installed faiss can do. code: instruction sets, as it says them. gpus: CUDA devices that it sees."""

    code: str
    gpus: int


class Neighbors:
    """Exact cosine search over rows that carry an id.

    Attributes:
        ids: (n,) ascending; row i of the matrix belongs to ids[i].
        dim: width of a row.
    """

    def __init__(self, ids: IntArray, dim: int, *, engine: Any = None, file: Path | None = None, rows: Half) -> None:
        self.ids = ids
        self.dim = dim
        self._given, self._file, self._rows = engine, file, rows
        self._mirror: Any = None
        self._is_gpu_refused = False
        self._mirror_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, blocks: Iterable[tuple[IntArray, Half]], dim: int, *, expected: int = 0) -> Neighbors:
        """From pieces: ids (m,) ascending throughout, and float16 rows (m, d), taken as they are.

        expected: rows to make room for at once; growing by doubling would need up to three times the memory.
        """
        engine = _empty_engine(dim)
        engine.codes.resize(expected * engine.code_size)
        engine.codes.resize(0)  # the room stays
        ids = [np.empty(0, dtype=np.int64)]
        for block_ids, rows in blocks:
            if len(rows):
                engine.add_sa_codes(np.ascontiguousarray(rows).view(np.uint8))
                ids.append(block_ids)
        return cls(np.concatenate(ids), dim, engine=engine, rows=_rows_of(engine))

    @cached_property
    def _engine(self) -> Any:
        """FAISS's index of the rows, opened when it is needed."""
        faiss = import_faiss()
        if self._given is not None:
            return self._given
        if self._file is not None:
            with suppress(RuntimeError):  # another process has dropped the file for a newer one: the rows are mapped
                return faiss.read_index(str(self._file), faiss.IO_FLAG_MMAP_IFC)
        engine = _empty_engine(self.dim)
        if len(self):
            engine.add_sa_codes(np.ascontiguousarray(self._rows).view(np.uint8))
        return engine

    def save(self, prefix: Path) -> None:
        """Write `prefix`.faiss, .ids and .json: each under another name, synced, renamed; the .json comes last."""
        prefix.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(part(prefix, "faiss"), stem=prefix.name) as file:
            try:
                import_faiss().write_index(self._engine, str(file))
            except RuntimeError as error:
                raise OSError(f"faiss cannot write it: {error}") from error
            if not np.array_equal(_mapped(file, self._rows.shape)[-1:], self._rows[-1:]):
                raise RuntimeError("this faiss writes an index whose rows do not come last")
        replace_file(part(prefix, "ids"), self.ids.astype("<i8").tobytes(), stem=prefix.name)
        _write_header(prefix, self.dim, _checksum(prefix))

    @classmethod
    def load(cls, prefix: Path, dim: int, *, verify: bool = False) -> Neighbors | None:
        """What `save` wrote, opened by mmap; None where it is absent, damaged or not ours.

        FAISS does not notice damage in its files, so the checksum is compared the first time and whenever the files'
        stamp differs from the one that was verified.
        """
        try:
            header = json.loads(part(prefix, "json").read_bytes())
            if header["dim"] != dim or not is_own(prefix):
                return None
            if verify or header["stamp"] != _stamp(prefix):
                if header["sha256"] != _checksum(prefix):
                    return None
                with suppress(OSError):  # a full or read-only cache folder only costs the next check
                    _write_header(prefix, dim, header["sha256"])
            ids = np.frombuffer(part(prefix, "ids").read_bytes(), dtype="<i8").astype(np.int64)
            file = part(prefix, "faiss")
            return cls(ids, dim, file=file, rows=_mapped(file, (len(ids), dim)))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        without: IntArray | None = None,
        only: IntArray | None = None,
    ) -> tuple[FloatArray, IntArray]:
        """The k nearest of each query, nearest first; equal scores in the order of their ids.

        queries (q, d) -> scores (q, k), ids (q, k). `without` and `only` are ids, applied before the search; k is cut
        to the rows that remain.
        """
        allowed = self.allowed(without, only)
        count = len(self) if allowed is None else int(allowed.sum())
        k = min(k, count)
        if k <= 0 or not len(queries):
            empty = (len(queries), 0)
            return np.empty(empty, dtype=np.float32), np.empty(empty, dtype=np.int64)
        if "faiss" not in sys.modules and len(queries) * len(self) * self.dim <= SMALL:
            scores, positions = self._blocked(queries, k, allowed)
        elif allowed is None and (found := self._gpu_candidates(queries, k, count)) is not None:
            scores, positions = self.ordered(queries, found, k)
        elif len(queries) >= MANY:
            scores, positions = self._blocked(queries, k, allowed)
        else:
            scores, positions = self._scan(queries, k, allowed, count)
        return scores, self.ids[positions]

    def allowed(self, without: IntArray | None, only: IntArray | None) -> npt.NDArray[np.bool_] | None:
        """Which rows (n,) may answer; None for all of them."""
        if only is None and (without is None or not len(without)):
            return None
        mask = np.ones(len(self), dtype=np.bool_) if only is None else self._is_among(only)
        return mask if without is None or not len(without) else mask & ~self._is_among(without)

    def _is_among(self, ids: IntArray) -> npt.NDArray[np.bool_]:
        """Which rows (n,) have one of `ids` (m,), in any order."""
        first, last = (int(self.ids[0]), int(self.ids[-1])) if len(self) else (0, -1)
        if last - first != len(self) - 1:
            return np.isin(self.ids, ids)
        mask = np.zeros(len(self), dtype=np.bool_)  # no gap, as until a picture is gone: an id tells its position
        if len(ids) and not first <= ids.min() <= ids.max() <= last:
            ids = ids[(ids >= first) & (ids <= last)]
        mask[ids - first] = True
        return mask

    def _scan(
        self, queries: Embeddings, k: int, allowed: npt.NDArray[np.bool_] | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        wanted = min(k + 1, count)
        while True:
            found = self._ask_widely(queries, wanted, allowed, count)
            scores, positions = found or self._ask(queries, wanted, allowed)
            # FAISS keeps any of the rows that tie for the last place; ask on until the tie lies inside.
            if wanted == count or bool((scores[:, -1] < scores[:, k - 1] - ROUNDING).all()):
                break
            wanted = min(2 * wanted, count)
        return self.ordered(queries, positions, k)

    def _ask_widely(
        self, queries: Embeddings, k: int, allowed: npt.NDArray[np.bool_] | None, count: int
    ) -> tuple[FloatArray, IntArray] | None:
        """What `_ask` gives, out of more answers of all rows; None where they hold too few that are allowed.

        FAISS looks up every row in the bits of a selector, which takes as long as the scan; so this is for filters
        that leave most rows.
        """
        wide = WIDER * k * len(self) // max(count, 1)
        if allowed is None or 2 * count < len(self) or wide > MOST_WIDE:
            return None
        scores, positions = self._ask(queries, min(wide, len(self)), None)
        is_kept = allowed[positions]
        if (is_kept.sum(axis=1) < k).any():
            return None
        order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)

    def _ask(self, queries: Embeddings, k: int, allowed: npt.NDArray[np.bool_] | None) -> tuple[FloatArray, IntArray]:
        faiss = import_faiss()
        if allowed is None:
            found = self._engine.search(queries, k)
        else:
            bits = np.packbits(allowed, bitorder="little")
            found = self._engine.search(queries, k, params=faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits)))
        scores: FloatArray = found[0]
        positions: IntArray = found[1]
        if (positions < 0).any():  # a NaN in the query or in a stored row; an id of -1 must never become a picture
            raise ValueError("FAISS returned fewer neighbours than there are rows")
        return scores, positions

    def _blocked(
        self, queries: Embeddings, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[FloatArray, IntArray]:
        everything = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        return self.ordered(queries, self.nearest_among(queries, k, everything), k)

    def nearest_among(self, queries: Embeddings, k: int, positions: IntArray) -> IntArray:
        """Candidates (q, k or more) for the k nearest rows at `positions` (m,), ascending; not in order."""
        if k <= 0:
            return np.empty((len(queries), 0), dtype=np.int64)
        best = np.empty((len(queries), 0), dtype=np.float32)
        where = np.empty((len(queries), 0), dtype=np.int64)
        rows = self.rows()
        for start in range(0, len(positions), _BLOCK):
            chosen = positions[start : start + _BLOCK]
            is_whole = chosen[-1] - chosen[0] + 1 == len(chosen)
            block = rows[chosen[0] : chosen[-1] + 1] if is_whole else rows[chosen]
            scores = queries @ block.astype(np.float32).T  # (q, rows): cosine, because rows have length 1
            best = np.concatenate([best, scores], axis=1)
            where = np.concatenate([where, np.broadcast_to(chosen, scores.shape)], axis=1)
            best, where = _candidates(best, where, k)
        return where

    def ordered(
        self, queries: Embeddings, positions: Sequence[IntArray] | IntArray, k: int
    ) -> tuple[FloatArray, IntArray]:
        """Scores and positions (q, k) of the best of each query's `positions`; equal scores in their order."""
        # A matrix product rounds equal rows differently, by their place in a block; einsum treats every row alike.
        rows = self.rows()
        found = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        for number, query in enumerate(queries):
            exact = np.einsum("kd,d->k", rows[positions[number]].astype(np.float32), query)
            order = np.lexsort((positions[number], -exact))[:k]
            found[number], scores[number] = positions[number][order], exact[order]
        return scores, found

    def rows(self) -> Half:
        """The stored matrix, float16 (n, d), without a copy; it lives as long as this object."""
        return self._rows

    def _gpu_candidates(self, queries: Embeddings, k: int, count: int) -> IntArray | None:
        """Positions (q, k or more) by the first CUDA device; None where there is none, or it has no room for them."""
        if k + GPU_MARGIN > _GPU_K or self._is_gpu_refused or import_faiss().get_num_gpus() == 0:
            return None
        try:
            # Half precision may swap near neighbours there: ask for some more, and put them in order here.
            found: IntArray = self._gpu().search(queries, min(k + GPU_MARGIN, count))[1]
        except RuntimeError as error:  # FAISS's only exception: no memory, a lost device
            self._is_gpu_refused, self._mirror = True, None
            reason = str(error).strip().splitlines()[-1:] or ["no reason was given"]
            warnings.warn(f"the GPU cannot search {len(self):,} vectors, so the CPU does: {reason[0]}", stacklevel=2)
            return None
        return found if (found >= 0).all() else None

    def _gpu(self) -> Any:
        """The rows once more, as float16, on the first CUDA device; the CPU copy stays the master."""
        with self._mirror_lock:
            if self._mirror is None:
                faiss = import_faiss()
                config = faiss.GpuIndexFlatConfig()
                config.useFloat16 = True
                resources = faiss.StandardGpuResources()
                resources.setTempMemory(_GPU_TEMP_BYTES)
                mirror = faiss.GpuIndexFlatIP(resources, self.dim, config)
                rows = self.rows()
                for start in range(0, len(rows), _BLOCK):
                    mirror.add(rows[start : start + _BLOCK].astype(np.float32))
                self._mirror = mirror
        return self._mirror


def _candidates(scores: FloatArray, positions: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    """For each query the k largest and whatever comes as close to them as rounding may have moved it; not in order."""
    if k >= scores.shape[1]:
        return scores, positions
    cut = np.partition(scores, -k, axis=1)[:, -k, None] - ROUNDING
    keep = int((scores >= cut).sum(axis=1).max())
    if keep == scores.shape[1]:
        return scores, positions
    chosen = np.argpartition(scores, -keep, axis=1)[:, -keep:]
    return np.take_along_axis(scores, chosen, 1), np.take_along_axis(positions, chosen, 1)


def _empty_engine(dim: int) -> Any:
    faiss = import_faiss()
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _rows_of(engine: Any) -> Half:
    """The codes of FAISS's index as the matrix (n, d) that they are, without a copy."""
    size = engine.ntotal * engine.d * 2
    if not size:
        return np.empty((0, engine.d), dtype=np.float16)
    codes: Half = import_faiss().rev_swig_ptr(engine.codes.data(), size).view(np.float16)
    return codes.reshape(-1, engine.d)


def _mapped(file: Path, shape: tuple[int, int]) -> Half:
    """The same from FAISS's file, which ends in them; ValueError where it cannot hold so many."""
    size = shape[0] * shape[1] * 2
    start = os.stat(file).st_size - size
    if start <= 0:
        raise ValueError(f"{file} is too short")
    if not size:
        return np.empty(shape, dtype=np.float16)
    return np.memmap(file, np.float16, "r", offset=start, shape=shape)


def faiss_build() -> FaissBuild:
    """By import of faiss."""
    faiss = import_faiss()
    return FaissBuild(
        code=faiss.get_compile_options().strip(),
        gpus=faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0,
    )


def import_faiss() -> Any:
    """The library, where it is first needed."""
    import faiss

    return faiss


def part(prefix: Path, suffix: str) -> Path:
    """A file of the cache at `prefix`."""
    return prefix.with_name(f"{prefix.name}.{suffix}")


def _checksum(prefix: Path) -> str:
    digest = hashlib.sha256()
    for suffix in ("faiss", "ids"):
        with open(part(prefix, suffix), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _stamp(prefix: Path) -> list[list[int]]:
    infos = [os.stat(part(prefix, suffix)) for suffix in ("faiss", "ids")]
    return [[info.st_size, info.st_mtime_ns, info.st_ino] for info in infos]


def is_own(prefix: Path, suffixes: Iterable[str] = ("faiss", "ids", "json")) -> bool:
    """Written by this user: the FAISS reader must not meet a file that someone else has planted."""
    if not hasattr(os, "getuid"):
        return True
    return all(os.stat(part(prefix, suffix)).st_uid == os.getuid() for suffix in suffixes)


def _write_header(prefix: Path, dim: int, checksum: str) -> None:
    header = json.dumps({"dim": dim, "sha256": checksum, "stamp": _stamp(prefix)})
    replace_file(part(prefix, "json"), header.encode(), stem=prefix.name)
