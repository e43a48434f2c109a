"""Where this user's caches lie; all of them may be deleted at any moment."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """CLIPKIT_CACHE, or the folder that this system keeps for caches."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("CLIPKIT_CACHE") or user_cache_dir("clipkit"))
