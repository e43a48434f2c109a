"""Commands that look after an index and an installation: check, prune, export, import, models, doctor."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import click

from clipkit.cli import options
from clipkit.cli.output import FEW, print_findings, print_models, progress_bar, say
from clipkit.core.text import are, counted, printable
from clipkit.errors import IndexDamaged

LAYOUTS = ("clip-retrieval", "parquet", "npy", "lance", "qdrant")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(options.ModelOptions):
    """What was asked of `check`."""

    photos: str
    full: bool
    sample: int
    repair: bool
    as_json: bool
    at: str | None


@click.command()
@click.argument("photos", type=click.Path(), default=".")
@click.option("--full", is_flag=True, help="Also encode every picture again and compare.")
@click.option("--sample", type=click.IntRange(min=0), default=0, metavar="N", help="Also encode N pictures again.")
@click.option("--repair", is_flag=True, help="Encode damaged rows again, drop what dead runs left, renew the cache.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each damage.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.at
@options.into(CheckOptions)
def check(given: CheckOptions) -> None:
    """Look over the index of PHOTOS.

    Every page, every row's vector and the search cache; with --full or --sample also whether pictures still give the
    vectors that are stored. Ends with 3 while something is damaged.
    """
    from clipkit.index.check import check as look_over
    from clipkit.index.image_index import find

    pictures, _ = find(given.photos, at=given.at, load=given.load)
    with progress_bar() as progress:
        sample = None if given.full else given.sample
        report = look_over(pictures, sample=sample, repair=given.repair, progress=progress)
    for damage in report.damage:
        line = f"{printable(damage.path) or '-'}\t{damage.what}"
        click.echo(json.dumps({"path": damage.path, "damage": damage.what}) if given.as_json else line)
    again = f", {report.encoded_again:,} encoded again" if report.encoded_again else ""
    mended = f", {report.repaired:,} mended" if report.repaired else ""
    say(f"{counted(report.rows, 'row')} looked at{again}{mended}")
    if report.damage:
        raise IndexDamaged(
            f"{len(report.damage):,} {are(len(report.damage))} damaged", hint=f"clipkit check {given.photos} --repair"
        )


@click.command()
@click.argument("photos", type=click.Path(), default=".")
@click.option("--dry-run", is_flag=True, help="Say what would be forgotten, and do nothing.")
@click.option("--force", is_flag=True, help="Even when every picture is missing.")
@options.at
def prune(photos: str, dry_run: bool, force: bool, at: str | None) -> None:
    """Forget pictures that are gone.

    Until then a missing picture keeps its vector, so that it costs nothing when it comes back. Prints their paths.
    """
    from clipkit.index.check import prune as forget
    from clipkit.index.image_index import find

    pictures, _ = find(photos, at=at)
    gone = forget(pictures, dry_run=dry_run, force=force)
    for path in gone:
        click.echo(printable(path))
    say(f"{counted(len(gone), 'missing picture')} {'would be' if dry_run else are(len(gone))} forgotten")


@click.command("export")
@click.argument("places", type=click.Path(), nargs=-1, required=True, metavar="[PHOTOS] FOLDER")
@click.option(
    "--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], show_default=True, help="How files are laid out."
)
@options.at
def export_(places: tuple[str, ...], layout: str, at: str | None) -> None:
    """Write the vectors of PHOTOS for other programs.

    Into FOLDER, which must be new or empty: clip-retrieval's img_emb/ and metadata/, one parquet table,
    embeddings.npy with paths.txt, a table of Lance, or vectors.npy, payload.jsonl and ids.txt for Qdrant.
    """
    from clipkit.index.image_index import find
    from clipkit.index.import_export import export

    photos, folder = _source_and_target(places)
    pictures, _ = find(photos, at=at)
    count = export(pictures, folder, layout=layout)
    say(f"{counted(count, 'vector')} {are(count)} in {printable(folder)}")


def _source_and_target(places: tuple[str, ...]) -> tuple[str, str]:
    """PHOTOS and FOLDER; the other way round, as they used to be, where the first is new and the second is indexed."""
    if len(places) > 2:
        raise click.UsageError("PHOTOS and FOLDER, no more")
    photos, folder = places if len(places) > 1 else (".", places[0])
    is_turned = _is_free(photos) and not _is_free(folder) and _has_index(folder)
    return (folder, photos) if is_turned else (photos, folder)


def _has_index(folder: str) -> bool:
    """Whether it has an index, or lies under one."""
    from clipkit.index.places import FOLDER
    from clipkit.store.database import FILE

    here = Path(os.path.abspath(folder))
    return any((above / FOLDER / FILE).exists() for above in (here, *here.parents))


def _is_free(folder: str) -> bool:
    """Whether there is nothing yet."""
    return not os.path.exists(folder) or (os.path.isdir(folder) and not os.listdir(folder))


@dataclass(frozen=True, kw_only=True)
class ImportOptions(options.ModelOptions):
    """What was asked of `import_`."""

    source: str
    photos: str
    model: str | None
    normalise: bool
    at: str | None


@click.command("import")
@click.argument("source", type=click.Path())
@click.argument("photos", type=click.Path(), default=".")
@click.option("--model", metavar="NAME", help="The model that made the vectors. Default: the index's own.")
@click.option("--normalise", is_flag=True, help="Bring vectors to length 1 first.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.at
@options.into(ImportOptions)
def import_(given: ImportOptions) -> None:
    """Take vectors that another program made.

    SOURCE is what `clipkit export` writes, or clip-retrieval; its pictures must lie in PHOTOS. A few are encoded again:
    vectors of another model are refused, and so is whatever does not fit.
    """
    from clipkit.index.image_index import model_for
    from clipkit.index.import_export import import_ as take

    encoder = given.load(*model_for(given.photos, given.model, at=given.at))
    with progress_bar() as progress:
        report = take(given.source, given.photos, encoder, at=given.at, normalise=given.normalise, progress=progress)
    say(
        f"{counted(report.imported, 'picture')} imported, {report.unchanged:,} known already, "
        f"{len(report.missing):,} missing; {report.checked} encoded again, "
        f"the least like its vector at cosine {report.agreement:.3f}"
    )
    if report.shots:
        say(f"{counted(report.shots, 'shot')} of videos left out: clipkit index PHOTOS --video makes them")
    for name in (*report.missing, *report.changed)[:FEW]:
        say(f"  not imported: {printable(name)}")
    for failure in report.failed[:FEW]:
        say(f"  cannot read {printable(failure.path)}: {printable(failure.reason)}")


@click.command()
@click.argument("photos", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options.at
def doctor(photos: str | None, as_json: bool, at: str | None) -> None:
    """Say what is wrong with this installation.

    Versions, processor, GPU, packages that clash, caches, network, and the index of PHOTOS if it is given. Ends with 1
    where something is bad.
    """
    from clipkit.doctor.checks import examine

    findings = examine(photos, at=at)
    print_findings(findings, as_json=as_json)
    if any(finding.state == "bad" for finding in findings):
        raise click.exceptions.Exit(1)


@click.command()
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
