"""Child processes: how long those that decode may take, what they died of, and their end with their parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from clipkit.core.interrupts import INTERRUPTED

ENDS_WITH_PARENT = "CLIPKIT_ENDS_WITH_PARENT"  # set by a program that holds our standard input open as long as it lives
END_SECONDS = 20.0  # for the batch at hand, after the parent has gone
HANG_SECONDS = 30.0  # for one picture; the slowest honest one measured, a 100-megapixel PNG, takes 7


def cause_of_death(code: int) -> str:
    """What a process died of, from its exit code; "" where it ended by itself."""
    if os.name == "nt":
        return f"crashed with code {code:#x}" if code > 0xFFFF else ""
    if code >= 0:
        return ""
    name = signal.Signals(-code).name
    return "was killed, as by a lack of memory" if -code == signal.SIGKILL else f"crashed with {name}"


def silence_libraries() -> None:
    """From now on only Python writes to stderr: what C libraries, as libtiff, print there of odd files is dropped."""
    if sys.stderr is None:
        return
    sys.stderr.flush()
    own = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = sys.__stderr__ = own  # type: ignore[misc]  # tracebacks too


def end_with_parent() -> None:
    """From now on this process is interrupted when its parent is gone, and killed where that is not enough."""
    del os.environ[ENDS_WITH_PARENT]  # children of its own have another standard input

    def wait() -> None:
        os.read(0, 1)  # nobody writes: this returns when the parent's end closes
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(END_SECONDS)
        os._exit(INTERRUPTED)

    threading.Thread(target=wait, daemon=True, name="clipkit-parent").start()
