"""Copies of what was found, in a folder: nothing is overwritten, and a failure leaves no part of a picture."""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from secrets import token_hex

from clipkit.errors import ClipkitError
from clipkit.store.records import Hits

MAX_NAME_BYTES = 255  # of one name, on every common file system


def copy_hits(hits: Hits, folder: Path) -> list[Path]:
    """Where each picture now lies in `folder`, in the order of `hits`; the folder is made where there is none.

    Names are kept; where another file has the name already, it becomes `name (2).jpg`. A picture that lies there
    already, byte for byte under that name, is not copied again. Links are followed. Stops at the first failure with a
    ClipkitError that says how many were copied; where the disk is too small for all, before the first.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):  # pathlib's own raise for a name that is too long
        raise ClipkitError(f"{folder} is not a folder; nothing was copied")
    copies: list[Path] = []
    subject = os.fspath(folder)
    try:
        if hits:
            folder.mkdir(parents=True, exist_ok=True)
        needed_bytes = 0
        for subject in (hit.file for hit in hits):
            needed_bytes += _size_to_copy(subject, folder)
        _check_space(folder, needed_bytes)
        for subject in (hit.file for hit in hits):
            copies.append(already_there(subject, folder) or _copy(subject, folder))
    except OSError as error:
        reason = f"{subject}: {error.strerror or error}"
        raise ClipkitError(f"{len(copies):,} of {len(hits):,} pictures were copied, then: {reason}") from error
    return copies


def _size_to_copy(file: str, folder: Path) -> int:
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    return 0 if already_there(file, folder) else status.st_size


def _check_space(folder: Path, needed_bytes: int) -> None:
    if needed_bytes and needed_bytes > (free_bytes := shutil.disk_usage(folder).free):
        raise ClipkitError(
            f"the pictures take {needed_bytes:,} bytes, and {folder} has {free_bytes:,} free; nothing was copied",
            hint="copy to another disk, or fewer pictures: -t 10",
        )


def already_there(file: str, folder: Path) -> Path | None:
    """The copy of `file` in `folder`, under one of its names and with the same bytes; None if there is none."""
    for target in numbered_names(file, folder):
        if not os.path.lexists(target):
            return None
        if os.path.samestat(os.lstat(file), os.lstat(target)):  # the folder is where the picture comes from
            return target
        if not target.is_symlink() and filecmp.cmp(file, target, shallow=False):
            return target
    raise AssertionError("the numbers do not end")


def _copy(file: str, folder: Path) -> Path:
    part = folder / f".clipkit-{token_hex(8)}.part"
    try:
        shutil.copyfile(file, part)
        target = _move_to_free_name(part, numbered_names(file, folder))
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    with suppress(OSError):  # a share that keeps no dates or modes still takes pictures
        shutil.copystat(file, target)
    return target


def _move_to_free_name(part: Path, targets: Iterator[Path]) -> Path:
    for target in targets:
        try:
            target.open("xb").close()  # ours from here on; os.replace alone would overwrite what came meanwhile
        except FileExistsError:
            continue
        try:
            os.replace(part, target)
        except BaseException:
            target.unlink()
            raise
        return target
    raise AssertionError("the numbers do not end")


def numbered_names(file: str, folder: Path) -> Iterator[Path]:
    """`name.jpg`, `name (2).jpg`, `name (3).jpg` ...; a long name is cut, at a character, to make room."""
    name = os.path.basename(file)
    yield folder / name
    stem, suffix = os.path.splitext(name)
    for number in count(2):
        tail = f" ({number}){suffix}"
        start = os.fsencode(stem)[: MAX_NAME_BYTES - len(os.fsencode(tail))]
        while len(start) < len(os.fsencode(stem)) and os.fsencode(stem)[len(start)] & 0xC0 == 0x80:
            start = start[:-1]
        yield folder / (os.fsdecode(start) + tail)
