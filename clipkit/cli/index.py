"""Commands `index` and `info`."""

from __future__ import annotations

import sys
from typing import Any

import click

from clipkit.cli import options
from clipkit.cli.output import on_interrupt, print_failure, print_info, print_plan, print_report, progress_bar


@click.command()
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
    from clipkit.index.crash_recovery import is_watched, watch
    from clipkit.index.image_index import open_or_create, place_of, plan

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
    kept = (
        (lambda: "the old index is as it was") if rebuild else (lambda: f"{len(pictures):,} pictures are in the index")
    )
    with on_interrupt(kept), progress_bar() as progress:
        report = pictures.update(progress=progress, workers=workers, **looks)
    print_report(report, pictures, photos)


@click.command()
@click.argument("photos", default=".")
@click.option("--failed", is_flag=True, help="List the files that could not be read: path, tab, reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.at
def info(photos: str, failed: bool, as_json: bool, at: str | None) -> None:
    """Say what the index of PHOTOS holds."""
    from clipkit.index.image_index import find

    pictures, _ = find(photos, at=at)
    if failed:
        for failure in pictures.failures():
            print_failure(failure, as_json)
        return
    print_info(pictures, as_json=as_json)
