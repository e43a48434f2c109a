"""Videos for tests: scenes of one colour, or of photographs, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

FPS = 10
Colour = tuple[int, int, int]


def film(
    file: Path,
    scenes: Sequence[Colour | npt.NDArray[np.uint8]],
    *,
    seconds: float = 2.0,
    size: tuple[int, int] = (64, 48),
    codec: str = "mpeg4",
    metadata: Mapping[str, str] | None = None,
    rotation: int = 0,
    fps: int = FPS,
    start: int = 0,
) -> Path:
    """A film of these scenes, each as long as `seconds`, with a key frame every second. start: of its clock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = fps
        stream.bit_rate = 2_000_000
        for number in range(round(len(scenes) * seconds * fps)):
            frame = av.VideoFrame.from_ndarray(_rows(scenes[int(number / fps / seconds)], size), format="rgb24")
            frame.pts, frame.time_base = start * fps + number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return _turned(file, rotation) if rotation else file


def _rows(scene: Colour | npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    if isinstance(scene, np.ndarray):
        return scene
    rows = np.zeros((size[1], size[0], 3), np.uint8)
    rows[:] = scene
    return rows


def _turned(file: Path, rotation: int) -> Path:
    """The same with a display matrix in its track header (QuickTime File Format, tkhd): phones write one."""
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[rotation]
    content = bytearray(file.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 65536 for value in matrix)
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    file.write_bytes(content)
    return file
