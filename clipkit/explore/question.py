"""Questions to an index and their answers: words, pictures, moves and filters, with no browser in it."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.text import counted, described, readable
from clipkit.errors import IndexDamaged, QueryError
from clipkit.explore.albums import ids_of_album
from clipkit.explore.conditions import ids_that_meet
from clipkit.explore.logic import Ranked, rank
from clipkit.explore.metadata import Catalogue, Fact, Filters, choose_ids
from clipkit.explore.relevance import SAMPLE, is_at_least, scale_for
from clipkit.index.image_index import ImageIndex
from clipkit.models.encoder import Encoder
from clipkit.models.tokenizer import LONG_BYTES
from clipkit.search.hits import Hit, Hits, Relevance, Verdict, check_count
from clipkit.search.language import foreign_notes
from clipkit.search.query import MAX_WORDS, AllOf, Node, Query, Sum, Term, embed, leaves, parse_query, word_weight
from clipkit.search.saved import expand, is_saved_name

if TYPE_CHECKING:
    from clipkit.explore.library import Library

ANYTHING = Filters()
PAGE = 60  # pictures a page of answers
MOST = 50_000  # pictures one question shows
MOST_MOVES = 20
MORE, LESS = 0.8, 0.4  # weights of "more like this" and "less like this" beside a query of length 1
NEAR = 0.95  # cosine from which a picture is offered as nearly the same
AS_SPACES = ("\n", "\t")  # control characters that words may have; they become spaces


@dataclass(frozen=True)
class Question:
    """A question to one library: words, pictures to move to and away from, and filters.

    Attributes
    ----------
    words : str
        A query in words.
    picture : ndarray of shape (1, d), float32, or None
        Embedding of a picture to search by.
    picture_name : str
        For people.
    more, less : tuple of int
        Ids of pictures to move to and away from.
    twins_of : int
        Id whose duplicates are asked for; nothing else counts then. 0 for none.
    filters : Filters
        Which pictures may answer.
    least : {"strong", "likely", "weak"}
        The weakest relevance to show.
    album : str
        Only pictures of that album; "" for all.
    ids : tuple of int
        Only these pictures; empty for all.

    References
    ----------
    .. [1] J. Rocchio, "Relevance Feedback in Information Retrieval", in The SMART Retrieval System, 1971.

    Examples
    --------
    >>> from clipkit.explore import Filters, Question
    >>> question = Question(words="a cat", filters=Filters(kinds=("PNG",)))
    >>> bool(question), bool(Question())
    (True, False)
    """

    words: str = ""
    picture: Embeddings | None = field(default=None, compare=False)
    picture_name: str = ""
    more: tuple[int, ...] = ()
    less: tuple[int, ...] = ()
    twins_of: int = 0
    filters: Filters = field(default_factory=Filters)
    least: Relevance = "weak"
    album: str = ""
    ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words or self.has_pictures or self.twins_of)

    def __repr__(self) -> str:
        plain = {name: value for name, value in vars(self).items() if name not in ("words", "picture")}
        asked = [f"{name}={value!r}" for name, value in plain.items() if value and value != "weak"]
        return described(self, repr(self.words), *asked, "with a picture" if self.picture is not None else "")

    @property
    def has_pictures(self) -> bool:
        """Whether pictures are part of the question, and not words alone."""
        return bool(self.picture is not None or self.more or self.less)


@dataclass(frozen=True)
class Found:
    """One picture of an answer.

    Attributes
    ----------
    hit : Hit
        Score, path and file.
    fact : Fact
        Its metadata.
    relevance : {"strong", "likely", "weak"}
        How well it fits the question.
    """

    hit: Hit
    fact: Fact
    relevance: Relevance


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes
    ----------
    found : tuple of Found
        Best first.
    total : int
        Pictures that the filters leave.
    seconds : float
        From question to answer.
    verdict : {"fits", "unsure", "nothing"}
        Whether any picture fits: "unsure" where the best is not strong, "nothing" where none seems to fit or the
        filters leave none.
    has_more : bool
        A longer answer exists.
    notes : tuple of str
        What of the words was understood in another way than it was typed.
    """

    found: tuple[Found, ...]
    total: int
    seconds: float
    verdict: Verdict = "fits"
    has_more: bool = False
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        best = repr(self.found[0].hit) if self.found else ""
        return described(self, f"{len(self.found):,} of {counted(self.total, 'picture')}", self.verdict, best)


def clean(text: str) -> str:
    """Words as they may be asked and shown: one line, no control or bidi characters, no lone surrogates.

    QueryError where more than 1,000 characters remain.
    """
    spaced = "".join(" " if char in AS_SPACES else char for char in text)
    visible = "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    words = " ".join(visible.split())
    if len(words) > MAX_WORDS:
        raise QueryError(
            f"the words have {len(words):,} characters; {MAX_WORDS:,} are the most",
            hint="shorten them",
        )
    return words


def ask(library: Library, question: Question, k: int = PAGE) -> Answer:
    """The best pictures for a question, each with its relevance.

    A question without words and pictures lists what the filters leave, the newest first.

    Parameters
    ----------
    library : Library
        With an index.
    question : Question
        What is asked.
    k : int, default 60
        At most 50,000.

    Returns
    -------
    Answer
        `found`, best first, each with `hit`, `fact` and `relevance` ("strong", "likely" or "weak"); `total`, the
        number of pictures that the filters leave; `verdict` ("fits", "unsure" or "nothing"); `has_more`; `seconds`.

    Raises
    ------
    QueryError
        If the question cannot be asked.
    IndexNotFound
        If the library has no index.

    Examples
    --------
    >>> from pathlib import Path
    >>> from clipkit.explore import Library, Question, ask
    >>> library = Library(Path("photos"), lambda name, exact: clipkit.load_encoder(name))
    >>> answer = ask(library, Question(words="a cat"))
    >>> answer.found[0].fact.path, answer.total
    ('chelsea.png', 4)
    """
    started = time.monotonic()
    catalogue, words = library.catalogue(), library.parse(question.words)
    only = _meeting(catalogue.chosen(question.filters), ids_that_meet(library.index, words.conditions, words_only=True))
    only = _meeting(only, _chosen_by_hand(library, question))
    total = len(catalogue) if only is None else len(only)
    k = min(k, MOST)
    if question.twins_of:
        return _twins(library, catalogue, question.twins_of, started)
    if not total or not (words.tree or question.has_pictures):
        ids = catalogue.newest_first(catalogue.ids if only is None else only)[:k].tolist()
        verdict: Verdict = "nothing" if question and not total else "fits"
        return Answer(plain(library, catalogue, ids), total, time.monotonic() - started, verdict, has_more=total > k)
    ranked = _judged(library, question, words, only, k)
    found = [Found(hit, fact, word) for hit, word in ranked.hits if (fact := catalogue.fact(hit.id)) is not None]
    shown = tuple(one for one in found if is_at_least(one.relevance, question.least))
    has_more = ranked.has_more and len(shown) == len(found) and k < MOST
    notes = (*words.notes, *foreign_words(words.terms, library.encoder))
    return Answer(shown, total, time.monotonic() - started, ranked.verdict, has_more, notes)


def _chosen_by_hand(library: Library, question: Question) -> IntArray | None:
    """Ids (n,) of the album and the pictures that a question is about; None for all."""
    album = ids_of_album(library.index, question.album) if question.album else None
    chosen = np.array(question.ids, dtype=np.int64) if question.ids else None
    return _meeting(album, None if chosen is None else np.intersect1d(chosen, library.catalogue().ids))


def _judged(library: Library, question: Question, words: Query, only: IntArray | None, k: int) -> Ranked:
    """The k best pictures for the words and the pictures of a question, each with its relevance."""
    pictures = Sum((Term("", is_file=True),))  # stands for the pictures of the question
    tree: Node
    if isinstance(words.tree, Sum | None):
        tree = pictures if words.tree is None or question.has_pictures else words.tree
        vectors = {tree: embedding_of(library, question)}
    else:
        tree, vectors = words.tree, {leaf: library.embed(leaf) for leaf in words.sums}
        if question.has_pictures:
            tree = AllOf((tree, pictures))
            vectors[pictures] = embedding_of(library, replace(question, words=""))
    ranked = rank(library.index, tree, vectors, library.relevance_scale(), k, only)
    return replace(ranked, verdict="fits") if question.has_pictures else ranked


def search(
    index: ImageIndex,
    query: str | Query,
    k: int = 10,
    *,
    filters: Filters = ANYTHING,
    only: IntArray | None = None,
    least: Relevance = "weak",
    encoder: Encoder | None = None,
) -> Hits:
    """The k pictures of an index that fit a query best, each with its relevance.

    Parameters
    ----------
    index : ImageIndex
        What is searched.
    query : str or Query
        In the query language of `clipkit search`: words, pictures, AND, OR, NOT, filters; or what `parse_query` made.
    k : int, default 10
        Cut to what is there.
    filters : Filters, optional
        Which pictures may answer, besides the filters of the query.
    only : ndarray of shape (n,), int64, optional
        Ids of pictures that may answer.
    least : {"weak", "likely", "strong"}, default "weak"
        The weakest relevance to give.
    encoder : Encoder, optional
        Instead of the index's own.

    Returns
    -------
    Hits
        Best first, with `verdict`: "fits", "unsure" or "nothing".

    Raises
    ------
    QueryError
        If the query cannot be read, or no picture lies in a folder that it names.

    Examples
    --------
    >>> from clipkit.explore import search
    >>> index = clipkit.ImageIndex.open("photos")
    >>> [hit.path for hit in search(index, "a cat OR a rocket", k=2)]
    ['chelsea.png', 'rocket.jpg']
    >>> [hit.path for hit in search(index, "a cat type:jpeg", k=2)]
    ['rocket.jpg']
    """
    check_count(k)
    if isinstance(query, str) and is_saved_name(query):
        query = expand(query, index.saved_searches)
    asked = parse_query(query) if isinstance(query, str) else query
    chosen = _meeting(candidates(index, filters, only), ids_that_meet(index, asked.conditions))
    if asked.tree is None:
        return _listed(index, k, chosen)
    encoder = encoder or index.query_encoder
    if chosen is not None and not len(chosen):
        return Hits()
    try:
        ranked = _ranked(index, asked.tree, encoder, k, chosen)
    except IndexDamaged:
        if least != "weak" or not isinstance(asked.tree, Sum):
            raise
        # The search cache is whole; only nothing can be compared with the phrases.
        return index.search_embeddings(embed(asked.tree.terms, encoder), k, only=chosen)[0]
    shown = (replace(hit, relevance=word) for hit, word in ranked.hits if is_at_least(word, least))
    return Hits(shown, verdict=ranked.verdict)


def _ranked(index: ImageIndex, tree: Node, encoder: Encoder, k: int, only: IntArray | None) -> Ranked:
    """The k best pictures for a query, each with its relevance."""
    ids = index.ids
    is_mixed = any(len({term.is_file for term in leaf.terms}) > 1 for leaf in leaves(tree))
    sample = index.sample_embeddings(ids) if is_mixed else index.sample_embeddings(ids, about=SAMPLE)
    vectors = {leaf: embed(leaf.terms, encoder, sample=sample) for leaf in leaves(tree)}
    return rank(index, tree, vectors, scale_for(encoder, sample, len(ids)), k, only)


def _listed(index: ImageIndex, k: int, only: IntArray | None) -> Hits:
    """The k newest pictures of an index, or of those with these ids (n,); nothing is compared, so that scores are 0."""
    ids = index.store.newest_ids()
    shown = (ids if only is None else ids[np.isin(ids, only)])[:k].tolist()
    _, paths = index.store.paths(shown)
    partial = index.store.partial_among(shown)
    found = ((id_, paths[id_]) for id_ in shown if id_ in paths)
    return Hits(Hit(0.0, path, str(index.root / path), id_, id_ in partial) for id_, path in found)


def _meeting(first: IntArray | None, second: IntArray | None) -> IntArray | None:
    """Ids that are in both; None for all."""
    if first is None or second is None:
        return second if first is None else first
    return np.intersect1d(first, second)


def candidates(index: ImageIndex, filters: Filters, only: IntArray | None = None) -> IntArray | None:
    """Ids (n,) that the filters leave, of `only` where it is given; None for all. QueryError for a wrong folder."""
    return _meeting(choose_ids(index, filters), only)


def unread_words(terms: Sequence[Term], encoder: Encoder) -> tuple[str, ...]:
    """A sentence on the words of a query whose end the model does not read, if any."""
    texts = [term.text for term in terms if not term.is_file and len(readable(term.text).encode()) > LONG_BYTES]
    if not texts:
        return ()
    from clipkit.classify.words import lost_words

    return lost_words(encoder, texts, encoder.encode_texts(texts))


def notes_on(terms: Sequence[Term], encoder: Encoder) -> tuple[str, ...]:
    """Sentences on words of a query that the model does not know, or does not read to their end."""
    return (*foreign_words(terms, encoder), *unread_words(terms, encoder))


def foreign_words(terms: Sequence[Term], encoder: Encoder) -> tuple[str, ...]:
    """A sentence on words in a language that the model does not know, if any."""
    return foreign_notes((term.text for term in terms if not term.is_file), encoder.model)


def embedding_of(library: Library, question: Question) -> Embeddings:
    """The question as one vector (1, d) of length 1."""
    dim = library.info.dim
    total = np.zeros(dim, dtype=np.float32)
    tree = library.parse(question.words).tree
    if question.picture is not None:
        if question.picture.shape != (1, dim):
            raise QueryError("the picture was read by another model", hint="drop it again")
        total += question.picture[0]
    if isinstance(tree, Sum):
        words = library.embed(tree)
        picture = question.picture
        weight = 1.0 if picture is None else word_weight(words, picture, library.catalogue().sample)
        total += weight * words[0]
    if question.more:
        total += MORE * _mean(library, question.more)
    if question.less:
        total -= LESS * _mean(library, question.less)
    length = float(np.linalg.norm(total))
    if length < 1e-3:
        raise QueryError(
            "nothing is left of the question: its parts cancel out",
            hint="take away less: fewer pictures under less like this",
        )
    return np.asarray(total / length, dtype=np.float32)[None]


def _mean(library: Library, ids: tuple[int, ...]) -> Embeddings:
    _, rows = library.index.store.vectors(ids[:MOST_MOVES])
    if not len(rows):
        raise QueryError("the picture is no longer in the index", hint="ask again")
    return np.asarray(rows.astype(np.float32).mean(axis=0), dtype=np.float32)


def plain(library: Library, catalogue: Catalogue, ids: list[int], score: float = 0.0) -> tuple[Found, ...]:
    """Pictures that nobody has asked for by words: no relevance to speak of."""
    facts = [fact for id_ in ids if (fact := catalogue.fact(id_)) is not None]
    return tuple(
        Found(Hit(score, fact.path, str(library.root / fact.path), fact.id), fact, "strong" if score else "weak")
        for fact in facts
    )


def _twins(library: Library, catalogue: Catalogue, id_: int, started: float) -> Answer:
    """The picture itself, those with its bytes, and those that look nearly the same."""
    same = plain(library, catalogue, [id_, *(twin for twin in catalogue.twins(id_) if twin != id_)], score=1.0)
    seen = {one.hit.id for one in same}
    query = embedding_of(library, Question(more=(id_,)))
    hits = [hit for hit in library.index.search_embeddings(query, PAGE)[0] if hit.score >= NEAR and hit.id not in seen]
    near = [Found(hit, fact, "likely") for hit in hits if (fact := catalogue.fact(hit.id)) is not None]
    return Answer((*same, *near), len(catalogue), time.monotonic() - started)
