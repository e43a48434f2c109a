"""Questions of the browser: JSON that anybody may have sent, as a question to a library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipkit.core.arrays import Embeddings
from clipkit.core.text import printable
from clipkit.errors import QueryError
from clipkit.explore.choices import RELEVANCES, SHAPES
from clipkit.explore.metadata import Catalogue, Filters, parse_day
from clipkit.explore.question import MOST, MOST_MOVES, PAGE, Question, clean
from clipkit.images.formats import is_picture
from clipkit.index.paths import nearest_folder
from clipkit.search.hits import Relevance

MOST_IDS = 50_000  # that are chosen by hand
MAX_ID = 2**62
MAX_TEXT = 4_096  # characters of anything but words
BEGINS_ANEW = "ask again: the page sends what it needs"


@dataclass(frozen=True)
class Asked:
    """What a browser asks: the question, and which part of its answer.

    start: answers before this one are on the screen already. lost: sentences on filters that do not hold.
    """

    question: Question
    start: int = 0
    k: int = PAGE
    is_stacked: bool = True
    lost: tuple[str, ...] = ()


class Sent:
    """A JSON object from a visitor's browser, read field by field; QueryError where one is of another kind."""

    def __init__(self, body: Any, visitor: str = "") -> None:
        self.visitor = visitor
        if not isinstance(body, dict):
            raise QueryError("a JSON object is expected", hint=BEGINS_ANEW)
        self._fields: dict[str, Any] = body

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """A text of at most so many characters; "" where there is none."""
        value = self._fields.get(name) or ""
        if not isinstance(value, str) or len(value) > most:
            raise QueryError(f"{name} is no text, or too long", hint=BEGINS_ANEW)
        return value

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 0 to `most`; larger ones become that."""
        value = self._fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise QueryError(f"{name} is no number", hint=BEGINS_ANEW)
        return min(value, most)

    def ids(self, name: str, most: int) -> tuple[int, ...]:
        """Ids of pictures, each once."""
        values = self._list(name, most)
        if not all(isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_ID for value in values):
            raise QueryError(f"{name} are no pictures", hint=BEGINS_ANEW)
        return tuple(dict.fromkeys(values))

    def texts(self, name: str, most: int) -> list[str]:
        """Short texts."""
        values = self._list(name, most)
        if not all(isinstance(value, str) and len(value) <= MAX_TEXT for value in values):
            raise QueryError(f"{name} are no texts", hint=BEGINS_ANEW)
        return values

    def is_set(self, name: str, *, default: bool = False) -> bool:
        return bool(self._fields.get(name, default))

    def _list(self, name: str, most: int) -> list[Any]:
        values = self._fields.get(name) or []
        if not isinstance(values, list) or len(values) > most:
            raise QueryError(f"{name} is no list, or too long: {most:,} are the most", hint=BEGINS_ANEW)
        return values


def read_asked(sent: Sent, catalogue: Catalogue | None, picture: Embeddings | None = None, name: str = "") -> Asked:
    """The question; of filters that do not hold a sentence goes to `lost`. picture: an upload, called `name`."""
    lost: list[str] = []
    question = Question(
        words=clean(sent.text("words", 100_000)),
        picture=picture,
        picture_name=name,
        more=sent.ids("more", MOST_IDS)[-MOST_MOVES:],
        less=sent.ids("less", MOST_IDS)[-MOST_MOVES:],
        twins_of=sent.number("twins", 0, MAX_ID),
        filters=_filters(sent, catalogue, lost),
        least=as_relevance(sent.text("least")),
        album=sent.text("album"),
        ids=sent.ids("ids", MOST_IDS),
    )
    return Asked(
        question,
        sent.number("start", 0, MOST),
        max(1, sent.number("k", PAGE, MOST)),
        sent.is_set("stacked", default=True),
        tuple(lost),
    )


def as_relevance(text: str) -> Relevance:
    """One of the three words; "weak", which shows everything, for any other that an address may have."""
    return next((word for word in RELEVANCES if word == text), "weak")


def as_folder(text: str, catalogue: Catalogue | None) -> str:
    """The folder that is shown under that name; "" for none. QueryError where there is no such folder."""
    if not text or catalogue is None:
        return ""
    folder = next((folder for folder in catalogue.folders if printable(folder) == text), "")
    if not folder:
        near = printable(nearest_folder(text, catalogue.folders))
        such = f"choose one of the list, such as {near}" if near else "choose all: no folder holds pictures"
        raise QueryError(f"no pictures are indexed in {printable(text)}", hint=such)
    return folder


def notes_on_files(words: str) -> list[str]:
    """What a person might have meant otherwise."""
    name = words.strip()
    is_file = name.startswith(("./", "../", "/", "~")) or (is_picture(name) and len(name.split()) == 1)
    return [f"{printable(clean(name))} was taken as words: no file is read here"] if is_file else []


def _filters(sent: Sent, catalogue: Catalogue | None, lost: list[str]) -> Filters:
    return Filters(
        folder=_held(lambda: as_folder(sent.text("folder"), catalogue), lost),
        since=_held(lambda: parse_day(sent.text("since")), lost),
        until=_held(lambda: parse_day(sent.text("until"), is_end=True), lost),
        shapes=tuple(shape for shape in SHAPES if shape in sent.texts("shapes", 20)),
        kinds=tuple(one for one in sent.texts("kinds", 20) if one.isalnum() and len(one) <= 8),
    )


def _held(parse: Callable[[], str], lost: list[str]) -> str:
    """What `parse` makes of a filter; "" where it is none that holds, and a sentence on it goes to `lost`."""
    try:
        return parse()
    except QueryError as error:
        lost.append(f"{error.message}; this filter is left out: {error.hint}")
        return ""
