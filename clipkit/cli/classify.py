"""Command `classify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.options import templates_option
from clipkit.cli.output import FEW, echo_lines, progress_bar, say
from clipkit.core.text import printable
from clipkit.errors import ImageError

if TYPE_CHECKING:
    from clipkit.classify.head import Head
    from clipkit.classify.labels import LabelledPicture
    from clipkit.classify.words import PromptedHead
    from clipkit.core.arrays import Embeddings
    from clipkit.core.progress import Failure
    from clipkit.index.image_index import ImageIndex
    from clipkit.models.encoder import Encoder
    from clipkit.output.copy_files import Transfer


DONE = {"copy": "copied", "move": "moved", "symlink": "linked"}


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(options.ModelOptions):
    """What was asked of `classify`."""

    places: tuple[str, ...]
    model: str | None
    classes: str | None
    templates: str | None
    head_file: str | None
    save_head: str | None
    unknown: bool
    adapt: bool
    multi_label: bool
    top_k: int
    explain: str | None
    as_json: bool
    as_csv: bool
    copy_to: str | None
    move_to: str | None
    symlink_to: str | None
    dry_run: bool
    below: str
    at: str | None

    @property
    def words(self) -> dict[str, Any]:
        """How classes are made from words, as `ZeroShotClassifier` takes it."""
        return {"templates": self.templates, "unknown": self.unknown, "multi_label": self.multi_label}

    @property
    def files(self) -> tuple[str, ...]:
        """PHOTOS, where they are pictures instead of a folder."""
        from clipkit.images.formats import is_picture

        is_file = [os.path.isfile(place) or (is_picture(place) and not os.path.isdir(place)) for place in self.places]
        return self.places if self.places and all(is_file) else ()

    @property
    def photos(self) -> str:
        """PHOTOS, where it is a folder; UsageError for several."""
        if len(self.places) > 1:
            raise click.UsageError("PHOTOS is one folder, or pictures")
        if self.model:
            raise click.UsageError("--model is for pictures; a folder has the model of its index")
        return self.places[0] if self.places else "."

    def target(self) -> tuple[str, str]:
        """How pictures get into which folder: one of HOW and a path, or two empty strings."""
        from clipkit.output.copy_files import HOW

        folders = (self.copy_to, self.move_to, self.symlink_to)
        wanted = [(how, folder) for how, folder in zip(HOW, folders, strict=True) if folder]
        if len(wanted) > 1:
            raise click.UsageError("one of --copy-to, --move-to and --symlink-to, please")
        if self.dry_run and not wanted:
            raise click.UsageError("--dry-run shows where --copy-to, --move-to or --symlink-to would put pictures")
        return wanted[0] if wanted else ("", "")


@click.command()
@click.argument("places", type=click.Path(), nargs=-1, metavar="[PHOTOS]")
@click.option(
    "--classes",
    metavar="A,B|FILE",
    help="cat,dog; a .txt, .csv or .json file; a folder of class folders; imagenet, pets.",
)
@templates_option
@click.option("--head", "head_file", type=click.Path(), metavar="FILE", help="A saved classifier, instead of classes.")
@click.option("--save-head", type=click.Path(), metavar="FILE", help="Keep the classifier for --head.")
@click.option("--model", metavar="NAME", help="For pictures without an index.  [default: the head's, or auto]")
@click.option("--unknown", is_flag=True, help='Say "unknown" where no class is right.')
@click.option(
    "--adapt", is_flag=True, help="With --unknown: learn from PHOTOS, which hold both kinds, where it begins."
)
@click.option("--multi-label", is_flag=True, help="Each class is a question of its own; a picture may have several.")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Answers a picture.")
@click.option("--explain", metavar="PICTURE", help="Show what spoke for and against the likeliest classes of one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@click.option("--csv", "as_csv", is_flag=True, help="A table: label, probability, path.")
@click.option(
    "--copy-to", type=options.Place(), metavar="DIR", help="Copy the pictures into one folder a class in DIR."
)
@click.option("--move-to", type=options.Place(), metavar="DIR", help="Move them there.")
@click.option("--symlink-to", type=options.Place(), metavar="DIR", help="Link to them from there.")
@click.option("--dry-run", is_flag=True, help="Show where they would go, and do nothing.")
@options.below
@options.engine
@options.device
@options.precision
@options.pickle
@options.at
@options.into(ClassifyOptions)
def classify(given: ClassifyOptions) -> None:
    """Name the class of every picture in PHOTOS.

    PHOTOS is a folder that has an index or lies under one (default: the current one), or pictures, which need none.
    Nothing is trained, and no picture of an index is opened again, unless a --head reads backbone features. One line a
    picture: label, probability, path.

    \b
      clipkit classify --classes cat,dog one.jpg two.jpg
      clipkit classify --classes cat,dog ./photos
      clipkit classify --classes birds.txt --unknown --move-to sorted --dry-run ./photos

    The probability is that of the class among those given, not that one of them is right: see --unknown. Pictures
    are never overwritten, and if anything fails all of them are put back.
    """
    from clipkit.output.copy_files import plan_transfers

    options.only_one(json=given.as_json, csv=given.as_csv)
    how, folder = given.target()
    source = _files(given) if given.files else _indexed(given)
    if given.explain:
        return _echo_explanation(_from_words(source, given), given.explain, max(given.top_k, 3))
    head = _head(source, given)
    if given.save_head:
        head.save(given.save_head)
    labelled = source.label(head)
    steps = plan_transfers(labelled, folder, how=how) if how else None
    _echo_labels(labelled, steps, as_json=given.as_json, as_csv=given.as_csv)
    if steps is not None:
        _transfer(labelled, steps, folder, DONE[how], dry_run=given.dry_run)


@dataclass(frozen=True)
class _Source:
    """Pictures to classify. embeddings: of all of them, where an index holds them."""

    encoder: Callable[[], Encoder]
    label: Callable[[Head], list[LabelledPicture]]
    embeddings: Callable[[], Embeddings] | None = None


def _indexed(given: ClassifyOptions) -> _Source:
    from clipkit.index.image_index import find

    pictures, inside = find(given.photos, below=given.below, at=given.at, load=given.load)
    label = partial(_labelled, pictures, top_k=given.top_k, below=inside)
    return _Source(lambda: given.query_encoder(pictures), label, lambda: pictures.embeddings)


def _files(given: ClassifyOptions) -> _Source:
    from clipkit.classify.head import Head
    from clipkit.classify.labels import label_files

    if given.below or given.at or given.adapt:
        raise click.UsageError("--in, --index and --adapt go with a folder that has an index, not with pictures")

    @cache
    def encoder() -> Encoder:
        return given.load(given.model or (Head.load(given.head_file).model if given.head_file else "auto"))

    def label(head: Head) -> list[LabelledPicture]:
        labelled, failed = label_files(given.files, head, encoder(), top_k=given.top_k)
        _say_failures(failed)
        if not labelled:
            raise ImageError("none of the pictures can be read", hint="clipkit classify PHOTOS, pictures or a folder")
        return labelled

    return _Source(encoder, label)


def _from_words(source: _Source, given: ClassifyOptions) -> PromptedHead:
    from clipkit.classify.prompts import note_of_set
    from clipkit.classify.words import head_from_words

    if not given.classes:
        raise click.UsageError("which classes? --classes cat,dog")
    if given.adapt and not given.words["unknown"]:
        raise click.UsageError('--adapt learns where "unknown" begins, so it needs --unknown')
    if note := note_of_set(given.classes):
        say(note)
    ways = {**given.words, "templates": given.templates or "simple"}
    return head_from_words(source.encoder(), given.classes, notify=say, **ways)


def _head(source: _Source, given: ClassifyOptions) -> Head:
    from clipkit.classify.head import Head
    from clipkit.classify.words import adapted

    if not given.head_file:
        head = _from_words(source, given).head
        return adapted(head, source.embeddings()) if given.adapt and source.embeddings else head
    if given.classes or given.adapt or any(given.words.values()):
        raise click.UsageError("--head brings its own classes, templates and ways of answering")
    return Head.load(given.head_file)


def _labelled(pictures: ImageIndex, head: Head, *, top_k: int, below: str) -> list[LabelledPicture]:
    from clipkit.classify.labels import label_index, label_pictures

    if head.space == "projected":
        return label_index(pictures, head, top_k=top_k, below=below)
    with progress_bar() as progress:
        labelled, failed = label_pictures(pictures, head, top_k=top_k, below=below, progress=progress)
    _say_failures(failed)
    return labelled


def _say_failures(failed: Sequence[Failure]) -> None:
    for failure in failed[:FEW]:
        reason = failure.reason.removeprefix(f"{failure.path}: ")
        say(f"  cannot read {printable(failure.path)}: {printable(reason)}")
    if len(failed) > FEW:
        say(f"  and {len(failed) - FEW:,} more")


def _echo_labels(labelled: list[LabelledPicture], steps: list[Transfer] | None, *, as_json: bool, as_csv: bool) -> None:
    from clipkit.cli.output import labels_as_csv, labels_as_json, labels_as_text

    lines = labels_as_json if as_json else labels_as_csv if as_csv else labels_as_text
    echo_lines(lines(labelled, steps))
    sys.stdout.flush()  # the plan is out before anything moves
    if not labelled:
        say("no pictures are indexed there")


def _echo_explanation(classifier: PromptedHead, picture: str, k: int) -> None:
    from clipkit.classify.words import explain_prediction
    from clipkit.cli.output import verdicts

    try:
        found = explain_prediction(classifier, picture, k=k)
    except ImageError as error:
        raise ImageError(error.message, hint="a picture that is there and can be read: --explain FILE") from error
    echo_lines(verdicts(found))


def _transfer(labelled: list[LabelledPicture], steps: list[Transfer], folder: str, done: str, *, dry_run: bool) -> None:
    from clipkit.output.copy_files import beside, run_transfers

    if not dry_run:
        run_transfers(steps)
    pictures = {step.source for step in steps}
    there = sum(1 for picture in labelled if picture.labels and picture.file not in pictures)
    known = f", {there:,} lie there already" if there else ""
    say(f"{len(steps):,} {'would be ' if dry_run else ''}{done} into {printable(folder)}{beside(steps)}{known}")
