"""Questions to an index and their answers: words, pictures, moves and filters, with no browser in it."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from clipkit.core.arrays import Embeddings, IntArray
from clipkit.core.text import readable
from clipkit.errors import QueryError
from clipkit.explore.metadata import Catalogue, Fact, Filters, choose_ids, sample_embeddings
from clipkit.explore.relevance import is_at_least, judge_hits, scale_for
from clipkit.index.image_index import ImageIndex
from clipkit.models.encoder import Encoder
from clipkit.models.tokenizer import LONG_BYTES
from clipkit.search.hits import Hit, Hits, Relevance, Verdict
from clipkit.search.query import MAX_WORDS, Term

if TYPE_CHECKING:
    from clipkit.explore.library import Library

ANYTHING = Filters()
PAGE = 60  # pictures a page of answers
MOST = 5_000  # pictures one question shows
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

    def __bool__(self) -> bool:
        return bool(self.words or self.picture is not None or self.more or self.less or self.twins_of)


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
    """

    found: tuple[Found, ...]
    total: int
    seconds: float
    verdict: Verdict = "fits"
    has_more: bool = False


def clean(text: str) -> str:
    """Words as they may be asked and shown: one line, no control or bidi characters, no lone surrogates.

    QueryError where more than 1,000 characters remain.
    """
    spaced = "".join(" " if char in AS_SPACES else char for char in text)
    visible = "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    words = " ".join(visible.split())
    if len(words) > MAX_WORDS:
        raise QueryError(f"the words have {len(words):,} characters; {MAX_WORDS:,} are the most")
    return words


def ask(library: Library, question: Question, k: int = PAGE) -> Answer:
    """The best pictures for a question, each with its relevance.

    A question without words and pictures lists what the filters leave.

    Parameters
    ----------
    library : Library
        With an index.
    question : Question
        What is asked.
    k : int, default 60
        At most 5,000.

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
    catalogue = library.catalogue()
    only = catalogue.chosen(question.filters)
    total = len(catalogue) if only is None else len(only)
    k = min(k, MOST)
    if question.twins_of:
        return _twins(library, catalogue, question.twins_of, started)
    if not question or not total:
        ids = (catalogue.ids if only is None else only)[:k].tolist()
        verdict: Verdict = "nothing" if question and not total else "fits"
        return Answer(plain(library, catalogue, ids), total, time.monotonic() - started, verdict, has_more=total > k)
    query = embedding_of(library, question)
    is_words = not (question.more or question.less or question.picture is not None)
    hits = library.index.search_embeddings(query, k + 1, only=only)[0]
    judged, verdict = judge_hits(library.index, hits[:k], query, library.relevance_scale(), is_words=is_words)
    found = [Found(hit, fact, word) for hit, word in judged if (fact := catalogue.fact(hit.id)) is not None]
    shown = tuple(one for one in found if is_at_least(one.relevance, question.least))
    has_more = len(hits) > k and len(shown) == len(found) and k < MOST
    return Answer(shown, total, time.monotonic() - started, verdict, has_more)


def search(
    index: ImageIndex,
    query: Embeddings,
    k: int = 10,
    *,
    filters: Filters = ANYTHING,
    only: IntArray | None = None,
    least: Relevance = "weak",
    is_words: bool = False,
) -> Hits:
    """The k pictures nearest to a query (1, d) among those that the filters leave, each with its relevance.

    only: among these ids (n,), too. least: none that is weaker. is_words: the query is made of words alone.
    """
    hits = index.search_embeddings(query, k, only=candidates(index, filters, only))[0]
    if not hits:
        return hits
    _, paths = index.store.paths()
    ids = np.fromiter(paths, dtype=np.int64, count=len(paths))
    scale = scale_for(index.query_encoder, sample_embeddings(index, ids), len(ids))
    judged, verdict = judge_hits(index, hits, query, scale, is_words=is_words)
    shown = (replace(hit, relevance=word) for hit, word in judged if is_at_least(word, least))
    return Hits(shown, verdict=verdict)


def candidates(index: ImageIndex, filters: Filters, only: IntArray | None = None) -> IntArray | None:
    """Ids (n,) that the filters leave, of `only` where it is given; None for all. QueryError for a wrong folder."""
    chosen = choose_ids(index, filters)
    if only is None or chosen is None:
        return chosen if only is None else only
    return np.intersect1d(chosen, only)


def unread_words(terms: Sequence[Term], encoder: Encoder) -> tuple[str, ...]:
    """A sentence on the words of a query whose end the model does not read, if any."""
    texts = [term.text for term in terms if not term.is_file and len(readable(term.text).encode()) > LONG_BYTES]
    if not texts:
        return ()
    from clipkit.classify.zeroshot import lost_words

    return lost_words(encoder, texts, encoder.encode_texts(texts))


def embedding_of(library: Library, question: Question) -> Embeddings:
    """The question as one vector (1, d) of length 1."""
    dim = library.info.dim
    total = np.zeros(dim, dtype=np.float32)
    if question.words:
        total += library.words(question.words)[0]
    if question.picture is not None:
        if question.picture.shape != (1, dim):
            raise QueryError("the picture was read by another model", hint="drop it again")
        total += question.picture[0]
    if question.more:
        total += MORE * _mean(library, question.more)
    if question.less:
        total -= LESS * _mean(library, question.less)
    length = float(np.linalg.norm(total))
    if length < 1e-3:
        raise QueryError("nothing is left of the question: its parts cancel out")
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
