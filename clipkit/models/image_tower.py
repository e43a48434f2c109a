"""Image tower of a model as its content: two models that share it give pictures the same embeddings."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.files import replace_file
from clipkit.core.folders import cache_folder
from clipkit.models import registry
from clipkit.models.exports import open_clip_folder
from clipkit.models.hub import fingerprint
from clipkit.models.registry import SAFE_WEIGHTS

PREFIX = "visual."  # of the image tower's weights in every model of open_clip
KNOWN = "image_towers.json"


def image_tower_sha256(weights_sha256: str, source: str) -> str:
    """SHA-256 of the image tower in the weights of that SHA-256; "" where they are not on this disk as safetensors.

    Of names, shapes and values as float32, so that a tower is itself in any precision that is exact. What was computed
    once is remembered by the SHA-256 of all the weights, and needs the file no more. source: as `Encoder` has it.
    """
    known = _known()
    if weights_sha256 not in known and (file := _weights_file(source)) and fingerprint(file) == weights_sha256:
        known[weights_sha256] = _tower_sha256(file)
        with suppress(OSError):  # it is computed again then
            replace_file(cache_folder() / "models" / KNOWN, json.dumps(known).encode())
    return known.get(weights_sha256, "")


def _known() -> dict[str, str]:
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads((cache_folder() / "models" / KNOWN).read_bytes()))
    return {}


def _weights_file(source: str) -> Path | None:
    """The weights of the starter or of a folder; nothing is fetched, and a name alone is no place on this disk."""
    folder = registry.starter_folder() if source == "starter" else Path(source.removeprefix("local-dir:"))
    if not folder.is_absolute():
        return None
    file = open_clip_folder(folder) / SAFE_WEIGHTS
    return file if file.is_file() else None


def _tower_sha256(file: Path) -> str:
    from safetensors import SafetensorError, safe_open

    digest = hashlib.sha256()
    try:
        with safe_open(file, "np") as stored:
            names = sorted(name for name in stored.keys() if name.startswith(PREFIX))  # noqa: SIM118  no dict
            for name in names:
                values: npt.NDArray[Any] = stored.get_tensor(name)
                plain = values.astype(np.float32) if values.dtype.kind == "f" else values
                digest.update(f"{name} {plain.dtype} {plain.shape}".encode())
                digest.update(np.ascontiguousarray(plain).tobytes())
    except (OSError, SafetensorError, ValueError, TypeError):  # bfloat16, say, which numpy has not
        return ""
    return digest.hexdigest() if names else ""
