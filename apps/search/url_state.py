"""URL state of a search: the query part of an address, so that it can be bookmarked, sent and opened again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from clipkit.core.text import printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore.choices import RELEVANCES, SHAPES
from clipkit.explore.metadata import Catalogue, Filters, parse_day
from clipkit.explore.question import MOST_MOVES, Question, clean
from clipkit.index.paths import nearest_folder
from clipkit.search.hits import Relevance

MAX_ADDRESS = 6_000  # characters of it that are read


@dataclass(frozen=True)
class SearchState:
    """What an address says. library: its key, or "". lost: sentences on filters that do not hold any more."""

    library: str
    question: Question
    lost: tuple[str, ...] = ()


def to_address(library: str, question: Question) -> str:
    """`?q=...&more=1,2`; a picture that was dropped is left out, since it is nowhere to be found again."""
    filters = question.filters
    fields = {
        "q": question.words,
        "more": _listed(question.more),
        "less": _listed(question.less),
        "twins": str(question.twins_of or ""),
        "folder": printable(filters.folder),
        "since": filters.since,
        "until": last_day(filters),
        "shape": ",".join(filters.shapes),
        "type": ",".join(filters.kinds),
        "least": "" if question.least == "weak" else question.least,
    }
    set_fields = {name: value for name, value in fields.items() if value}
    return f"?{urlencode({**set_fields, 'library': library})}" if set_fields else ""


def from_address(text: str, catalogue: Catalogue | None) -> SearchState:
    """What `to_address` wrote; whatever makes no sense is left out, because anybody may have written it."""
    try:
        fields = {
            name: values[0] for name, values in parse_qs(text.lstrip("?")[:MAX_ADDRESS], max_num_fields=40).items()
        }
        words = clean(fields.get("q", ""))
    except (ValueError, ClipkitError):
        return SearchState("", Question())
    lost: list[str] = []
    question = Question(
        words=words,
        more=_numbers(fields.get("more", "")),
        less=_numbers(fields.get("less", "")),
        twins_of=next(iter(_numbers(fields.get("twins", ""))), 0),
        filters=_filters(fields, catalogue, lost),
        least=as_relevance(fields.get("least", "")),
    )
    return SearchState(fields.get("library", ""), question, tuple(lost))


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


def read_filter(parse: Callable[[], str], lost: list[str]) -> str:
    """What `parse` makes of a filter; "" where it is none that holds, and a sentence on it goes to `lost`."""
    try:
        return parse()
    except QueryError as error:
        lost.append(error.message)
        return ""


def last_day(filters: Filters) -> str:
    """The last day of the filters as it was typed: 2024-06 for all of June."""
    return filters.until.replace("-99", "")


def _filters(fields: dict[str, str], catalogue: Catalogue | None, lost: list[str]) -> Filters:
    """Those that hold; of the others a sentence goes to `lost`."""
    until = fields.get("until", "").replace("-99", "")  # of addresses that earlier clipkits wrote
    return Filters(
        folder=read_filter(lambda: as_folder(fields.get("folder", ""), catalogue), lost),
        since=read_filter(lambda: parse_day(fields.get("since", "")), lost),
        until=read_filter(lambda: parse_day(until, is_end=True), lost),
        shapes=tuple(shape for shape in SHAPES if shape in fields.get("shape", "").split(",")),
        kinds=tuple(kind for kind in fields.get("type", "").split(",")[:20] if kind.isalnum() and len(kind) <= 8),
    )


def _listed(ids: Iterable[int]) -> str:
    return ",".join(str(id_) for id_ in ids)


def _numbers(text: str) -> tuple[int, ...]:
    found = [int(part) for part in text.split(",") if part.isascii() and part.isdigit() and len(part) < 19]
    return tuple(dict.fromkeys(found))[:MOST_MOVES]
