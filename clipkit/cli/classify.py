"""Commands that name classes and measure: classify, evaluate."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import FEW, printable, progress_bar, say
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.classify.head import Head
    from clipkit.classify.label_index import Labelled, Step
    from clipkit.classify.zeroshot import ZeroShotClassifier
    from clipkit.evaluate.zeroshot import Result
    from clipkit.index.image_index import ImageIndex

TEMPLATES_HELP = "plain, simple, imagenet, pets, one with {} in it, or a text file of them.  [default: simple]"
DONE = {"copy": "copied", "move": "moved", "symlink": "linked"}

templates_option = click.option("--templates", metavar="SET|TEXT|FILE", help=TEMPLATES_HELP)


@click.command()
@click.argument("photos", default=".")
@click.option("--classes", metavar="A,B|FILE", help="cat,dog; a .txt, .csv or .json file; or imagenet, pets.")
@templates_option
@click.option("--head", "head_file", metavar="FILE", help="A saved classifier, instead of classes.")
@click.option("--save-head", metavar="FILE", help="Keep the classifier for --head.")
@click.option("--unknown", is_flag=True, help='Say "unknown" where no class is right.')
@click.option(
    "--adapt", is_flag=True, help="With --unknown: learn from PHOTOS, which hold both kinds, where it begins."
)
@click.option("--multi-label", is_flag=True, help="Each class is a question of its own; a picture may have several.")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Answers a picture.")
@click.option("--explain", metavar="PICTURE", help="Show what spoke for and against the likeliest classes of one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@click.option("--csv", "as_csv", is_flag=True, help="A table: label, probability, path.")
@click.option("--copy-to", metavar="DIR", help="Copy the pictures into one folder a class in DIR.")
@click.option("--move-to", metavar="DIR", help="Move them there.")
@click.option("--symlink-to", metavar="DIR", help="Link to them from there.")
@click.option("--dry-run", is_flag=True, help="Show where they would go, and do nothing.")
@click.option("--in", "below", metavar="SUBFOLDER", default="", help="Only pictures in this folder below PHOTOS.")
@options.device
@options.precision
@options.pickle
@options.at
def classify(
    photos: str,
    classes: str | None,
    templates: str | None,
    head_file: str | None,
    save_head: str | None,
    unknown: bool,
    adapt: bool,
    multi_label: bool,
    top_k: int,
    explain: str | None,
    as_json: bool,
    as_csv: bool,
    copy_to: str | None,
    move_to: str | None,
    symlink_to: str | None,
    dry_run: bool,
    below: str,
    device: str,
    precision: str,
    allow_pickle: bool,
    at: str | None,
) -> None:
    """Name the class of every picture in PHOTOS.

    PHOTOS is a folder that has an index or lies under one (default: the current one). Nothing is trained, and no
    picture is opened again, unless a --head reads backbone features. One line a picture: label, probability, path.

    \b
      clipkit classify --classes cat,dog ./photos
      clipkit classify --classes birds.txt --unknown --move-to sorted --dry-run ./photos

    The probability is that of the class among those given, not that one of them is right: see --unknown. Pictures
    are never overwritten, and if anything fails all of them are put back.
    """
    from clipkit.classify.label_index import plan_sorting
    from clipkit.index.folders import find

    how, folder = _one_place(copy_to, move_to, symlink_to, dry_run=dry_run)
    pictures, inside = find(photos, below=below, at=at, load=options.loader(device, precision, allow_pickle))
    ways: dict[str, Any] = {"templates": templates, "unknown": unknown, "multi_label": multi_label}
    if explain:
        return _echo_verdicts(_from_words(pictures, classes, **ways), explain, max(top_k, 3))
    head = _head(pictures, classes, head_file, ways, adapt=adapt)
    if save_head:
        head.save(save_head)
    labelled = _labelled(pictures, head, top_k=top_k, below=inside)
    steps = plan_sorting(labelled, folder, how=how) if how else None
    _echo_labels(labelled, steps, as_json=as_json, as_csv=as_csv)
    if steps is not None:
        _sort(labelled, steps, folder, DONE[how], dry_run=dry_run)


@click.group()
def evaluate() -> None:
    """Measure a model on pictures whose answers are known.

    DATASET is a folder of class folders, a CSV (image,label or image,caption) or its folder, or the folder that holds
    oxford-iiit-pet. Every number comes with n and a 95 % interval; embeddings are kept, so a second run is quick.
    """


dataset_options = (
    click.argument("dataset"),
    click.option("--model", metavar="NAME", default="auto", show_default=True, help="See `clipkit models`."),
    click.option("--split", metavar="NAME", help="Of the dataset; test for Oxford-IIIT Pet."),
    click.option("--out", metavar="FILE", help="Also write the result as JSON, with CLIP_benchmark's keys."),
    options.device,
    options.precision,
    options.pickle,
)


def on_dataset(command: Any) -> Any:
    """The options of every command that evaluates."""
    for option in reversed(dataset_options):
        command = option(command)
    return command


@evaluate.command()
@on_dataset
@click.option("--classes", metavar="A,B|FILE", help="Default: the dataset's own. imagenet: matched by WordNet id.")
@templates_option
@click.option("--search-templates", "search", is_flag=True, help="Choose them on a validation split first.")
@click.option("--unknown", is_flag=True, help="Labels that are no class are to be rejected, and that is measured.")
@click.option("--confusion", metavar="FILE", help="Also draw the confusion matrix, as PNG.")
def zeroshot(
    dataset: str,
    model: str,
    split: str | None,
    out: str | None,
    device: str,
    precision: str,
    allow_pickle: bool,
    classes: str | None,
    templates: str | None,
    search: bool,
    unknown: bool,
    confusion: str | None,
) -> None:
    """How often classes made from words are right.

    \b
      clipkit evaluate zeroshot data --templates pets          data holds oxford-iiit-pet
      clipkit evaluate zeroshot photos --confusion photos.png  photos holds one folder a class
    """
    from clipkit.evaluate.zeroshot import evaluate_zeroshot, load_labelled, searched
    from clipkit.output.figures import confusion_png

    if search and templates:
        raise click.UsageError("--search-templates chooses the --templates itself")
    pictures = load_labelled(dataset, split=split or ("test" if search else None), classes=classes)
    encoder = options.loader(device, precision, allow_pickle)(model, False)
    with progress_bar() as progress:
        ways: dict[str, Any] = {"classes": classes, "unknown": unknown, "progress": progress}
        if search:
            result = searched(dataset, pictures, encoder, **ways)
        else:
            result = evaluate_zeroshot(pictures, encoder, templates=templates or "simple", **ways)
    _finish(result, out)
    if confusion:
        confusion_png(result.metrics["confusion"], result.classes, confusion, title=f"{result.dataset}, {result.model}")


@evaluate.command()
@on_dataset
def retrieval(
    dataset: str, model: str, split: str | None, out: str | None, device: str, precision: str, allow_pickle: bool
) -> None:
    """How often a caption finds its picture, and a picture its caption."""
    from clipkit.datasets.load import load_dataset
    from clipkit.evaluate.zeroshot import evaluate_retrieval

    pictures = load_dataset(dataset, split=split)
    encoder = options.loader(device, precision, allow_pickle)(model, False)
    with progress_bar() as progress:
        result = evaluate_retrieval(pictures, encoder, progress=progress)
    _finish(result, out)


commands = (classify, evaluate)


def _one_place(*folders: str | None, dry_run: bool) -> tuple[str, str]:
    from clipkit.classify.label_index import HOW

    given = [(how, folder) for how, folder in zip(HOW, folders, strict=True) if folder]
    if len(given) > 1:
        raise click.UsageError("one of --copy-to, --move-to and --symlink-to, please")
    if dry_run and not given:
        raise click.UsageError("--dry-run shows where --copy-to, --move-to or --symlink-to would put pictures")
    return given[0] if given else ("", "")


def _from_words(pictures: ImageIndex, classes: str | None, **ways: Any) -> ZeroShotClassifier:
    from clipkit.classify.zeroshot import ZeroShotClassifier

    if not classes:
        raise click.UsageError("which classes? --classes cat,dog")
    ways["templates"] = ways["templates"] or "simple"
    return ZeroShotClassifier(pictures.encoder, classes, notify=say, **ways)


def _head(pictures: ImageIndex, classes: str | None, file: str | None, ways: dict[str, Any], *, adapt: bool) -> Head:
    from clipkit.classify.head import Head

    if not file:
        classifier = _from_words(pictures, classes, **ways)
        return classifier.adapt(pictures.embeddings).head if adapt else classifier.head
    if classes or adapt or any(ways.values()):
        raise click.UsageError("--head brings its own classes, templates and ways of answering")
    return Head.load(file)


def _labelled(pictures: ImageIndex, head: Head, *, top_k: int, below: str) -> list[Labelled]:
    from clipkit.classify.label_index import label_index, label_pictures

    if head.space == "projected":
        return label_index(pictures, head, top_k=top_k, below=below)
    with progress_bar() as progress:
        labelled, failed = label_pictures(pictures, head, top_k=top_k, below=below, progress=progress)
    for failure in failed[:FEW]:
        say(f"  cannot read {printable(failure.path)}: {printable(failure.reason)}")
    if len(failed) > FEW:
        say(f"  and {len(failed) - FEW:,} more")
    return labelled


def _echo_labels(labelled: list[Labelled], steps: list[Step] | None, *, as_json: bool, as_csv: bool) -> None:
    from clipkit.cli.listing import labels_as_csv, labels_as_json, labels_as_text

    lines = labels_as_json if as_json else labels_as_csv if as_csv else labels_as_text
    _echo(lines(labelled, steps))
    sys.stdout.flush()  # the plan is out before anything moves
    if not labelled:
        say("no pictures are indexed there")


def _echo_verdicts(classifier: ZeroShotClassifier, picture: str, k: int) -> None:
    from clipkit.classify.spoken import explain
    from clipkit.cli.listing import verdicts

    _echo(verdicts(explain(classifier, picture, k=k)))


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _sort(labelled: list[Labelled], steps: list[Step], folder: str, done: str, *, dry_run: bool) -> None:
    from clipkit.classify.label_index import carry_out

    if not dry_run:
        carry_out(steps)
    pictures = {step.source for step in steps}
    there = sum(1 for picture in labelled if picture.labels and picture.file not in pictures)
    known = f", {there:,} lie there already" if there else ""
    say(f"{len(steps):,} {'would be ' if dry_run else ''}{done} into {printable(folder)}{known}")


def _finish(result: Result, out: str | None) -> None:
    from clipkit.cli.listing import results

    _echo(results(result))
    if not out:
        return
    try:
        Path(out).write_text(result.to_json(), encoding="utf-8")
    except OSError as error:
        raise ClipkitError(f"{out} cannot be written: {error.strerror}") from error
