"""Checksummed tensor files: arrays and a JSON payload in one safetensors file, whole or recognised as damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.core.files import replace_file
from clipkit.errors import ModelError

Arrays = Mapping[str, npt.NDArray[Any]]
PAYLOADS = ("payload", "said", "head")  # the metadata key of the payload; the last two are of files before 0.1.0


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What was in one: arrays by name, the payload as JSON gave it, and which of the accepted formats it has."""

    arrays: dict[str, npt.NDArray[Any]]
    payload: Any
    form: str


def write_tensors(file: str | os.PathLike[str], arrays: Arrays, payload: Any, *, form: str) -> None:
    """Replace `file` in one step that a power cut leaves done or undone."""
    from safetensors.numpy import save

    text = json.dumps(payload)
    whole = {name: np.array(value, order="C", ndmin=0) for name, value in arrays.items()}
    content = save(whole, metadata={"format": form, "payload": text, "sha256": _checksum(whole, text)})
    replace_file(Path(file), _in_order(content))


def read_tensors(
    file: str | os.PathLike[str], *, forms: Collection[str], kind: str = "file of clipkit", hint: str | None = None
) -> TensorFile:
    """Arrays and payload; ModelError where the file is not there, has none of these formats, or is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  no dict
    except FileNotFoundError as error:
        raise ModelError(f"{file} is not there", hint=hint) from error
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{file} is not a {kind}: {error}", hint=hint) from error
    form = metadata.get("format", "no format")
    if form not in forms:
        raise ModelError(f"{file} is not a {kind} that this clipkit knows: {form!r}", hint=hint)
    text = next((metadata[key] for key in PAYLOADS if key in metadata), "")
    if metadata.get("sha256") not in (_checksum(arrays, text), _checksum(arrays, text, with_types=False)):
        raise ModelError(f"{file} is damaged: its content is not what was written", hint=hint)
    try:
        return TensorFile(arrays, json.loads(text), form)
    except ValueError as error:
        raise ModelError(f"{file} is damaged: {error}", hint=hint) from error


def read_payload(file: str | os.PathLike[str]) -> Any:
    """The payload from the header alone, unchecked; None where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as stored:
            return json.loads((stored.metadata() or {}).get("payload", "null"))
    except (OSError, SafetensorError, ValueError):
        return None


def _in_order(content: bytes) -> bytes:
    """The same file with its header in alphabetical order: safetensors writes the metadata in any, from run to run."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # the arrays begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[end:]


def _checksum(arrays: Arrays, text: str, *, with_types: bool = True) -> str:
    """Of names, shapes, types and bytes; heads were once written without the types."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        kind = f" {arrays[name].dtype}" if with_types else ""
        digest.update(f"{name} {arrays[name].shape}{kind}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
