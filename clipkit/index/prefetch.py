"""Prefetch for the encoder: files are read, hashed and decoded in threads, within a bound in bytes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from clipkit.errors import ImageError
from clipkit.images import guarded_decoder
from clipkit.images.decode import LIGHT, cost_bytes, decode, read_file
from clipkit.images.formats import file_of
from clipkit.images.recipe import Picture, PixelRecipe
from clipkit.index.crash_recovery import Journal, has_watching_parent
from clipkit.index.sidecars import read_sidecar
from clipkit.store.records import ScannedFile

AHEAD = 64 * 2**20  # decoded pixels that may wait for the encoder: 440 pictures at 224 x 224


@dataclass(frozen=True)
class Reading:
    """What became of one file.

    sha256: None where it could not be read at all. picture: None where the bytes are known, or being read elsewhere, or
    bad. error: the reason in the last case, or why it could not be read. is_gone: it vanished since the scan.
    """

    found: ScannedFile
    sha256: bytes | None = None
    picture: Picture | None = None
    error: str | None = None
    is_gone: bool = False


def read_ahead(
    root: str,
    files: Iterable[ScannedFile],
    *,
    recipe: PixelRecipe,
    known: Container[bytes],
    workers: int,
    journal: Journal | None = None,
    tries: int = 0,
    content: Callable[[str], bytes | None] = lambda _: None,
) -> Iterator[Reading]:
    """One Reading for each file, in order. Bytes whose SHA-256 is `known`, or was met before, are not decoded.

    `journal` says at every moment which files a decoder has in its hands, with `tries`. content: the bytes of a path
    that are here already, or None, or an ImageError that is raised. Decoders run in processes
    beside this one, unless a parent watches it.
    """
    job = _Job(root, recipe, known, journal, tries, content)
    height, width = recipe.size
    window = max(2 * workers, AHEAD // (3 * height * width))
    waiting: deque[Future[Reading]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="clipkit-read")
    try:
        for found in files:
            waiting.append(pool.submit(job.read, found))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Job:
    """What the threads of one `read_ahead` share."""

    def __init__(
        self,
        root: str,
        recipe: PixelRecipe,
        known: Container[bytes],
        journal: Journal | None,
        tries: int,
        content: Callable[[str], bytes | None],
    ) -> None:
        self._root, self._recipe, self._known = root, recipe, known
        self._journal, self._tries, self._content = journal, tries, content
        self._is_guarded = guarded_decoder.can_guard() and not has_watching_parent()
        self._met: set[bytes] = set()
        self._met_lock, self._heavy = threading.Lock(), threading.Lock()

    def read(self, found: ScannedFile) -> Reading:
        file = os.path.join(self._root, found.path)
        with _turn(found.size_bytes, self._heavy):
            try:
                data = self._content(found.path) or read_file(file)
            except ImageError as error:
                return Reading(found, error=_reason(error, file), is_gone=not os.path.lexists(file_of(file)))
            sha256 = hashlib.sha256(data).digest()
            if not self._is_first(sha256):
                return Reading(found, sha256)
            try:
                return Reading(found, sha256, _with_sidecar(self._decode(data, found, file), found, file))
            except ImageError as error:
                return Reading(found, sha256, error=_reason(error, file))

    def _is_first(self, sha256: bytes) -> bool:
        """Each content is decoded by the first thread that meets it."""
        with self._met_lock:
            if sha256 in self._known or sha256 in self._met:
                return False
            self._met.add(sha256)
            return True

    def _decode(self, data: bytes, found: ScannedFile, file: str) -> Picture:
        if self._is_guarded:
            with self._in_flight(found):
                return guarded_decoder.decode(data, self._recipe, name=file, is_hashed=True)
        with self._in_flight(found):  # not while it waits for its turn: a long time in flight means that it hangs
            cost = len(data) + cost_bytes(data, self._recipe, found.path)
        has_turn = found.size_bytes > LIGHT
        with nullcontext() if has_turn else _turn(cost, self._heavy), self._in_flight(found):
            return decode(data, self._recipe, name=file, is_hashed=True)

    def _in_flight(self, found: ScannedFile) -> AbstractContextManager[None]:
        return self._journal.entry(found.path, tries=self._tries) if self._journal else nullcontext()


def _with_sidecar(picture: Picture, found: ScannedFile, file: str) -> Picture:
    return replace(picture, metadata=read_sidecar(file).over(picture.metadata)) if found.sidecar else picture


def _turn(size_bytes: int, heavy: threading.Lock) -> AbstractContextManager[object]:
    return heavy if size_bytes > LIGHT else nullcontext()


def _reason(error: ImageError, file: str) -> str:
    return error.message.removeprefix(f"{file}: ")
