"""The command line: reads options, calls one function of the library, prints."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import classify, evaluate, explain, learn, maintain, options, ui
from clipkit.cli.output import (
    print_failure,
    print_hits,
    print_info,
    print_models,
    print_plan,
    print_report,
    printable,
    progress_bar,
    say,
    say_error,
)
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.index.image_index import ImageIndex
    from clipkit.store.records import Hits, IntArray

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="clipkit", message="clipkit %(version)s")
def app() -> None:
    """Ask a folder of pictures.

    \b
      clipkit index ./photos                      once, and again whenever pictures change
      clipkit search "a dog on a beach" ./photos

    Everything runs on this machine. Exit codes: 0 done, 1 error, 2 wrong usage, 3 damaged index,
    11 index in use, 130 interrupted.
    """


@app.command()
@click.argument("photos", default=".")
@click.option("--model", metavar="NAME", help="Default: the index's own; for a new one auto. See `clipkit models`.")
@options.device
@options.precision
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures encoded at a time.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that read pictures. Default: one a core, at most 8."
)
@options.excluded
@click.option("--include-hidden", is_flag=True, help="Also files and folders whose name begins with a dot.")
@click.option("--checksum", is_flag=True, help="Read every file again, not only those whose size or date changed.")
@click.option("--retry-failed", is_flag=True, help="Read those again that could not be read.")
@click.option("--rebuild", is_flag=True, help="Make the index anew; the old one answers until the new one is complete.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--exact-pixels", is_flag=True, help="Decode exactly as open_clip does: slower, differs by 0.3 of 255.")
@options.pickle
@options.at
@click.pass_obj
def index(
    is_program: bool,
    photos: str,
    model: str | None,
    device: str,
    precision: str,
    batch_size: int | None,
    workers: int | None,
    exclude_dirs: tuple[str, ...],
    include_hidden: bool,
    checksum: bool,
    retry_failed: bool,
    rebuild: bool,
    dry_run: bool,
    exact_pixels: bool,
    allow_pickle: bool,
    at: str | None,
) -> None:
    """Bring the index of PHOTOS up to date.

    PHOTOS is a folder, by default the current one. New and changed pictures are encoded; moved ones keep what
    is known of them; a picture that is gone leaves the results but is remembered. Nothing in PHOTOS is changed,
    except that the index is kept in PHOTOS/.clipkit. An interrupted run goes on where it stopped.
    """
    from clipkit.index.folders import open_or_create, place_of, plan
    from clipkit.index.watching import is_watched, watch

    looks: dict[str, Any] = {
        "exclude_dirs": exclude_dirs,
        "include_hidden": include_hidden,
        "checksum": checksum,
        "retry_failed": retry_failed,
    }
    if dry_run:
        print_plan(plan(photos, at=at, rebuild=rebuild, **looks))
        return
    if is_program and not is_watched():
        raise click.exceptions.Exit(watch(sys.argv[1:], place_of(photos, at)))
    load = options.loader(device, precision, allow_pickle, batch_size)
    pictures = open_or_create(photos, load, model=model, exact_pixels=exact_pixels, rebuild=rebuild, at=at)
    with _saying_what_is_kept(pictures, rebuild=rebuild), progress_bar() as progress:
        report = pictures.update(progress=progress, workers=workers, **looks)
    print_report(report, pictures, photos)


@app.command()
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
    from clipkit.index.folders import find
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


@app.command()
@click.argument("photos", default=".")
@click.option("--failed", is_flag=True, help="List the files that could not be read: path, tab, reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.at
def info(photos: str, failed: bool, as_json: bool, at: str | None) -> None:
    """Say what the index of PHOTOS holds."""
    from clipkit.index.folders import find

    pictures, _ = find(photos, at=at)
    if failed:
        for failure in pictures.failures():
            print_failure(failure, as_json)
        return
    print_info(pictures, as_json=as_json)


@app.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def models(as_json: bool) -> None:
    """List models: quality, size, what they are for.

    These have a short name; numbers are as published. Any other name of open_clip works too
    (ViT-B-32/laion2b_s34b_b79k), as do hf-hub:ORGANISATION/NAME and a local folder that holds
    open_clip_config.json and open_clip_model.safetensors.
    """
    from clipkit.models.registry import ALIASES, is_cached

    rows = [{**vars(alias), "is_on_this_disk": is_cached(alias.name)} for alias in ALIASES.values()]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    print_models(rows)


for command in (
    *maintain.commands,
    *evaluate.commands,
    *classify.commands,
    *learn.commands,
    *ui.commands,
    *explain.commands,
):
    app.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Only here does an error become text."""
    warnings.filterwarnings("ignore", module="PIL")  # about metadata; a picture that fails is reported by us
    try:
        code = app.main(args=arguments, prog_name="clipkit", standalone_mode=False, obj=arguments is None)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ClipkitError as error:
        say_error(error)
        return error.exit_code
    except BrokenPipeError:  # `clipkit search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        say("error: out of memory\n  try: --batch-size 1 --workers 1")
        return 1
    except OSError as error:
        say(f"error: {error.strerror or error}: {printable(str(error.filename or ''))}")
        return 1


def _ids_of(pictures: ImageIndex, head_file: str | None, classes: tuple[str, ...], **where: Any) -> IntArray:
    from clipkit.classify.head import Head
    from clipkit.classify.label_index import ids_of_class

    if not (head_file and classes):
        raise click.UsageError("--head and --class go together: whose classes, and which of them")
    return ids_of_class(pictures, Head.load(head_file), classes, **where)


def _print_with_previews(hits: Hits) -> None:
    from clipkit.output.terminal_preview import cell_size, choose_protocol, has_true_color, render
    from clipkit.store.records import Hits

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


@contextmanager
def _saying_what_is_kept(pictures: ImageIndex, *, rebuild: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        kept = "the old index is as it was" if rebuild else f"{len(pictures):,} pictures are in the index"
        say(f"interrupted: {kept}; run the same command to go on")
        raise click.exceptions.Exit(INTERRUPTED) from None
