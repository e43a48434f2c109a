"""Ctrl-C, also while a C library is imported: numpy and onnxruntime then say ImportError, and not always of what."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # the exit code, as shells have it

_pressed = threading.Event()


def remember_interrupts() -> None:
    """From now on `is_interrupt` knows of every Ctrl-C of this process, except where something else handles it."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # of `interrupts_held` in a parent


@contextmanager
def interrupts_held() -> Iterator[None]:
    """A process that is started here meets Ctrl-C only after its `remember_interrupts`, also one of before that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error of an import, or is the error itself."""
    if _pressed.is_set() and error is not None:
        return True
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _interrupt(signal_: int, frame: FrameType | None) -> NoReturn:
    _pressed.set()
    raise KeyboardInterrupt
