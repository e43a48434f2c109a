"""`python -m clipkit`: the command line."""

from __future__ import annotations

import os
import sys

from clipkit.cli.main import end_at_once, main
from clipkit.index.crash_recovery import WATCHED


def end(code: int) -> None:
    """The child of `clipkit index` ends at once."""
    if WATCHED in os.environ:
        end_at_once(code)
    sys.exit(code)


if __name__ == "__main__":
    end(main())
