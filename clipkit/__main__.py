"""`python -m clipkit`: the command line."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

from clipkit.cli.main import main
from clipkit.index.crash_recovery import WATCHED


def end(code: int) -> None:
    """End the child of `clipkit index` at once: torch's libraries read 200 MB of themselves to say goodbye."""
    if WATCHED in os.environ:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end(main())
