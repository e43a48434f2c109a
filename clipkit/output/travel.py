"""Companion files of pictures that are copied or moved: which go along, and under which name."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from clipkit.index.companions import Companions

MAX_NAME_BYTES = 255  # of one name, on every common file system


class Travel:
    """Files beside pictures, looked up a folder at a time."""

    def __init__(self) -> None:
        self._folders: dict[str, Companions] = {}

    def companions(self, file: str) -> list[str]:
        """Whole paths of what belongs to a picture; no links, and nothing that is no file."""
        folder, name = os.path.split(file)
        beside = (os.path.join(folder, one) for one in self._names(folder).of(name))
        return [one for one in beside if os.path.isfile(one) and not os.path.islink(one)]

    def others(self, file: str, companion: str) -> list[str]:
        """Whole paths of other pictures to which a companion of `file` belongs as well."""
        folder, name = os.path.split(file)
        names = self._names(folder).others(name, os.path.basename(companion))
        return [os.path.join(folder, one) for one in names]

    def _names(self, folder: str) -> Companions:
        if folder not in self._folders:
            try:
                self._folders[folder] = Companions(os.listdir(folder or "."))
            except OSError:  # it may be entered, and not listed
                self._folders[folder] = Companions([])
        return self._folders[folder]


def place_beside(companion: str, file: str, target: Path) -> Path:
    """Where a companion of `file` lies when that has become `target`: `x.CR2` of `x.jpg` beside `y.jpg` is `y.CR2`."""
    return target.with_name(os.path.splitext(target.name)[0] + _tail(companion, file))


def free_names(file: str, folder: Path, companions: list[str], *, how: str) -> Iterator[Path]:
    """The names that `file` may get in `folder`: those of `numbered_names` where no companion meets another file.

    A name that is there already is always among them: the caller looks whether it is this picture.
    """
    for target in numbered_names(file, folder, [_tail(one, file) for one in companions]):
        places = ((one, place_beside(one, file, target)) for one in companions)
        if os.path.lexists(target) or not any(_is_taken(one, place, how) for one, place in places):
            yield target


def numbered_names(file: str, folder: Path, tails: list[str]) -> Iterator[Path]:
    """`name.jpg`, `name (2).jpg`, `name (3).jpg` ...; a long name is cut, at a character, to make room.

    tails: of companions, which need room too.
    """
    name = os.path.basename(file)
    yield folder / name
    stem, suffix = os.path.splitext(name)
    longest = max(len(os.fsencode(tail)) for tail in (suffix, *tails))
    for number in count(2):
        tail = f" ({number})"
        start = os.fsencode(stem)[: MAX_NAME_BYTES - len(tail) - longest]
        while len(start) < len(os.fsencode(stem)) and os.fsencode(stem)[len(start)] & 0xC0 == 0x80:
            start = start[:-1]
        yield folder / (os.fsdecode(start) + tail + suffix)


def _tail(companion: str, file: str) -> str:
    shot = os.path.splitext(os.path.basename(file))[0]
    return os.path.basename(companion)[len(shot) :]


def _is_taken(companion: str, place: Path, how: str) -> bool:
    """Whether another file lies where a companion would go; a copy may find itself there."""
    if not os.path.lexists(place):
        return False
    return (
        how != "copy" or place.is_symlink() or not place.is_file() or not filecmp.cmp(companion, place, shallow=False)
    )
