"""Crash recovery of `clipkit index`: a journal of files in flight, and a parent that restarts a run which died."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clipkit.core.interrupts import INTERRUPTED, interrupts_held
from clipkit.core.processes import HANG_SECONDS, cause_of_death, silence_libraries
from clipkit.errors import ClipkitError

FILE, TEXTS = "inflight", "inflight-texts"  # of what is decoded, and of what is read by the OCR engine
MAX_TRIES = 2  # alone, without a parent that knows what happened: then the file is taken for the culprit
_HEADER = struct.Struct(
    "<dHBB"
)  # started (monotonic seconds), length of the path (0: free), tries, length of the reason
_MAX_REASON = 200
_MAX_PATH = 4096
SLOT = _HEADER.size + _MAX_REASON + _MAX_PATH

POLL_SECONDS = 0.5
MAX_FRUITLESS = 3  # deaths in a row after which nothing that was in flight died alone: then it is not a picture
WATCHED = "CLIPKIT_WATCHED"  # set in the child


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

    def __init__(self, folder: Path, name: str = FILE) -> None:
        self._file = open(folder / name, "wb", buffering=0)  # noqa: SIM115  closed by `close`
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


def in_flight(folder: Path, name: str = FILE) -> list[InFlight]:
    """What the last run of the index in `folder` was decoding, or reading: now, or when it died."""
    try:
        data = (folder / name).read_bytes()
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


def blame(folder: Path, reason: str, name: str = FILE) -> None:
    """Write down what the process died of beside the files that were in flight."""
    text = reason.encode()[:_MAX_REASON]
    with open(folder / name, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        for start in range(0, size - SLOT + _MAX_PATH, SLOT):
            file.seek(start)
            started, length, tries, _ = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(start)
            file.write(_HEADER.pack(started, length, tries, len(text)) + text)


def watch(
    arguments: Sequence[str],
    folder: Path,
    *,
    hang_seconds: float = HANG_SECONDS,
    program: Sequence[str] = (sys.executable, "-P", "-m", "clipkit"),  # -P: no module from among the photos
) -> int:
    """Run `clipkit` with `arguments` in a child until it ends by itself; its exit code.

    The child writes the files it decodes into the journal of the index in `folder`. A child that is killed, aborts, or
    takes longer than `hang_seconds` over one picture is started again: it then decodes what was in flight alone, and
    marks as failed what kills it once more, with the reason that this function wrote beside it. Raises ClipkitError
    where that does not help.
    """
    fruitless = 0
    while True:
        began = time.monotonic()  # until the child has loaded its model, the journal is still that of the one before
        with _child([*program, *arguments]) as child, _forwarding(child):
            reason = _wait(child, folder, began, hang_seconds)
        if not reason:
            return child.returncode
        if child.returncode == -signal.SIGINT:  # from elsewhere, as `kill -INT`, or before it could answer
            return INTERRUPTED
        found = {name: [file for file in in_flight(folder, name) if file.started >= began] for name in (FILE, TEXTS)}
        suspects = [file for files in found.values() for file in files]
        fruitless = 0 if any(file.tries for file in suspects) else fruitless + 1
        if not suspects or fruitless >= MAX_FRUITLESS:
            hint = "the same command with --workers 1 --batch-size 4; what was committed is kept"
            raise ClipkitError(f"clipkit index {reason}, and no picture can be blamed for it", hint=hint)
        for name, files in found.items():
            if files:
                blame(folder, reason, name)


def has_watching_parent() -> bool:
    """Whether this process is a child of `watch`: a decoder that crashes here costs one picture."""
    return WATCHED in os.environ


def is_watched() -> bool:
    """Whether this process is a child of `watch`; it then ends when its parent is gone, lest the lock outlive it.

    Its C libraries print nothing from then on.
    """
    if not has_watching_parent():
        return False
    silence_libraries()

    def wait() -> None:
        os.read(0, 1)  # nobody writes: this returns when the parent's end closes (sys.stdin would abort at our end)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="clipkit-parent").start()
    return True


def _child(command: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, WATCHED: "1"}
    with interrupts_held():  # until the command line of the child can answer them
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)


@contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """The child has a session of its own, so Ctrl-C reaches it through here, once, and it has the last word."""

    def forward(*_: object) -> None:
        child.send_signal(signal.SIGINT)

    old = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _wait(child: subprocess.Popen[bytes], folder: Path, began: float, hang_seconds: float) -> str:
    """What the child died of, or "" where it ended by itself."""
    while True:
        try:
            child.wait(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if any(began <= file.started < now - hang_seconds for file in in_flight(folder)):
                child.kill()
                child.wait()
                return f"took longer than {hang_seconds:.0f} s"
            continue
        return cause_of_death(child.returncode)
