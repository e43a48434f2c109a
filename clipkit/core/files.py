"""Atomic file writes and content digests."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from clipkit.errors import ClipkitError


def digest(file: str | os.PathLike[str]) -> str | None:
    """SHA-256 of the content, in hex; None where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


@contextmanager
def replacing(file: Path, *, sync: bool = True, stem: str = ".clipkit") -> Iterator[Path]:
    """A new path beside `file` to write to; a clean exit moves it there in one step.

    With `sync` a power cut leaves that step done or undone: content and folder are on the disk when it returns. Without
    it, for what can be made again, the file may be empty then. After an OSError nothing is left behind; a process that
    is killed leaves `stem`-RANDOM.part.
    """
    beside = file.with_name(f"{stem}-{secrets.token_hex(8)}.part")  # short, whatever the name's length
    try:
        yield beside
        if sync:
            sync_file(beside)
        os.replace(beside, file)
        if sync:
            sync_folder(file.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def replace_file(file: Path, content: bytes, *, stem: str = ".clipkit") -> None:
    """`replacing` with this content; the folder is made where it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, stem=stem) as beside, open(beside, "xb") as stream:
        stream.write(content)


@contextmanager
def synced(file: Path) -> Iterator[IO[bytes]]:
    """A new file to write to, whose content is on the disk after a clean exit."""
    with open(file, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def sync_file(file: Path) -> None:
    """Its content is on the disk when this returns."""
    with open(file, "r+b") as stream:  # Windows syncs only what may be written
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """What was created, renamed or removed in it stays so after a power cut. OSError where the disk fails."""
    if os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network shares cannot sync a folder
            raise
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Make the folder, and try it: ClipkitError now is better than after an hour of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ClipkitError(
            f"{folder} cannot be written: {error.strerror or error}", hint="another place: --out FILE"
        ) from error
