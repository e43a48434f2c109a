"""`clipkit`, and `python -m clipkit`: the command line, or a service that has its answer ready."""

from __future__ import annotations

import os
import sys

from clipkit.cli.keep_warm import FLAG
from clipkit.cli.keep_warm import search as search_warm

WATCHED = "CLIPKIT_WATCHED"  # of clipkit.index.crash_recovery, which is not imported for it


def run() -> int:
    """The exit code of the command line in sys.argv; the child of `clipkit index` ends at once."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["search"] and FLAG in arguments and (code := search_warm(arguments)) is not None:
        return code
    from clipkit.cli.main import end_at_once, main

    code = main()
    if WATCHED in os.environ:
        end_at_once(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
