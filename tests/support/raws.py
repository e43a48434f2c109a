"""Camera RAW files for tests: DNG, written byte by byte, with a preview or without."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

SHORT, LONG, ASCII, BYTE, RATIONAL, SRATIONAL, UNDEFINED = 3, 4, 2, 1, 5, 10, 7
WHITE, RED, GREEN, BLUE = 4095, 0, 1, 2
_SIZES = {SHORT: "H", LONG: "I", BYTE: "B", UNDEFINED: "B"}

Tag = tuple[int, int, object]


def dng(
    colour: tuple[int, int, int],
    *,
    size: tuple[int, int] = (1024, 768),
    preview: bytes | None = None,
    orientation: int = 1,
    xmp: bytes = b"",
) -> bytes:
    """A DNG of one colour (0 to 255, linear), or with `preview`, a JPEG, which may show another."""
    width, height = size
    raw = _mosaic(colour, width, height).tobytes()
    chunks = bytearray(b"II*\0" + struct.pack("<I", 0))
    raw_at, preview_at = _put(chunks, raw), _put(chunks, preview or b"")
    photo: list[Tag] = [
        *((254, LONG, [0]), (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [16]), (259, SHORT, [1])),
        *((262, SHORT, [32803]), (273, LONG, [raw_at]), (277, SHORT, [1]), (278, LONG, [height])),
        *((279, LONG, [len(raw)]), (33421, SHORT, [2, 2]), (33422, BYTE, [RED, GREEN, GREEN, BLUE])),
        *((50714, SHORT, [0]), (50717, SHORT, [WHITE])),
    ]
    exif: list[Tag] = [(33434, RATIONAL, [(1, 250)]), (34855, SHORT, [400]), (36867, ASCII, "2021:05:06 07:08:09")]
    about: list[Tag] = [
        *((271, ASCII, "Nikon Corporation"), (272, ASCII, "NIKON D750"), (274, SHORT, [orientation])),
        *((306, ASCII, "2022:01:01 00:00:00"), (34665, LONG, [_directory(chunks, exif)])),
        *((50706, BYTE, [1, 4, 0, 0]), (50707, BYTE, [1, 1, 0, 0]), (50708, ASCII, "NIKON D750")),
        *((50721, SRATIONAL, [(int(i % 4 == 0), 1) for i in range(9)]), (50728, RATIONAL, [(1, 1)] * 3)),
        *((50778, SHORT, [21]), *([(700, BYTE, list(xmp))] if xmp else [])),
    ]
    if preview is None:
        first = _directory(chunks, [*photo, *about])
    else:
        above = [(254, LONG, [1]), (256, LONG, [640]), (257, LONG, [480]), (258, SHORT, [8, 8, 8]), (259, SHORT, [7])]
        above += [(262, SHORT, [6]), (273, LONG, [preview_at]), (277, SHORT, [3]), (279, LONG, [len(preview)])]
        first = _directory(chunks, [*above, *about, (330, LONG, [_directory(chunks, photo)])])
    chunks[4:8] = struct.pack("<I", first)
    return bytes(chunks)


def _mosaic(colour: tuple[int, int, int], width: int, height: int) -> npt.NDArray[np.uint16]:
    values = np.empty((height, width), "<u2")
    red, green, blue = (part * WHITE // 255 for part in colour)
    values[0::2, 0::2], values[0::2, 1::2], values[1::2, 0::2], values[1::2, 1::2] = red, green, green, blue
    return values


def _put(chunks: bytearray, data: bytes) -> int:
    chunks.extend(b"\0" * (len(chunks) % 2))
    at = len(chunks)
    chunks.extend(data)
    return at


def _directory(chunks: bytearray, tags: list[Tag]) -> int:
    entries = b""
    for tag, kind, values in sorted(tags, key=lambda one: one[0]):
        if kind == ASCII:
            data = str(values).encode() + b"\0"
            count = len(data)
        else:
            items = list(values)  # type: ignore[call-overload]
            count = len(items)
            if kind in (RATIONAL, SRATIONAL):
                code = "<2I" if kind == RATIONAL else "<2i"
                data = b"".join(struct.pack(code, *one) for one in items)
            else:
                data = struct.pack(f"<{count}{_SIZES[kind]}", *items)
        field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", _put(chunks, data))
        entries += struct.pack("<HHI", tag, kind, count) + field
    return _put(chunks, struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))
