"""Command `explain`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.options import MODEL_HELP
from clipkit.cli.output import say, say_hint
from clipkit.core.text import printable
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.models.attention import AttentionMaps


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(options.ModelOptions):
    """What was asked of `explain`."""

    picture: str
    model: str
    out: str | None
    layer: int | None
    head: int | None
    text: str
    as_json: bool


@click.command()
@click.argument("picture", type=click.Path())
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

    The attention is that of the token the model answers from, or of all patches where it answers from their mean, in
    a layer and rolled out over all layers. It says where information came from, not why an answer was given.

    A convolutional model, as the starter, has no attention. What is drawn then is its relevance by Grad-CAM: which
    cells of its last feature map raise the class, the words of --text, or the picture's own embedding.
    """
    from clipkit.models.attention import explain_attention
    from clipkit.models.load import load_model

    maps = explain_attention(load_model(given.model, **given.ways), given.picture, text=given.text)
    if given.layer is not None or given.head is not None:
        maps.of(layer=given.layer, head=given.head)  # whether there is one
    if given.out:
        from clipkit.plot.reports import explanation_png

        _write(given.out, explanation_png(maps, layer=given.layer, head=given.head))
    _echo_maps(maps, given)


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
