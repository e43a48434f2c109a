"""Command `label`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipkit.cli import options
from clipkit.cli.output import say
from clipkit.core.text import counted, printable
from clipkit.errors import ClipkitError, ImageError, ModelError

if TYPE_CHECKING:
    from clipkit.models.vit import LabelProbability, ViTClassifier

    Answers = tuple[LabelProbability, ...]

HEAD = "head.safetensors"  # beside which finetune has saved a model of open_clip
DEFAULT = "google/vit-base-patch16-224"


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What was asked of `label`."""

    pictures: tuple[str, ...]
    model: str
    top: int
    device: str
    precision: str
    as_json: bool


@click.command()
@click.argument("pictures", type=click.Path(), nargs=-1, required=True)
@click.option(
    "--model",
    metavar="NAME|FOLDER",
    default=DEFAULT,
    show_default=True,
    help="An image classifier of transformers: a name on the hub, or a folder that save_pretrained wrote.",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels a picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a picture.")
@options.device
@options.precision
@options.into(LabelOptions)
def label(given: LabelOptions) -> None:
    """Name what PICTURES show, by a trained classifier with labels of its own: ViT, DeiT, Swin, BEiT, ConvNeXT.

    \b
      clipkit label cat.jpg
      clipkit label cat.jpg dog.jpg --model microsoft/swin-tiny-patch4-window7-224 --top 1

    Prints probability, label and picture, likeliest first. For classes of your own: clipkit classify, which needs no
    training. A model that clipkit finetune made of one of transformers is a folder of that kind.
    """
    for picture in given.pictures:
        options.check_picture(picture, "clipkit label", takes_many=True)
    failed = 0
    for picture, answers in _labelled(_load(given), given.pictures, given.top):
        if isinstance(answers, ImageError):
            failed += 1
            say(f"cannot read {printable(answers.message)}")
        else:
            _echo(picture, answers, as_json=given.as_json)
    if failed:
        raise ClipkitError(
            f"{counted(failed, 'picture')} of {len(given.pictures):,} could not be read",
            hint="pictures that other programs open, as JPEG or PNG",
        )


def _load(given: LabelOptions) -> ViTClassifier:
    from clipkit.models.conversion import is_pretrained_clip
    from clipkit.models.load import is_transformers
    from clipkit.models.registry import CONFIG
    from clipkit.models.vit import ViTClassifier

    place = Path(given.model).expanduser()
    if (place / HEAD).is_file() and not (place / "config.json").is_file():
        raise ModelError(
            f"{given.model} is what finetune made of a model of texts and pictures",
            hint=f"clipkit classify PHOTOS --head {shlex.quote(str(place / HEAD))}",
        )
    is_path = given.model.startswith((".", "/", "~")) or place.is_dir()
    if (place / CONFIG).is_file() or is_pretrained_clip(place) or not (is_path or is_transformers(given.model)):
        raise ModelError(
            f"{given.model} is no image classifier of transformers, and has no labels of its own",
            hint=f"clipkit label cat.jpg --model {DEFAULT}; or clipkit classify PHOTOS --classes cat,dog",
        )
    return ViTClassifier(given.model, device=given.device, precision=given.precision, notify=say)


def _labelled(model: ViTClassifier, pictures: Sequence[str], k: int) -> Iterator[tuple[str, Answers | ImageError]]:
    """Each picture with its answers, a batch at a time; one that cannot be read costs the others nothing."""
    for start in range(0, len(pictures), model.batch_size):
        batch = pictures[start : start + model.batch_size]
        try:
            yield from zip(batch, model.top_k(batch, k), strict=True)
        except ImageError:
            for picture in batch:
                yield picture, _one(model, picture, k)


def _one(model: ViTClassifier, picture: str, k: int) -> Answers | ImageError:
    try:
        return model.top_k([picture], k)[0]
    except ImageError as error:
        return error


def _echo(picture: str, answers: Answers, *, as_json: bool) -> None:
    if as_json:
        found = [{"label": one.label, "probability": round(one.probability, 6)} for one in answers]
        click.echo(json.dumps({"path": picture, "answers": found}))
        return
    for one in answers:
        click.echo(f"{one.probability:.4f}\t{printable(one.label)}\t{printable(picture)}")
