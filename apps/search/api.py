"""JSON API: the page's functions by name, for `gradio_client` and curl."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from clipkit.core.html import escape
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore.choices import RELEVANCES
from clipkit.explore.metadata import Filters
from clipkit.explore.question import Found, Question, ask, clean

from .. import html
from ..server.state import Page
from .questions import as_folder, as_relevance, notes_on_files

MOST_HITS = 5_000  # of one answer


class Endpoints:
    """Each public method is an endpoint of its own name."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def attach(self) -> None:
        """Within a gr.Blocks: name them."""
        api(self.search, api_name="search", concurrency_limit=4)

    def search(
        self, words: str, k: int = 20, folder: str = "", relevance: str = "weak", library: str = ""
    ) -> dict[str, Any]:
        """The k pictures that fit `words` best, of at least that relevance: weak, likely or strong.

        folder: only below it. library: its name, where the page has several. `notes` says what was taken as words, and
        looks like a file.
        """
        check_asked(k, words, folder, relevance, library)
        try:
            _check_question(words, relevance)
            chosen = self._page.shelf.indexed(library)
            catalogue = chosen.catalogue()
            question = Question(
                clean(words), filters=Filters(as_folder(folder, catalogue)), least=as_relevance(relevance)
            )
            answer = ask(chosen, question, max(1, min(int(k), MOST_HITS)))
        except ClipkitError as error:
            raise gr.Error(escape(self._page.shelf.presentable(error.message)), print_exception=False) from error
        return {
            "hits": [_hit(chosen.key, one) for one in answer.found],
            "asked": answer.total,
            "milliseconds": round(1000 * answer.seconds, 1),
            "verdict": answer.verdict,
            "nothing_fits": answer.verdict == "nothing",
            "notes": [*notes_on_files(words), *answer.notes],
        }


def _check_question(words: str, relevance: str) -> None:
    """QueryError as the command line has it."""
    if not words.strip():
        raise QueryError("the query is empty", hint='words such as "a dog on a beach"')
    if relevance not in RELEVANCES:
        raise QueryError(f"relevance is {relevance!r}", hint=f"one of {', '.join(RELEVANCES)}")


def _hit(key: str, found: Found) -> dict[str, Any]:
    return {
        "score": round(found.hit.score, 6),
        "relevance": found.relevance,
        "picture": printable(found.fact.path),  # not "path": gradio_client takes that for a file to fetch
        "id": found.fact.id,
        "width": found.fact.width,
        "height": found.fact.height,
        "taken": printable(found.fact.taken) or None,
        "thumbnail": f"/{html.address(key, found.fact)}",
    }


def check_asked(k: object, *words: object) -> None:
    """gr.Error where a request has something else than a number and words: Gradio hands on whatever was sent."""
    is_number = isinstance(k, int | float) and not isinstance(k, bool) and abs(k) < 1e308  # NaN is not
    if not is_number or not all(isinstance(word, str) for word in words):
        raise gr.Error("k is a number, and the rest are words", print_exception=False)
