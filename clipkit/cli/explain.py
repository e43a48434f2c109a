"""Commands about image towers: finetune, explain."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import FEW, printable, progress_bar, say
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.learn.fine_tuning import FineTuned
    from clipkit.learn.trainer import Epoch
    from clipkit.models.attention import Explanation

MODEL_HELP = "An open_clip model (see `clipkit models`), or one of transformers: a name on the hub, a folder."


@click.command()
@click.argument("dataset")
@click.option("--out", required=True, metavar="FOLDER", help="Checkpoints and the result; a stopped run goes on there.")
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
def finetune(
    dataset: str,
    out: str,
    model: str,
    unfreeze: str,
    epochs: int,
    views: int,
    fresh_views: bool,
    lr: float,
    batch_size: int,
    patience: int,
    seed: int,
    split: str | None,
    device: str,
    precision: str,
    allow_pickle: bool,
) -> None:
    """Teach a model the classes of DATASET: a new head, and with --unfreeze its image tower too.

    DATASET is a folder of class folders, a CSV image,label or its folder, or the folder that holds oxford-iiit-pet. A
    tenth of each class is held back and chooses the epoch that is kept. Run again after an interruption, it goes on.

    \b
      clipkit finetune ./animals --out animals
      clipkit finetune ./animals --out animals --model google/vit-base-patch16-224 --unfreeze last:2
    """
    from clipkit.learn.fine_tuning import finetune as run
    from clipkit.learn.fit_head import training_part
    from clipkit.learn.trainer import Recipe
    from clipkit.models.trainable import load_model

    kept = None if fresh_views else views
    ways: dict[str, Any] = {"epochs": epochs, "views": kept, "lr": lr, "batch_size": batch_size, "seed": seed}
    recipe = Recipe(**ways, unfreeze=unfreeze, patience=patience or None)
    pictures = training_part(dataset, split)
    network = load_model(model, device=device, precision=precision, allow_pickle=allow_pickle, notify=say)
    with progress_bar() as progress:
        tuned = run(network, pictures, recipe=recipe, out=out, progress=progress, on_epoch=_say_epoch)
    _echo_tuned(tuned, out)


@click.command()
@click.argument("picture")
@click.option("--model", metavar="NAME|FOLDER", default="auto", show_default=True, help=MODEL_HELP)
@click.option("--out", metavar="FILE", help="Draw it: the picture as it was read, last layer, rollout; as PNG.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the attention of every patch.")
@options.device
@options.precision
@options.pickle
def explain(
    picture: str, model: str, out: str | None, as_json: bool, device: str, precision: str, allow_pickle: bool
) -> None:
    """Show how a model cuts PICTURE into patches, and what it looked at.

    \b
      clipkit explain dog.jpg --model google/vit-base-patch16-224 --out attention.png

    The attention is that of the token the model answers from, or of all patches where it answers from their mean, in
    its last layer and rolled out over all layers. It says where information came from, not why an answer was given.
    """
    from clipkit.models.attention import explain as run
    from clipkit.models.trainable import load_model

    network = load_model(model, device=device, precision=precision, allow_pickle=allow_pickle, notify=say)
    explanation = run(network, picture)
    if out:
        _write(out, explanation.overlay())
    _echo_explanation(explanation, picture, out, as_json=as_json)


commands = (finetune, explain)


def _say_epoch(epoch: Epoch) -> None:
    say(
        f"epoch {epoch.number:>3}  lr {epoch.lr:.1e}  loss {epoch.loss:.4f}  validation {epoch.val_loss:.4f} "
        f"{epoch.val_acc1:.1%}  {epoch.seconds:.1f} s"
    )


def _echo_tuned(tuned: FineTuned, out: str) -> None:
    for failure in tuned.failed[:FEW]:
        reason = failure.reason.removeprefix(f"{failure.path}: ")
        say(f"  left out: {printable(failure.path)}: {printable(reason)}")
    if len(tuned.failed) > FEW:
        say(f"  and {len(tuned.failed) - FEW:,} more: {Path(out) / 'finetune.json'}")
    for note in tuned.notes:
        say(f"  {printable(note)}")
    counts, (low, high) = tuned.counts, tuned.metrics["ci95"]["acc1"]
    click.echo(f"parameters       {counts.trainable:,} learn, {counts.frozen:,} are frozen, {counts.total:,} in all")
    for when, said in (("before", tuned.before), ("after", tuned.after)):
        right = "right" if said.label == said.actual else f"is {printable(said.actual)}"
        click.echo(f"{when:<17}{printable(said.label)} {said.probability:.3f}, {right}: {printable(said.file)}")
    click.echo(f"best epoch       {tuned.best_epoch} of {len(tuned.history)}")
    chosen = "these pictures chose the epoch"
    click.echo(
        f"validation acc1  {tuned.metrics['acc1']:.3f}  ({low:.3f} to {high:.3f}, n = {tuned.metrics['n']:,}; {chosen})"
    )
    say(f"next: {_next(tuned, out)}")


def _next(tuned: FineTuned, out: str) -> str:
    if tuned.classifier is not None:
        return f"python -c \"import clipkit; print(clipkit.ViTClassifier({out!r}).predict(['dog.jpg']))\""
    index = "" if tuned.head is not None else f"clipkit index ./photos --model {shlex.quote(out)} --rebuild; "
    return f"{index}clipkit classify ./photos --head {shlex.quote(str(Path(out) / 'head.safetensors'))}"


def _write(out: str, content: bytes) -> None:
    try:
        Path(out).write_bytes(content)
    except OSError as error:
        raise ClipkitError(f"{out} cannot be written: {error.strerror}", hint="another --out") from error


def _echo_explanation(explanation: Explanation, picture: str, out: str | None, *, as_json: bool) -> None:
    from clipkit.models.attention import WITH_ATTENTION, facts

    said = facts(explanation)
    if as_json:
        click.echo(json.dumps({"picture": picture, **said, "overlay": out}))
        return
    names = ("model", "image", "cells", "tokens", "speaker", "on patches")
    for name in names:
        if said.get(name):
            click.echo(f"{name:<12}{printable(str(said[name]))}")
    if explanation.reason:
        say(printable(explanation.reason))
        say(f"  try: {WITH_ATTENTION}")
    elif not out:
        say("  try: --out attention.png")
