"""MCP server: libraries of pictures for assistants, by the Model Context Protocol over stdin and stdout."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from clipkit.core.text import printable
from clipkit.core.version import __version__
from clipkit.errors import ClipkitError, ImageError, QueryError
from clipkit.explore.albums import change_album, read_albums
from clipkit.explore.choices import RELEVANCES
from clipkit.explore.library import Library
from clipkit.explore.metadata import Fact
from clipkit.explore.question import Answer, Question, ask, clean
from clipkit.explore.question import Found as Scored
from clipkit.images.thumbnails import thumbnail, to_jpeg
from clipkit.output.sidecar_tags import add_tags, read_tag_list

from .search.questions import as_relevance, notes_on_files
from .server.libraries import Shelf

MOST_HITS = 200  # of one answer: whoever asks reads all of them
MOST_THUMBNAILS = 12
MOST_CHANGED = 1_000  # pictures that one call tags, or puts into an album
SIZES = (32, 1024)  # pixels of a thumbnail's longer side
LISTED = 200  # folders of a library that are named
INSTRUCTIONS = (
    "Search folders of pictures by what they show. Queries are ordinary English words; AND, OR, NOT, parentheses and "
    "filters such as date:2024, path:holidays/, type:jpeg, album:NAME and tag:WORD can be added. Pictures are named "
    "by their path in their library. `verdict` says whether any fits: with `nothing`, say that none was found."
)
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class LibraryFacts:
    """A library. first, last: days, as 2024-06-30; empty where no picture has a date. error: why it cannot be asked."""

    name: str
    pictures: int = 0
    model: str = ""
    first: str = ""
    last: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Description(LibraryFacts):
    """A library in detail. revision: grows with each change of the index."""

    revision: int
    kinds: list[str]
    folders: list[str]
    albums: dict[str, int]
    saved_searches: dict[str, str]


@dataclass(frozen=True)
class FoundPicture:
    """One picture of an answer. taken: date and time, empty where it is not known."""

    path: str
    score: float
    relevance: str
    width: int
    height: int
    taken: str


@dataclass(frozen=True)
class Found:
    """An answer, best picture first. verdict: fits, unsure or nothing. searched: pictures that the filters left."""

    library: str
    verdict: str
    searched: int
    has_more: bool
    pictures: list[FoundPicture]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Changed:
    """What was done, in a sentence."""

    said: str


def make_server(shelf: Shelf, *, allow_changes: bool = False) -> MCPServer[Any]:
    """A server of the libraries of a shelf, and of nothing else on the disk; it reads, unless changes are allowed."""
    server: MCPServer[Any] = MCPServer(
        "clipkit", title="clipkit", instructions=INSTRUCTIONS, version=__version__, log_level="ERROR"
    )
    tools = Tools(shelf)
    for tool in (tools.list_libraries, tools.describe_library, tools.search, tools.find_similar):
        server.add_tool(_explained(tool, shelf), annotations=READS)
    server.add_tool(_explained(tools.show_pictures, shelf), annotations=READS, structured_output=False)
    if allow_changes:
        for change in (tools.add_to_album, tools.remove_from_album, tools.tag_pictures):
            server.add_tool(_explained(change, shelf), annotations=WRITES)
    return server


def _explained(tool: Callable[P, R], shelf: Shelf) -> Callable[P, R]:
    """The same, whose errors the assistant reads; they name no place on the disk."""

    @functools.wraps(tool)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return tool(*arguments, **named)
        except ClipkitError as error:
            raise ToolError(_sentence(shelf, error)) from error
        except OSError as error:  # a disk that is gone
            raise ToolError(f"the disk refuses: {error.strerror or error}") from error

    return run


class Tools:
    """What an assistant can ask; each public method is a tool, and its docstring is what the assistant reads."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def list_libraries(self) -> list[LibraryFacts]:
        """The libraries that can be searched."""
        return [self._facts_or_error(library) for library in self._shelf.libraries() if library.is_indexed]

    def describe_library(self, library: str = "") -> Description:
        """Folders, file types, albums and saved searches of a library. library: its name; default: the first."""
        chosen = self._library(library)
        catalogue, facts = chosen.catalogue(), self._facts(chosen)
        return Description(
            **vars(facts),
            revision=catalogue.revision,
            kinds=catalogue.kinds,
            folders=[printable(folder) for folder in catalogue.folders[:LISTED]],
            albums={name: len(album.contents) for name, album in read_albums(chosen.index).items()},
            saved_searches={f"@{name}": query for name, query in chosen.info.searches},
        )

    def search(self, query: str, library: str = "", k: int = 10, min_relevance: str = "weak") -> Found:
        """The pictures that fit a query best.

        query: words, such as "a dog on a beach", with AND, OR, NOT and filters (date:2024, path:holidays/, type:jpeg,
        album:NAME). An empty one lists the newest. library: its name; default: the first. k: at most 200.
        min_relevance: weak, likely or strong.
        """
        if min_relevance not in RELEVANCES:
            raise QueryError(f"there is no relevance {printable(min_relevance[:20])!r}", hint="weak, likely or strong")
        chosen = self._library(library)
        answer = ask(chosen, Question(clean(query), least=as_relevance(min_relevance)), _count(k))
        return self._found(chosen, answer, answer.found, notes_on_files(query))

    def find_similar(self, path: str, library: str = "", k: int = 10) -> Found:
        """The pictures that look most like one of the library. path: as an answer gave it. k: at most 200."""
        chosen = self._library(library)
        own = self._ids(chosen, [path])[0]
        answer = ask(chosen, Question(more=(own,)), _count(k) + 1)
        others = tuple(one for one in answer.found if one.fact.id != own)
        return self._found(chosen, answer, others[: _count(k)])

    def show_pictures(self, paths: list[str], library: str = "", size: int = 256) -> list[str | Image]:
        """Pictures to look at. paths: at most 12, as an answer gave them. size: longer side, 32 to 1024 pixels."""
        chosen = self._library(library)
        if not SIZES[0] <= size <= SIZES[1]:
            raise QueryError(f"a size of {size} pixels is not shown", hint=f"{SIZES[0]} to {SIZES[1]}")
        shown: list[str | Image] = []
        for path, id_ in zip(paths, self._ids(chosen, paths, most=MOST_THUMBNAILS), strict=True):
            file = chosen.file_of(id_)
            try:
                if file is None:
                    raise ImageError(f"{path} is not there any more")
                shown += [path, Image(data=to_jpeg(thumbnail(file, size).canvas), format="jpeg")]
            except ImageError as error:
                shown.append(f"{path} cannot be shown: {self._shelf.presentable(error.message)}")
        return shown

    def add_to_album(self, album: str, paths: list[str], library: str = "") -> Changed:
        """Put pictures into an album, which is made if need be; the files stay as they are."""
        chosen = self._library(library)
        count = change_album(chosen.index, album, add=self._ids(chosen, paths, most=MOST_CHANGED))
        return Changed(f"{album} has {count:,} pictures now")

    def remove_from_album(self, album: str, paths: list[str], library: str = "") -> Changed:
        """Take pictures out of an album; the files stay as they are, and an empty album goes."""
        chosen = self._library(library)
        count = change_album(chosen.index, album, remove=self._ids(chosen, paths, most=MOST_CHANGED))
        return Changed(f"{album} has {count:,} pictures now")

    def tag_pictures(self, tags: list[str], paths: list[str], library: str = "") -> Changed:
        """Write tags into an XMP file beside each picture, and into no picture."""
        chosen = self._library(library)
        files = [chosen.file_of(id_) for id_ in self._ids(chosen, paths, most=MOST_CHANGED)]
        written = add_tags([file for file in files if file], read_tag_list(",".join(tags)))
        return Changed(f"{len(written):,} files beside {len(files):,} pictures have these tags now")

    def _library(self, name: str) -> Library:
        """The library that an assistant calls so; the first for an empty name."""
        there = {self._name(library): library for library in self._shelf.libraries() if library.is_indexed}
        if not there:
            raise QueryError("no library has an index any more", hint="clipkit index FOLDER")
        if name and name not in there:
            raise QueryError(f"there is no library {printable(name[:80])!r} here", hint=", ".join(there))
        return there[name] if name else next(iter(there.values()))

    def _name(self, library: Library) -> str:
        """What an assistant calls it: equal names of folders are numbered."""
        return next(name for name, key in self._shelf.choices(self._shelf.libraries()) if key == library.key)

    def _facts(self, library: Library) -> LibraryFacts:
        catalogue = library.catalogue()
        first, last = catalogue.years
        name, model = self._name(library), library.info.model
        return LibraryFacts(name=name, pictures=len(catalogue), model=model, first=first, last=last)

    def _facts_or_error(self, library: Library) -> LibraryFacts:
        try:
            return self._facts(library)
        except ClipkitError as error:  # the others can be asked
            return LibraryFacts(name=self._name(library), error=_sentence(self._shelf, error))

    def _found(self, library: Library, answer: Answer, shown: Sequence[Scored], notes: Sequence[str] = ()) -> Found:
        pictures = [_picture(one.fact, float(one.hit.score), one.relevance) for one in shown]
        notes = [*notes, *answer.notes]
        return Found(self._name(library), answer.verdict, answer.total, answer.has_more, pictures, notes)

    def _ids(self, library: Library, paths: Sequence[str], *, most: int = 1) -> list[int]:
        """Ids of pictures; QueryError for one that the index has not, so that no other file can be named."""
        if not 0 < len(paths) <= most:
            raise QueryError(f"{len(paths):,} pictures are named", hint=f"1 to {most:,} at once")
        catalogue, wanted = library.catalogue(), set(paths)
        pairs = zip(map(printable, catalogue.paths), catalogue.ids.tolist(), strict=True)
        known = {path: id_ for path, id_ in pairs if path in wanted}
        if absent := [path for path in paths if path not in known]:
            raise QueryError(
                f"{printable(absent[0][:200])} is no picture of {self._name(library)}",
                hint="a path as search gives it, relative to the library",
            )
        return [known[path] for path in paths]


def _sentence(shelf: Shelf, error: ClipkitError) -> str:
    """An error in one line, with what to try; it names no place on the disk."""
    message, hint = shelf.explained(error)
    return printable(f"{message}; try: {hint}" if hint else message)


def _count(k: int) -> int:
    if not 0 < k <= MOST_HITS:
        raise QueryError(f"{k:,} pictures cannot be asked for", hint=f"k from 1 to {MOST_HITS}")
    return k


def _picture(fact: Fact, score: float, relevance: str) -> FoundPicture:
    return FoundPicture(printable(fact.path), round(score, 4), relevance, fact.width, fact.height, fact.taken)


def serve(photos: Sequence[Path], shelf: Shelf, *, allow_changes: bool = False) -> None:
    """Answer an assistant on stdin and stdout until it closes them; ClipkitError for a folder without an index."""
    for folder in photos:
        if not os.path.isdir(folder):
            raise ClipkitError(
                f"{folder} is not a folder on this machine", hint="clipkit mcp FOLDER, one that is there"
            )
        library = shelf.add(folder)
        if not library.is_indexed:
            raise ClipkitError(f"{folder} has no index", hint=f"clipkit index {folder}")
    server = make_server(shelf, allow_changes=allow_changes)
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # the first Ctrl-C: mcp waits for one more line of stdin
    server.run("stdio")
