"""clipkit with a decoder that dies of files named boom, or with an OCR engine that dies of dark pictures.

`python -m tests.support.boom abort|memory|hang|ocr index FOLDER`
"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

import clipkit.index.image_index
import clipkit.index.prefetch
import clipkit.models.load
import clipkit.models.ocr
from clipkit.cli.main import main
from clipkit.images.recipe import Picture, PixelRecipe
from clipkit.images.thumbnails import Canvas
from tests.support.colours import ColourEncoder

HONEST_DECODE = clipkit.index.prefetch.decode


def decode(data: bytes, recipe: PixelRecipe, *, name: str, is_hashed: bool = False) -> Picture:
    if "boom" in name:
        _die(sys.argv[0])
    return HONEST_DECODE(data, recipe, name=name, is_hashed=is_hashed)


def _die(how: str) -> None:
    if how == "abort":
        os.abort()
    if how == "memory":
        np.ones(2**28, np.uint8)  # and then what the kernel does when there is no more
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


class Reader:
    """Reads its grey in a picture, and takes the process along where that is dark."""

    def read(self, canvas: Canvas) -> str:
        if canvas.mean() < 50:
            os.abort()
        return f"grey {canvas.mean():.0f}"


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    clipkit.models.ocr.TextReader = Reader  # type: ignore[assignment,misc]
    if sys.argv[0] != "ocr":
        clipkit.index.prefetch.decode = decode
    clipkit.models.load.load_encoder = lambda *_, **__: ColourEncoder()  # type: ignore[assignment,misc]
    clipkit.index.image_index.load_encoder = clipkit.models.load.load_encoder
    sys.exit(main())
