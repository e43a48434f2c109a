"""Queries to shards: words, pictures, sums, AND, OR, NOT and filters, answered where the shards lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain

import numpy as np

from clipkit.bulk.lance_index import MOST_K, LanceIndex
from clipkit.bulk.scan import SHIFT, Nearest, nearest, sample
from clipkit.bulk.shards import Manifest, Shards
from clipkit.core.arrays import Embeddings, IntArray
from clipkit.errors import ClipkitError, ModelMismatch, QueryError
from clipkit.explore.conditions import filter_of
from clipkit.explore.logic import rank
from clipkit.explore.metadata import SQUARE, Filters, kind
from clipkit.explore.relevance import MANY, SAMPLE, is_at_least, scale_for
from clipkit.images.formats import SUFFIXES
from clipkit.models.devices import FLOAT32, INT8
from clipkit.models.encoder import Encoder, embeddings_agree
from clipkit.models.load import load_encoder, load_query_encoder
from clipkit.search.hits import Hit, Hits, Relevance, check_count
from clipkit.search.query import Condition, Query, Sum, embed, leaves, parse_query
from clipkit.search.vectors import Half
from clipkit.store import filters as by
from clipkit.store.filters import Filter

KNOWN = ("path", "date", "size", "width", "height", "shape", "type")  # filters by what a shard's rows say
Notify = Callable[[str], None]


def search(
    shards: Shards,
    query: str | Query,
    k: int = 10,
    *,
    filters: Filters | None = None,
    least: Relevance = "weak",
    encoder: Encoder | None = None,
    exact: bool = False,
    notify: Notify | None = None,
) -> Hits:
    """The k pictures of shards that fit a query best, each with its relevance.

    By the index that `clipkit search --build ivf` has made beside them, always rescored; exactly where there is none,
    where it is not good enough, and for more than 100 answers, filters, AND, OR and NOT.

    Parameters
    ----------
    shards : Shards
        What is searched, in bounded memory.
    query : str or Query
        In the query language of `clipkit search`, with the filters path, date, size, width, height, shape and type.
    k : int, default 10
        Cut to what is there.
    filters : Filters, optional
        Which pictures may answer, besides the filters of the query.
    least : {"weak", "likely", "strong"}, default "weak"
        The weakest relevance to give.
    encoder : Encoder, optional
        Instead of the model that made the shards.
    exact : bool, default False
        Read every row, whatever index there is.
    notify : callable, optional
        Given a sentence where there is an index that cannot be used.

    Returns
    -------
    Hits
        Best first, with `verdict`. `file` of a hit is its path below the source, a URL perhaps.

    Raises
    ------
    QueryError
        If the query cannot be read, or has a filter that shards cannot answer.
    ModelMismatch
        If the encoder did not make the shards.
    IndexDamaged
        If a shard is not whole.

    Examples
    --------
    >>> from clipkit.bulk import Shards, search
    >>> [hit.path for hit in search(Shards("shards"), "a cat OR a rocket", k=2)]
    ['chelsea.png', 'rocket.jpg']
    """
    check_count(k)
    asked = parse_query(query) if isinstance(query, str) else query
    tree = asked.tree
    wanted = _wanted(asked.conditions, filters or Filters())
    if tree is None:
        raise QueryError("filters alone compare nothing", hint="words beside them, as in a dog date:2023")
    refuse_empty(shards)
    encoder = check_encoder(encoder, shards.manifest) if encoder else query_encoder(shards.manifest)
    some = sample(shards, SAMPLE)
    vectors = {leaf: embed(leaf.terms, encoder, sample=some) for leaf in leaves(tree)}
    is_plain = isinstance(tree, Sum) and wanted is None and k < MOST_K and not exact
    index = LanceIndex.open(shards, notify) if is_plain else None
    answers = _Answers(index.search if index else lambda queries, most: nearest(shards, queries, most, wanted=wanted))
    ranked = rank(answers, tree, vectors, scale_for(encoder, some, _about(shards)), k)
    shown = [replace(hit, relevance=word) for hit, word in ranked.hits if is_at_least(word, least)]
    return Hits(_with_paths(shards, shown), verdict=ranked.verdict)


def refuse_empty(shards: Shards) -> None:
    """ClipkitError where there are no shards yet."""
    if not shards.names:
        again = "clipkit index SOURCE --engine ray --out OUT"
        raise ClipkitError(f"{shards.storage.url} has no shards yet", hint=f"{again}, and wait for the first")


def query_encoder(manifest: Manifest, load: Callable[..., Encoder] | None = None) -> Encoder:
    """What encodes queries to shards: the export of their model, or what `load` gives, by name."""
    is_exact, is_int8 = manifest.pixel_recipe.startswith("exact"), INT8 in manifest.precision.split(" ")
    source = manifest.model_source or manifest.model
    found = load_query_encoder(
        manifest.weights_sha256,
        manifest.model,
        source,
        exact_pixels=is_exact,
        load=lambda: (load or load_encoder)(source, exact_pixels=is_exact),
        precision=INT8 if is_int8 else FLOAT32,
    )
    return check_encoder(found, manifest)


def load_for(manifest: Manifest, load: Callable[..., Encoder], *, is_plain: bool = False) -> Encoder:
    """The model of shards as `load` gives it by name; is_plain: for queries alone, as quick as can be."""
    if is_plain:
        return query_encoder(manifest, load)
    source, is_exact = manifest.model_source or manifest.model, manifest.pixel_recipe.startswith("exact")
    return check_encoder(load(source, is_exact), manifest)


def check_encoder(encoder: Encoder, manifest: Manifest) -> Encoder:
    """The same; ModelMismatch where it did not make the shards."""
    made, asks = (manifest.engine, manifest.precision), (encoder.engine, encoder.precision)
    if encoder.fingerprint != manifest.weights_sha256 or encoder.dim != manifest.dim:
        name = "other weights of the same name" if encoder.model == manifest.model else encoder.model
        raise ModelMismatch(f"these shards were made with {manifest.model}, not {name}", hint="clipkit models")
    if not embeddings_agree(made, asks):
        fact = f"these shards were made by {' in '.join(made)}, not by {' in '.join(asks)}"
        raise ModelMismatch(fact, hint=f"--engine {made[0]}, as they were made")
    return encoder


def file_of(source: str, path: str) -> str:
    """Where a picture of shards lies: its path below their source, a folder or a URL."""
    return f"{source.rstrip('/')}/{path}"


class _Answers:
    """What the nearest rows of shards are, as `rank` asks an index; the embeddings of what answered stay."""

    def __init__(self, ask: Callable[[Embeddings, int], Sequence[Nearest]]) -> None:
        self._ask = ask
        self._rows: dict[int, Half] = {}

    @property
    def store(self) -> _Answers:
        return self

    def search_embeddings(self, embeddings: Embeddings, k: int = 10, *, only: IntArray | None = None) -> list[Hits]:
        """The k nearest rows of each of embeddings (q, d); only their ids are known yet."""
        found = self._ask(embeddings, k)
        for one in found:
            self._rows |= zip(one.ids.tolist(), one.embeddings, strict=True)
        return [Hits(map(_hit, one.scores.tolist(), one.ids.tolist())) for one in found]

    def vectors(self, ids: Iterable[int]) -> tuple[IntArray, Half]:
        """Ids (n,) and embeddings (n, d) of what has answered."""
        known = [id_ for id_ in ids if id_ in self._rows]
        return np.array(known, np.int64), np.array([self._rows[id_] for id_ in known], np.float16)


def _hit(score: float, id_: int) -> Hit:
    return Hit(min(score, 1.0), "", "", id_)


def _with_paths(shards: Shards, hits: Sequence[Hit]) -> list[Hit]:
    """The same with their names, which are read where the rows lie."""
    names = shards.names
    rows: dict[int, list[int]] = {}
    for hit in hits:
        rows.setdefault(hit.id >> SHIFT, []).append(hit.id & ((1 << SHIFT) - 1))
    found = {
        (number << SHIFT) + row: path
        for number, wanted in rows.items()
        for row, path in zip(wanted, shards.paths(names[number], wanted), strict=True)
    }
    source = shards.manifest.source
    once = {found[hit.id]: hit for hit in reversed(hits)}  # a run under way may have a picture in an older shard too
    best = {hit.id for hit in once.values()}
    named = [(hit, found[hit.id]) for hit in hits if hit.id in best]
    return [replace(hit, path=path, file=file_of(source, path)) for hit, path in named]


def _about(shards: Shards) -> int:
    """How many pictures there are, as far as relevance is judged by it: no more footers are read than that takes."""
    total = 0
    for name in shards.names:
        total += shards.count(name)
        if total >= MANY:
            break
    return total


def _wanted(conditions: Sequence[Condition], filters: Filters) -> Filter | None:
    """One filter for all conditions, None for none; QueryError for what shards do not know."""
    known = [_filter(condition) for condition in conditions]
    found = list(chain(known, _from_options(filters)))
    if not found:
        return None
    return lambda columns: reduce(np.logical_and, [one(columns) for one in found])


def _filter(condition: Condition) -> Filter:
    found = filter_of(condition) if condition.field in KNOWN else None
    if found is None:
        fields = ", ".join(f"{field}:" for field in KNOWN)
        raise QueryError(f"shards do not know {condition.field}:, only {fields}", hint="leave that filter out")
    return found


def _from_options(filters: Filters) -> Iterable[Filter]:
    if filters.folder:
        yield by.lies_below(filters.folder)
    if filters.since or filters.until:
        yield by.taken_between(filters.since, filters.until)
    if filters.shapes:
        shapes = [by.has_shape(shape, SQUARE) for shape in filters.shapes]
        yield lambda columns: reduce(np.logical_or, [one(columns) for one in shapes])
    if filters.kinds:
        yield by.has_suffix([suffix for suffix in SUFFIXES if kind(f"x{suffix}") in filters.kinds])
