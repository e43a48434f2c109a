"""Command `explain`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import options
from clipkit.cli.options import MODEL_HELP
from clipkit.cli.output import say, say_hint
from clipkit.core.text import printable
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.generate.word_maps import WordMaps
    from clipkit.models.attention import AttentionMaps


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(options.ModelOptions):
    """What was asked of `explain`."""

    picture: str | None
    model: str
    prompt: str | None
    seed: int | None
    steps: int | None
    out: str | None
    layer: int | None
    head: int | None
    text: str
    as_json: bool

    def is_of_words(self) -> bool:
        """Whether of a prompt, not of a picture; UsageError for neither, for both, and for options of the other."""
        if (self.prompt is None) == (self.picture is None):
            raise click.UsageError("PICTURE, or --prompt WORDS: one of them, please")
        if self.prompt is None and (self.seed is not None or self.steps is not None):
            raise click.UsageError("--seed and --steps are for --prompt")
        if self.prompt is not None and (self.layer is not None or self.head is not None or self.text):
            raise click.UsageError("--layer, --head and --text are for a PICTURE")
        if self.prompt is not None and self.model == "auto":
            raise click.UsageError("--prompt needs the --model that makes the picture: a pipeline of diffusers")
        return self.prompt is not None


@click.command()
@click.argument("picture", type=click.Path(), required=False)
@click.option("--model", metavar="NAME|FOLDER", default="auto", show_default=True, help=MODEL_HELP)
@click.option(
    "--out",
    type=click.Path(),
    metavar="FILE",
    help="Draw it as PNG: the patches, attention of a layer, rollout; or relevance.",
)
@click.option(
    "--layer", type=click.IntRange(min=1), metavar="N", help="Attention of this layer, from 1. Default: last."
)
@click.option("--head", type=click.IntRange(min=1), metavar="N", help="Of this head, from 1. Default: mean of all.")
@click.option(
    "--text", metavar="WORDS", default="", help="Relevance for these words, of a convolutional open_clip model."
)
@click.option("--prompt", metavar="WORDS", help="Instead of PICTURE: words that a diffusion --model makes one of.")
@click.option("--seed", type=click.IntRange(min=0), help="With --prompt: of the picture.  [default: 0]")
@click.option("--steps", type=click.IntRange(min=1), help="With --prompt: of the scheduler.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the attention of every patch.")
@options.device
@options.precision
@options.pickle
@options.into(ExplainOptions)
def explain(given: ExplainOptions) -> None:
    """Show how a model cuts PICTURE into patches, and what it looked at.

    \b
      clipkit explain dog.jpg --model google/vit-base-patch16-224 --out attention.png
      clipkit explain dog.jpg --model starter --text "a dog" --out relevance.png
      clipkit explain --prompt "a red dog" --model ./my-pipeline --out words.png

    The attention is that of the token the model answers from, or of all patches where it answers from their mean, in
    a layer and rolled out over all layers. It says where information came from, not why an answer was given.

    A convolutional model, as the starter, has no attention. What is drawn then is its relevance by Grad-CAM: which
    cells of its last feature map raise the class, the words of --text, or the picture's own embedding.

    With --prompt a picture is made, and shown is which of its places looked at which word. Experimental.
    """
    if given.is_of_words():
        return _explain_words(given)
    assert given.picture is not None
    options.check_picture(given.picture, "clipkit explain")
    from clipkit.models.attention import explain_attention
    from clipkit.models.load import load_model

    maps = explain_attention(load_model(given.model, **given.ways), given.picture, text=given.text)
    if given.layer is not None or given.head is not None:
        maps.of(layer=given.layer, head=given.head)  # whether there is one
    if given.out:
        from clipkit.plot.reports import explanation_png

        _write(given.out, explanation_png(maps, layer=given.layer, head=given.head))
    _echo_maps(maps, given)


def _explain_words(given: ExplainOptions) -> None:
    """Of a picture that a pipeline of diffusers makes."""
    from clipkit.generate.diffusion import DiffusionGenerator
    from clipkit.generate.word_maps import explain_words

    assert given.prompt is not None
    _check_place(given.out)
    ways: dict[str, Any] = {"device": given.device, "precision": given.precision, "notify": say}
    generator = DiffusionGenerator(given.model, steps=given.steps, **ways)
    say(printable(generator.safety))
    maps = explain_words(generator, given.prompt, seed=given.seed or 0)
    if given.out:
        from clipkit.plot.reports import words_png

        _write(given.out, words_png(maps))
    _echo_words(maps, given)


def _check_place(out: str | None) -> None:
    """ClipkitError where a figure cannot be kept, before a picture is made."""
    from clipkit.core.files import check_writable

    if out and Path(out).is_dir():
        raise ClipkitError(f"{out} cannot be written: it is a folder", hint=f"--out {Path(out) / 'words.png'}")
    if out:
        check_writable(Path(out).parent)


def _echo_words(maps: WordMaps, given: ExplainOptions) -> None:
    if maps.is_refused:
        say(f"the safety checker refused the picture of seed {maps.seed}: it is black, the shares are of its making")
    shares = maps.maps.mean(axis=(1, 2)).tolist()
    if given.as_json:
        words = [{"word": word, "share": round(share, 6)} for word, share in zip(maps.words, shares, strict=True)]
        counts = {"seed": maps.seed, "layers": maps.layers, "steps": maps.steps}
        maps_of = {"words": words, "maps": maps.maps.round(6).tolist(), "overlay": given.out}
        click.echo(json.dumps({"prompt": maps.prompt, "model": maps.model, **counts, **maps_of}))
        return
    for word, share in zip(maps.words, shares, strict=True):
        click.echo(f"{share:.4f}  {printable(word)}")
    say(f"shares of the attention, mean of {maps.layers} layers and {maps.steps} steps; the rest: begin, end, padding")
    if not given.out:
        say_hint("--out words.png")


def _write(out: str, content: bytes) -> None:
    try:
        Path(out).write_bytes(content)
    except OSError as error:
        raise ClipkitError(f"{out} cannot be written: {error.strerror}", hint="another place: --out FILE") from error


def _echo_maps(maps: AttentionMaps, given: ExplainOptions) -> None:
    from clipkit.models.attention import WITH_ATTENTION, facts

    record = facts(maps, layer=given.layer, head=given.head)
    if given.as_json:
        click.echo(json.dumps({"picture": given.picture, **record, "overlay": given.out}))
        return
    for name in ("model", "image", "cells", "tokens", "speaker", "on patches", "relevance of"):
        if record.get(name):
            click.echo(f"{name:<12}  {printable(str(record[name]))}")
    if maps.reason:
        say(printable(maps.reason))
        if maps.relevance is not None:
            say("relevance is by Grad-CAM: what raises that score, not where the model looked")
            if not maps.relevance.any():
                say("no part of the picture raises it")
        say_hint(WITH_ATTENTION)
    elif not given.out:
        say_hint("--out attention.png")
