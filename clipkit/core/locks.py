"""File locks between processes; each dies with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def exclusive_lock(file: Path, *, seconds: float) -> Iterator[None]:
    """Be the only one that has the lock `file`, which is made; TimeoutError where another has it for `seconds`."""
    from filelock import FileLock

    lock = FileLock(file, timeout=seconds)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def mark_in_use(file: Path) -> IO[bytes] | None:
    """A handle of a file that `is_in_use` sees until it is closed; None where the system has no such locks."""
    with suppress(ImportError, OSError):
        import fcntl

        handle = open(file, "rb")  # noqa: SIM115  the caller's to close
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return handle
    return None


def is_in_use(file: Path) -> bool:
    """Whether a process has marked the file. On Windows never: there an open file cannot be removed anyway."""
    try:
        import fcntl

        with open(file, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
