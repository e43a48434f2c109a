"""Imagined queries against words: recall of captions as pictures that a generator makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.cache import ArrayCache, cache_key
from clipkit.core.progress import Failure, Progress
from clipkit.datasets.embed import embed_once
from clipkit.datasets.load import Dataset
from clipkit.errors import DatasetError, QueryError
from clipkit.evaluate.zeroshot import RETRIEVAL, Result
from clipkit.generate.imagination import mean_query
from clipkit.generate.pictures import PictureGenerator
from clipkit.metrics import bootstrap, wilson
from clipkit.models.encoder import Encoder, identity

KS = (1, 5, 10)
MOST_KEPT = 20_000  # queries of some kilobytes
LIMIT = 100  # captions: at some seconds a picture an evening of a GPU's, not a week of a CPU's
IMAGINED, BOTH = "imagined", "both"


@dataclass(frozen=True)
class _Asked:
    """A caption as queries (1, d) by its words and by its pictures; owner: position of its photograph."""

    owner: int
    words: Embeddings
    imagined: Embeddings


def evaluate_imagined(
    dataset: Dataset,
    encoder: Encoder,
    generator: PictureGenerator,
    *,
    limit: int = LIMIT,
    n: int = 1,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Recall of imagined queries against that of words, on the same captions.

    The first captions of `limit` photographs drawn by `seed` are asked, all photographs answer. A caption is asked
    three times: by its words, by the mean of its pictures' embeddings, and by the mean of both queries. What a
    generator refuses is left out of all three. What a pipeline of diffusers made is kept in the cache, so that an
    interrupted run goes on.

    Parameters
    ----------
    dataset : Dataset
        With captions.
    encoder : Encoder
        Encodes captions, pictures and photographs.
    generator : PictureGenerator
        Makes the pictures: caption i those of the seeds from seed + i * n on.
    limit : int, default 100
        Captions.
    n : int, default 1
        Pictures of each.
    seed : int, default 0
        Of the captions that are drawn, and of the pictures.
    progress : callable, optional
        Given a `Progress` after each caption.

    Returns
    -------
    Result
        `metrics`: `n`, `photographs`, `words_recall@k`, `imagined_recall@k` and `both_recall@k` for k = 1, 5 and 10,
        with Wilson's intervals; `imagined_minus_words@k` and `both_minus_words@k` with paired bootstrap intervals.
        `failed`: captions that were left out.

    Raises
    ------
    DatasetError
        If the dataset has no captions, or none could be imagined.

    Examples
    --------
    >>> from clipkit.evaluate import evaluate_imagined
    >>> from clipkit.generate import DiffusionGenerator
    >>> captions, generator = clipkit.load_dataset("captions.csv"), DiffusionGenerator("tiny-pipeline", steps=2)
    >>> result = evaluate_imagined(captions, clipkit.load_encoder("starter"), generator, limit=2)
    >>> result.metrics["n"], result.metrics["words_recall@10"]
    (2, 1.0)
    """
    if not dataset.captions:
        raise DatasetError(f"{dataset.name} has no captions", hint="a CSV image,caption")
    embedded = embed_once(dataset, encoder)
    groups = embedded.dataset.captions
    order = np.random.default_rng(seed).permutation(len(groups))[:limit]
    asked, failed = list[_Asked](), list[Failure](embedded.dataset.failed)
    for i, owner in enumerate(order.tolist()):
        caption = groups[owner][0]
        try:
            query = _imagined(caption, generator, encoder, n=n, seed=seed + i * n)
            asked.append(_Asked(owner, encoder.encode_texts([caption]), query))
        except QueryError as error:  # too long for the generator, or refused by its checker
            failed.append(Failure(caption, error.message))
        if progress:
            progress(Progress(i + 1, len(order), caption))
    if not asked:
        raise DatasetError(f"no caption of {dataset.name} could be imagined", hint="shorter captions")
    metrics = {
        "n": len(asked),
        "photographs": len(groups),
        "pictures_a_caption": n,
        **_metrics(asked, embedded.embeddings),
    }
    name = f"{encoder.model}, imagined by {generator.model}"
    return Result(
        RETRIEVAL, dataset.name, name, encoder.fingerprint, str(encoder.recipe), metrics, failed=tuple(failed)
    )


def _imagined(caption: str, generator: PictureGenerator, encoder: Encoder, *, n: int, seed: int) -> Embeddings:
    """The mean query of a caption's pictures (1, d), from the cache where an earlier run made it."""
    cache = ArrayCache("imagined", form="clipkit imagined 1", most=MOST_KEPT)
    whose = getattr(generator, "identity", "")
    key = cache_key(whose, identity(encoder), caption, n, seed)
    if whose and (stored := cache.get(key)) is not None:
        return np.asarray(stored[0]["query"], dtype=np.float32)
    query = mean_query(generator.generate(caption, n=n, seed=seed), encoder)
    if whose:
        cache.put(key, {"query": query})
    return query


def _metrics(asked: list[_Asked], photographs: Embeddings) -> dict[str, Any]:
    owners = np.array([one.owner for one in asked])
    words, imagined = (np.concatenate(rows) for rows in zip(*((one.words, one.imagined) for one in asked), strict=True))
    queries = {"words": words, IMAGINED: imagined, BOTH: words + imagined}  # a longer query ranks as one of length 1
    ranks = {name: _ranks(rows, photographs, owners) for name, rows in queries.items()}
    values: dict[str, Any] = {}
    ci95: dict[str, tuple[float, float]] = {}
    for name, rank in ranks.items():
        for k in KS:
            values[f"{name}_recall@{k}"] = share = float((rank < k).mean())
            ci95[f"{name}_recall@{k}"] = wilson(share, len(rank))
    for name in (IMAGINED, BOTH):
        for k in KS:
            gains = (ranks[name] < k).astype(float) - (ranks["words"] < k)
            values[f"{name}_minus_words@{k}"] = float(gains.mean())
            ci95[f"{name}_minus_words@{k}"] = _paired(gains)
    return {**values, "ci95": ci95}


def _paired(gains: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Of captions drawn with replacement: each brings its gain, which is of the same caption both ways."""
    return bootstrap(lambda rows: float(gains[rows].mean()), len(gains))


def _ranks(queries: Embeddings, photographs: Embeddings, owners: IntArray) -> IntArray:
    """How many photographs come before the right one (n,); of equal ones the earlier."""
    scores = queries @ photographs.T
    own = scores[np.arange(len(owners)), owners][:, None]
    before = np.arange(scores.shape[1]) < owners[:, None]
    return np.asarray(((scores > own) | ((scores == own) & before)).sum(axis=1), dtype=np.int64)
