"""Exact scan of shards: the nearest rows of several queries in one reading, in bounded memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clipkit.bulk.shards import Block, Shards
from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.progress import Progress
from clipkit.search.vectors import ROUNDING, Half
from clipkit.store.columns import Columns, Mask
from clipkit.store.filters import Filter

SHIFT = 32  # an id is the number of the shard, in the order of names, and the row in it
THREADS = 4  # shards read at a time; on more cores the matrix product takes them
COLUMNS = ("path", "path_bytes", "width", "height", "taken_at")  # that filters read


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of one query, best first: scores (k,), ids (k,) and embeddings float16 (k, d)."""

    scores: FloatArray
    ids: IntArray
    embeddings: Half

    def joined(self, other: Nearest, k: int) -> Nearest:
        """The k best of both; equal scores in the order of ids."""
        scores, ids = np.concatenate([self.scores, other.scores]), np.concatenate([self.ids, other.ids])
        order = np.lexsort((ids, -scores))[:k]
        return Nearest(scores[order], ids[order], np.concatenate([self.embeddings, other.embeddings])[order])


def nearest(
    shards: Shards,
    queries: Embeddings,
    k: int,
    *,
    names: Sequence[str] | None = None,
    wanted: Filter | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Nearest]:
    """The k nearest rows of each of `queries` (q, d), by the sum that `clipkit search` orders by; equals by id.

    Rows with an error never answer, nor those without length 1. names: of the shards to read, some of `shards.names`;
    wanted: a filter of metadata. Memory: a few blocks of 8,192 rows, and (q, k) answers.
    """
    every = shards.names
    best = _Best(queries, k)

    def read(name: str) -> str:
        first = every.index(name) << SHIFT
        for block in shards.blocks(name, ["embedding", *(COLUMNS if wanted else ())]):
            best.take(block.embeddings, _allowed(block, wanted), first + block.start)
        return name

    chosen = every if names is None else list(names)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for done, name in enumerate(pool.map(read, chosen), start=1):
            if progress:
                progress(Progress(done, len(chosen), name))
    return best.found


def sample(shards: Shards, most: int, *, of_shards: int = 8) -> Embeddings:
    """At most that many embeddings (m, d), drawn evenly from the first blocks of a few shards."""
    names = shards.names
    parts = []
    for name in names[:: max(1, -(-len(names) // of_shards))]:
        block = next(shards.blocks(name), None)
        if block is not None:
            parts.append(block.embeddings[block.is_unit])
    rows = np.concatenate([np.empty((0, shards.manifest.dim), np.float16), *parts])
    return rows[:: max(1, -(-len(rows) // most))].astype(np.float32)


def _allowed(block: Block, wanted: Filter | None) -> Mask:
    if wanted is None or not len(block.embeddings):
        return block.is_unit
    return block.is_unit & wanted(_columns(block))


def _columns(block: Block) -> Columns:
    """What filters read, of a block; what shards do not say is empty."""
    said = {name: block.batch.column(name).to_pylist() for name in COLUMNS}
    none = [None] * len(block.embeddings)
    paths = [raw or path.encode() for path, raw in zip(said["path"], said["path_bytes"], strict=True)]
    days = [(taken or "")[:10] for taken in said["taken_at"]]
    places = (none, none, none)  # rating, latitude, longitude
    rows = zip(range(len(none)), said["width"], said["height"], *places, days, none, none, none, paths, strict=True)
    return Columns.of(0, "", [list(rows)])


class _Best:
    """The best rows so far of each query; several threads may add to it."""

    def __init__(self, queries: Embeddings, k: int) -> None:
        dim = queries.shape[1]
        nothing = Nearest(np.empty(0, np.float32), np.empty(0, np.int64), np.empty((0, dim), np.float16))
        self.found = [nothing] * len(queries)
        self._queries, self._k = queries, k
        self._floors = np.full(len(queries), -np.inf, np.float32)  # scores below cannot be among the k any more
        self._lock = threading.Lock()

    def take(self, rows: Half, allowed: Mask, first: int) -> None:
        """Rows (n, d) whose ids are `first` and those after it."""
        scores = self._queries @ rows.astype(np.float32).T  # (q, n): cosine, because rows have length 1
        scores[:, ~allowed] = -np.inf
        is_near = scores >= (self._floors - ROUNDING)[:, None]
        is_near[:, ~allowed] = False
        with self._lock:
            for number in np.flatnonzero(is_near.any(axis=1)).tolist():
                self._add(number, rows, _closest(scores[number], np.flatnonzero(is_near[number]), self._k), first)

    def _add(self, number: int, rows: Half, places: IntArray, first: int) -> None:
        near = rows[places]
        # A matrix product rounds equal rows differently, by their place in a block; einsum treats every row alike.
        exact = np.einsum("kd,d->k", near.astype(np.float32), self._queries[number])
        found = self.found[number].joined(Nearest(exact, first + places, near), self._k)
        self.found[number] = found
        if len(found.ids) == self._k:
            self._floors[number] = found.scores[-1]


def _closest(scores: FloatArray, places: IntArray, k: int) -> IntArray:
    """Of these places the k with the highest scores, and whatever rounding may have moved below them."""
    if len(places) <= k:
        return places
    here = scores[places]
    return np.asarray(places[here >= np.partition(here, -k)[-k] - ROUNDING], np.int64)
