"""Command `imagine`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.output import echo_lines, on_interrupt, progress_bar, say
from clipkit.core.text import near, printable

if TYPE_CHECKING:
    from clipkit.generate.diffusion import DiffusionGenerator
    from clipkit.generate.imagination import Imagined
    from clipkit.index.image_index import ImageIndex
    from clipkit.search.hits import Hit, Hits

FOLDER = "imagined"


def _size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Width and height of 512, or of 768x512."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", value, re.ASCII)
    if not found:
        raise click.BadParameter(f"{value!r} is no size: 512, or 768x512")
    return int(found[1]), int(found[2] or found[1])


@dataclass(frozen=True, kw_only=True)
class ImagineOptions:
    """What was asked of `imagine`."""

    prompt: str
    photos: str | None
    n: int
    k: int
    seed: int
    out: str
    model: str | None
    steps: int | None
    guidance: float | None
    size: tuple[int, int] | None
    negative: str
    device: str
    precision: str
    as_json: bool

    def generator(self) -> DiffusionGenerator:
        """What makes the pictures, with the settings that were asked for."""
        from clipkit.generate.diffusion import DEFAULT_MODEL, DiffusionGenerator

        settings: dict[str, Any] = {name: getattr(self, name) for name in ("steps", "guidance", "size", "negative")}
        ways: dict[str, Any] = {"device": self.device, "precision": self.precision, "notify": say}
        return DiffusionGenerator(self.model or DEFAULT_MODEL, **settings, **ways)


@click.command()
@click.argument("prompt")
@click.option("--search", "photos", type=click.Path(), metavar="PHOTOS", help="Also find what is like them there.")
@click.option("--n", "-n", type=click.IntRange(min=1), default=4, show_default=True, help="How many pictures.")
@click.option("-t", "--top", "k", type=click.IntRange(min=1), default=10, show_default=True, help="How many to find.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the first picture.")
@click.option("--out", type=options.Place(), metavar="FOLDER", default=FOLDER, show_default=True, help="Keeps them.")
@click.option("--model", metavar="NAME|FOLDER", help="A pipeline of diffusers.  [default: Stable Diffusion 1.5]")
@click.option("--steps", type=click.IntRange(min=1), help="Of the scheduler. Default: the pipeline's own.")
@click.option("--guidance", type=float, help="How much PROMPT counts. Default: the pipeline's own.")
@click.option("--size", callback=_size, metavar="PIXELS", help="512, or 768x512. Default: the model's own.")
@click.option("--negative", metavar="WORDS", default="", help="What to lead away from.")
@options.device
@options.precision
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options.into(ImagineOptions)
def imagine(given: ImagineOptions) -> None:
    """Make pictures of PROMPT, and find photographs like them. Experimental: not measured against words yet.

    \b
      clipkit imagine "a red bicycle in snow" --search ./photos
      clipkit imagine "a red bicycle in snow" --model ./my-pipeline --n 1 --seed 7

    Needs the extra `imagine`, and weights: a folder, or a name on the hub. Found is what is nearest to the mean of the
    pictures' embeddings, beside what the words find. `clipkit evaluate retrieval --imagine` measures which is better.
    """
    from clipkit.generate.imagination import imagine as run

    index = _prepared(given)
    generator = given.generator()
    say(printable(generator.safety))
    kept = on_interrupt(lambda: f"pictures that were made by then are in {printable(given.out)}", advice="")
    with kept, progress_bar() as progress:
        settings: dict[str, Any] = {"n": given.n, "k": given.k, "seed": given.seed, "out": given.out}
        made = run(given.prompt, index, model=generator, progress=progress, **settings)
    echo_lines([json.dumps(_record(made))] if given.as_json else _lines(made))
    _say_rest(made)


def _prepared(given: ImagineOptions) -> ImageIndex | None:
    """The index; errors that need no model come before one is loaded."""
    from clipkit.generate.pictures import check_folder, check_request
    from clipkit.index.image_index import ImageIndex, find

    check_request(given.prompt, n=given.n, seed=given.seed)
    open_index = options.program().open_index or ImageIndex.open
    index = find(given.photos, open_index=open_index)[0] if given.photos is not None else None
    check_folder(given.out)
    return index


def _record(made: Imagined) -> dict[str, Any]:
    pairs = zip(made.pictures, made.files, strict=True)
    pictures = [{"file": file, "seed": one.seed, "refused": one.is_refused} for one, file in pairs]
    hits = {"by_pictures": _hits(made.hits), "by_words": _hits(made.word_hits)}
    return {"prompt": made.prompt, "model": made.model, "pictures": pictures, **hits}


def _hits(hits: Hits | None) -> list[dict[str, Any]] | None:
    if hits is None:
        return None
    return [{"score": round(hit.score, 6), "path": hit.path, "file": hit.file} for hit in hits]


def _lines(made: Imagined) -> Iterator[str]:
    """The files; where photographs were searched, those that the pictures found beside those that the words found."""
    yield from (printable(near(file)) for file in made.files)
    if made.hits is None or made.word_hits is None:
        return
    pairs = list(zip_longest(map(_cell, made.hits), map(_cell, made.word_hits), fillvalue=""))
    rows = [("BY THE PICTURES", "BY THE WORDS"), *pairs]
    width = max(len(left) for left, _ in rows)
    yield ""
    yield from (f"{left.ljust(width)}  {right}" for left, right in rows)


def _cell(hit: Hit) -> str:
    return f"{hit.score:.4f}  {printable(near(hit.file))}"


def _say_rest(made: Imagined) -> None:
    for picture in made.pictures:
        if picture.is_refused:
            say(
                f"the safety checker refused the picture of seed {picture.seed}: it is black, and was not searched with"
            )
    if made.hits is not None:
        say("experimental: the mean of the pictures' embeddings was searched; neither answer is known to be better")
