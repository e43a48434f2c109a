"""Commands of shards: merge, recall, and info, of an index too."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.output import (
    FEW,
    described_built,
    echo_lines,
    print_failure,
    print_info,
    progress_bar,
    recall_lines,
    say,
)
from clipkit.core.text import counted, printable
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.bulk.lance_index import Recall
    from clipkit.bulk.shards import Shards
    from clipkit.index.import_export import ImportReport


@dataclass(frozen=True, kw_only=True)
class MergeOptions(options.ModelOptions):
    """What was asked of `merge`."""

    out: str
    photos: str | None
    at: str | None


@click.command()
@click.argument("out", type=options.Place(), metavar="OUT")
@click.argument("photos", type=click.Path(), required=False)
@options.engine
@options.device
@options.precision
@options.pickle
@options.at
@options.into(MergeOptions)
def merge(given: MergeOptions) -> None:
    """Make an ordinary index of the shards in OUT.

    \b
      clipkit merge OUT PHOTOS           the pictures lie here: `clipkit index PHOTOS` then has nothing to do
      clipkit merge OUT --index FOLDER   they lie elsewhere: ask with `clipkit search "a dog" --index FOLDER`

    Up to ten million pictures. Interrupted, it leaves the index that was there, or none; again, it takes what is new.
    """
    from clipkit.bulk.merging import merge as merge_shards
    from clipkit.bulk.queries import load_for
    from clipkit.bulk.shards import Shards

    if not (given.photos or given.at):
        raise click.UsageError("PHOTOS, the folder of the pictures, or --index FOLDER where they lie elsewhere")
    shards = Shards(given.out)
    encoder = load_for(shards.manifest, given.load) if given.photos else None
    with progress_bar() as progress:
        report = merge_shards(shards, given.photos, at=given.at, encoder=encoder, progress=progress)
    _print_merged(report)


def _print_merged(report: ImportReport) -> None:
    missing = f", {len(report.missing):,} not in the folder" if report.missing else ""
    failed = f", {len(report.failed):,} failed" if report.failed else ""
    say(f"{counted(report.imported, 'picture')} merged, {report.unchanged:,} known already{missing}{failed}")
    for name in report.changed[:FEW]:
        say(f"  not merged: {printable(name)} is another picture by now")
    for failure in report.failed[:FEW]:
        say(f"  no embedding: {printable(failure.path)}: {printable(failure.reason)}")


@dataclass(frozen=True, kw_only=True)
class RecallOptions(options.ModelOptions):
    """What was asked of `recall`."""

    out: str
    queries: str | None
    calibrate: bool
    as_json: bool


@click.command()
@click.argument("out", type=options.Place(), metavar="OUT")
@click.option("--queries", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="One a line; yours.")
@click.option("--calibrate", is_flag=True, help="First choose how much to look at, by half of the queries.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.into(RecallOptions)
def recall(given: RecallOptions) -> None:
    """Measure what the index of the shards in OUT finds of the 10 nearest pictures.

    By 500 texts, against an exact scan. Below .95 the index is not used any more, and this ends with 1.
    """
    from clipkit.bulk.queries import load_for
    from clipkit.bulk.recall import measure_recall
    from clipkit.bulk.shards import Shards

    shards = Shards(given.out)
    encoder = load_for(shards.manifest, given.load, is_plain=given.is_plain)
    lines = Path(given.queries).read_text("utf-8").split("\n") if given.queries else []
    texts = [line.strip() for line in lines if line.strip()] if given.queries else None
    with progress_bar(" shards") as progress:
        found = measure_recall(shards, texts, encoder=encoder, calibrate=given.calibrate, progress=progress)
    echo_lines([json.dumps({**asdict(found), "is_good": found.is_good})] if given.as_json else recall_lines(found))
    if not found.is_good:
        raise _too_low(found, given)


def _too_low(found: Recall, given: RecallOptions) -> ClipkitError:
    from clipkit.bulk.lance_index import GOOD

    fact = f"{given.out}: the index finds {found.recall:.3f} of the 10 nearest, less than {GOOD}; it is not used"
    if given.calibrate:
        return ClipkitError(fact, hint="clipkit search --exact, which reads every row, as searches now do")
    ways = ["--queries", given.queries] if given.queries else []
    return ClipkitError(fact, hint=shlex.join(["clipkit", "recall", given.out, "--calibrate", *ways]))


@click.command()
@click.argument("photos", type=click.Path(), default=".")
@click.option("--failed", is_flag=True, help="List the files that could not be read: path, tab, reason.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.at
def info(photos: str, failed: bool, as_json: bool, at: str | None) -> None:
    """Say what the index of PHOTOS holds, or the shards in PHOTOS."""
    from clipkit.bulk.places import is_shards

    if at is None and is_shards(photos):
        _info_of_shards(photos, failed=failed, as_json=as_json)
        return
    from clipkit.index.image_index import find

    pictures, _ = find(photos, at=at)
    if not failed:
        print_info(pictures, as_json=as_json)
        return
    for failure in pictures.failures():
        print_failure(failure, as_json)


def _info_of_shards(place: str, *, failed: bool, as_json: bool) -> None:
    from clipkit.bulk.shards import Shards
    from clipkit.core.progress import Failure

    shards = Shards(place)
    if not failed:
        _print_shards(shards, as_json=as_json)
        return
    for name in shards.names:
        for path, reason in shards.failures(name):
            print_failure(Failure(path, reason), as_json)


def _print_shards(shards: Shards, *, as_json: bool) -> None:
    from clipkit.bulk.lance_index import read_built

    built, names = read_built(shards), shards.names
    manifest = shards.manifest
    facts: dict[str, str | int] = {
        "shards": shards.storage.url,
        "source": manifest.source,
        "count": len(names),
        "rows": len(shards),
        "model": manifest.model,
        "weights": manifest.weights_sha256[:16],
        "engine": manifest.engine,
        "precision": manifest.precision,
        "width": manifest.dim,
        "pixels": manifest.pixel_recipe,
        "search": described_built(built) if built else "exact",
        "made by": manifest.created_by,
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, fact in facts.items():
        click.echo(f"{name:<10}{printable(f'{fact:,}' if isinstance(fact, int) else fact)}")
