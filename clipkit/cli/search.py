"""Command `search`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import print_hits, say
from clipkit.core.text import printable

if TYPE_CHECKING:
    from clipkit.core.arrays import IntArray
    from clipkit.index.image_index import ImageIndex
    from clipkit.search.hits import Hits


@click.command()
@click.argument("query", required=False, default="")
@click.argument("photos", default=".")
@click.option("-t", "--top", "k", type=int, default=10, show_default=True, help="How many pictures to show.")
@click.option("-a", "--add", multiple=True, metavar="TERM", help="Add a term as it stands; repeatable.")
@click.option("-s", "--sub", "subtract", multiple=True, metavar="TERM", help="Subtract a term; repeatable.")
@click.option("-f", "--filepath-only", is_flag=True, help="Only paths, as the disk has them.")
@click.option("-0", "--null", is_flag=True, help="Paths that end in NUL, for xargs -0.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="A table: score, path.")
@click.option("-p", "--preview", is_flag=True, help="Show the pictures, where the terminal can.")
@click.option("--copy-to", metavar="FOLDER", help="Also copy the pictures there; nothing is overwritten.")
@click.option("--html", "sheet", metavar="FILE", help="Also write a contact sheet: one HTML file that needs no other.")
@click.option("--in", "below", metavar="SUBFOLDER", default="", help="Only pictures in this folder below PHOTOS.")
@click.option("--head", "head_file", metavar="FILE", help="With --class: a saved classifier, as `clipkit probe` makes.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only pictures the head calls so; repeatable.")
@options.excluded
@options.device
@options.precision
@options.pickle
@click.option("-n", "--no-indexing", is_flag=True, hidden=True, help="Accepted from rclip; search never indexes.")
@options.at
def search(
    query: str,
    photos: str,
    k: int,
    add: tuple[str, ...],
    subtract: tuple[str, ...],
    filepath_only: bool,
    null: bool,
    as_json: bool,
    as_csv: bool,
    preview: bool,
    copy_to: str | None,
    sheet: str | None,
    below: str,
    head_file: str | None,
    classes: tuple[str, ...],
    exclude_dirs: tuple[str, ...],
    device: str,
    precision: str,
    allow_pickle: bool,
    no_indexing: bool,
    at: str | None,
) -> None:
    """Show the pictures that fit QUERY best.

    One a line, score first, from PHOTOS: a folder that has an index or lies under one (default: the current one).

    QUERY is words, a picture (./dog.jpg), or a sum of them:

    \b
      clipkit search "a red bicycle"
      clipkit search "./dog.jpg + snow - 0.5:people" ./photos -t 5
      clipkit search -f "a receipt" | xargs -d '\\n' cp -t ~/receipts

    The score is the cosine of query and picture. Compare scores of one query only.
    """
    from clipkit.index.image_index import find
    from clipkit.output.contact_sheet import write_sheet
    from clipkit.output.copy_files import copy_hits
    from clipkit.search.query import embed, parse

    pictures, inside = find(photos, below=below, at=at, load=options.loader(device, precision, allow_pickle))
    where: dict[str, Any] = {"below": inside, "exclude_dirs": exclude_dirs}
    only = _ids_of(pictures, head_file, classes, **where) if head_file or classes else None
    rows = embed(parse(query, add=add, subtract=subtract), pictures.encoder)
    hits = pictures.search_embeddings(rows, k, only=only, **where)[0]
    if preview:
        _print_with_previews(hits)
    else:
        print_hits(hits, filepath_only=filepath_only, null=null, as_json=as_json, as_csv=as_csv)
    if copy_to:
        say(f"{len(copy_hits(hits, Path(copy_to))):,} pictures are in {printable(copy_to)}")
    if sheet:
        write_sheet(hits, Path(sheet), title=query)
        say(f"{printable(sheet)} shows them")
    if not hits:
        of = f" that are {printable(' or '.join(classes))}" if classes else ""
        say(f"no pictures{of} are indexed in {printable(below or photos)}")


def _ids_of(pictures: ImageIndex, head_file: str | None, classes: tuple[str, ...], **where: Any) -> IntArray:
    from clipkit.classify.head import Head
    from clipkit.classify.labels import ids_of_class

    if not (head_file and classes):
        raise click.UsageError("--head and --class go together: whose classes, and which of them")
    return ids_of_class(pictures, Head.load(head_file), classes, **where)


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
