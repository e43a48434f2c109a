"""The command `index`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import (
    described_ann,
    on_interrupt,
    print_bulk_report,
    print_plan,
    print_report,
    print_texts,
    progress_bar,
    say,
)
from clipkit.core.text import are, counted, printable
from clipkit.models.devices import ENGINES

RAY = "ray"
# What is of an index alone: the option, and its field.
NOT_ON_CLUSTER = {
    "--watch": "is_watching",
    "--ann": "ann",
    "--ocr": "ocr",
    "--video": "video",
    "--index": "at",
    "--rebuild": "rebuild",
    "--checksum": "checksum",
    "--refresh-metadata": "refresh_metadata",
    "--exclude-dir": "exclude_dirs",
    "--include-dir": "include_dirs",
    "--include-hidden": "include_hidden",
}

if TYPE_CHECKING:
    from clipkit.core.arrays import Embeddings
    from clipkit.index.image_index import ImageIndex
    from clipkit.models.ocr import TextReader


@dataclass(frozen=True, kw_only=True)
class IndexOptions(options.ModelOptions):
    """What was asked of `index`."""

    photos: str
    model: str | None
    batch_size: int | None
    workers: int | None
    exclude_dirs: tuple[str, ...]
    include_dirs: tuple[str, ...]
    include_hidden: bool
    checksum: bool
    retry_failed: bool
    refresh_metadata: bool
    rebuild: bool
    dry_run: bool
    exact_pixels: bool
    is_watching: bool
    ann: str | None
    ocr: bool
    video: bool | None
    at: str | None
    out: str | None
    address: str | None
    shard: int | None
    gpus_per_worker: float | None

    def is_on_cluster(self) -> bool:
        """Whether a cluster computes; UsageError for options that do not go with what was asked."""
        if self.engine != RAY:
            asked = [name for name in ("out", "address", "shard", "gpus_per_worker") if getattr(self, name) is not None]
            if asked:
                name = asked[0].replace("_", "-")
                raise click.UsageError(f"--{name} is of a cluster: add --engine ray --out FOLDER")
            return False
        asked = [name for name in NOT_ON_CLUSTER if getattr(self, NOT_ON_CLUSTER[name])]
        if asked:
            raise click.UsageError(f"{asked[0]} does not go with --engine ray, which writes shards and no index")
        if self.out is None:
            raise click.UsageError("--engine ray writes shards: say where, with --out FOLDER or --out s3://BUCKET/NAME")
        return True

    @property
    def scan(self) -> dict[str, Any]:
        """Which files are looked at, and which of them are read."""
        names = (
            "exclude_dirs",
            "include_dirs",
            "include_hidden",
            "checksum",
            "retry_failed",
            "refresh_metadata",
            "video",
        )
        return {name: getattr(self, name) for name in names}


@click.command()
@click.argument("photos", type=click.Path(), default=".")
@click.option("--model", metavar="NAME", help="Default: the index's own; for a new one auto. See `clipkit models`.")
@click.option(
    "--engine",
    type=click.Choice([*ENGINES, RAY]),
    default="auto",
    help="What computes; ray: a cluster.",
)
@options.device
@options.precision
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures encoded at a time.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that read pictures. Default: one a core, at most 8. With ray: encoders.",
)
@click.option(
    "--exclude-dir",
    "exclude_dirs",
    metavar="NAME",
    multiple=True,
    help="Leave out folders of this name or path, in later runs too; repeatable.",
)
@click.option(
    "--include-dir", "include_dirs", metavar="NAME", multiple=True, help="Take back what --exclude-dir left out."
)
@click.option("--include-hidden", is_flag=True, help="Also names that begin with a dot.")
@click.option("--checksum", is_flag=True, help="Read every file again, changed or not.")
@click.option("--retry-failed", is_flag=True, help="Read those again that could not be read.")
@click.option(
    "--refresh-metadata", is_flag=True, help="Read dates, cameras, ratings, tags again; encode nothing for it."
)
@click.option("--rebuild", is_flag=True, help="Make the index anew; the old one answers until the new one is complete.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--exact-pixels", is_flag=True, help="Decode exactly as open_clip does: slower, differs by 0.3 of 255.")
@click.option("--watch", "is_watching", is_flag=True, help="Go on, and index what changes, until Ctrl-C.")
@click.option(
    "--ann",
    type=click.Choice(["auto", "off", "ivf"]),
    help="Approximate search; remembered. auto, the default: from millions of pictures on.",
)
@click.option("--ocr", is_flag=True, help="Read text in pictures too, for text:invoice.")
@click.option("--video/--no-video", default=None, help="Frames of videos too; remembered.")
@options.pickle
@options.at
@click.option("--out", type=options.Place(), metavar="FOLDER|URL", help="With ray: where the shards are written.")
@click.option("--address", metavar="ADDRESS", help="With ray: local, auto or ray://HOST:10001.")
@click.option("--shard", type=click.IntRange(min=1), metavar="N", help="With ray: pictures a shard; 10,000.")
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0),
    metavar="N",
    help="With ray: GPUs an encoder.",
)
@options.into(IndexOptions)
def index(given: IndexOptions) -> None:
    """Bring the index of PHOTOS up to date.

    PHOTOS is a folder, by default the current one. New and changed pictures are encoded; moved ones keep what
    is known of them; a picture that is gone leaves the results but is remembered. Nothing in PHOTOS is changed,
    except that the index is kept in PHOTOS/.clipkit. An interrupted run goes on where it stopped.

    With --engine ray PHOTOS may also be a URL, tars of webdataset or a parquet table:

    \b
      clipkit index s3://bucket/photos --engine ray --address auto --out s3://bucket/shards
    """
    if given.is_on_cluster():
        embed_on_cluster(given)
    else:
        index_folder(given)


def index_folder(given: IndexOptions) -> None:
    """An index of a folder of this machine."""
    from clipkit.index.crash_recovery import is_watched, watch
    from clipkit.index.places import place_of

    if given.model and os.path.isdir(given.model) and not given.dry_run:
        from clipkit.models.load import refuse_empty_folder

        refuse_empty_folder(given.model)
    if options.program().can_restart and not given.dry_run and not is_watched():
        raise click.exceptions.Exit(watch(sys.argv[1:], place_of(given.photos, given.at)))
    from clipkit.index.image_index import open_or_create, plan  # not in the process that watches

    if given.dry_run:
        print_plan(plan(given.photos, at=given.at, rebuild=given.rebuild, **given.scan))
        return
    reader = _reader() if given.ocr else None
    started = time.monotonic()
    load = partial(given.load, batch_size=given.batch_size)
    make: dict[str, Any] = {"model": given.model, "exact_pixels": given.exact_pixels, "rebuild": given.rebuild}
    pictures = open_or_create(given.photos, load, at=given.at, **make)
    with on_interrupt(lambda: _committed(pictures, given)), progress_bar() as progress:
        report = pictures.update(progress=progress, workers=given.workers, **given.scan)
    print_report(report, pictures, given.photos, loading=time.monotonic() - started - report.seconds)
    if report.encoded:  # and a model is loaded: the first search need not do it
        from clipkit.explore.relevance import embed_vocabulary

        embed_vocabulary(pictures.query_encoder)
    _refresh_ann(pictures, given)
    if reader:
        _read_texts(pictures, reader)
    if given.is_watching:
        _watch(pictures, given, reader)


def embed_on_cluster(given: IndexOptions) -> None:
    """`--engine ray`: shards of embeddings instead of an index."""
    from clipkit.bulk import embed

    assert given.out is not None
    with on_interrupt(lambda: f"whole shards are in {printable(given.out or '')}"), progress_bar() as progress:
        report = embed(
            given.photos,
            given.out,
            model=given.model,
            address=given.address,
            shard=given.shard,
            device=given.device,
            precision=given.precision,
            batch_size=given.batch_size,
            exact_pixels=given.exact_pixels,
            allow_pickle=given.allow_pickle,
            workers=given.workers,
            gpus_per_worker=given.gpus_per_worker,
            retry_failed=given.retry_failed,
            dry_run=given.dry_run,
            progress=progress,
            notify=say,
        )
    print_bulk_report(report, given.out)


def _reader() -> TextReader:
    from clipkit.models.ocr import TextReader  # before anything slow: the extra may be missing

    return TextReader()


def _read_texts(pictures: ImageIndex, reader: TextReader) -> None:
    from clipkit.index.ocr import read_texts

    with on_interrupt(lambda: "what was read of texts is kept"), progress_bar() as progress:
        report = read_texts(pictures, reader.read, progress=progress)
    if report.read or report.failed:
        print_texts(report)


def _watch(pictures: ImageIndex, given: IndexOptions, reader: TextReader | None) -> None:
    """Index what changes, with the model loaded; every burst of changes is a line."""
    from clipkit.index.watch import watch_folder

    def update() -> None:
        report = pictures.update(workers=given.workers, include_hidden=given.include_hidden)
        if report.encoded or report.reused or report.restored or report.missing or report.refreshed or report.failed:
            print_report(report, pictures, given.photos)
        if reader:
            _read_texts(pictures, reader)

    with on_interrupt(lambda: _committed(pictures, replace(given, rebuild=False))):
        _ = pictures.encoder  # loaded now: the first change does not wait for it
        say(f"watching {printable(given.photos)}: what changes is indexed  (Ctrl-C ends it)")
        watch_folder(pictures, update, include_hidden=given.include_hidden, notify=say)


def _refresh_ann(pictures: ImageIndex, given: IndexOptions) -> None:
    from clipkit.index.approximate import refresh_ann

    def queries() -> Embeddings:
        from clipkit.explore.relevance import embed_vocabulary

        say("sorting the vectors into lists, for faster search")
        return embed_vocabulary(pictures.query_encoder)

    quality = refresh_ann(pictures, given.ann, queries)
    if quality is not None:
        say(described_ann("ivf", quality))


def _committed(pictures: ImageIndex, given: IndexOptions) -> str:
    """What an interrupted run leaves."""
    if given.rebuild:
        return "the old index is as it was"
    return f"{counted(len(pictures), 'picture')} {are(len(pictures))} in the index"
