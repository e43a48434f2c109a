"""Query language: words and pictures, added and subtracted, joined by AND, OR and NOT, and narrowed by filters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipkit.core.arrays import Embeddings
from clipkit.core.text import printable
from clipkit.errors import ImageError, QueryError
from clipkit.images.formats import file_of
from clipkit.models.encoder import Encoder

if TYPE_CHECKING:
    from clipkit.search.grammar import Part

MAX_WORDS = 1000  # characters of one term; no model reads more than about 300
SIMILAR = "similar"  # a picture that the others are compared with
METADATA = ("date", "shape", "type", "camera", "place", "size", "width", "height", "rating", "tag", "title", "text")
FIELDS = ("path", *METADATA, "album", "class", SIMILAR)
LESS = 0.5  # weight of what comes behind "without", against what comes before: docs/queries.md has the measurement
LEAST_SAMPLE = 10  # pictures whose scores tell how far words and pictures spread
MOST_WEIGHT = 10.0  # of words beside pictures, whatever a model makes of them
_OPERATOR = re.compile(r"\s+([+-])(?=\s)")
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?):(?=[^\s\d])(.*)", re.DOTALL)  # before a digit it is a time, or 16:9
_FILE = re.compile(r"\.{1,2}/|/|~|[A-Za-z]:[\\/]|\.{1,2}\\")
_CONDITION = re.compile(rf'(?<![^\s(])(NOT\s+)?(-?)((?i:{"|".join(FIELDS)})):("[^"]*"|[^\s()"]+)(?=[\s()]|$)')
_SPACED = re.compile(rf"(?<!\S)-?({'|'.join(FIELDS)}):\s+([^\s()]+)", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
_LOGIC = re.compile(r"(?<![^\s()])(?:AND|OR|NOT)(?![^\s()])")
_HELD = "\0"  # stands for a filter until its neighbours are known
_HELD_BY_AND = re.compile(rf"(?:(?<=\()|^)(?:\s*{_HELD})+\s*AND\b|\bAND(?:\s*{_HELD})+\s*(?=$|\)|(?:AND|OR|NOT)\b)")
_HELD_BY_OR = re.compile(
    rf"(?:\(|^|\b(?:AND|OR|NOT)\b)(?:\s*{_HELD})+\s*OR\b|\bOR(?:\s*{_HELD})+\s*(?=$|\)|(?:AND|OR|NOT)\b)"
)
_WRAPPED = re.compile(r'\([^()]*\)|"[^"]*"')  # words of a query that has filters beside them
_WITHOUT = re.compile(
    r"\s+(?:(?:and|but)\s+)?(?:without|with\s+no|except(?:\s+for)?|excluding|not|no)\s+(?:any\s+|an?\s+|the\s+)?(?=\S)",
    re.IGNORECASE,
)
# Behind these, "no" and "not" belong to a name ("a no parking sign", "whether or not").
_NO_THING = re.compile(r"(?:a|an|the|of|or|with|and|to|in|on|at|by|for|from|is|are|was|were|do|does|why|if|as)", re.I)


@dataclass(frozen=True)
class Term:
    """One part of a sum. weight: negative where it is subtracted. is_file: `text` is a picture's path."""

    text: str
    weight: float = 1.0
    is_file: bool = False


@dataclass(frozen=True)
class Sum:
    """Words and pictures that become one vector."""

    terms: tuple[Term, ...]

    @property
    def is_words(self) -> bool:
        """Whether there is no picture in it."""
        return not any(term.is_file for term in self.terms)


@dataclass(frozen=True)
class AllOf:
    """Parts that are all to fit: AND."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class AnyOf:
    """Parts of which one is to fit: OR."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class NoneOf:
    """A part that is not to fit: NOT."""

    part: Node


Node = Sum | AllOf | AnyOf | NoneOf


@dataclass(frozen=True)
class Condition:
    """A filter of a query, as `path:trip` and `-type:png`. is_excluded: with the minus sign."""

    field: str
    value: str
    is_excluded: bool = False


@dataclass(frozen=True)
class Query:
    """A query that has been read.

    Attributes
    ----------
    tree : Sum, AllOf, AnyOf, NoneOf or None
        What is to be seen; None where there are filters alone.
    conditions : tuple of Condition
        Filters, all of which hold.
    notes : tuple of str
        What was understood in another way than it was typed, for people.
    """

    tree: Node | None
    conditions: tuple[Condition, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sums(self) -> list[Sum]:
        """The leaves of the tree."""
        return [] if self.tree is None else list(leaves(self.tree))

    @property
    def terms(self) -> list[Term]:
        """The terms of all leaves."""
        return [term for leaf in self.sums for term in leaf.terms]


def parse_query(
    text: str,
    *,
    add: Sequence[str] = (),
    subtract: Sequence[str] = (),
    where: Sequence[str] = (),
    words_only: bool = False,
    literal: bool = False,
) -> Query:
    """What `text` asks for.

    Parameters
    ----------
    text : str
        `a dog`, `./dog.jpg + snow - 0.5:people`, `(a dog OR a cat) AND a beach`, `a street without cars path:trip`.
    add, subtract : sequence of str
        Terms that are taken as they stand.
    where : sequence of str
        Filters alone, in the same syntax; they hold besides those of `text`.
    words_only : bool, default False
        No term is a file, and none is looked for: the query comes from somebody else.
    literal : bool, default False
        The text is words, whatever is in it.

    Returns
    -------
    Query
        Tree, filters and notes.

    Raises
    ------
    QueryError
        For a query that is empty or cannot be read, and a picture that is not there.

    Examples
    --------
    >>> from clipkit.search.query import parse_query
    >>> parse_query("a street without cars").notes
    ('searching: a street, less of: cars',)
    >>> query = parse_query("(a dog OR a cat) AND a beach type:jpeg")
    >>> len(query.sums), query.conditions[0].value
    (3, 'jpeg')
    """
    is_whole = literal or _is_one_file(text, words_only)
    inside, rest = ((), text) if is_whole else _split_conditions(text)
    found = (*inside, *_conditions_of(where))
    alike = [_similar(condition, words_only) for condition in found if condition.field == SIMILAR]
    conditions = tuple(condition for condition in found if condition.field != SIMILAR)
    if not is_whole and _LOGIC.search(_QUOTED.sub("", rest)):
        if add or subtract:
            raise QueryError("--add and --sub are for sums; join parts with AND", hint="as in a dog AND snow")
        return _with_operators(rest, conditions, alike, words_only)
    if inside and not (add or subtract) and _WRAPPED.fullmatch(rest.strip()):
        return _with_operators(rest, conditions, alike, words_only)
    terms, notes = ([Term(_checked(text.strip()))], []) if literal and text.strip() else _sum(rest, words_only)
    notes += () if is_whole else _spaced(rest)
    terms += _taken(add, subtract, words_only)
    if not terms and (conditions or alike):
        return Query(_all_of(alike) if alike else None, conditions)
    plain = _plain(terms, conditions, notes)
    return Query(_all_of([plain.tree, *alike]), conditions, plain.notes) if alike and plain.tree else plain


def parse(query: str, *, add: Sequence[str] = (), subtract: Sequence[str] = (), words_only: bool = False) -> list[Term]:
    """The terms of a query that is one sum; QueryError for one with operators or filters, which needs an index."""
    found = parse_query(query, add=add, subtract=subtract, words_only=words_only)
    if found.conditions or not isinstance(found.tree, Sum):
        hint = "clipkit.explore.search(index, query)"
        raise QueryError("AND, OR, NOT and filters are for searches of an index", hint=hint)
    return list(found.tree.terms)


def embed(terms: Sequence[Term], encoder: Encoder, *, sample: Embeddings | None = None) -> Embeddings:
    """The weighted sum of the terms' embeddings, at length 1: (1, d). QueryError where they cancel out.

    sample: some of the pictures that are searched (m, d). Where pictures and words are added, words weigh `word_weight`
    times as much; without a sample, each counts as it is.
    """
    words, files = ([term for term in terms if term.is_file is is_file] for is_file in (False, True))
    nothing = np.empty((0, encoder.dim), np.float32)
    texts = encoder.encode_texts([term.text for term in words]) if words else nothing
    pictures = _read([term.text for term in files], encoder) if files else nothing
    texts, pictures = _weighted(words, texts), _weighted(files, pictures)
    weight = word_weight(texts, pictures, sample) if words and files else 1.0
    total = pictures.sum(axis=0) + weight * texts.sum(axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-3:
        raise QueryError("the parts of the query cancel out", hint="ask for something that is left over")
    return np.asarray((total / length)[None], dtype=np.float32)


def word_weight(words: Embeddings, pictures: Embeddings, sample: Embeddings | None) -> float:
    """How much more words (n, d) count beside pictures (k, d), so that they are not drowned: at least once.

    Scores on a picture differ much from picture to picture, scores on words little; so words are brought to the same
    standard deviation over a sample of the collection (m, d). benchmarks/mixed.py has what it gives.
    """
    if sample is None or len(sample) < LEAST_SAMPLE:
        return 1.0
    of_pictures, of_words = (float((sample @ terms.T).std(axis=0).sum()) / _size(terms) for terms in (pictures, words))
    return float(np.clip(of_pictures / max(of_words, 1e-6), 1.0, MOST_WEIGHT))


def explain(query: Query) -> Iterator[str]:
    """What a query asks for, a line for each part, indented as they belong together."""
    for condition in query.conditions:
        sign = "not " if condition.is_excluded else ""
        yield f"only {sign}{condition.field}: {condition.value}"
    if query.tree is None:
        yield "everything that is left, in the order of the index"
    else:
        yield from _explained(query.tree, "")


def _explained(node: Node, indent: str) -> Iterator[str]:
    if isinstance(node, Sum):
        for term in node.terms:
            kind = "picture" if term.is_file else "words"
            yield f"{indent}{kind}: {term.text}" + (f"  (weight {term.weight:g})" if term.weight != 1 else "")
        return
    title = {AllOf: "all of", AnyOf: "any of", NoneOf: "not"}[type(node)]
    yield f"{indent}{title}"
    for part in (node.part,) if isinstance(node, NoneOf) else node.parts:
        yield from _explained(part, indent + "  ")


def leaves(node: Node) -> Iterator[Sum]:
    """The sums of a tree, from left to right."""
    if isinstance(node, Sum):
        yield node
        return
    for part in (node.part,) if isinstance(node, NoneOf) else node.parts:
        yield from leaves(part)


def _plain(terms: Sequence[Term], conditions: tuple[Condition, ...], notes: Sequence[str] = ()) -> Query:
    if not terms:
        raise QueryError("the query is empty", hint='clipkit search "a dog on a beach"')
    if any(term.is_file for term in terms):
        _warm_up()  # while the model is loaded
    return Query(Sum(tuple(terms)), conditions, tuple(notes))


def _node(part: Part, words_only: bool, notes: list[str]) -> Node:
    """A part of the grammar's tree as a node; what is understood otherwise than it was typed goes to `notes`."""
    if part.kind == "words":
        terms, found = _sum(part.text, words_only)
        notes.extend(found)
        return Sum(tuple(terms))
    parts = tuple(_node(inner, words_only, notes) for inner in part.parts)
    return NoneOf(parts[0]) if part.kind == "none_of" else (AllOf if part.kind == "all_of" else AnyOf)(parts)


def _with_operators(text: str, conditions: tuple[Condition, ...], alike: Sequence[Node], words_only: bool) -> Query:
    from clipkit.search.grammar import parse_operators

    notes: list[str] = []
    tree = _node(parse_operators(text), words_only, notes)
    if any(term.is_file for leaf in leaves(tree) for term in leaf.terms):
        _warm_up()
    return Query(_all_of([tree, *alike]), conditions, tuple(notes))


def _all_of(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def is_filters(text: str) -> bool:
    """Whether it is filters and nothing else."""
    conditions, rest = _split_conditions(text)
    return bool(conditions) and not rest.strip()


def _similar(condition: Condition, words_only: bool) -> Node:
    """A picture to be like, or unlike: `similar:./dog.jpg`."""
    if words_only:
        raise QueryError("similar: names a file; here a picture is dropped into the box", hint="another filter")
    path = condition.value if _FILE.match(condition.value) else f"./{condition.value}"
    leaf = Sum((_term(path, 1.0, words_only=False),))
    _warm_up()
    return NoneOf(leaf) if condition.is_excluded else leaf


def _split_conditions(text: str) -> tuple[tuple[Condition, ...], str]:
    """The filters of a query, and the rest of it, in which spaces stand for them."""
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    conditions = []
    rest = text
    for match in _CONDITION.finditer(text):
        if any(start < match.start() < end for start, end in quoted):
            continue
        is_excluded = bool(match[1]) != bool(match[2])
        conditions.append(Condition(match[3].lower(), match[4].strip('"'), is_excluded))
        rest = rest[: match.start()] + _HELD.ljust(len(match[0])) + rest[match.end() :]
    return tuple(conditions), _without_filters(rest) if conditions else rest


def _without_filters(text: str) -> str:
    """The query with spaces for its filters, and for an AND that joined them: all hold in any case."""
    if _HELD_BY_OR.search(text):
        raise QueryError("filters hold for the whole query, and OR joins none", hint="several values: type:jpeg,png")
    joined = _HELD_BY_AND.sub(lambda match: " " * len(match[0]), text)
    return joined.replace(_HELD, " ")


def _spaced(text: str) -> Iterator[str]:
    """A note on what would be a filter without its space."""
    for match in _SPACED.finditer(_QUOTED.sub("", text)):
        field = match[1].lower()
        yield f"{match[0]} is read as words; the filter is {field}:{match[2]}, without a space"


def _conditions_of(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Filters that are given by themselves; QueryError where something else stands among them."""
    found: list[Condition] = []
    for text in texts:
        conditions, rest = _split_conditions(text)
        if rest.strip() or not conditions:
            fields = ", ".join(f"{field}:" for field in FIELDS)
            raise QueryError(
                f"--where {printable(text[:80])} is no filter; these are: {fields}", hint="--where 'rating:>=4'"
            )
        found += conditions
    return tuple(found)


def _sum(text: str, words_only: bool) -> tuple[list[Term], list[str]]:
    """The terms of a sum, and a note where words were taken for a subtraction."""
    if not text.strip():
        return [], []
    if _is_one_file(text, words_only):
        return [_term(text.strip(), 1.0, words_only)], []
    first, *rest = _OPERATOR.split(f" {text} ")
    terms: list[Term] = []
    notes: list[str] = []
    for sign, part in [("+", first), *zip(rest[::2], rest[1::2], strict=True)]:
        term = _term(part.strip(), -1.0 if sign == "-" else 1.0, words_only)
        wanted, *unwanted = [term.text] if term.is_file or term.weight < 0 else _without(term.text)
        terms.append(Term(wanted, term.weight, term.is_file))
        terms += [Term(one, -LESS * term.weight) for one in unwanted]
        if unwanted:
            notes.append(f"searching: {wanted}, less of: {', '.join(unwanted)}")
    return terms, notes


def _without(text: str) -> list[str]:
    """What is wanted, then what is not: "a street without cars" is ["a street", "cars"]."""
    found = []
    while match := _WITHOUT.search(text):
        wanted = text[: match.start()].strip()
        if not wanted or _NO_THING.fullmatch(wanted.split()[-1]):
            break
        found.append(wanted)
        text = text[match.end() :]
    return [*found, text.strip()]


def _taken(add: Sequence[str], subtract: Sequence[str], words_only: bool) -> list[Term]:
    signed = [(text, 1.0) for text in add] + [(text, -1.0) for text in subtract]
    return [_term(text.strip(), sign, words_only) for text, sign in signed]


def _is_one_file(text: str, words_only: bool) -> bool:
    """Whether the whole is one picture's path; such a name may hold " - ", and whatever else a query is made of."""
    path = text.strip()
    return bool(not words_only and _FILE.match(path) and os.path.isfile(file_of(os.path.expanduser(path))))


def _weighted(terms: Sequence[Term], embeddings: Embeddings) -> Embeddings:
    return embeddings * np.array([term.weight for term in terms], np.float32)[:, None]


def _size(terms: Embeddings) -> float:
    """Sum of the terms' lengths: of their weights."""
    return max(float(np.linalg.norm(terms, axis=1).sum()), 1e-6)


def _read(files: Sequence[str], encoder: Encoder) -> Embeddings:
    try:
        return encoder.encode_images(files)
    except ImageError as error:
        hint = error.hint or 'another picture, or words: clipkit search "a dog"'
        raise ImageError(error.message, hint=hint) from error


def _term(text: str, sign: float, words_only: bool) -> Term:
    weight = sign
    if match := _WEIGHT.fullmatch(text):
        weight, text = sign * float(match[1]), match[2].strip()
    if not text or not weight:
        raise QueryError("a part of the query is empty or weighs nothing", hint='clipkit search "2:a dog + snow"')
    _checked(text)
    if words_only or not _FILE.match(text):
        return Term(text, weight)
    file = os.path.expanduser(text)
    if not os.path.isfile(file_of(file)):
        raise QueryError(f"{text} is not a file here", hint="for words, begin with something else than ./ ../ / or ~")
    return Term(file, weight, is_file=True)


def _checked(text: str) -> str:
    if len(text) > MAX_WORDS:
        raise QueryError(f"a part of the query has {len(text)} characters; {MAX_WORDS} are the most", hint="shorten it")
    return text


def _warm_up() -> None:
    """A decoder, started while the model is loaded; only for queries with pictures."""
    from clipkit.images.guarded_decoder import warm_up

    warm_up()
