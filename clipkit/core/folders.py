"""Folders of this user: caches, and sockets of running processes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def cache_folder() -> Path:
    """CLIPKIT_CACHE, or the folder that this system keeps for caches."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("CLIPKIT_CACHE") or user_cache_dir("clipkit"))


def socket_file(name: str) -> Path:
    """Where a process that works with this cache listens: below XDG_RUNTIME_DIR, or in the cache folder itself."""
    own, cache = os.environ.get("XDG_RUNTIME_DIR"), cache_folder()
    if not own:
        return cache / "run" / name
    key = hashlib.sha256(os.fsencode(os.path.realpath(cache))).hexdigest()[:16]
    return Path(own) / "clipkit" / f"{key}-{name}"
