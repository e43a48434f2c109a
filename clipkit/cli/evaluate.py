"""The command that says what a few labels would buy: compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import FEW, printable, progress_bar, say

if TYPE_CHECKING:
    from clipkit.evaluate.results import Comparison, Row

INTERRUPTED = 130
METHODS_HELP = (
    "zeroshot, probe, probe-backbone, text-probe, gelu, knn, prototypes, tip-adapter, tip-adapter-f, blend, finetune; "
    "with commas.  [default: all]"
)


@click.command()
@click.argument("dataset")
@click.option("--methods", metavar="A,B", help=METHODS_HELP)
@click.option("--shots", metavar="N,M,all", default="1,2,4,8,16,all", show_default=True, help="Labels a class.")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of those labels.")
@click.option("--model", metavar="NAME", default="auto", show_default=True, help="See `clipkit models`.")
@click.option("--templates", metavar="SET|TEXT|FILE", help="Of the names.  [default: simple; pets for Oxford-IIIT Pet]")
@click.option("--out", metavar="FOLDER", help="Write the report there: index.html, results.json and figures.")
@click.option("--no-thumbnails", is_flag=True, help="Show no picture of the dataset in the report.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@options.device
@options.precision
@options.pickle
def compare(
    dataset: str,
    methods: str | None,
    shots: str,
    seeds: int,
    model: str,
    templates: str | None,
    out: str | None,
    no_thumbnails: bool,
    as_json: bool,
    device: str,
    precision: str,
    allow_pickle: bool,
) -> None:
    """Say what labels would buy: methods on DATASET, from none to all labels.

    DATASET is a folder of class folders, perhaps below train and test, a CSV (image,label, perhaps split), or the
    folder that holds oxford-iiit-pet. Every method sees the same pictures; what has to be chosen is chosen on
    validation pictures, and the labels of test are read once, at the end.

    \b
      clipkit compare photos --out report          open report/index.html
      clipkit compare photos --methods zeroshot,probe,knn --shots 1,4,all

    An interrupted comparison goes on where it stopped when the same command is run again.
    """
    from clipkit.evaluate.comparison import compare as run
    from clipkit.evaluate.trials import METHODS

    numbers = [_shots(part) for part in _parts(shots)]
    names = _parts(methods) if methods is not None else list(METHODS)
    encoder = options.loader(device, precision, allow_pickle)(model, False)
    with _saying_what_is_kept(), progress_bar("") as progress:
        ways: dict[str, Any] = {
            "out": out,
            "thumbnails": not no_thumbnails,
            "templates": templates,
            "progress": progress,
        }
        comparison = run(dataset, encoder, methods=names, shots=numbers, seeds=seeds, **ways)
    for line in _as_json(comparison) if as_json else _as_table(comparison):
        click.echo(line)
    _say_the_rest(comparison, out)


commands = (compare,)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shots(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"--shots takes numbers and all, not {text!r}") from None


@contextmanager
def _saying_what_is_kept() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept; run the same command to go on")
        raise click.exceptions.Exit(INTERRUPTED) from None


def _as_json(comparison: Comparison) -> Iterator[str]:
    from clipkit.evaluate.results import as_record

    return (json.dumps(as_record(row)) for row in comparison.rows)


def _as_table(comparison: Comparison) -> Iterator[str]:
    """Aligned columns; accuracies in percent, the interval is that of acc1."""
    heads = ("METHOD", "SHOTS", "ACC1", "95%", "PER CLASS", "SECONDS", "LABELS", "SEEDS")
    table = [heads, *(_cells(row) for row in comparison.rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    for name, *rest in table:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *cells])


def _cells(row: Row) -> tuple[str, ...]:
    from clipkit.evaluate.results import said_shots

    low, high = (f"{100 * share:.1f}" for share in row.acc1_ci95)
    accuracies = (f"{100 * row.acc1:.1f}", f"{low}-{high}", f"{100 * row.mean_per_class:.1f}")
    return (row.method, said_shots(row.shots), *accuracies, f"{row.seconds:.2f}", f"{row.labels:,}", str(row.seeds))


def _say_the_rest(comparison: Comparison, out: str | None) -> None:
    say(f"measured on {comparison.counts['test']:,} pictures, {printable(comparison.split)}")
    for note in comparison.notes:
        say(printable(note))
    for reason in comparison.left_out:
        say(f"not run: {printable(reason)}")
    for failure in comparison.failed[:FEW]:
        say(f"not counted: {printable(failure.path)}: {printable(failure.reason)}")
    if len(comparison.failed) > FEW:
        say(f"and {len(comparison.failed) - FEW:,} more pictures that cannot be read")
    if out:
        say(f"{printable(out)}/index.html shows it")
