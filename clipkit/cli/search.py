"""Command `search`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.output import described_built, echo_lines, print_hits, print_unmatched, progress_bar, say
from clipkit.core.text import are, counted, printable
from clipkit.errors import ClipkitError, IndexNotFound
from clipkit.explore.choices import RELEVANCES, SHAPES

if TYPE_CHECKING:
    from clipkit.bulk.shards import Shards
    from clipkit.core.arrays import IntArray
    from clipkit.explore.metadata import Filters
    from clipkit.index.image_index import ImageIndex
    from clipkit.models.encoder import Encoder
    from clipkit.search.hits import Hits, Relevance
    from clipkit.search.query import Query


CLOSEST = {  # said below results that may not be what was asked for
    "unsure": "not sure that any of them fits: these come closest",
    "nothing": "nothing here seems to fit: these come closest",
}


@dataclass(frozen=True, kw_only=True)
class SearchOptions(options.ModelOptions):
    """What was asked of `search`."""

    query: str
    photos: str
    k: int
    add: tuple[str, ...]
    subtract: tuple[str, ...]
    where: tuple[str, ...]
    filepath_only: bool
    null: bool
    as_json: bool
    as_csv: bool
    preview: bool
    copy_to: str | None
    sheet: str | None
    below: str
    head_file: str | None
    classes: tuple[str, ...]
    exclude_dirs: tuple[str, ...]
    no_indexing: bool
    keep_warm: bool
    exact: bool
    build: str | None
    at: str | None
    after: str
    before: str
    shapes: tuple[str, ...]
    kinds: tuple[str, ...]
    least: Relevance
    literal: bool
    is_explained: bool
    save: str | None
    is_list: bool
    forget: str | None

    def read(self) -> Query:
        """What QUERY asks for."""
        from clipkit.search.query import parse_query

        return parse_query(self.query, add=self.add, subtract=self.subtract, where=self.where, literal=self.literal)

    def filters(self, folder: str) -> Filters:
        """Which pictures may answer; folder: relative to the root of the index."""
        from clipkit.explore.metadata import Filters, parse_day, parse_kinds

        return Filters(
            folder=folder,
            exclude_dirs=self.exclude_dirs,
            since=parse_day(self.after),
            until=parse_day(self.before, is_end=True),
            shapes=self.shapes,
            kinds=tuple(kind for text in self.kinds for kind in parse_kinds(text)),
        )


class _Search(click.Command):
    """A query that begins with a minus sign is a query: `-path:trip` would be read as `-p -a th:trip`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f" {text}" if _is_query(text) else text for text in args])


def _is_query(text: str) -> bool:
    if text[:1] != "-" or not (":" in text or " " in text):
        return False
    from clipkit.search.query import FIELDS

    return text.startswith("- ") or text[1:].partition(":")[0].lower() in FIELDS


@click.command(cls=_Search, context_settings={"allow_extra_args": True})
@click.argument("query", required=False, default="")
@click.argument("photos", type=click.Path(), default=".")
@click.option("-t", "--top", "k", type=int, default=10, show_default=True, help="How many pictures to show.")
@click.option("-a", "--add", multiple=True, metavar="TERM", help="Add a term as it stands; repeatable.")
@click.option("-s", "--sub", "subtract", multiple=True, metavar="TERM", help="Subtract a term; repeatable.")
@click.option("--where", multiple=True, metavar="FILTER", help="A filter, as 'rating:>=4'; repeatable.")
@click.option("-f", "--filepath-only", is_flag=True, help="Only paths, as the disk has them.")
@click.option("-0", "--null", is_flag=True, help="Paths that end in NUL, for xargs -0.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="A table: score, path.")
@click.option("-p", "--preview", is_flag=True, help="Show the pictures, where the terminal can.")
@click.option("--copy-to", type=options.Place(), metavar="FOLDER", help="Also copy them there; overwrites nothing.")
@click.option(
    "--html", "sheet", type=options.Place(), metavar="FILE", help="Also write a contact sheet: one HTML file."
)
@options.below
@click.option("--after", metavar="DATE", default="", help="Only taken then or later: 2019, 2019-07.")
@click.option("--before", metavar="DATE", default="", help="Only taken then or earlier.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    type=click.Choice(SHAPES),
    metavar="SHAPE",
    help="landscape, portrait or square; repeatable.",
)
@click.option("--type", "kinds", multiple=True, metavar="TYPE", help="Only files such as jpeg, heic; repeatable.")
@click.option(
    "--min-relevance",
    "least",
    type=click.Choice(RELEVANCES[::-1]),
    default="weak",
    help="Leave out what fits less.",
)
@click.option("--literal", is_flag=True, help="Take QUERY as words, whatever is in it.")
@click.option("--explain-query", "is_explained", is_flag=True, help="Say how QUERY is read, and search nothing.")
@click.option("--save", metavar="NAME", help="Save QUERY; @NAME asks it again.")
@click.option("--saved", "is_list", is_flag=True, help="List what is saved, and search nothing.")
@click.option("--forget", metavar="NAME", help="Forget what is saved so; search nothing.")
@click.option(
    "--head", "head_file", type=click.Path(), metavar="FILE", help="With --class: a classifier that probe saved."
)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only pictures the head calls so; repeatable.")
@options.excluded
@options.engine
@options.device
@options.precision
@options.pickle
@click.option("-n", "--no-indexing", is_flag=True, hidden=True, help="Accepted from rclip; search never indexes.")
@click.option("--keep-warm", is_flag=True, help="Answer the next searches sooner.")
@click.option("--exact", is_flag=True, help="Look at every picture, not at lists.")
@click.option("--build", type=click.Choice(["ivf"]), help="Index shards first, for fast search.")
@options.at
@options.into(SearchOptions)
def search(given: SearchOptions) -> None:
    """Show the pictures in PHOTOS (a folder, or shards; by default the current one) that fit QUERY best, one a line,
    score first: a cosine; with AND, OR and NOT from 0 to 1.

    QUERY is words, a picture (./dog.jpg), a sum, or parts joined by AND, OR and NOT, with filters:

    \b
      clipkit search "./dog.jpg + snow - 0.5:people" ./photos -t 5
      clipkit search "(a dog OR a cat) AND a beach path:trip date:2023"
      clipkit search -f "a receipt" | xargs -d '\\n' cp -t ~/receipts
    """
    given = _understood(given, click.get_current_context().args)
    are_shards = _are_shards(given.photos)
    if given.is_list or given.forget:
        _change_saved(given)
        return
    given = given if are_shards else _expanded(given)
    if given.is_explained:
        _explain(given)
        return
    hits = _hits_of_shards(given) if are_shards else _hits(given)
    if hits is None:
        return
    _show(hits, given)
    _export(hits, given)
    if not hits:
        say(_nothing(given))
    elif hits.verdict in CLOSEST:
        say(CLOSEST[hits.verdict])


def _understood(given: SearchOptions, extra: Sequence[str]) -> SearchOptions:
    """The same with PHOTOS where a person meant it; UsageError for words without quotes and for two ways to print."""
    paths = given.filepath_only or given.null
    options.only_one(filepath_only=paths, json=given.as_json, csv=given.as_csv, preview=given.preview)
    if extra:
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(extra)}); {_quoted(given, extra)}")
    if not os.path.isdir(given.photos) and os.sep not in given.photos:
        raise IndexNotFound(f"{given.photos} is not a folder", hint=_meant(given))
    needs_no_query = bool(given.add or given.subtract or given.where or given.is_list or given.forget or given.build)
    if needs_no_query and given.photos == "." and (os.path.isdir(given.query) or "://" in given.query):
        given = replace(given, query="", photos=given.query)
    if _are_shards(given.photos):
        return _of_shards(given)
    if given.build:
        raise click.UsageError("--build is for shards; a folder of pictures has clipkit index --ann ivf")
    _say_file_name(given)
    return given


def _are_shards(place: str) -> bool:
    """Whether it is a URL, or a folder of shards, and not one that has an index."""
    from clipkit.bulk.places import is_shards

    return is_shards(place)


def _of_shards(given: SearchOptions) -> SearchOptions:
    """The same; UsageError for an option that only an index understands."""
    for_index = ("save", "is_list", "forget", "head_file", "classes", "exclude_dirs", "at")
    names = {"is_list": "saved", "head_file": "head", "classes": "class", "exclude_dirs": "exclude-dir", "at": "index"}
    for name in for_index:
        if getattr(given, name):
            raise click.UsageError(f"--{names.get(name, name)} is for an index, and {given.photos} is shards")
    return given


def _hits_of_shards(given: SearchOptions) -> Hits | None:
    """What shards answer, after their index is built if that was asked for; None where nothing else was."""
    from clipkit.bulk.queries import load_for, refuse_empty
    from clipkit.bulk.queries import search as search_shards
    from clipkit.bulk.shards import Shards
    from clipkit.explore.question import notes_on

    shards = Shards(given.photos)
    query = given.read() if given.query or given.add or given.subtract or given.where or not given.build else None
    _refuse_absent(given, shards.manifest.source)
    refuse_empty(shards)
    encoder = load_for(shards.manifest, given.load, is_plain=given.is_plain)
    if given.build:
        _build(shards, encoder)
    if query is None:
        return None
    for note in (*query.notes, *notes_on(query.terms, encoder)):
        say(printable(note))
    return search_shards(
        shards,
        query,
        given.k,
        filters=given.filters(given.below),
        least=given.least,
        encoder=encoder,
        exact=given.exact,
        notify=lambda text: say(printable(text)),
    )


def _build(shards: Shards, encoder: Encoder) -> None:
    """Index shards, unless they have an index that is of all of them."""
    from clipkit.bulk.lance_index import build_if_due
    from clipkit.explore.relevance import embed_vocabulary

    with progress_bar(" shards") as progress:
        built = build_if_due(shards, lambda: embed_vocabulary(encoder), progress=progress)
    say(described_built(built))


def _refuse_absent(given: SearchOptions, source: str) -> None:
    """ClipkitError where files are asked for that are not on this machine."""
    if (given.copy_to or given.sheet or given.preview) and not os.path.isdir(source):
        fact = f"the pictures lie in {source}, not on this machine"
        raise ClipkitError(fact, hint="--json, which names them")


def _expanded(given: SearchOptions) -> SearchOptions:
    """The same with the query that `@NAME` stands for; a query is saved where --save asks for it."""
    from clipkit.search.saved import expand, is_saved_name

    if given.save and (given.literal or given.add or given.subtract or given.where):
        raise click.UsageError("--save keeps QUERY alone; write terms and filters into it")
    if given.save:
        _index_of(given).save_search(given.save, given.query)
        say(f"saved: clipkit search @{given.save.removeprefix('@')}")
    if given.literal or not is_saved_name(given.query):
        return given
    return replace(given, query=expand(given.query, _index_of(given).saved_searches))


def _change_saved(given: SearchOptions) -> None:
    if given.query:
        raise IndexNotFound(f"{given.query} is not a folder", hint="clipkit search --saved PHOTOS")
    index = _index_of(given)
    if given.forget:
        index.forget_search(given.forget)
        return
    for name, query in sorted(index.saved_searches.items()):
        line = json.dumps({"name": name, "query": query}) if given.as_json else f"@{name}\t{printable(query)}"
        echo_lines([line])


def _index_of(given: SearchOptions) -> ImageIndex:
    from clipkit.index.image_index import find

    return find(given.photos, at=given.at)[0]


def _say_file_name(given: SearchOptions) -> None:
    from clipkit.images.formats import file_of, is_picture

    name = given.query
    if is_picture(name) and not re.search(r"\s|^[./~]|^-?\w+:", name):
        command = shlex.join(["clipkit", "search", f"./{name}", given.photos])
        fact = f"for the picture: {command}" if os.path.isfile(file_of(name)) else "there is no such file here"
        say(f"{printable(name)} is read as words; {printable(fact)}")


def _meant(given: SearchOptions) -> str:
    """A folder that is called nearly so, else the words in quotes."""
    from clipkit.index.paths import near_folder

    meant = near_folder(given.photos)
    if not meant:
        return _quoted(given, ())
    return f"did you mean {meant}: {shlex.join(['clipkit', 'search', given.query, meant])}"


def _quoted(given: SearchOptions, extra: Sequence[str]) -> str:
    words = [given.query, given.photos, *extra]
    folder = [words.pop()] if os.path.isdir(words[-1]) else []
    return f"quote the words: {shlex.join(['clipkit', 'search', ' '.join(words), *folder])}"


def _explain(given: SearchOptions) -> None:
    from clipkit.search.query import explain

    query = given.read()
    for note in query.notes:
        say(printable(note))
    echo_lines(printable(line) for line in explain(query))


def _hits(given: SearchOptions) -> Hits:
    from clipkit.explore.question import candidates, notes_on
    from clipkit.explore.question import search as search_index
    from clipkit.index.image_index import ImageIndex, find
    from clipkit.index.paths import unmatched_dirs

    query = given.read()
    open_index = options.program().open_index or ImageIndex.open
    pictures, inside = find(given.photos, below=given.below, at=given.at, load=given.load, open_index=open_index)
    pictures.is_exact = given.exact
    filters = given.filters(inside)
    only = _ids_of(pictures, given, filters) if given.head_file or given.classes else None
    if given.exclude_dirs:
        print_unmatched(unmatched_dirs(pictures.paths, given.exclude_dirs, pictures.root))
    only = candidates(pictures, filters, only)  # a wrong folder is an error before a model is loaded
    encoder = given.query_encoder(pictures) if query.tree else None  # filters alone compare nothing
    for note in (*query.notes, *(notes_on(query.terms, encoder) if encoder else ())):
        say(printable(note))
    return search_index(pictures, query, given.k, only=only, least=given.least, encoder=encoder)


def _ids_of(pictures: ImageIndex, given: SearchOptions, filters: Filters) -> IntArray:
    from clipkit.classify.head import Head
    from clipkit.classify.labels import ids_of_class

    if not (given.head_file and given.classes):
        raise click.UsageError("--head and --class go together: whose classes, and which of them")
    head = Head.load(given.head_file)
    return ids_of_class(pictures, head, given.classes, below=filters.folder, exclude_dirs=filters.exclude_dirs)


def _show(hits: Hits, given: SearchOptions) -> None:
    if given.preview:
        _print_with_previews(hits)
        return
    print_hits(hits, filepath_only=given.filepath_only, null=given.null, as_json=given.as_json, as_csv=given.as_csv)


def _export(hits: Hits, given: SearchOptions) -> None:
    if given.copy_to:
        from clipkit.output.copy_files import beside_hits, copy_hits

        copies = copy_hits(hits, Path(given.copy_to))
        there = f"{counted(len(copies), 'picture')} {are(len(copies))} in {printable(given.copy_to)}"
        say(f"{there}{beside_hits(hits, copies)}")
    if given.sheet:
        from clipkit.output.contact_sheet import write_sheet

        write_sheet(hits, Path(given.sheet), title=given.query)
        say(f"{printable(given.sheet)} shows them")


def _nothing(given: SearchOptions) -> str:
    place = printable(given.below or given.photos)
    if given.read().conditions or given.after or given.before or given.shapes or given.kinds or given.least != "weak":
        return f"no pictures in {place} are left by the filters; fewer of them show more"
    of = f" that are {printable(' or '.join(given.classes))}" if given.classes else ""
    return f"no pictures{of} are indexed in {place}"


def _print_with_previews(hits: Hits) -> None:
    from clipkit.output.terminal_preview import cell_size, choose_protocol, has_true_color, render
    from clipkit.search.hits import Hits

    protocol = choose_protocol(os.environ, sys.stdout.isatty())
    if protocol is None:
        say("no previews: this output is not a terminal that can show them")
    for hit in hits:
        print_hits(Hits([hit]))
        if protocol is not None:
            columns = min(shutil.get_terminal_size().columns, 60)
            cell, true_color = cell_size(sys.stdout.fileno()), has_true_color(os.environ)
            text = render(hit.file, protocol, columns=columns, rows=15, cell=cell, true_color=true_color)
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode())
