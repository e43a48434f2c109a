"""`clipkit`, and `python -m clipkit`: the command line, or a service that has its answer ready."""

from __future__ import annotations

import os
import sys

from clipkit.cli.keep_warm import FLAG
from clipkit.cli.keep_warm import search as search_warm

# Of clipkit.index.crash_recovery, clipkit.core.processes and clipkit.core.interrupts, which are not imported for them.
WATCHED, ENDS_WITH_PARENT, INTERRUPTED = "CLIPKIT_WATCHED", "CLIPKIT_ENDS_WITH_PARENT", 130


def run() -> int:
    """The exit code of the command line in sys.argv; the child of `clipkit index` ends at once."""
    if ENDS_WITH_PARENT in os.environ:
        from clipkit.core.processes import end_with_parent

        end_with_parent()
    arguments = sys.argv[1:]
    if arguments[:1] == ["search"] and FLAG in arguments and (code := search_warm(arguments)) is not None:
        return code
    try:
        from clipkit.cli.main import end_at_once, main
    except KeyboardInterrupt:
        return INTERRUPTED

    code = main()
    if WATCHED in os.environ:
        end_at_once(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
