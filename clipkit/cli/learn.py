"""The command that learns from labelled pictures: probe."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.output import FEW, printable, progress_bar, say
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.learn.fit_head import Fitted

METHODS = ("probe", "text", "gelu", "prototypes", "blend")


@click.command()
@click.argument("dataset")
@click.option("--out", required=True, metavar="FILE", help="Where the head is kept: a small safetensors file.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="probe",
    show_default=True,
    help="probe: logistic regression. text: the same, from the zero-shot head. gelu: with a hidden layer. "
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
@options.device
@options.precision
@options.pickle
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def probe(
    dataset: str,
    out: str,
    method: str,
    space: str,
    strength: float | None,
    shots: int | None,
    seed: int,
    split: str | None,
    model: str,
    device: str,
    precision: str,
    allow_pickle: bool,
    as_json: bool,
) -> None:
    """Learn the classes of DATASET from its labels; the pictures are encoded once, and the model stays as it is.

    DATASET is a folder of class folders, a CSV image,label or its folder, or the folder that holds oxford-iiit-pet.

    \b
      clipkit probe ./animals --out animals.safetensors
      clipkit classify ./photos --head animals.safetensors

    What has to be chosen is chosen on pictures that were held back; then all of them are learned from.
    """
    from clipkit.learn.fit_head import fit_head

    _check_place(Path(out))
    encoder = options.loader(device, precision, allow_pickle)(model, False)
    with progress_bar() as progress:
        fitted = fit_head(
            dataset,
            encoder,
            method=method,
            space=space,
            C=strength,
            shots=shots,
            seed=seed,
            split=split,
            progress=progress,
        )
    fitted.head.save(out)
    _echo(fitted, out, as_json=as_json)


commands = (probe,)


def _check_place(out: Path) -> None:
    from clipkit.core.tensor_files import check_writable

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
        said = {name: value for name, value in vars(fitted).items() if name != "head"}
        said |= {"failed": [vars(failure) for failure in fitted.failed], "space": fitted.head.space}
        said |= {"model": fitted.head.model, "classes": fitted.head.classes, "out": out}
        click.echo(json.dumps(said))
        return
    low, high = fitted.ci95
    click.echo(f"{printable(fitted.dataset)}: {fitted.head.model}, {len(fitted.head.classes)} classes")
    click.echo(f"  learned from      {fitted.n:,} pictures, {fitted.n_validation:,} of them held back to choose")
    click.echo(f"  chosen            {', '.join(part for part in (fitted.head.space, fitted.chosen) if part)}")
    click.echo(f"  validation acc1   {fitted.accuracy:.3f}  ({low:.3f} to {high:.3f}, n = {fitted.n_validation:,})")
    for space, accuracy in fitted.by_space.items():
        if space != fitted.head.space:
            click.echo(f"  {space:<18}{accuracy:.3f}")
    say(f"next: {shlex.join(['clipkit', 'classify', './photos', '--head', out])}")
    if fitted.head.space == "backbone":
        say("this head reads the pictures themselves; --space projected makes one for an index and for search")
