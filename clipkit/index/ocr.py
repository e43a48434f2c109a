"""Text in pictures: read once for each content, and kept in the index."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from clipkit.core.progress import Failure, Progress
from clipkit.errors import ImageError
from clipkit.images.decode import read_file
from clipkit.images.metadata import clean
from clipkit.images.thumbnails import Canvas, thumbnail
from clipkit.index.crash_recovery import TEXTS, InFlight, Journal, in_flight
from clipkit.index.image_index import ImageIndex
from clipkit.store.database import writing

SIDE = 2_000  # pixels: RapidOCR makes larger pictures smaller itself
MAX_TEXT = 10_000  # characters of one picture
COMMIT_SECONDS = 10.0  # of reading, that a power cut may cost


@dataclass(frozen=True)
class TextReport:
    """What one run did. read: pictures. found: those with text. failed: what is read again by the next run.

    But a picture of which the engine died is not: from then on it has no text.
    """

    read: int
    found: int
    failed: tuple[Failure, ...]


def read_texts(
    index: ImageIndex, read: Callable[[Canvas], str], *, progress: Callable[[Progress], None] | None = None
) -> TextReport:
    """Read the text of all pictures of which it was never read; what was read stays, also after Ctrl-C.

    read: from a picture, at most SIDE pixels a side, to its text.
    """
    with writing(index.folder):
        suspects = {file.path: file for file in in_flight(index.folder, TEXTS)}  # of a run that died
        unread = index.store.unread_texts().items()
        pending = sorted(unread, key=lambda one: one[1] not in suspects)
        run = _Run(index)
        with closing(Journal(index.folder, TEXTS)) as journal, run:
            for done, (sha256, path) in enumerate(pending, start=1):
                suspect = suspects.get(path, InFlight(path, 0.0, 0))
                if suspect.is_culprit:
                    run.give_up(sha256, path, f"its text reader {suspect.reason or 'took clipkit down'}")
                else:
                    with journal.entry(path, tries=suspect.tries + 1):
                        run.take(sha256, path, read)
                if progress:
                    progress(Progress(done, len(pending), path))
    return TextReport(run.read, run.found, tuple(run.failed))


class _Run:
    def __init__(self, index: ImageIndex) -> None:
        self.read = self.found = 0
        self.failed: list[Failure] = []
        self._index = index
        self._waiting: dict[bytes, str] = {}
        self._committed = time.monotonic()

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def take(self, sha256: bytes, path: str, read: Callable[[Canvas], str]) -> None:
        file = os.path.join(self._index.root, path)
        try:
            canvas = thumbnail(file, SIDE).canvas
            if hashlib.sha256(read_file(file)).digest() != sha256:
                raise ImageError("it has changed; clipkit index first")
        except ImageError as error:
            self.failed.append(Failure(path, error.message.removeprefix(f"{file}: ")))
            return
        self._waiting[sha256] = text = clean(read(canvas), MAX_TEXT)
        self.read += 1
        self.found += bool(text)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.flush()

    def give_up(self, sha256: bytes, path: str, reason: str) -> None:
        """It counts as a picture without text, lest every run die of it."""
        self.failed.append(Failure(path, reason))
        self._waiting[sha256] = ""
        self.flush()  # now: the engine may die of another before the next commit

    def flush(self) -> None:
        if self._waiting:
            with self._index.store.transaction() as writer:
                writer.put_texts(self._waiting)
        self._waiting, self._committed = {}, time.monotonic()
