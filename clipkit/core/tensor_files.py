"""Arrays and what is said of them in one safetensors file, whole or not at all, and known when it is damaged."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.files import replace_file
from clipkit.errors import ClipkitError, ModelError

Arrays = Mapping[str, npt.NDArray[Any]]


def check_writable(folder: Path) -> None:
    """Make the folder, and try it: ClipkitError now is better than after an hour of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ClipkitError(f"{folder} cannot be written: {error.strerror or error}", hint="another --out") from error


def write_sealed(file: Path, arrays: Arrays, said: Any, *, form: str) -> None:
    """Replace `file` in one step that a power cut leaves done or undone."""
    from safetensors.numpy import save

    text = json.dumps(said)
    whole = {name: np.array(value, order="C", ndmin=0) for name, value in arrays.items()}
    content = save(whole, metadata={"format": form, "said": text, "sha256": _digest(whole, text)})
    replace_file(file, content)


def read_sealed(file: Path, *, form: str, hint: str | None = None) -> tuple[dict[str, npt.NDArray[Any]], Any]:
    """Arrays and what was said; ModelError where the file is not there, not of this form or not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no dict
    except FileNotFoundError as error:
        raise ModelError(f"{file} is not there", hint=hint) from error
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{file} is damaged: {error}", hint=hint) from error
    if metadata.get("format") != form:
        raise ModelError(f"{file} is no file of this kind: {metadata.get('format', 'no format')!r}", hint=hint)
    if metadata.get("sha256") != _digest(arrays, metadata.get("said", "")):
        raise ModelError(f"{file} is damaged: its content is not what was written", hint=hint)
    return arrays, json.loads(metadata["said"])


def _digest(arrays: Arrays, said: str) -> str:
    digest = hashlib.sha256(said.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} {arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
