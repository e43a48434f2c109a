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
    as_json: bool


@click.command()
@click.argument("picture", type=click.Path())
@click.option("--model", metavar="NAME|FOLDER", default="auto", show_default=True, help=MODEL_HELP)
@click.option(
    "--out", type=click.Path(), metavar="FILE", help="Draw it: the picture as it was read, last layer, rollout; as PNG."
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

    The attention is that of the token the model answers from, or of all patches where it answers from their mean, in
    its last layer and rolled out over all layers. It says where information came from, not why an answer was given.
    """
    from clipkit.models.attention import explain_attention
    from clipkit.models.load import load_model

    maps = explain_attention(load_model(given.model, **given.ways), given.picture)
    if given.out:
        _write(given.out, maps.overlay())
    _echo_maps(maps, given)


def _write(out: str, content: bytes) -> None:
    try:
        Path(out).write_bytes(content)
    except OSError as error:
        raise ClipkitError(f"{out} cannot be written: {error.strerror}", hint="another place: --out FILE") from error


def _echo_maps(maps: AttentionMaps, given: ExplainOptions) -> None:
    from clipkit.models.attention import WITH_ATTENTION, facts

    record = facts(maps)
    if given.as_json:
        click.echo(json.dumps({"picture": given.picture, **record, "overlay": given.out}))
        return
    for name in ("model", "image", "cells", "tokens", "speaker", "on patches"):
        if record.get(name):
            click.echo(f"{name:<12}{printable(str(record[name]))}")
    if maps.reason:
        say(printable(maps.reason))
        say_hint(WITH_ATTENTION)
    elif not given.out:
        say_hint("--out attention.png")
