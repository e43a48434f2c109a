"""Decoder process: decodes the bytes that another process hands it, and may die of them without harm to anybody.

Run by `guarded_decoder`. Requests and answers are JSON, one a line, on stdin and stdout; bytes and pixels lie in a file
in memory that both processes share.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from clipkit.errors import ImageError
from clipkit.images.decode import LIGHT, ScaledRows, cost_bytes, decode_rows, decode_whole, metadata
from clipkit.images.recipe import PixelRecipe

MAX_MEMORY = 4 * 2**30  # of addresses; the largest honest picture, a 100-megapixel WebP, takes 1.6 GB beside libraries
SPARE = 16 * 2**20  # bytes of shared memory that stay allocated between two pictures
_WHOLE = PixelRecipe((1, 1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), exact=True)  # costs what a whole picture does

NO_PIXELS = np.empty(0, np.uint8)

Answer = dict[str, Any]
Array = npt.NDArray[np.uint8]


class SharedBytes:
    """A file in memory, of which each process in turn takes what the other has put."""

    def __init__(self, file: int) -> None:
        self.file = file

    @classmethod
    def create(cls) -> SharedBytes:
        """A new one; nothing of it stays when both processes are gone."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("clipkit"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def put(self, data: bytes | memoryview) -> None:
        """Write bytes where the other process takes them."""
        if os.pwrite(self.file, data, 0) != len(data):
            raise MemoryError("shared memory is short")

    def take(self, size: int) -> bytes:
        """The bytes that the other process has put."""
        data = os.pread(self.file, size, 0)
        self._release(size)
        return data

    def take_array(self, shape: tuple[int, ...]) -> Array:
        """The same as an array."""
        array = np.empty(shape, np.uint8)
        if os.preadv(self.file, [array.data.cast("B")], 0) != array.size:
            raise MemoryError("shared memory is short")
        self._release(array.size)
        return array

    def close(self) -> None:
        """Let go of it."""
        os.close(self.file)

    def _release(self, size: int) -> None:
        if size > SPARE:
            os.ftruncate(self.file, 0)


def main() -> None:
    """Serve until the parent is gone."""
    _limit_memory()
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a C library prints is no answer
    requests: SimpleQueue[Answer] = SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True, name="clipkit-requests").start()
    serve(SharedBytes(int(sys.argv[-1])), requests, lambda answer: _send(answers, answer))


def serve(shared: SharedBytes, requests: SimpleQueue[Answer], send: Callable[[Answer], None]) -> None:
    """Answer one request after the other. What takes much memory waits for a word of the parent first."""
    send({"is_ready": True})
    while True:
        request = requests.get()
        data = shared.take(request["size"])
        name, recipe = request["name"], _recipe(request["recipe"])
        if len(data) + cost_bytes(data, recipe or _WHOLE, name) > LIGHT:
            send({"is_heavy": True})
            requests.get()
        try:
            answer, pixels = OPERATIONS[request["operation"]](data, name, recipe)
        except ImageError as error:
            answer, pixels = {"error": error.message, "hint": error.hint}, NO_PIXELS
        shared.put(np.ascontiguousarray(pixels).data.cast("B"))
        send({**answer, "shape": pixels.shape})
        del data, pixels  # before the next is waited for


def _decode(data: bytes, name: str, recipe: PixelRecipe | None) -> tuple[Answer, Array]:
    assert recipe is not None
    found = decode_rows(data, recipe, name=name)
    facts: Answer = {"width": found.width, "height": found.height, "metadata": asdict(found.metadata)}
    if isinstance(found, ScaledRows):
        return {**facts, "factors": found.factors, "orientation": found.orientation}, found.rows
    return {**facts, "share": found.share}, found.pixels


def _decode_whole(data: bytes, name: str, _: PixelRecipe | None) -> tuple[Answer, Array]:
    return {}, decode_whole(data, name=name)


def _metadata(data: bytes, name: str, _: PixelRecipe | None) -> tuple[Answer, Array]:
    return {"metadata": asdict(metadata(data, name=name))}, NO_PIXELS


OPERATIONS = {"decode": _decode, "decode_whole": _decode_whole, "metadata": _metadata}


def _recipe(fields: Answer | None) -> PixelRecipe | None:
    if fields is None:
        return None
    values: Answer = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return PixelRecipe(**values)


def _receive(requests: SimpleQueue[Answer]) -> None:
    """In a thread of its own, so that a decoder which never ends does not outlive the parent."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def _send(file: int, answer: Answer) -> None:
    os.write(file, json.dumps(answer).encode() + b"\n")


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # not on Windows; macOS takes no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
