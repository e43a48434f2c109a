"""Evidence for an answer: how well each part of a query fits one picture, and where the model looked."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import QueryError
from clipkit.explore.library import Library
from clipkit.explore.question import Question
from clipkit.models.attention import explain_attention
from clipkit.models.load import load_model
from clipkit.search.query import Sum, Term

_one_at_a_time = threading.Lock()  # a network in float32 beside the one that searches


def evidence(library: Library, question: Question, id_: int) -> list[dict[str, Any]]:
    """Each term of the words with its cosine to the picture and what that means, the strongest first."""
    ids, rows = library.index.store.vectors([id_])
    if not len(ids):
        raise QueryError("the picture is no longer in the index", hint="ask again")
    picture, scale = rows.astype(np.float32), library.relevance_scale()
    terms = [term for leaf in library.parse(question.words).sums for term in leaf.terms if not term.is_file]
    found = []
    for term in dict.fromkeys(terms):
        vector = library.embed(Sum((Term(term.text),)))
        relevance = scale.judge(vector, picture).words[0]
        found.append(
            {
                "term": term.text,
                "weight": term.weight,
                "score": round(float((picture @ vector[0])[0]), 4),
                "label": relevance,
            }
        )
    return sorted(found, key=lambda one: -abs(one["score"] * one["weight"]))


def attention_of(library: Library, file: Path) -> bytes:
    """A PNG: the picture as the model reads it, and over it where its last layer, and all its layers, looked.

    ModelError where the model has no attention.
    """
    with _one_at_a_time:
        return explain_attention(load_model(library.info.model_source or library.info.model), file).overlay()
