"""Text in pictures, read by RapidOCR; its models lie in its own package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipkit.errors import ModelError

if TYPE_CHECKING:
    from clipkit.images.thumbnails import Canvas


class TextReader:
    """Reads the text in pictures. ModelError where the extra `ocr` is not installed."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ModelError("text in pictures is read by rapidocr", hint="pip install 'clipkit[ocr]'") from error
        self._engine = RapidOCR(params={"Global.log_level": "critical"})

    def read(self, canvas: Canvas) -> str:
        """The lines of a picture (h, w, 3), from top to bottom, with a space between; "" where there are none."""
        lines = getattr(self._engine(np.ascontiguousarray(canvas[..., ::-1])), "txts", None)  # it takes BGR, as OpenCV
        return " ".join(lines or ())
