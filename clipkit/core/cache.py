"""Cached arrays in the cache folder of this user. All of it may be deleted at any moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy.typing as npt

from clipkit.core.folders import cache_folder
from clipkit.core.tensor_files import Arrays, read_payload, read_tensors, write_tensors
from clipkit.errors import ModelError


def cache_key(*parts: object) -> str:
    """One name for everything that decides a cached value: the SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ArrayCache:
    """Arrays by key in one folder below the cache folder. What is absent, damaged or of another format is not there."""

    def __init__(self, *folder: str, form: str, most: int | None = None) -> None:
        self._folder = cache_folder().joinpath(*folder)
        self._form, self._most = form, most

    def get(self, key: str) -> tuple[dict[str, npt.NDArray[Any]], Any] | None:
        """Arrays and payload under `key`, or None."""
        with suppress(ModelError):
            stored = read_tensors(self._folder / f"{key}.safetensors", forms=(self._form,))
            return stored.arrays, stored.payload
        return None

    def put(self, key: str, arrays: Arrays, payload: Any = None) -> None:
        """Keep them; a cache that cannot be written is only slower."""
        with suppress(OSError):
            write_tensors(self._folder / f"{key}.safetensors", arrays, payload, form=self._form)
            self._trim()

    def remove(self, key: str) -> None:
        """Drop what is under `key`, if anything is."""
        with suppress(OSError):
            (self._folder / f"{key}.safetensors").unlink()

    def _trim(self) -> None:
        """Drop the oldest tenth where there are more entries than `most`."""
        if self._most is None:
            return
        files = list(self._folder.glob("*.safetensors"))
        if len(files) > self._most:
            for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)[: len(files) - self._most * 9 // 10]:
                file.unlink(missing_ok=True)

    def payloads(self) -> Iterator[tuple[str, Any]]:
        """Every key and its payload, from the headers alone."""
        for file in sorted(self._folder.glob("*.safetensors")):
            yield file.stem, read_payload(file)
