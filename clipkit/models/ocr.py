"""Text in pictures, read by RapidOCR; its models lie in its own package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipkit.errors import ModelError

if TYPE_CHECKING:
    from clipkit.images.thumbnails import Canvas

NARROWEST = 8  # longer side by shorter: RapidOCR makes a strip of one line of pixels 900 million of them, and dies


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
        rows = np.ascontiguousarray(_widened(canvas)[..., ::-1])  # it takes BGR, as OpenCV
        lines = getattr(self._engine(rows), "txts", None)
        return " ".join(lines or ())


def _widened(canvas: Canvas) -> Canvas:
    """A strip with its edges repeated until it is no longer one; the text in it stays as it was."""
    least = -(-max(canvas.shape[:2]) // NARROWEST)
    missing = [max(0, least - side) for side in canvas.shape[:2]]
    around = [(count // 2, count - count // 2) for count in missing]
    return np.pad(canvas, [*around, (0, 0)], mode="edge") if any(missing) else canvas
