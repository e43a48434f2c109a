"""Recall of an index beside shards: what it finds of the 10 nearest rows, for queries in words."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from clipkit.bulk.lance_index import K, LanceIndex, Recall, calibrated, shares, write_built
from clipkit.bulk.queries import query_encoder, refuse_empty
from clipkit.bulk.scan import nearest
from clipkit.bulk.shards import Shards
from clipkit.classify.prompts import TEMPLATES
from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.progress import Progress
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore.relevance import vocabulary
from clipkit.metrics import bootstrap
from clipkit.models.encoder import Encoder

COUNT = 500  # queries
SEED = 0
SCANS = 3  # scans of one query that are timed


def measure_recall(
    shards: Shards,
    queries: Sequence[str] | Embeddings | None = None,
    *,
    count: int = COUNT,
    encoder: Encoder | None = None,
    calibrate: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Recall:
    """Measure what the index of shards finds of the 10 rows that an exact scan finds, and remember it.

    Below .95 the index does not answer any more until it is calibrated or built anew: searches read every row.

    Parameters
    ----------
    shards : Shards
        With an index that `clipkit search --build ivf` has made.
    queries : sequence of str, or ndarray of shape (q, d), float32, optional
        Texts, or their embeddings. By default `prompts(count)`.
    count : int, default 500
        How many of the default ones.
    encoder : Encoder, optional
        Instead of the model that made the shards.
    calibrate : bool, default False
        First choose lists and candidates anew for the queries of even places; the others measure.
    progress : callable, optional
        Given a `Progress` after each shard of the exact scan.

    Returns
    -------
    Recall
        With its interval, and the seconds of a query both ways.

    Raises
    ------
    ClipkitError
        If there is no index, or one of other shards.

    Examples
    --------
    >>> from clipkit.bulk import Shards, measure_recall
    >>> measure_recall(Shards("shards"))
    Traceback (most recent call last):
        ...
    clipkit.errors.ClipkitError: ...shards has no index: its search is exact
    """
    refuse_empty(shards)
    index = LanceIndex.open(shards, is_judged=False)
    if index is None:
        raise ClipkitError(f"{shards.storage.url} has no index: its search is exact", hint=_build(shards))
    texts = _embedded(shards, queries, count, encoder)
    exact = [one.ids for one in nearest(shards, texts, K, progress=progress)]
    if calibrate:
        index = _calibrate(index, texts[::2], exact[::2])
        texts, exact = texts[1::2], exact[1::2]
    found, seconds = [], []
    for text in texts:
        started = time.perf_counter()
        found += index.search(text[None], K)
        seconds.append(time.perf_counter() - started)
    recall = _summed(index, shares(found, exact), seconds, _scan_seconds(shards, texts[:1]))
    write_built(shards, replace(index.built, recall=recall))
    return recall


def prompts(count: int = COUNT, *, seed: int = SEED) -> list[str]:
    """Texts as people may ask: phrases of clipkit's vocabulary in the templates `simple`, drawn at random.

    Parameters
    ----------
    count : int, default 500
        How many, none twice; at most 7 for each phrase.
    seed : int, default 0
        Of the draw.

    Returns
    -------
    list of str
        In the order of the draw.

    Examples
    --------
    >>> from clipkit.bulk import prompts
    >>> len(set(prompts(500)))
    500
    """
    every = [template.format(phrase) for phrase in vocabulary() for template in TEMPLATES["simple"]]
    drawn = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[place] for place in drawn]


def _embedded(
    shards: Shards, queries: Sequence[str] | Embeddings | None, count: int, encoder: Encoder | None
) -> Embeddings:
    if isinstance(queries, np.ndarray):
        return queries
    texts = prompts(count) if queries is None else list(queries)
    if len(texts) < 2:
        raise QueryError("recall is a mean over queries, and there are none", hint="a text file, one query a line")
    return (encoder or query_encoder(shards.manifest)).encode_texts(texts)


def _calibrate(index: LanceIndex, texts: Embeddings, exact: Sequence[IntArray]) -> LanceIndex:
    built = calibrated(index, texts, exact)
    return index.with_effort(built.nprobes, built.refine)


def _summed(index: LanceIndex, found: np.ndarray, seconds: Sequence[float], scan_seconds: float) -> Recall:
    low, high = bootstrap(lambda rows: float(found[rows].mean()), len(found))
    return Recall(
        recall=round(float(found.mean()), 4),
        low=round(low, 4),
        high=round(high, 4),
        queries=len(found),
        rows=index.built.rows,
        nprobes=index.built.nprobes,
        refine=index.built.refine,
        index_seconds=statistics.median(seconds),
        exact_seconds=scan_seconds,
    )


def _scan_seconds(shards: Shards, text: Embeddings) -> float:
    times = []
    for _ in range(SCANS):
        started = time.perf_counter()
        nearest(shards, text, K)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _build(shards: Shards) -> str:
    return f"clipkit search --build ivf {shards.storage.url}"
