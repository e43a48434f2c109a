"""Camera RAW files: the preview that the camera put into one, or its sensor's values at half their size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from clipkit.errors import ImageError
from clipkit.images.decoder_edge import attempt
from clipkit.images.formats import is_raw
from clipkit.images.metadata import read_metadata
from clipkit.images.recipe import NO_METADATA, Metadata

if TYPE_CHECKING:
    import rawpy

LEAST_SIDE = 384  # pixels of a preview's shorter side, the input of large models; a smaller one is not used
BYTES_PER_PIXEL = 8  # of the sensor: its values twice, and a picture of half the size
MARKED = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")  # Olympus, Panasonic, Fujifilm
TIFF = (b"II*\0", b"MM\0*")
ORIENTATIONS = {3: 3, 5: 8, 6: 6}  # how LibRaw says it -> how EXIF says it; anything else is upright


@dataclass(frozen=True)
class RawStill:
    """What stands for a RAW file. image: its header read, its EXIF says what turns it upright.

    jpeg: the bytes of the image, where it is a JPEG. width, height: of the upright original, as the sensor has it.
    """

    image: Image.Image
    width: int
    height: int
    jpeg: bytes = b""


def is_raw_content(data: bytes, name: str) -> bool:
    """Whether this is a RAW file: most are TIFF inside, and only their name says that they are more."""
    head = data[:16]
    is_marked = head.startswith(MARKED) or (head.startswith(TIFF) and head[8:10] == b"CR")
    return is_marked or head[4:12] == b"ftypcrx " or (is_raw(name) and head.startswith(TIFF))


def preview(data: bytes) -> RawStill | None:
    """The picture that the camera made itself; None where the file has none, or only a small one."""
    with _opened(data) as raw:
        found = attempt(lambda: _preview(raw))
        return found if found and min(found.image.size) >= min(LEAST_SIDE, found.width, found.height) else None


def developed(data: bytes) -> RawStill:
    """A picture of half the size from the sensor's values, by the camera's white balance."""
    with _opened(data) as raw:
        size = _upright_size(raw)  # before: LibRaw halves its sizes, and turns the picture upright
        rows = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
        return RawStill(Image.fromarray(rows), *size)


def sensor_bytes(data: bytes) -> int:
    """About how much memory `developed` takes."""
    with _opened(data) as raw:
        return BYTES_PER_PIXEL * raw.sizes.raw_width * raw.sizes.raw_height


def raw_metadata(data: bytes, still: RawStill | None) -> Metadata:
    """Metadata of the file itself, where it is TIFF inside, and of its preview."""
    of_preview = read_metadata(still.image) if still else NO_METADATA
    carrier = Image.new("L", (1, 1))
    carrier.info["exif"] = _as_tiff(data)
    own = attempt(lambda: _with_packet(carrier)) or NO_METADATA
    return own.over(of_preview)


def _with_packet(carrier: Image.Image) -> Metadata:
    packet = carrier.getexif().get(ExifTags.Base.XMLPacket)
    if packet:
        carrier.info["xmp"] = packet
    return read_metadata(carrier)


def _as_tiff(data: bytes) -> bytes:
    """Olympus and Panasonic write a TIFF under a number of their own; b"" for what is none."""
    if data.startswith((b"IIRO", b"IIRS", b"IIU\0")):
        return TIFF[0] + data[4:]
    if data.startswith(b"MMOR"):
        return TIFF[1] + data[4:]
    return data if data.startswith(TIFF) else b""


@contextmanager
def _opened(data: bytes) -> Iterator[rawpy.RawPy]:
    """The file opened by LibRaw; ImageError, in its words, for whatever it does not read."""
    try:
        import rawpy
    except ImportError as error:
        raise ImageError("RAW files are read by rawpy, which is not here", hint="pip install 'clipkit[raw]'") from error
    try:
        with rawpy.imread(BytesIO(data)) as raw:
            yield raw
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        said = error.args[0] if error.args else ""
        raise ImageError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from error


def _preview(raw: rawpy.RawPy) -> RawStill:
    thumb = raw.extract_thumb()
    jpeg = thumb.data if isinstance(thumb.data, bytes) else b""
    image = Image.fromarray(thumb.data) if isinstance(thumb.data, np.ndarray) else JpegImageFile(BytesIO(jpeg))
    image.getexif()[ExifTags.Base.Orientation] = _orientation(raw, image)
    return RawStill(image, *_upright_size(raw), jpeg)


def _orientation(raw: rawpy.RawPy, image: Image.Image) -> int:
    """EXIF's of the preview: the sensor's, unless the preview is upright already, as its proportions say."""
    orientation = ORIENTATIONS.get(raw.sizes.flip, 1)
    is_turned = (image.width > image.height) != (raw.sizes.width > raw.sizes.height)
    return 1 if orientation >= 5 and is_turned else orientation


def _upright_size(raw: rawpy.RawPy) -> tuple[int, int]:
    size = (raw.sizes.width, raw.sizes.height)
    return size[::-1] if ORIENTATIONS.get(raw.sizes.flip, 1) >= 5 else size
