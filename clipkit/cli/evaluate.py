"""Commands `evaluate` and `compare`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.options import templates_option
from clipkit.cli.output import FEW, echo_lines, on_interrupt, progress_bar, say
from clipkit.core.text import counted, printable
from clipkit.errors import ClipkitError
from clipkit.learn.methods import METHODS

if TYPE_CHECKING:
    from clipkit.datasets.load import Dataset
    from clipkit.evaluate.results import Comparison, Row
    from clipkit.evaluate.zeroshot import Result
    from clipkit.generate.diffusion import DiffusionGenerator
    from clipkit.models.encoder import Encoder


METHODS_HELP = f"{', '.join(METHODS)}; with commas.  [default: all]"


@dataclass(frozen=True, kw_only=True)
class CompareOptions(options.ModelOptions):
    """What was asked of `compare`."""

    dataset: str
    methods: str | None
    shots: str
    seeds: int
    model: str
    templates: str | None
    out: str | None
    no_thumbnails: bool
    as_json: bool


@click.command()
@click.argument("dataset", type=click.Path())
@click.option("--methods", metavar="A,B", help=METHODS_HELP)
@click.option("--shots", metavar="N,M,all", default="1,2,4,8,16,all", show_default=True, help="Labels a class.")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of those labels.")
@click.option("--model", metavar="NAME", default="auto", show_default=True, help="See `clipkit models`.")
@click.option("--templates", metavar="SET|TEXT|FILE", help="Of the names.  [default: simple; pets for Oxford-IIIT Pet]")
@click.option(
    "--out", type=click.Path(), metavar="FOLDER", help="Write the report there: index.html, results.json and figures."
)
@click.option("--no-thumbnails", is_flag=True, help="Show no picture of the dataset in the report.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@options.engine
@options.device
@options.precision
@options.pickle
@options.into(CompareOptions)
def compare(given: CompareOptions) -> None:
    """Say what labels would buy: methods on DATASET, from none to all labels.

    DATASET is a folder of class folders, perhaps below train and test, a CSV (image,label, perhaps split), what
    Hugging Face's `datasets` wrote, or the folder that holds oxford-iiit-pet. Every method sees the same pictures;
    what has to be chosen is chosen on validation pictures, and the labels of test are read once, at the end.

    \b
      clipkit compare photos --out report          open report/index.html
      clipkit compare photos --methods zeroshot,probe,knn --shots 1,4,all

    An interrupted comparison goes on where it stopped when the same command is run again.
    """
    from clipkit.evaluate.comparison import compare as run
    from clipkit.output.comparison_html import check_folder, write_report

    names = list(METHODS) if given.methods is None else _parts(given.methods)
    numbers = [_shots(part) for part in _parts(given.shots)]
    encoder = given.load(given.model)
    if given.out:
        check_folder(given.out)
    with on_interrupt(lambda: "what was finished is kept"), progress_bar("") as progress:
        ways: dict[str, Any] = {"methods": names, "shots": numbers, "seeds": given.seeds, "templates": given.templates}
        comparison = run(given.dataset, encoder, progress=progress, **ways)
    if given.out:
        write_report(comparison, given.out, thumbnails=not given.no_thumbnails)
    echo_lines(_as_json(comparison) if given.as_json else _as_table(comparison))
    _say_the_rest(comparison, given.out)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shots(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"--shots takes numbers and all, not {text!r}") from None


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
    from clipkit.evaluate.results import format_shots

    low, high = (f"{100 * share:.1f}" for share in row.acc1_ci95)
    accuracies = (f"{100 * row.acc1:.1f}", f"{low}-{high}", f"{100 * row.mean_per_class:.1f}")
    return (row.method, format_shots(row.shots), *accuracies, f"{row.seconds:.2f}", f"{row.labels:,}", str(row.seeds))


def _say_the_rest(comparison: Comparison, out: str | None) -> None:
    say(f"measured on {counted(comparison.counts['test'], 'picture')}, {printable(comparison.split)}")
    features = ", ".join(f"{space} {seconds:.1f} s" for space, seconds in comparison.feature_seconds.items())
    say(f"SECONDS are of learning and answering, without the features of the pictures ({features})")
    for note in comparison.notes:
        say(printable(note))
    for reason in comparison.left_out:
        say(f"not run: {printable(reason)}")
    for failure in comparison.failed[:FEW]:
        say(f"not counted: {printable(failure.path)}: {printable(failure.reason)}")
    if len(comparison.failed) > FEW:
        say(f"and {counted(len(comparison.failed) - FEW, 'more picture')} that cannot be read")
    if out:
        say(f"{printable(out)}/index.html shows it")


@click.group()
def evaluate() -> None:
    """Measure a model on pictures whose answers are known.

    DATASET is a folder of class folders, a CSV (image,label or image,caption) or its folder, what Hugging Face's
    `datasets` wrote, or the folder that holds oxford-iiit-pet. Every number comes with n and a 95 % interval;
    embeddings are kept, so a second run is quick.
    """


dataset_options = (
    click.argument("dataset", type=click.Path()),
    click.option("--model", metavar="NAME", default="auto", show_default=True, help="See `clipkit models`."),
    click.option(
        "--split", metavar="NAME", help="Of the dataset. Default: test of Oxford-IIIT Pet and of folders, else all."
    ),
    click.option(
        "--out", type=click.Path(), metavar="FILE", help="Also write the result as JSON, with CLIP_benchmark's keys."
    ),
    options.device,
    options.precision,
    options.pickle,
)


def on_dataset(command: Any) -> Any:
    """The options of every command that evaluates."""
    for option in reversed(dataset_options):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(options.ModelOptions):
    """What was asked of `zeroshot`."""

    dataset: str
    model: str
    split: str | None
    out: str | None
    classes: str | None
    templates: str | None
    search: bool
    unknown: bool
    confusion: str | None


@evaluate.command()
@on_dataset
@click.option("--classes", metavar="A,B|FILE", help="Default: the dataset's own. imagenet: matched by WordNet id.")
@templates_option
@click.option("--search-templates", "search", is_flag=True, help="Choose them on a validation split first.")
@click.option("--unknown", is_flag=True, help="Labels that are no class are to be rejected, and that is measured.")
@click.option("--confusion", type=click.Path(), metavar="FILE", help="Also draw the confusion matrix, as PNG.")
@options.into(ZeroShotOptions)
def zeroshot(given: ZeroShotOptions) -> None:
    """How often classes made from words are right.

    \b
      clipkit evaluate zeroshot data --templates pets          data holds oxford-iiit-pet
      clipkit evaluate zeroshot photos --confusion photos.png  photos holds one folder a class
    """
    from clipkit.classify.prompts import note_of_set
    from clipkit.evaluate.zeroshot import load_labelled, measured_split
    from clipkit.output.figures import confusion_png

    if given.search and given.templates:
        raise click.UsageError("--search-templates chooses the --templates itself")
    split = given.split or measured_split(given.dataset) or ("test" if given.search else None)
    pictures = load_labelled(given.dataset, split=split, classes=given.classes)
    if note := note_of_set(given.classes):
        say(note)
    encoder = given.load(given.model)
    with progress_bar() as progress:
        result = _zeroshot_result(given, pictures, encoder, progress)
    _finish(result, given.out)
    if given.confusion:
        title = f"{result.dataset}, {result.model}"
        confusion_png(result.metrics["confusion"], result.classes, given.confusion, title=title)


def _zeroshot_result(given: ZeroShotOptions, pictures: Dataset, encoder: Encoder, progress: Any) -> Result:
    from clipkit.evaluate.zeroshot import evaluate_searched, evaluate_zeroshot

    ways: dict[str, Any] = {"classes": given.classes, "unknown": given.unknown, "progress": progress}
    if given.search:
        return evaluate_searched(given.dataset, pictures, encoder, **ways)
    return evaluate_zeroshot(pictures, encoder, templates=given.templates or "simple", **ways)


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(options.ModelOptions):
    """What was asked of `retrieval`."""

    dataset: str
    model: str
    split: str | None
    out: str | None
    imagine: str | None
    limit: int | None
    n: int | None
    steps: int | None

    def generator(self) -> DiffusionGenerator | None:
        """What makes pictures of captions, where that was asked for; a result that has no place is said before."""
        from clipkit.core.files import check_writable
        from clipkit.generate.diffusion import DiffusionGenerator

        ways: dict[str, Any] = {"device": self.device, "steps": self.steps, "notify": say}
        settings = (self.limit, self.n, self.steps)
        if self.imagine is None and settings != (None, None, None):
            raise click.UsageError("--limit, --n and --steps are for --imagine")
        if self.imagine is None:
            return None
        if self.out:
            check_writable(Path(self.out).parent)
        generator = DiffusionGenerator(self.imagine, **ways)
        say(printable(generator.safety))
        return generator


@evaluate.command()
@on_dataset
@click.option("--imagine", metavar="NAME|FOLDER", help="Ask by pictures that this diffusion pipeline makes, too.")
@click.option("--limit", type=click.IntRange(min=1), help="With --imagine: how many captions.  [default: 100]")
@click.option("--n", type=click.IntRange(min=1), help="With --imagine: pictures of each.  [default: 1]")
@click.option("--steps", type=click.IntRange(min=1), help="With --imagine: of the scheduler.")
@options.into(RetrievalOptions)
def retrieval(given: RetrievalOptions) -> None:
    """How often a caption finds its picture, and a picture its caption.

    With --imagine, for --limit captions drawn by lot: how often a caption finds its photograph by its words, by
    pictures that a diffusion pipeline makes of it, and by both, with paired intervals of the differences. Experimental.
    """
    from clipkit.datasets.load import load_dataset
    from clipkit.evaluate.imagined import LIMIT, evaluate_imagined
    from clipkit.evaluate.zeroshot import evaluate_retrieval

    generator = given.generator()
    pictures = load_dataset(given.dataset, split=given.split)
    encoder = given.load(given.model)
    with on_interrupt(lambda: "what was computed is kept"), progress_bar() as progress:
        if generator is None:
            result = evaluate_retrieval(pictures, encoder, progress=progress)
        else:
            settings: dict[str, Any] = {"limit": given.limit or LIMIT, "n": given.n or 1, "progress": progress}
            result = evaluate_imagined(pictures, encoder, generator, **settings)
    _finish(result, given.out)


def _finish(result: Result, out: str | None) -> None:
    from clipkit.cli.output import results

    echo_lines(results(result))
    if not out:
        return
    try:
        Path(out).write_text(result.to_json(), encoding="utf-8")
    except OSError as error:
        raise ClipkitError(f"{out} cannot be written: {error.strerror}", hint="another place: --out FILE") from error
