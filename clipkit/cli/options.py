"""Options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clipkit.cli.output import say
from clipkit.errors import ClipkitError
from clipkit.models.devices import ENGINES

if TYPE_CHECKING:
    from clipkit.index.image_index import ImageIndex
    from clipkit.models.encoder import Encoder

Given = TypeVar("Given")

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")

at = click.option(
    "--index", "at", type=click.Path(), metavar="FOLDER", help="The index is there, not in PHOTOS/.clipkit."
)
engine = click.option("--engine", type=click.Choice(ENGINES), default="auto", help="What computes.")
device = click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where the model runs.")
precision = click.option("--precision", type=click.Choice(PRECISIONS), default="auto", help="How it computes.")
pickle = click.option("--allow-pickle", is_flag=True, help="Load weights that are a pickle you trust.")
below = click.option(
    "--in",
    "below",
    metavar="SUBFOLDER",
    default="",
    help="Only pictures in this folder below PHOTOS.",
)
excluded = click.option(
    "--exclude-dir", "exclude_dirs", metavar="NAME", multiple=True, help="Leave out folders of this name; repeatable."
)

TEMPLATES_HELP = "plain, simple, imagenet, pets, one with {} in it, or a text file of them.  [default: simple]"

templates_option = click.option("--templates", metavar="SET|TEXT|FILE", help=TEMPLATES_HELP)

MODEL_HELP = "An open_clip model (see `clipkit models`), or one of transformers: a name on the hub, a folder."


class Place(click.Path):
    """A path to write to; an empty one, as of a variable that is not set in a script, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it; a usage error for an empty text."""
        if value == "":
            self.fail("it is empty: a path, please", param, ctx)
        return super().convert(value, param, ctx)


def check_picture(picture: str, command: str, *, takes_many: bool = False) -> None:
    """Before a model is loaded: a folder is a mistake, and what is not there is most likely one. ClipkitError."""
    if Path(picture).is_dir():
        whose, name = ("its pictures", "*.jpg") if takes_many else ("one of its pictures", "cat.jpg")
        hint = f"{whose}: {command} {shlex.quote(picture.rstrip('/'))}/{name}"
        raise ClipkitError(f"{picture} is a folder", hint=hint)
    if not Path(picture).exists():
        raise ClipkitError(f"{picture} is not there", hint=f"a picture's file: {command} cat.jpg")


def into(kind: type[Given]) -> Callable[[Callable[[Given], None]], Callable[..., None]]:
    """The options of a command as one record: click's arguments become the fields of `kind`."""

    def decorate(command: Callable[[Given], None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            command(kind(**given))

        return run

    return decorate


def only_one(**flags: bool) -> None:
    """UsageError where two of these ways to print were asked for."""
    asked = [f"--{name.replace('_', '-')}" for name, is_set in flags.items() if is_set]
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)}: one of them, please")


@dataclass(frozen=True)
class Program:
    """What runs the command.

    can_restart: a program of its own, which may run itself again in a supervised child. open_index: None for
    `ImageIndex.open`.
    """

    can_restart: bool = False
    open_index: Callable[..., ImageIndex] | None = None


def program() -> Program:
    """Of the command that runs now."""
    return click.get_current_context().find_object(Program) or Program()


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a command loads a model."""

    engine: str = "auto"
    device: str
    precision: str
    allow_pickle: bool

    @property
    def ways(self) -> dict[str, Any]:
        """As `load_model` takes them, and `load_encoder`."""
        return {"device": self.device, "precision": self.precision, "allow_pickle": self.allow_pickle, "notify": say}

    @property
    def is_plain(self) -> bool:
        """Whether nobody said how the model is to compute."""
        return {self.engine, self.device, self.precision} == {"auto"}

    def query_encoder(self, pictures: ImageIndex) -> Encoder:
        """What encodes the queries of an index: as quick as can be, unless somebody said how."""
        return pictures.query_encoder if self.is_plain else pictures.encoder

    def load(
        self, name: str, exact_pixels: bool = False, precision: str = "auto", *, batch_size: int | None = None
    ) -> Encoder:
        """An encoder by name, as an index asks for it; precision: of the index, unless somebody asked for another."""
        from clipkit.models.load import load_encoder

        ways = {**self.ways, "precision": precision if self.precision == "auto" else self.precision}
        return load_encoder(name, batch_size=batch_size, exact_pixels=exact_pixels, engine=self.engine, **ways)
