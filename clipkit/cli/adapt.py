"""Command `adapt`."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import progress_bar, say
from clipkit.core.text import counted, printable
from clipkit.errors import ModelError

if TYPE_CHECKING:
    from clipkit.learn.adaptation import Adaptation
    from clipkit.learn.retrieval_change import Change
    from clipkit.learn.tuning import AdaptRecipe

KINDS = ("words", "projection", "lora", "full")


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(options.ModelOptions):
    """What was asked of `adapt`."""

    dataset: str
    out: str
    kind: Any
    base: str
    general: str | None
    force: bool
    seed: int
    epochs: int
    lr: float | None
    batch_size: int
    as_json: bool

    @property
    def recipe(self) -> AdaptRecipe:
        """How it learns."""
        from clipkit.learn.tuning import AdaptRecipe

        return AdaptRecipe(self.kind, self.epochs, self.batch_size, self.lr, self.seed)


@click.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--out",
    required=True,
    type=options.Place(),
    metavar="FOLDER",
    help="The model and its report; a stopped run goes on there.",
)
@click.option(
    "--recipe",
    "kind",
    type=click.Choice(KINDS),
    default="words",
    show_default=True,
    help="What learns. words: the text tower. projection: its last matrix. lora, full: both towers.",
)
@click.option("--base", metavar="NAME|FOLDER", default="starter", show_default=True, help="The model to begin with.")
@click.option("--general", metavar="DATASET", help="Where nothing may be lost. Default: ImageNet's names, no pictures.")
@click.option("--force", is_flag=True, help="Write the model though it is not proven better.")
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Passes over all captions.")
@click.option(
    "--lr", type=float, help="Highest learning rate. Default: words 5e-3, projection 1e-3, lora 5e-4, full 1e-5."
)
@click.option("--batch-size", type=click.IntRange(min=2), default=128, show_default=True, help="Captions a step.")
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**32 - 1), default=42, show_default=True, help="Of the split and order."
)
@options.device
@options.precision
@options.pickle
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.into(AdaptOptions)
def adapt(given: AdaptOptions) -> None:
    """Adapt a model to your own pictures and words, and write it only if it is proven better.

    DATASET is a CSV image,caption, a folder of class folders, or whatever `evaluate` reads. A quarter of the pictures
    is kept for the test, near copies together. The model is written if no interval there holds a loss; if not, the
    exit code is 1, and it is said how many pictures it would take.

    \b
      clipkit adapt captions.csv --out my-model
      clipkit index ./photos --model my-model        nothing is encoded again

    With words and projection the picture tower stays, and so do your indexes. With lora and full, they must be made
    anew: --rebuild.
    """
    from clipkit.learn.adaptation import adapt as run
    from clipkit.plot.reports import write_adapted

    recipe = given.recipe  # before a model is loaded
    ways: dict[str, Any] = {"out": given.out, "recipe": recipe, "general": given.general, "force": given.force}
    with progress_bar() as progress:
        found = run(given.load(given.base), given.dataset, progress=progress, **ways)
    write_adapted(found, given.out)
    click.echo(json.dumps(found.to_json() | {"out": given.out})) if given.as_json else _echo(found)
    if not found.is_written:
        raise ModelError(f"{given.out} got no model: {found.reasons[0]}", hint="--force writes it in spite of that")
    say(f"next: {_next_command(found, given.out)}")


def _echo(found: Adaptation) -> None:
    sizes = found.sizes
    for note in found.notes:
        say(f"  {printable(note)}")
    click.echo(
        f"{printable(found.base)}, {found.recipe['kind']}: learned from {counted(sizes['train'], 'picture')} with "
        f"{counted(sizes['texts'], 'text')}, {sizes['validation']:,} to choose, {sizes['test']:,} to test"
    )
    click.echo(f"weights {found.share:g} of the way from before to after, chosen on validation and general")
    click.echo(f"{'':<29}before  after   difference (95 %)")
    for one in found.changes:
        click.echo(_line(one.way, one))
    click.echo(f"{_line('general', found.general)}  {printable(found.general_name)}")
    for reason in found.reasons:
        click.echo(f"not proven: {reason}")
    if found.needed:
        click.echo(f"pictures for a proof: {found.needed}")


def _line(way: str, one: Change) -> str:
    return (
        f"{way:<21}{one.measure:<8}{one.before:.3f}   {one.after:.3f}   {one.gain:+.3f} "
        f"({one.low:+.3f} to {one.high:+.3f}, n = {one.n:,})"
    )


def _next_command(found: Adaptation, out: str) -> str:
    command = shlex.join(["clipkit", "index", "./photos", "--model", out])
    return command if found.keeps_indexes else f"{command} --rebuild"
