"""A decoder process that dies of files named boom.

`python -m tests.support.boom_decoder abort|segfault|memory|hang FILE_NUMBER`
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import numpy as np

from clipkit.images import decoder_process


def guard(operation: str) -> None:
    """Let the operation die when it is given such a file."""
    honest = decoder_process.OPERATIONS[operation]

    def run(data: bytes, name: str, recipe: object) -> object:
        if "boom" in os.path.basename(name):
            _die(sys.argv[1])
        return honest(data, name, recipe)  # type: ignore[arg-type]

    decoder_process.OPERATIONS[operation] = run  # type: ignore[assignment]


def _die(how: str) -> None:
    if how == "abort":
        os.abort()
    if how == "segfault":
        ctypes.string_at(0)
    if how == "memory":
        np.ones(2**27, np.uint8)  # and then what the kernel does when there is no more
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


if __name__ == "__main__":
    for name in decoder_process.OPERATIONS:
        guard(name)
    decoder_process.main()
