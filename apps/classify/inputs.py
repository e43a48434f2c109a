"""Inputs of the Classify tab: typed or uploaded classes, templates and heads; and the endpoint `classify`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api

from clipkit.classify.collection import NONE, Classified, Column
from clipkit.classify.head import Head
from clipkit.classify.prompts import SETS, TEMPLATES, Classes, read_classes
from clipkit.classify.words import class_prompts, head_from_words
from clipkit.core.html import escape
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore.library import Library
from clipkit.explore.question import clean

from .. import html
from ..search.api import check_asked
from ..server.state import Page
from .sorter import Sorter

OWN = "my own"
SETS_OF_TEMPLATES = (*(name for name in TEMPLATES if name != "dclip"), "imagenet")
PUBLISHED = ("imagenet", *SETS)  # lists of classes that have a name
MOST_CLASSES = 2_000
MOST_PROMPTS = 20_000  # about a minute of a small text tower
LONGEST = 200  # characters of a class's name
MOST_NAMED = 5_000  # pictures in one answer of the endpoint
_SLOT = re.compile(r"\{c?\}")
_BREAK = re.compile(r"[,;\n]")


def typed_classes(text: str) -> Classes:
    """Names between commas or lines, each once; "pets" and "imagenet" stand for their lists. Never a file's name."""
    names = list(dict.fromkeys(name for part in _BREAK.split(text[:400_000]) if (name := clean(part))))
    if len(names) == 1 and names[0] in PUBLISHED:
        return names[0]
    _check_names(names)
    return names


def sent_classes(file: str) -> Classes:
    """As `read_classes` reads a file: .txt, .csv, .json; QueryError in words that do not say where it lies."""
    try:
        found = read_classes(Path(file))
    except QueryError as error:
        raise QueryError(error.message.replace(file, Path(file).name), hint=error.hint) from error
    if not isinstance(found, Mapping):
        names = list(dict.fromkeys(clean(name) for name in found))
        _check_names(names)
        return names
    described = {clean(name): [clean(text) for text in texts] for name, texts in found.items()}
    _check_names(list(described))
    return described


def sent_head(file: str) -> Head:
    """A saved head; ModelError in words that do not say where it lies."""
    try:
        return Head.load(file)
    except ClipkitError as error:
        raise type(error)(error.message.replace(file, Path(file).name), hint=error.hint) from error


def typed_templates(chosen: str, own: str) -> str | list[str]:
    """The name of a set, or one's own sentences, one a line, each with a slot."""
    if chosen != OWN:
        if chosen not in SETS_OF_TEMPLATES:
            raise QueryError(
                f"there is no set of templates {chosen[:40]!r}", hint=f"one of {', '.join(SETS_OF_TEMPLATES)}"
            )
        return chosen
    lines = [line for part in own[:100_000].split("\n") if (line := clean(part))]
    if not lines or not all(_SLOT.search(line) for line in lines):
        raise QueryError("a sentence has no {} where the class shall stand", hint="such as: a photo of a {}.")
    return lines


def words_head(library: Library, classes: Classes, templates: str | list[str]) -> Head:
    """A zero-shot head that can say "none of these", by the library's model."""
    prompts = class_prompts(classes, templates)
    count = sum(len(group) for group in prompts.prompts)
    if count > MOST_PROMPTS:
        raise QueryError(
            f"{len(prompts.classes):,} classes with these templates are {count:,} sentences, and {MOST_PROMPTS:,} are "
            "the most here",
            hint="fewer templates; or open a head here: clipkit classify PHOTOS --classes A,B --save-head FILE",
        )
    return head_from_words(library.encoder, classes, templates=templates, unknown=True).head


class Namer:
    """The endpoint: its public method is what clients call."""

    def __init__(self, page: Page, sorter: Sorter) -> None:
        self._page, self._sorter = page, sorter

    def attach(self) -> None:
        """Within a gr.Blocks: name it."""
        api(self.classify, api_name="classify", concurrency_limit=2)

    def classify(
        self, classes: str, k: int = 20, templates: str = "simple", unknown: bool = False, library: str = ""
    ) -> dict[str, Any]:
        """A library sorted into `classes` (with commas): counts, and the k surest pictures of each.

        templates: a set's name, or a sentence with {} in it. unknown: set aside what is none of these. library: its
        name, where the page has several.
        """
        check_asked(k, classes, templates, library)
        try:
            return self._answer(classes, int(k), templates, bool(unknown), library)
        except ClipkitError as error:
            raise gr.Error(escape(self._page.shelf.presentable(error.message)), print_exception=False) from error

    def _answer(self, classes: str, k: int, templates: str, unknown: bool, name: str) -> dict[str, Any]:
        chosen = self._page.shelf.indexed(name)
        own = OWN if _SLOT.search(templates) else templates
        head = words_head(chosen, typed_classes(classes), typed_templates(own, templates))
        started = time.monotonic()
        found = self._sorter.sort(chosen, head, judge=head)
        cut = found.usual if unknown and found.usual is not None else float("-inf")
        columns = found.columns(head.classes, cut, {})
        k = max(0, min(k, MOST_NAMED // max(len(columns), 1)))
        sorted_into = [
            _sorted_into(chosen, found, head, column, k) for column in columns if column.place != NONE or unknown
        ]
        milliseconds = round(1000 * (time.monotonic() - started), 1)
        return {"classes": sorted_into, "asked": len(found.ids), "milliseconds": milliseconds}


def _sorted_into(library: Library, found: Classified, head: Head, column: Column, k: int) -> dict[str, Any]:
    """A class with the first k of its pictures; None for none of the classes."""
    is_named, catalogue = column.place != NONE, library.catalogue()
    pictures = [
        {
            "picture": printable(fact.path),
            "id": fact.id,
            "probability": round(float(found.sure[found.row_of[fact.id]]), 6) if is_named else None,
            "thumbnail": f"/{html.address(library.key, fact)}",
        }
        for id_ in column.ids[:k].tolist()
        if (fact := catalogue.fact(id_)) is not None
    ]
    name = printable(head.classes[column.place]) if is_named else None
    return {"class": name, "count": len(column.ids), "pictures": pictures}


def _check_names(names: list[str]) -> None:
    if not names:
        raise QueryError("there are no classes", hint="type some: cat, dog")
    if len(names) > MOST_CLASSES:
        raise QueryError(
            f"{len(names):,} classes are more than the {MOST_CLASSES:,} that fit here",
            hint="fewer of them, or a part at a time",
        )
    long = next((name for name in names if len(name) > LONGEST), None)
    if long:
        raise QueryError(
            f"{long[:40]!r} ... has {len(long):,} characters; {LONGEST} are the most for a class",
            hint="shorten it",
        )
