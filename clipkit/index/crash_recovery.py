"""Files in flight, written down before they are decoded, so that one that takes the process down can be named."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FILE = "inflight"
MAX_TRIES = 2  # alone, without a parent that knows what happened: then the file is taken for the culprit
_HEADER = struct.Struct(
    "<dHBB"
)  # started (monotonic seconds), length of the path (0: free), tries, length of the reason
_MAX_REASON = 200
_MAX_PATH = 4096
SLOT = _HEADER.size + _MAX_REASON + _MAX_PATH


@dataclass(frozen=True)
class InFlight:
    """A file that was being decoded.

    started: monotonic seconds. tries: how often it was the only one in flight, this time included; 0: others were too.
    reason: what the process died of, where somebody knows.
    """

    path: str
    started: float
    tries: int
    reason: str = ""

    @property
    def is_culprit(self) -> bool:
        """It was alone, and the process died of it."""
        return self.tries >= (1 if self.reason else MAX_TRIES)


class Journal:
    """One slot a decoding thread, in a small file. Never synced: crashes of the process are what it is for."""

    def __init__(self, folder: Path) -> None:
        self._file = open(folder / FILE, "wb", buffering=0)  # noqa: SIM115  closed by `close`
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._slots = 0

    @contextmanager
    def entry(self, path: str, *, tries: int = 0) -> Iterator[None]:
        """While this lasts, `path` is in flight."""
        raw = os.fsencode(path)[:_MAX_PATH]
        with self._lock:
            slot = self._free.pop() if self._free else self._slots
            self._slots = max(self._slots, slot + 1)
            self._write(slot, _HEADER.pack(time.monotonic(), len(raw), tries, 0) + bytes(_MAX_REASON) + raw)
        try:
            yield
        finally:
            with self._lock:
                self._write(slot, _HEADER.pack(0.0, 0, 0, 0))
                self._free.append(slot)

    def close(self) -> None:
        """The run ended by itself: nothing is in flight."""
        self._file.close()
        with suppress(OSError):
            os.unlink(self._file.name)

    def _write(self, slot: int, data: bytes) -> None:
        with suppress(OSError):  # a full disk only means that a crash could not be explained
            self._file.seek(slot * SLOT)
            self._file.write(data)


def in_flight(folder: Path) -> list[InFlight]:
    """What the last run of the index in `folder` was decoding: now, or when it died."""
    try:
        data = (folder / FILE).read_bytes()
    except OSError:
        return []
    found = []
    for start in range(0, len(data) - SLOT + _MAX_PATH, SLOT):
        started, length, tries, reason_length = _HEADER.unpack_from(data, start)
        reason = data[start + _HEADER.size :][:reason_length].decode(errors="replace")
        raw = data[start + _HEADER.size + _MAX_REASON :][:length]
        if length and len(raw) == length:
            found.append(InFlight(os.fsdecode(raw), started, tries, reason))
    return found


def blame(folder: Path, reason: str) -> None:
    """Write down what the process died of beside the files that were in flight."""
    text = reason.encode()[:_MAX_REASON]
    with open(folder / FILE, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        for start in range(0, size - SLOT + _MAX_PATH, SLOT):
            file.seek(start)
            started, length, tries, _ = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(start)
            file.write(_HEADER.pack(started, length, tries, len(text)) + text)
