"""Commands `probe` and `finetune`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.options import MODEL_HELP
from clipkit.cli.output import FEW, progress_bar, say
from clipkit.core.text import counted, printable
from clipkit.errors import ClipkitError
from clipkit.learn.methods import HEAD_METHODS

if TYPE_CHECKING:
    from clipkit.learn.fine_tuning import FineTuned
    from clipkit.learn.fitting import Fitted
    from clipkit.learn.trainer import Epoch, Recipe


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(options.ModelOptions):
    """What was asked of `probe`."""

    dataset: str
    out: str
    method: str
    space: str
    strength: float | None
    shots: int | None
    seed: int
    split: str | None
    model: str
    as_json: bool

    @property
    def choices(self) -> dict[str, Any]:
        """Method, space and pictures, as `fit_head` takes them."""
        return {name: getattr(self, name) for name in ("method", "space", "shots", "seed", "split")}


@click.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(), metavar="FILE", help="Where the head is kept: a small safetensors file."
)
@click.option(
    "--method",
    type=click.Choice(HEAD_METHODS),
    default="probe",
    show_default=True,
    help="probe: logistic regression. text-probe: the same, from the zero-shot head. gelu: with a hidden layer. "
    "prototypes: the mean of each class. blend: rows of text and pictures, as LP++.",
)
@click.option(
    "--space",
    type=click.Choice(["auto", "projected", "backbone"]),
    default="auto",
    show_default=True,
    help="Features: projected, as an index holds them; backbone, before that; auto: the better on validation.",
)
@click.option("--C", "strength", type=float, help="Inverse regularisation. Default: chosen on validation.")
@click.option("--shots", type=click.IntRange(min=1), help="Pictures a class, and at most 4 more to choose on. All.")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    help="Which pictures are drawn or held back.",
)
@click.option("--split", metavar="NAME", help="Of the dataset: what is learned from. Default: its train; never test.")
@click.option("--model", metavar="NAME", default="auto", show_default=True, help="See `clipkit models`.")
@options.engine
@options.device
@options.precision
@options.pickle
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.into(ProbeOptions)
def probe(given: ProbeOptions) -> None:
    """Learn the classes of DATASET from its labels; the pictures are encoded once, and the model stays as it is.

    DATASET is a folder of class folders, a CSV image,label or its folder, what Hugging Face's `datasets` wrote, or the
    folder that holds oxford-iiit-pet.

    \b
      clipkit probe ./animals --out animals.safetensors
      clipkit classify ./photos --head animals.safetensors

    What has to be chosen is chosen on pictures that were held back; then all of them are learned from.
    """
    from clipkit.learn.fitting import fit_head

    _check_place(Path(given.out))
    encoder = given.load(given.model)
    with progress_bar() as progress:
        fitted = fit_head(given.dataset, encoder, C=given.strength, progress=progress, **given.choices)
    fitted.head.save(given.out)
    _echo(fitted, given.out, as_json=given.as_json)


def _check_place(out: Path) -> None:
    from clipkit.core.files import check_writable

    if out.is_dir():
        raise ClipkitError(f"{out} cannot be written: it is a folder", hint=f"--out {out / 'head.safetensors'}")
    check_writable(out.parent)


def _echo(fitted: Fitted, out: str, *, as_json: bool) -> None:
    for failure in fitted.failed[:FEW]:
        reason = failure.reason.removeprefix(f"{failure.path}: ")
        say(f"  left out: {printable(failure.path)}: {printable(reason)}")
    if len(fitted.failed) > FEW:
        say(f"  and {len(fitted.failed) - FEW:,} more")
    if as_json:
        record = {name: value for name, value in vars(fitted).items() if name != "head"}
        record |= {"failed": [vars(failure) for failure in fitted.failed], "space": fitted.head.space}
        record |= {"model": fitted.head.model, "classes": fitted.head.classes, "out": out}
        click.echo(json.dumps(record))
        return
    low, high = fitted.ci95
    click.echo(f"{printable(fitted.dataset)}: {fitted.head.model}, {len(fitted.head.classes)} classes")
    click.echo(
        f"  learned from      {counted(fitted.n, 'picture')}, {fitted.n_validation:,} of them held back to choose"
    )
    click.echo(f"  chosen            {', '.join(part for part in (fitted.head.space, fitted.chosen) if part)}")
    click.echo(f"  validation acc1   {fitted.accuracy:.3f}  ({low:.3f} to {high:.3f}, n = {fitted.n_validation:,})")
    for space, accuracy in fitted.by_space.items():
        if space != fitted.head.space:
            click.echo(f"  {space:<18}{accuracy:.3f}")
    say(f"next: {shlex.join(['clipkit', 'classify', './photos', '--head', out])}")
    if fitted.head.space == "backbone":
        say("this head reads the pictures themselves; --space projected makes one for an index and for search")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(options.ModelOptions):
    """What was asked of `finetune`. patience: 0 for none."""

    dataset: str
    out: str
    model: str
    unfreeze: str
    epochs: int
    views: int
    fresh_views: bool
    lr: float
    weight_decay: float
    warmup: float
    batch_size: int
    patience: int
    seed: int
    split: str | None

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        from clipkit.learn.trainer import Recipe

        return Recipe(
            epochs=self.epochs,
            views=None if self.fresh_views else self.views,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            batch_size=self.batch_size,
            seed=self.seed,
            unfreeze=self.unfreeze,
            patience=self.patience or None,
        )


@click.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FOLDER",
    help="Checkpoints, the result and its figures; a stopped run goes on there.",
)
@click.option("--model", metavar="NAME|FOLDER", default="auto", show_default=True, help=MODEL_HELP)
@click.option(
    "--unfreeze",
    metavar="WHAT",
    default="head",
    show_default=True,
    help="What learns beside the new head: head (nothing), all, last:N blocks, patch-embedding.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=50, show_default=True, help="Passes over the pictures.")
@click.option(
    "--views",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Random views of each picture, encoded once; 0: the picture as it is.",
)
@click.option("--fresh-views", is_flag=True, help="New views every epoch: slower, and what tutorials do.")
@click.option("--lr", type=float, default=3e-4, show_default=True, help="Highest learning rate.")
@click.option("--weight-decay", type=float, default=1e-4, show_default=True, help="Of AdamW.")
@click.option(
    "--warmup", type=float, default=0.1, show_default=True, help="Share of all steps in which the rate rises."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Pictures a step.")
@click.option(
    "--patience", type=click.IntRange(min=0), default=10, show_default=True, help="Epochs without a better; 0: no stop."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=42,
    show_default=True,
    help="Of everything drawn by lot.",
)
@click.option("--split", metavar="NAME", help="Of the dataset: what is learned from. Default: its train; never test.")
@options.device
@options.precision
@options.pickle
@options.into(FinetuneOptions)
def finetune(given: FinetuneOptions) -> None:
    """Teach a model the classes of DATASET: a new head, and with --unfreeze its image tower too.

    DATASET is a folder of class folders, a CSV image,label or its folder, what Hugging Face's `datasets` wrote, or
    the folder that holds oxford-iiit-pet. A tenth of each class is held back and chooses the epoch that is kept.
    Run again after an interruption, it goes on.

    Beside the result in finetune.json lie curves.png, confusion.png, and before-after.png: pictures that were held back
    with the answers of the first weights and of the last.

    \b
      clipkit finetune ./animals --out animals
      clipkit finetune ./animals --out animals --model google/vit-base-patch16-224 --unfreeze last:2
    """
    from clipkit.learn.fine_tuning import finetune as run
    from clipkit.learn.fitting import training_part
    from clipkit.models.load import load_model
    from clipkit.plot.reports import write_finetuned

    recipe = given.recipe  # before a model is loaded
    pictures = training_part(given.dataset, given.split)
    network = load_model(given.model, **given.ways)
    with progress_bar() as progress:
        tuned = run(network, pictures, recipe=recipe, out=given.out, progress=progress, on_epoch=_say_epoch)
    figures = write_finetuned(tuned, given.out)
    _echo_finetuned(tuned, given.out)
    say(f"figures: {', '.join(printable(str(file)) for file in figures)}")
    say(f"next: {_next_command(tuned, given.out)}")


def _say_epoch(epoch: Epoch) -> None:
    say(
        f"epoch {epoch.number:>3}  lr {epoch.lr:.1e}  loss {epoch.loss:.4f}  validation {epoch.val_loss:.4f} "
        f"{epoch.val_acc1:.1%}  {epoch.seconds:.1f} s"
    )


def _echo_finetuned(tuned: FineTuned, out: str) -> None:
    for failure in tuned.failed[:FEW]:
        reason = failure.reason.removeprefix(f"{failure.path}: ")
        say(f"  left out: {printable(failure.path)}: {printable(reason)}")
    if len(tuned.failed) > FEW:
        say(f"  and {len(tuned.failed) - FEW:,} more: {Path(out) / 'finetune.json'}")
    for note in tuned.notes:
        say(f"  {printable(note)}")
    counts, (low, high) = tuned.counts, tuned.metrics["ci95"]["acc1"]
    click.echo(f"parameters       {counts.trainable:,} learn, {counts.frozen:,} are frozen, {counts.total:,} in all")
    for when, one in (("before", tuned.before), ("after", tuned.after)):
        right = "right" if one.label == one.actual else f"is {printable(one.actual)}"
        click.echo(f"{when:<17}{printable(one.label)} {one.probability:.3f}, {right}: {printable(one.file)}")
    click.echo(f"best epoch       {tuned.best_epoch} of {len(tuned.history)}")
    chosen = "these pictures chose the epoch"
    click.echo(
        f"validation acc1  {tuned.metrics['acc1']:.3f}  ({low:.3f} to {high:.3f}, n = {tuned.metrics['n']:,}; {chosen})"
    )


def _next_command(tuned: FineTuned, out: str) -> str:
    if tuned.classifier is not None:
        return f"{shlex.join(['clipkit', 'label', '--model', out])} cat.jpg"
    index = "" if tuned.head is not None else f"clipkit index ./photos --model {shlex.quote(out)} --rebuild; "
    return f"{index}clipkit classify ./photos --head {shlex.quote(str(Path(out) / 'head.safetensors'))}"
