"""Commands `duplicates` and `map`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.output import echo_lines, progress_bar, say
from clipkit.core.text import FORMULA_STARTS, are, counted, near, printable
from clipkit.explore.choices import LEVELS, Level

if TYPE_CHECKING:
    from clipkit.explore.metadata import Fact
    from clipkit.index.image_index import ImageIndex

Groups = Sequence[Sequence["Fact"]]
COPIES = {  # how many spare pictures there are: one, several, none
    "exact": ("1 picture is a copy of another", "{:,} pictures are copies of others", "no picture is there twice"),
    "near": ("1 picture is nearly another", "{:,} pictures are nearly others", "no two pictures are nearly the same"),
    "similar": ("1 picture is much like another", "{:,} pictures are much like others", "no two pictures are similar"),
}


@dataclass(frozen=True, kw_only=True)
class DuplicateOptions:
    """What was asked of `duplicates`."""

    photos: str
    level: Level
    below: str
    as_json: bool
    as_csv: bool
    move_to: str | None
    hardlink: bool
    dry_run: bool
    at: str | None


@click.command()
@click.argument("photos", type=click.Path(), default=".")
@click.option("--level", type=click.Choice(LEVELS), default="exact", show_default=True, help="How alike they are.")
@options.below
@click.option("--json", "as_json", is_flag=True, help="One JSON object a group.")
@click.option("--csv", "as_csv", is_flag=True, help="A table: group, keep, path, pixels, date.")
@click.option("--move-to", type=options.Place(), metavar="FOLDER", help="Move all but the first of each group there.")
@click.option("--hardlink", is_flag=True, help="Make copies with equal bytes one file on the disk.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@options.at
@options.into(DuplicateOptions)
def duplicates(given: DuplicateOptions) -> None:
    """List pictures that are there more than once.

    A path a line, an empty line after each group. The first of a group is the one to keep: of most pixels, then the
    oldest. exact: equal bytes. near: also copies that were cropped, scaled, mirrored or compressed. similar: also
    bursts, taken within 10 seconds. What has changed since `clipkit index` is not seen.

    \b
      clipkit duplicates ./photos --level near
      clipkit duplicates ./photos --level near --move-to ./copies --dry-run

    Nothing is deleted or overwritten, and if anything fails all pictures are put back.
    """
    from clipkit.explore.duplicates import find_duplicates, unhashed_count
    from clipkit.index.image_index import find

    options.only_one(json=given.as_json, csv=given.as_csv)
    options.only_one(move_to=bool(given.move_to), hardlink=given.hardlink)
    pictures, inside = find(given.photos, below=given.below, at=given.at)
    groups = find_duplicates(pictures, level=given.level, below=inside)
    _print_groups(groups, pictures, given)
    one, several, none = COPIES[given.level]
    spare = sum(len(group) - 1 for group in groups)
    say(one if spare == 1 else several.format(spare) if spare else none)
    if given.level != "exact" and (count := unhashed_count(pictures)):
        say(f"{counted(count, 'picture')} were indexed before hashes were kept: clipkit index --refresh-metadata")
    if given.move_to:
        _move(groups, pictures, given.move_to, dry_run=given.dry_run)
    if given.hardlink:
        _link(groups, pictures, dry_run=given.dry_run)


def _print_groups(groups: Groups, pictures: ImageIndex, given: DuplicateOptions) -> None:
    if given.as_csv:
        _print_table(groups, pictures)
        return
    for group in groups:
        echo_lines([_record(group, pictures)] if given.as_json else [*_paths(group, pictures), ""])
    sys.stdout.flush()  # the plan is out before anything moves


def _record(group: Sequence[Fact], pictures: ImageIndex) -> str:
    files = [str(pictures.root / fact.path) for fact in group]
    return json.dumps({"sha256": group[0].sha256, "keep": files[0], "files": files})


def _paths(group: Sequence[Fact], pictures: ImageIndex) -> Iterator[str]:
    return (printable(near(str(pictures.root / fact.path))) for fact in group)


def _print_table(groups: Groups, pictures: ImageIndex) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["group", "keep", "path", "width", "height", "taken"])
    for number, group in enumerate(groups, 1):
        for fact, path in zip(group, _paths(group, pictures), strict=True):
            cell = f"'{path}" if path.startswith(FORMULA_STARTS) else path
            keep = "yes" if fact is group[0] else "no"
            table.writerow([number, keep, cell, fact.width, fact.height, printable(fact.taken)])


def _move(groups: Groups, pictures: ImageIndex, folder: str, *, dry_run: bool) -> None:
    from clipkit.output.copy_files import beside
    from clipkit.output.spare_copies import MOVES, move_spares, plan_spare_moves

    if dry_run:
        steps = plan_spare_moves(pictures.root, groups, Path(folder))
        say(f"{counted(len(steps), 'picture')} would be moved to {printable(folder)}{beside(steps)}")
        return
    steps = move_spares(pictures.root, groups, Path(folder))
    where = f"; {MOVES} there says from where" if steps else ""
    say(f"{counted(len(steps), 'picture')} {are(len(steps))} in {printable(folder)} now{beside(steps)}{where}")


def _link(groups: Groups, pictures: ImageIndex, *, dry_run: bool) -> None:
    from clipkit.output.spare_copies import make_links, plan_links

    links = plan_links(pictures.root, groups)
    if not dry_run:
        make_links(links)
    say(f"{counted(len(links), 'file')} {'would become' if dry_run else are(len(links)) + ' now'} hard links")


@dataclass(frozen=True, kw_only=True)
class MapOptions(options.ModelOptions):
    """What was asked of `map`."""

    photos: str
    out: str
    thumbnails: int | None
    below: str
    at: str | None


@click.command("map")
@click.argument("photos", type=click.Path(), default=".")
@click.option(
    "--out",
    default="map.html",
    show_default=True,
    type=click.Path(),
    metavar="FILE",
    help="An earlier map is replaced.",
)
@click.option(
    "--thumbnails", type=click.IntRange(min=0), metavar="N", help="At most so many.  [default: what 50 MB hold]"
)
@options.below
@options.engine
@options.device
@options.precision
@options.pickle
@options.at
@options.into(MapOptions)
def map(given: MapOptions) -> None:
    """Draw a map of PHOTOS as one HTML file: alike pictures lie near one another, in clusters that have names.

    Open FILE in a browser: scroll or pinch to zoom in, point at a picture to see it. Outliers, which are like no other
    picture, are listed. With `pip install umap-learn` the layout is UMAP's, else that of t-SNE.
    """
    from clipkit.explore.mapping import map_collection
    from clipkit.index.image_index import find
    from clipkit.output.map_html import write_map

    pictures, inside = find(given.photos, below=given.below, at=given.at, load=given.load)
    found = map_collection(pictures, below=inside, encoder=given.query_encoder(pictures))
    title = pictures.root.name if not inside else f"{pictures.root.name}/{inside}"
    with progress_bar() as progress:
        shown = write_map(found, pictures.root, Path(given.out), title=title, most=given.thumbnails, progress=progress)
    clusters = f"{counted(len(found.names), 'cluster')}, {counted(len(found.outliers), 'outlier')}"
    say(f"{printable(given.out)} shows {counted(len(found), 'picture')} ({shown:,} with a thumbnail): {clusters}")
