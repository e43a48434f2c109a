"""Waiting for what another thread, process or browser does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(fact: Callable[[], T], seconds: float) -> T:
    """The first value of `fact` that is true; AssertionError where none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return value
