"""Places of shards, as somebody names them: told from folders of pictures without opening anything heavy."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clipkit.index.places import FOLDER, is_url
from clipkit.store.database import FILE

ABOUT, LAYOUT, PART = "clipkit.json", "shards", "part-"


def is_shards(place: str) -> bool:
    """Whether it is a URL, or a folder that says it is of shards or has some, and that has no index of pictures."""
    if is_url(place):
        return True
    folder = Path(place)
    if not folder.is_dir() or (folder / FOLDER / FILE).exists():
        return False
    if (folder / ABOUT).is_file():
        return _layout(folder / ABOUT) == LAYOUT
    return any(name.startswith(PART) and name.endswith(".parquet") for name in os.listdir(folder))


def _layout(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes()).get("layout"))
    except (OSError, ValueError, AttributeError):
        return LAYOUT  # damaged: reading it says so
