"""Query grammar: words and pictures, added and subtracted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipkit.core.arrays import Embeddings
from clipkit.errors import ImageError, QueryError
from clipkit.images.guarded_decoder import warm_up
from clipkit.models.encoder import Encoder

MAX_WORDS = 1000  # characters of one term; no model reads more than about 300
_OPERATOR = re.compile(r"\s+([+-])(?=\s)")
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?):(?=[^\s\d])(.*)", re.DOTALL)  # before a digit it is a time, or 16:9
_FILE = re.compile(r"\.{1,2}/|/|~|[A-Za-z]:[\\/]|\.{1,2}\\")


@dataclass(frozen=True)
class Term:
    """One part of a query. weight: negative where it is subtracted. is_file: `text` is a picture's path."""

    text: str
    weight: float = 1.0
    is_file: bool = False


def parse(query: str, *, add: Sequence[str] = (), subtract: Sequence[str] = (), words_only: bool = False) -> list[Term]:
    """The terms of `query`, in which ` + `, ` - ` and `2:` are rclip's; those of `add` and `subtract` are taken whole.

    A term that begins with `./ ../ / ~` is a picture, and QueryError where there is none; also for an empty term.
    words_only: no term is a file, and none is looked for: the query comes from somebody else.
    """
    # A name may hold " - ".
    is_one_file = not words_only and _FILE.match(query) and os.path.isfile(os.path.expanduser(query))
    first, *rest = [query] if is_one_file else _OPERATOR.split(f" {query} ")
    pairs = [("+", first), *zip(rest[::2], rest[1::2], strict=True)] if query.strip() else []
    pairs += [("+", text) for text in add] + [("-", text) for text in subtract]
    if not pairs:
        raise QueryError("the query is empty", hint='clipkit search "a dog on a beach"')
    terms = [_term(text.strip(), -1.0 if sign == "-" else 1.0, words_only) for sign, text in pairs]
    if any(term.is_file for term in terms):
        warm_up()  # while the model is loaded
    return terms


def embed(terms: Sequence[Term], encoder: Encoder) -> Embeddings:
    """The weighted sum of the terms' embeddings, at length 1: (1, d). QueryError where they cancel out."""
    words = [term.text for term in terms if not term.is_file]
    files = [term.text for term in terms if term.is_file]
    texts = iter(encoder.encode_texts(words)) if words else iter(())
    pictures = iter(_read(files, encoder)) if files else iter(())
    total = np.zeros(encoder.dim, dtype=np.float32)
    for term in terms:
        total += np.float32(term.weight) * next(pictures if term.is_file else texts)
    length = float(np.linalg.norm(total))
    if length < 1e-3:
        raise QueryError("the parts of the query cancel out", hint="ask for something that is left over")
    return (total / length)[None]


def _read(files: Sequence[str], encoder: Encoder) -> Embeddings:
    try:
        return encoder.encode_images(files)
    except ImageError as error:
        raise ImageError(error.message, hint='another picture, or words: clipkit search "a dog"') from error


def _term(text: str, sign: float, words_only: bool) -> Term:
    weight = sign
    if match := _WEIGHT.fullmatch(text):
        weight, text = sign * float(match[1]), match[2].strip()
    if not text or not weight:
        raise QueryError("a part of the query is empty or weighs nothing", hint='clipkit search "2:a dog + snow"')
    if len(text) > MAX_WORDS:
        raise QueryError(f"a part of the query has {len(text)} characters; {MAX_WORDS} are the most", hint="shorten it")
    if words_only or not _FILE.match(text):
        return Term(text, weight)
    file = os.path.expanduser(text)
    if not os.path.isfile(file):
        raise QueryError(f"{text} is not a file here", hint="for words, begin with something else than ./ ../ / or ~")
    return Term(file, weight, is_file=True)
