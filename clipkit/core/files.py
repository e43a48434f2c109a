"""What is done to any file: its content told from others, and a new content put in its place whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path


def digest(file: str | os.PathLike[str]) -> str | None:
    """SHA-256 of the content, in hex; None where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def replace_file(file: Path, content: bytes) -> None:
    """Write the file in one step that a power cut leaves done or undone, its folder too; OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".clipkit-{secrets.token_hex(8)}.part")  # short, whatever the name's length
    try:
        with open(beside, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, file)
        _sync_folder(file.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
