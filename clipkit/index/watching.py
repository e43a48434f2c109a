"""A light parent for `clipkit index`: when a decoder takes the run down, it starts it again, and the run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clipkit.errors import ClipkitError
from clipkit.index.crash_recovery import blame, in_flight

HANG_SECONDS = 30.0  # for one picture; the slowest honest one measured, a 100-megapixel PNG, takes 7
POLL_SECONDS = 0.5
MAX_FRUITLESS = 3  # deaths in a row after which nothing that was in flight died alone: then it is not a picture
WATCHED = "CLIPKIT_WATCHED"  # set in the child


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
        suspects = [file for file in in_flight(folder) if file.started >= began]
        fruitless = 0 if any(file.tries for file in suspects) else fruitless + 1
        if not suspects or fruitless >= MAX_FRUITLESS:
            hint = "the same command with --workers 1 --batch-size 4; what was committed is kept"
            raise ClipkitError(f"clipkit index {reason}, and no picture can be blamed for it", hint=hint)
        blame(folder, reason)


def is_watched() -> bool:
    """Whether this process is a child of `watch`; it then ends when its parent is gone, lest the lock outlive it."""
    if WATCHED not in os.environ:
        return False

    def wait() -> None:
        os.read(0, 1)  # nobody writes: this returns when the parent's end closes (sys.stdin would abort at our end)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="clipkit-parent").start()
    return True


def _child(command: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, WATCHED: "1"}
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
        return _death(child.returncode)


def _death(code: int) -> str:
    if os.name == "nt":
        return f"crashed with code {code:#x}" if code > 0xFFFF else ""
    if code >= 0:
        return ""
    name = signal.Signals(-code).name
    return "was killed, as by a lack of memory" if -code == signal.SIGKILL else f"crashed with {name}"
