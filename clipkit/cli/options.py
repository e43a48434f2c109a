"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clipkit.cli.output import say

if TYPE_CHECKING:
    from clipkit.index.image_index import Loader
    from clipkit.models.encoder import Encoder


DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

at = click.option("--index", "at", metavar="FOLDER", help="Keep or find the index there instead of in PHOTOS/.clipkit.")
device = click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where the model runs.")
precision = click.option("--precision", type=click.Choice(PRECISIONS), default="auto", help="How it computes.")
pickle = click.option(
    "--allow-pickle", is_flag=True, help="Load weights that are a pickle: only from someone you trust."
)
excluded = click.option(
    "--exclude-dir", "exclude_dirs", metavar="NAME", multiple=True, help="Leave out folders of this name; repeatable."
)

TEMPLATES_HELP = "plain, simple, imagenet, pets, one with {} in it, or a text file of them.  [default: simple]"

templates_option = click.option("--templates", metavar="SET|TEXT|FILE", help=TEMPLATES_HELP)

MODEL_HELP = "An open_clip model (see `clipkit models`), or one of transformers: a name on the hub, a folder."


def loader(device: str, precision: str, allow_pickle: bool, batch_size: int | None = None) -> Loader:
    """How a command loads a model, with the options it was given."""

    def load(name: str, exact_pixels: bool) -> Encoder:
        from clipkit.models.load import load_encoder

        return load_encoder(
            name,
            device=device,
            precision=precision,
            batch_size=batch_size,
            exact_pixels=exact_pixels,
            allow_pickle=allow_pickle,
            notify=say,
        )

    return load
