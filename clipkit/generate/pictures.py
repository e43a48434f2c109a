"""Generated pictures: the protocol of what makes them, what it may be asked, and the PNG files that keep them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol, runtime_checkable

from clipkit.core.text import described
from clipkit.errors import ClipkitError, QueryError
from clipkit.images.thumbnails import Canvas, to_png

HIGHEST_SEED = 2**63 - 1  # what torch takes
LONGEST_NAME = 60  # characters of a prompt in the name of its file
ELSEWHERE = "another place: --out FOLDER"


@dataclass(frozen=True)
class GeneratedPicture:
    """A picture that was made of words.

    Attributes
    ----------
    pixels : ndarray of shape (h, w, 3), uint8
        RGB.
    seed : int
        The same words and seed give the same pixels, on the same machine with the same libraries.
    is_refused : bool
        Whether a safety checker has blackened it.

    Examples
    --------
    >>> from clipkit.generate import DiffusionGenerator
    >>> (picture,) = DiffusionGenerator("tiny-pipeline", steps=2).generate("red", seed=7)
    >>> picture.pixels.shape, picture.seed, picture.is_refused
    ((32, 32, 3), 7, False)
    """

    pixels: Canvas
    seed: int
    is_refused: bool = False

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return described(self, f"{width} x {height}", f"seed={self.seed}", "refused" if self.is_refused else "")


@runtime_checkable
class PictureGenerator(Protocol):
    """What makes pictures of words.

    Examples
    --------
    >>> from clipkit.generate import DiffusionGenerator, PictureGenerator
    >>> isinstance(DiffusionGenerator("tiny-pipeline"), PictureGenerator)
    True
    """

    @property
    def model(self) -> str:
        """Its name, as the PNG files say it."""

    def generate(self, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
        """The pictures of n seeds, from `seed` on: the first of four is the one of n=1.

        Parameters
        ----------
        prompt : str
            What they show.
        n : int, default 1
            How many.
        seed : int, default 0
            Of the first; picture i has seed + i.

        Returns
        -------
        list of GeneratedPicture
            In the order of their seeds.

        Raises
        ------
        QueryError
            If the prompt is empty or longer than the model reads, or n is less than 1.
        """


def check_request(prompt: str, *, n: int, seed: int) -> None:
    """QueryError for an empty prompt, fewer than one picture, and seeds that torch does not take."""
    if not prompt.strip():
        raise QueryError("the prompt is empty", hint='say what the picture shows: "a red bicycle in snow"')
    if n < 1:
        raise QueryError(f"{n} pictures were asked for", hint="1 or more: --n 4")
    if not 0 <= seed <= HIGHEST_SEED - n:
        raise QueryError(f"{seed} is no seed", hint="0 or more, and less than 2**63: --seed 0")


def check_folder(folder: str | os.PathLike[str]) -> None:
    """ClipkitError where pictures cannot be kept there, before any is made; the folder is not made yet."""
    place = Path(folder)
    there = next(one for one in (place, *place.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ClipkitError(f"{there} is a file; pictures go to a folder", hint=ELSEWHERE)
    try:
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise ClipkitError(f"{there} cannot be written: {error.strerror or error}", hint=ELSEWHERE) from error


def write_picture(picture: GeneratedPicture, folder: Path, *, prompt: str, facts: Mapping[str, str]) -> Path:
    """A PNG file of a name of its own that says prompt, seed and `facts`; ClipkitError where it cannot be kept."""
    about = {"prompt": prompt, "seed": str(picture.seed), **facts}
    stem = f"{_as_name(prompt)}-{picture.seed}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write_new(folder, stem, to_png(picture.pixels, about))
    except OSError as error:
        raise ClipkitError(f"{folder} cannot be written: {error.strerror or error}", hint=ELSEWHERE) from error


def _as_name(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt.lower())[:LONGEST_NAME].strip("-_") or "picture"


def _write_new(folder: Path, stem: str, content: bytes) -> Path:
    """Under the first of these names that no file has; nothing is left of what could not be written whole."""
    for number in itertools.count(1):
        file = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            stream = open(file, "xb")  # noqa: SIM115  closed below, where what fails is another error
        except FileExistsError:
            continue
        try:
            with stream:
                stream.write(content)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        return file
    raise AssertionError  # the numbers do not end
