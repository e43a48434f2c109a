"""Thumbnail cache on disk: made once, upright, bounded in bytes, the oldest out first; visible ones come first.

Pictures are decoded in processes beside this one, where a crash costs the picture alone.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from clipkit.core.files import replacing
from clipkit.errors import ClipkitError, ImageError
from clipkit.images.thumbnails import thumbnail, to_jpeg

SIZES = {
    "thumb": (512, 320),
    "large": (2048, 2048),
}  # boxes, in pixels: rows of the grid are 200 high, and screens fine
MAX_BYTES = 2 * 10**9
CHECK_EVERY = 64 * 2**20  # bytes written between two looks at the whole cache
KEEP = 0.9  # of MAX_BYTES remain after the oldest have gone
AT_ONCE = 2  # decoders; a large picture takes up to 400 MB
MOST_WAITING = 240  # pictures to make ahead; older wishes are forgotten
RETRY_SECONDS = 600.0  # after a picture has failed: one that hangs holds a decoder for half a minute
MOST_FAILED = 10_000  # remembered


class Thumbnails:
    """JPEGs by content and size, in `folder`. Safe to share between threads, and between processes.

    A file's modification time says when it was last asked for.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._decoders = threading.BoundedSemaphore(AT_ONCE)
        self._waiting: deque[Callable[[], object]] = deque(maxlen=MOST_WAITING)
        self._lock = threading.Condition()
        self._written = CHECK_EVERY  # the first write looks at what earlier runs have left
        self._worker: threading.Thread | None = None
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()  # by content: until when, and why

    def get(self, file: Path, content: str, size: str) -> bytes:
        """The JPEG of a picture; ImageError where it cannot be read. content: what tells it from any other."""
        target = self._target(content, size)
        with suppress(OSError):
            data = target.read_bytes()
            os.utime(target)
            return data
        with self._decoders:
            with suppress(OSError):
                return target.read_bytes()  # made while this thread waited
            data = self._make(file, content, size)
        with suppress(OSError):  # a full disk costs time, not pictures
            self._write(target, data)
        return data

    def prepare(self, wishes: Sequence[Callable[[], object]]) -> None:
        """Run each in the background, the newest wishes first, in their order; those that fail fail in silence."""
        with self._lock:
            self._waiting.extend(reversed(wishes))
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True, name="clipkit-thumbnails")
                self._worker.start()
            self._lock.notify()

    def shrink(self, limit: int) -> None:
        """Remove the oldest files until the rest takes at most `limit` bytes."""
        files = []
        for file in self.folder.glob("*/*"):
            with suppress(OSError):
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= limit:
                return
            with suppress(OSError):
                file.unlink()
                total -= size

    def _make(self, file: Path, content: str, size: str) -> bytes:
        until, reason = self._failed.get(content, (0.0, ""))
        if time.monotonic() < until:
            raise ImageError(reason)
        try:
            return to_jpeg(thumbnail(file, SIZES[size]).canvas)
        except ImageError as error:
            self._failed[content] = time.monotonic() + RETRY_SECONDS, error.message
            if len(self._failed) > MOST_FAILED:
                self._failed.popitem(last=False)
            raise

    def _target(self, content: str, size: str) -> Path:
        name = hashlib.sha256(f"{content} {SIZES[size]}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.jpg"

    def _write(self, target: Path, data: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(target, sync=False) as part:
            part.write_bytes(data)
        with self._lock:
            self._written += len(data)
            is_due = self._written >= min(CHECK_EVERY, self._max_bytes // 10)
            self._written = 0 if is_due else self._written
        if is_due:
            self.shrink(int(KEEP * self._max_bytes))

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._waiting:
                    self._lock.wait()
                make = self._waiting.pop()
            with suppress(ClipkitError, OSError):
                make()
