"""Reading ahead of the encoder: files are read, hashed and decoded in threads, within a bound in bytes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from clipkit.errors import ImageError
from clipkit.images import cost_bytes, decode, read_file
from clipkit.records import Found, Picture, PixelRecipe

LIGHT = 48 * 2**20  # a file that takes more than this to read or decode is handled alone: a 12 MP PNG is still light
AHEAD = 64 * 2**20  # decoded pixels that may wait for the encoder: 440 pictures at 224 x 224


@dataclass(frozen=True)
class Reading:
    """What became of one file.

    sha256: None where it could not be read at all. picture: None where the bytes are known, or being read elsewhere, or
    bad. error: the reason in the last case, or why it could not be read. is_gone: it vanished since the scan.
    """

    found: Found
    sha256: bytes | None = None
    picture: Picture | None = None
    error: str | None = None
    is_gone: bool = False


def read_ahead(
    root: str, files: Iterable[Found], recipe: PixelRecipe, *, known: Container[bytes], workers: int
) -> Iterator[Reading]:
    """One Reading for each file, in order. Bytes whose SHA-256 is `known`, or was met before, are not decoded."""
    claims = _Claims(known)
    heavy = threading.Lock()
    height, width = recipe.size
    window = max(2 * workers, AHEAD // (3 * height * width))
    waiting: deque[Future[Reading]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="clipkit-read")
    try:
        for found in files:
            waiting.append(pool.submit(_read, root, found, recipe, claims, heavy))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Claims:
    """Each content is decoded by the first thread that meets it."""

    def __init__(self, known: Container[bytes]) -> None:
        self._known = known
        self._met: set[bytes] = set()
        self._lock = threading.Lock()

    def take(self, sha256: bytes) -> bool:
        with self._lock:
            if sha256 in self._known or sha256 in self._met:
                return False
            self._met.add(sha256)
            return True


def _read(root: str, found: Found, recipe: PixelRecipe, claims: _Claims, heavy: threading.Lock) -> Reading:
    file = os.path.join(root, found.path)
    with _turn(found.size_bytes, heavy):
        try:
            data = read_file(file)
        except ImageError as error:
            return Reading(found, error=_reason(error, file), is_gone=not os.path.lexists(file))
        sha256 = hashlib.sha256(data).digest()
        if not claims.take(sha256):
            return Reading(found, sha256)
        held = found.size_bytes > LIGHT
        with nullcontext() if held else _turn(len(data) + cost_bytes(data, recipe), heavy):
            try:
                return Reading(found, sha256, decode(data, recipe, name=file))
            except ImageError as error:
                return Reading(found, sha256, error=_reason(error, file))


def _turn(size_bytes: int, heavy: threading.Lock) -> AbstractContextManager[object]:
    return heavy if size_bytes > LIGHT else nullcontext()


def _reason(error: ImageError, file: str) -> str:
    return error.message.removeprefix(f"{file}: ")
