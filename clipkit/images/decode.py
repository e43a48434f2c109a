"""Pictures: bytes of any common format become upright uint8 pixels at the size a model wants."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.QoiImagePlugin import QoiImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from clipkit.errors import ImageError
from clipkit.images import video
from clipkit.images.decoder_edge import attempt, decoder_edge
from clipkit.images.formats import frame_name, is_video, split_frame
from clipkit.images.metadata import read_metadata
from clipkit.images.perceptual_hash import phash
from clipkit.images.raw import RawStill, developed, is_raw_content, preview, raw_metadata, sensor_bytes
from clipkit.images.recipe import NO_METADATA, Metadata, Picture, PixelRecipe, Pixels
from clipkit.images.tone import Colours, Deep, colours_of, deep_values, to_grey, to_sdr

Size = tuple[int, int]  # (width, height), as Pillow says it
Opener = Callable[[BytesIO], ImageFile]
Extent = tuple[float, float]  # a size that scaling has made and nobody has rounded

MAX_FILE_BYTES = 256 * 2**20
MAX_HEIF_PIXELS = 250_000_000  # phones make 200 megapixels; decoded alone, at five bytes a pixel
MAX_PIXELS = 100_000_000  # decoded at once; 400 MB, because Pillow keeps four bytes a pixel
AVIF_BRANDS = (b"avif", b"avis")
LEAST_SHARE = 0.5  # of the rows of a JPEG that was cut off: with fewer it is refused
END = b"\xff\xd9"  # the marker at the end of a JPEG
SCAN = b"\xff\xda"  # the marker before each of a JPEG's scans
MAX_SCANS = 500  # a progressive JPEG has about ten, and each costs a pass over the whole picture
MAX_PROPORTION = 64  # a picture longer than this times its width is cut before, not after, it is resized
LIGHT = 48 * 2**20  # what takes more than this to read or decode is handled alone: a 12 MP PNG is still light
DCT_MARGIN = 2  # scaled decode keeps at least twice the target: difference <= 9 of 255; at once the target it was 116
BOX_MARGIN = 4  # block averages keep four times the target: they blur more than the DCT does
STRIP_PIXELS = 2**20  # modes are converted a strip at a time, so that a big picture is in memory once
BYTES_PER_PIXEL = {"WEBP": 16, "AVIF": 10, "HEIF": 8, "TIFF": 8}  # measured at 24 megapixels; 4 for all others
Colour = tuple[int, int, int]
WHITE, GREY = (255, 255, 255), (128, 128, 128)
NEARLY_WHITE = 12.0  # of 255: how much darker than white the opaque part may be on average and still be lost on white
GROUND_SIDE = 256  # pixels a side that are looked at to tell
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what turns the stored picture upright


@dataclass(frozen=True)
class ScaledRows:
    """A JPEG as its decoder gave it, scaled but not yet at the recipe's size.

    rows: uint8 (height, width, 3) as they are stored. factors: of height and width to the recipe's. orientation: as
    EXIF says it. width, height, metadata: as in `Picture`.
    """

    rows: npt.NDArray[np.uint8]
    factors: tuple[float, float]
    orientation: int
    width: int
    height: int
    metadata: Metadata = NO_METADATA


def _refuse(reason: str) -> Opener:
    def refuse(stream: BytesIO) -> ImageFile:
        raise ImageError(reason)

    return refuse


def _open_icon(stream: BytesIO) -> ImageFile:
    """The largest picture of an icon; a PNG inside may be larger than the icon's table says."""
    icon = IcoImageFile(stream)
    for number in range(len(icon.ico.entry)):
        _check_size(icon.ico.frame(number).size)
    return icon


MAGIC: tuple[tuple[bytes | tuple[bytes, ...], Opener], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    ((b"GIF87a", b"GIF89a"), GifImageFile),
    (b"BM", BmpImageFile),
    (tuple(bytes([size, 0, 0, 0]) for size in (12, 40, 52, 56, 64, 108, 124)), DibImageFile),
    ((b"MM\0*", b"II*\0", b"MM*\0", b"II\0*", b"II+\0"), TiffImageFile),
    (b"MM\0+", _refuse("big-endian BigTIFF is not read")),
    ((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), Jpeg2KImageFile),
    (b"\0\0\1\0", _open_icon),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImageFile),
    (b"qoif", QoiImageFile),
)


def read_file(file: str | os.PathLike[str]) -> bytes:
    """The whole file, if it is a regular one of at most MAX_FILE_BYTES; ImageError otherwise.

    Of a frame of a video (`clip.mp4#t=12.48`) that frame, as JPEG.
    """
    name = os.fspath(file)
    if (frame := split_frame(name)) and not os.path.lexists(name):
        return video.frame(*frame)
    if is_video(name):
        raise ImageError(f"{name}: a video; a frame of it has a time, in seconds: {frame_name(name, 0)}")
    try:
        with open(file, "rb", opener=_open_without_waiting) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name}: not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise ImageError(f"{name}: {status.st_size:,} bytes are more than {MAX_FILE_BYTES:,}")
            return stream.read(status.st_size)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def cost_bytes(data: bytes, recipe: PixelRecipe, name: str = "") -> int:
    """About how much memory `decode` will take beside `data`, from the header alone; 0 if it cannot be read."""
    if is_raw_content(data, name):
        return attempt(lambda: _raw_cost(data, recipe)) or 0
    return attempt(lambda: _cost(read_header(data, name), data, recipe)) or 0


def decode(data: bytes, recipe: PixelRecipe, *, name: str, is_hashed: bool = False) -> Picture:
    """The first frame, upright, over white, at the recipe's size; ImageError, which names `name`, if that fails.

    The content decides the format, not the suffix of `name`; but TGA has no mark in its content. What is transparent
    lies over white, or over grey where the rest is white itself. PQ and HLG pictures are brought to sRGB. is_hashed:
    with `phash`, of the whole picture, whatever the recipe crops.
    """
    return resized(decode_rows(data, recipe, name=name), recipe, name=name, is_hashed=is_hashed)


def decode_rows(data: bytes, recipe: PixelRecipe, *, name: str) -> Picture | ScaledRows:
    """As `decode`, but not cropped or padded yet; of most JPEGs the rows as they leave the decoder.

    That is all that reads foreign bytes, and no torch.
    """
    with decoder_edge(name):
        if is_raw_content(data, name):
            return _decode_raw(data, recipe)
        image = read_header(data, name)
        if isinstance(image, JpegImageFile):
            return _decode_jpeg(image, data, recipe)
        if image.format == "HEIF" and MAX_PIXELS < image.width * image.height <= MAX_HEIF_PIXELS:
            return _decode_large_heif(image, data, recipe)
        _check_size(image.size)
        if isinstance(image, TiffImageFile):
            image = _loaded_tiff(image, data)
        picture = _from_pillow(image, recipe)
        return replace(picture, pixels=to_sdr(picture.pixels, _colours(image, data)))


def resized(rows: Picture | ScaledRows, recipe: PixelRecipe, *, name: str, is_hashed: bool = False) -> Picture:
    """What `decode_rows` gave, at the recipe's size; with its perceptual hash, if that is asked for."""
    with decoder_edge(name):
        picture = _to_scale(rows, recipe) if isinstance(rows, ScaledRows) else rows
        hashed = phash(picture.pixels) if is_hashed else None
        return replace(picture, pixels=_crop_or_pad(picture.pixels, recipe), phash=hashed)


def _to_scale(rows: ScaledRows, recipe: PixelRecipe) -> Picture:
    pixels = _resize_rows(rows.rows, rows.factors, recipe)
    if rows.orientation > 1:
        pixels = _pixels(_turn(Image.merge("RGB", [Image.fromarray(band) for band in pixels]), rows.orientation))
    return Picture(pixels, rows.width, rows.height, rows.metadata)


def _decode_raw(data: bytes, recipe: PixelRecipe) -> Picture | ScaledRows:
    """The preview of a RAW file; where there is none, or it is damaged, what its sensor has seen."""
    still = preview(data)
    found = attempt(lambda: _decode_still(still, recipe)) if still else None
    if found is None:
        found = _decode_still(developed(data), recipe)
    return replace(found, metadata=raw_metadata(data, still))


def _decode_still(still: RawStill, recipe: PixelRecipe) -> Picture | ScaledRows:
    if isinstance(still.image, JpegImageFile):
        found = _decode_jpeg(still.image, still.jpeg, recipe)
        if isinstance(found, Picture) and found.share < 1:
            raise ImageError("its preview is cut off")
    else:
        _check_size(still.image.size)
        found = _from_pillow(still.image, recipe)
    return replace(found, width=still.width, height=still.height)


def _whole_raw(data: bytes) -> npt.NDArray[np.uint8]:
    still = preview(data)
    rows = attempt(lambda: _whole_still(still)) if still else None
    return np.ascontiguousarray(_whole_still(developed(data)) if rows is None else rows)


def _whole_still(still: RawStill) -> npt.NDArray[np.uint8]:
    if isinstance(still.image, JpegImageFile):
        _check_scans(still.image, still.jpeg)
    _check_size(still.image.size)
    return _whole(still.image)


def _decode_large_heif(image: ImageFile, data: bytes, recipe: PixelRecipe) -> Picture:
    """From libheif's own pixels, a strip at a time: Pillow's copy of them would take as much again."""
    from pillow_heif import open_heif

    rows = np.asarray(open_heif(data, convert_hdr_to_8bit=True))[..., :3]
    target = _target(image.size, recipe)
    factor = max(1, min(image.width // (BOX_MARGIN * target[0]), image.height // (BOX_MARGIN * target[1])))
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    step = max(1, STRIP_PIXELS // (image.width * factor)) * factor
    for top in range(0, image.height, step):
        strip = Image.fromarray(np.ascontiguousarray(rows[top : top + step]))
        small.paste(strip.reduce(factor), (0, top // factor))
    del rows
    extent = (image.width / factor, image.height / factor)
    pixels = to_sdr(_pixels(_resize(small, target, recipe, extent)), colours_of(data))
    return _picture(pixels, image, image.size, recipe)


class _PlainTiff(TiffImageFile):
    """A TIFF of whose metadata only the orientation is read: other tags point into whatever they like."""

    def getexif(self) -> Image.Exif:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = self.tag_v2.get(ExifTags.Base.Orientation, 1)
        return exif


def _loaded_tiff(image: TiffImageFile, data: bytes) -> TiffImageFile:
    """With its pixels; read once more without metadata where that is what Pillow cannot read."""
    if attempt(image.load) is not None:
        return image
    plain = _PlainTiff(BytesIO(data))
    plain.load()
    return plain


def from_image(image: Image.Image | npt.NDArray[np.uint8], recipe: PixelRecipe) -> Picture:
    """As `decode`, for a picture in memory: Pillow's, or a uint8 array (h, w), (h, w, 3) RGB or (h, w, 4) RGBA."""
    with decoder_edge("picture"):
        picture = _from_pillow(_pillow_image(image), recipe)
    return resized(picture, recipe, name="picture")


def metadata(data: bytes, *, name: str = "") -> Metadata:
    """Metadata from the header alone; none of a file that cannot be read."""
    if is_raw_content(data, name):
        return raw_metadata(data, attempt(lambda: preview(data)))
    found: Metadata | None = attempt(lambda: read_metadata(read_header(data, name)))
    return found or NO_METADATA


def decode_whole(data: bytes, *, name: str) -> npt.NDArray[np.uint8]:
    """All of the first frame at its own size, upright, over white: (h, w, 3). ImageError as from `decode`."""
    with decoder_edge(name):
        if is_raw_content(data, name):
            return _whole_raw(data)
        image = read_header(data, name)
        if isinstance(image, JpegImageFile):
            _check_scans(image, data)
        _check_size(image.size)
        try:
            rows = _whole(_loaded_tiff(image, data) if isinstance(image, TiffImageFile) else image)
        except OSError as error:
            if not isinstance(image, JpegImageFile):
                raise
            rows = _whole(_completed(data, error, lambda _: None)[0])
        return np.ascontiguousarray(to_sdr(rows.transpose(2, 0, 1), _colours(image, data)).transpose(1, 2, 0))


def whole_image(image: Image.Image | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """As `decode_whole`, for a picture in memory as `from_image` takes it."""
    with decoder_edge("picture"):
        return _whole(_pillow_image(image))


def as_png(image: Image.Image) -> bytes:
    """A picture in memory as a PNG file: upright, in RGB."""
    stream = BytesIO()
    Image.fromarray(whole_image(image)).save(stream, "PNG", compress_level=1)  # ten times as fast as 6
    return stream.getvalue()


def _colours(image: ImageFile, data: bytes) -> Colours | None:
    return colours_of(data) if image.format in ("AVIF", "HEIF") else None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a FIFO waits for a writer; Windows has neither


def read_header(data: bytes, name: str = "") -> ImageFile:
    """The header read, no pixels. name: of the file, for a format that has no mark of its own.

    Pillow's classes are called by name: `Image.open` warns or raises by a size limit of its own, which a JPEG that is
    scaled while it is decoded does not deserve and only a global variable can lift, and it would ask every plugin.
    """
    for opener in _openers(data[:16], name):
        return opener(BytesIO(data))
    raise ImageError("not JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000" if data else "empty file")


def _openers(head: bytes, name: str) -> list[Opener]:
    if head[4:8] == b"ftyp":
        return [AvifImageFile if head[8:12] in AVIF_BRANDS else _open_iso_media]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return [WebPImageFile]
    found = [opener for magic, opener in MAGIC if head.startswith(magic)]
    return found or ([TgaImageFile] if name.lower().endswith(".tga") else [])


def _open_iso_media(stream: BytesIO) -> ImageFile:
    """AVIF or HEIC behind a brand that both may have (mif1)."""
    try:
        return AvifImageFile(stream)
    except SyntaxError:  # Pillow's word for "not mine"
        stream.seek(0)
        return _open_heif(stream)


def _open_heif(stream: BytesIO) -> ImageFile:
    from pillow_heif import HeifImageFile

    image: ImageFile = HeifImageFile(stream)  # type: ignore[no-untyped-call]
    return image


def _check_size(size: Size) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS // 1_000_000} megapixels")


def _cost(image: ImageFile, data: bytes, recipe: PixelRecipe) -> int:
    each = BYTES_PER_PIXEL.get(image.format or "", 4) + (4 if recipe.exact else 0)  # exact: RGB or upright, in full
    if not isinstance(image, JpegImageFile):
        return each * image.width * image.height
    coefficients = 2 * image.layers * image.width * image.height if _has_more_scans(image, data) else 0
    _draft(image, recipe)
    return each * image.width * image.height + coefficients


def _raw_cost(data: bytes, recipe: PixelRecipe) -> int:
    """Of the preview alone, where there is one: opening a RAW file decodes nothing."""
    still = preview(data)
    if still is None:
        return sensor_bytes(data)
    if isinstance(still.image, JpegImageFile):
        return len(still.jpeg) + _cost(still.image, still.jpeg, recipe)
    return 4 * still.image.width * still.image.height


def _has_more_scans(image: JpegImageFile, data: bytes) -> bool:
    """Whether libjpeg must hold the whole picture, unscaled, because the first scan does not finish it."""
    assert image.fp is not None
    start = image.fp.tell() - 8 - 2 * image.layers  # where the scan's header began, if it names every component
    return "progressive" in image.info or data[start : start + 2] != SCAN


def _draft(image: JpegImageFile, recipe: PixelRecipe) -> tuple[Size, Extent]:
    """Lets Pillow choose the DCT scaling -> size as it was, its extent in the scaled picture, which is rounded up."""
    size = image.size
    if recipe.exact:
        return size, size
    width, height = _target(size, recipe, _orientation(image))
    scaled = image.draft(None, (DCT_MARGIN * width, DCT_MARGIN * height))
    return size, scaled[1][2:] if scaled else size


def _decode_jpeg(image: JpegImageFile, data: bytes, recipe: PixelRecipe) -> Picture | ScaledRows:
    _check_scans(image, data)
    size, extent = drafted = _draft(image, recipe)
    _check_size(image.size)
    rows = None
    if not recipe.exact and image.mode in ("L", "RGB") and _cropped_size(size, recipe) == size:
        with suppress(ValueError):  # simplejpeg is strict; what it refuses, Pillow may still read
            rows = simplejpeg.decode_jpeg(data, "RGB", min_height=image.height, min_width=image.width)
    if rows is None:
        try:
            return _from_pillow(image, recipe, drafted)
        except OSError as error:
            return _decode_partial(data, recipe, error)
    orientation = _orientation(image)
    target = _target(size, recipe, orientation)
    factors = ((target[1] + 1e-6) / extent[1], (target[0] + 1e-6) / extent[0])
    width, height = size[::-1] if orientation >= 5 else size
    return ScaledRows(rows, factors, orientation, width, height, read_metadata(image))


def _check_scans(image: JpegImageFile, data: bytes) -> None:
    if _has_more_scans(image, data):
        _check_size(image.size)
        if data.count(SCAN) > MAX_SCANS:
            raise ImageError(f"more than {MAX_SCANS} scans")


def _decode_partial(data: bytes, recipe: PixelRecipe, error: OSError) -> Picture:
    """A JPEG whose end is missing, if most of its rows are there; the rest is grey. Otherwise `error`."""
    image, share = _completed(data, error, lambda image: _draft(image, recipe))
    return replace(_from_pillow(image, recipe, _draft(JpegImageFile(BytesIO(data)), recipe)), share=share)


def _completed(data: bytes, error: OSError, prepare: Callable[[JpegImageFile], object]) -> tuple[JpegImageFile, float]:
    """The JPEG with grey in place of what is missing, loaded, and the share of its rows that are there."""
    image = JpegImageFile(BytesIO(data + END))
    prepare(image)
    if attempt(image.load) is None:
        raise error
    share = _rows_there(image, data, prepare) / image.height
    if share < LEAST_SHARE:
        raise error
    if share < 1:
        image.paste("grey", (0, round(share * image.height), image.width, image.height))
    return image, share


def _rows_there(image: JpegImageFile, data: bytes, prepare: Callable[[JpegImageFile], object]) -> int:
    """Rows above what is missing: those that do not change with what is put in its place.

    Of a progressive JPEG every row is there, if not in every detail, as soon as a second scan has begun.
    """
    if "progressive" in image.info and data.count(SCAN) > 1:
        return image.height
    noise = np.random.default_rng(0).integers(0, 255, max(len(data), 1 << 16), dtype=np.uint8)  # no byte of a marker
    other = JpegImageFile(BytesIO(data + noise.tobytes() + END))
    prepare(other)
    if attempt(other.load) is None:
        return 0
    is_other = (np.asarray(image) != np.asarray(other)).reshape(image.height, -1).any(axis=1)
    return int(np.argmax(is_other)) if is_other.any() else image.height


def _resize_rows(rows: npt.NDArray[np.uint8], factors: tuple[float, float], recipe: PixelRecipe) -> Pixels:
    """rows (height, width, 3), factors of height and width -> (3, height x factor, width x factor), cut to integers.

    By torch where it is loaded, since it is six times as fast as Pillow; loading it for this takes seconds and 700 MB.
    The two agree but for 1 of 255 in one value of 300, and 2 of 255 in two of a million.
    """
    resize = _resized_by_torch if "torch" in sys.modules else _resized_by_pillow
    return resize(rows, factors, recipe)


def _resized_by_torch(rows: npt.NDArray[np.uint8], factors: tuple[float, float], recipe: PixelRecipe) -> Pixels:
    from torch import from_numpy
    from torch.nn.functional import interpolate

    batch = from_numpy(rows).permute(2, 0, 1)[None]  # of uint8 and one picture: torch stays in this thread
    small = interpolate(batch, scale_factor=list(factors), mode=_interpolation(recipe), antialias=True)
    pixels: Pixels = small[0].numpy()
    return pixels


def _resized_by_pillow(rows: npt.NDArray[np.uint8], factors: tuple[float, float], recipe: PixelRecipe) -> Pixels:
    (height, width), (tall, wide) = rows.shape[:2], factors
    size = (int(width * wide), int(height * tall))
    box = (0, 0, min(size[0] / wide, width), min(size[1] / tall, height))
    resample = Image.Resampling[_interpolation(recipe).upper()]
    return _pixels(Image.fromarray(rows).resize(size, resample, box=box))


def _from_pillow(image: Image.Image, recipe: PixelRecipe, drafted: tuple[Size, Extent] | None = None) -> Picture:
    image.load()  # a TIFF turns itself upright here, and forgets its orientation
    size, extent = drafted or (image.size, image.size)
    orientation = _orientation(image)
    cropped = _cut(image, recipe)
    if recipe.exact:  # turned first, as the reference is: rows before columns rounds otherwise
        cropped = _turn(_rgb(cropped, 1), orientation)
        small = _resize(cropped, _target(cropped.size, recipe), recipe, cropped.size)
        return _picture(_pixels(small), image, size, recipe)
    width, height = extent if cropped is image else cropped.size
    target = _target(size, recipe, orientation)
    factor = max(1, min(cropped.width // (BOX_MARGIN * target[0]), cropped.height // (BOX_MARGIN * target[1])))
    small = _resize(_rgb(cropped, factor), target, recipe, (width / factor, height / factor))
    return _picture(_pixels(_turn(small, orientation)), image, size, recipe)


def _pillow_image(image: Image.Image | npt.NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"a {type(image).__name__} is no picture", hint="paths, as DATASET.files has; or Pillow images"
        )
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
        raise ImageError(f"an array of {image.dtype} {image.shape} is not uint8 (h, w), (h, w, 3) or (h, w, 4)")
    return Image.fromarray(image)


def _whole(image: Image.Image) -> npt.NDArray[np.uint8]:
    image.load()  # a TIFF turns itself upright here, and forgets its orientation
    return np.array(_turn(_rgb(image, 1), _orientation(image)))


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image).transpose(2, 0, 1)


def _picture(pixels: Pixels, image: Image.Image, size: Size, recipe: PixelRecipe) -> Picture:
    width, height = size[::-1] if _orientation(image) >= 5 else size
    return Picture(pixels, width, height, read_metadata(image))


def _orientation(image: Image.Image) -> int:
    value = attempt(lambda: image.getexif().get(ExifTags.Base.Orientation))
    return value if value in UPRIGHT else 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _cropped_size(size: Size, recipe: PixelRecipe) -> Size:
    """What is resized: all, but for a thread of a picture, of which the centre crop needs very little."""
    longest = MAX_PROPORTION * min(size)
    return (min(size[0], longest), min(size[1], longest)) if recipe.resize_mode == "shortest" else size


def _cut(image: Image.Image, recipe: PixelRecipe) -> Image.Image:
    width, height = _cropped_size(image.size, recipe)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _target(size: Size, recipe: PixelRecipe, orientation: int = 1) -> Size:
    """What a picture, as it is stored, is resized to before it is cropped or padded, in open_clip's own rounding."""
    height, width = recipe.size if orientation < 5 else recipe.size[::-1]
    cropped = _cropped_size(size, recipe)
    if recipe.resize_mode == "squash":
        return width, height
    if recipe.resize_mode == "shortest" and height == width:
        return int(width * cropped[0] / min(cropped)), int(width * cropped[1] / min(cropped))
    pick = max if recipe.resize_mode == "longest" else min
    ratio = pick(cropped[1] / height, cropped[0] / width)
    return max(1, round(cropped[0] / ratio)), max(1, round(cropped[1] / ratio))


def _interpolation(recipe: PixelRecipe) -> str:
    """The recipe's, but for one case that open_clip always resizes bicubic."""
    is_oblong = recipe.size[0] != recipe.size[1]
    return "bicubic" if recipe.resize_mode == "shortest" and is_oblong else recipe.interpolation


def _resize(image: Image.Image, size: Size, recipe: PixelRecipe, extent: Extent) -> Image.Image:
    return image.resize(size, Image.Resampling[_interpolation(recipe).upper()], (0, 0, *extent))


def _crop_or_pad(pixels: Pixels, recipe: PixelRecipe) -> Pixels:
    height, width = recipe.size
    down, right = max(0, height - pixels.shape[1]), max(0, width - pixels.shape[2])
    if down or right:
        margins = ((0, 0), (down // 2, (down + 1) // 2), (right // 2, (right + 1) // 2))
        pixels = np.pad(pixels, margins, constant_values=recipe.fill_color)
    top, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
    return np.ascontiguousarray(pixels[:, top : top + height, left : left + width])


def _rgb(image: Image.Image, factor: int) -> Image.Image:
    """RGB over its ground, every block of `factor` x `factor` pixels made one; no second copy of a big picture."""
    if image.mode == "RGB" and factor == 1 and not image.has_transparency_data:
        return image
    deep, ground = deep_values(image), _ground(image)
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, STRIP_PIXELS // (image.width * factor)) * factor
    for top in range(0, image.height, rows):
        strip = _over(image.crop((0, top, image.width, min(top + rows, image.height))), ground, deep)
        result.paste(strip.reduce(factor), (0, top // factor))
    return result


def _ground(image: Image.Image) -> Colour:
    """What shows through a picture: white, or grey where all that is opaque is white itself."""
    if not image.has_transparency_data or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return WHITE
    size = (min(image.width, GROUND_SIDE), min(image.height, GROUND_SIDE))
    sample = np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGBA")).astype(np.float32)
    opacity = sample[..., 3].sum()
    darkness = ((255 - sample[..., :3].min(axis=-1)) * sample[..., 3]).sum()
    return GREY if 0 < opacity < sample[..., 3].size * 255 and darkness < NEARLY_WHITE * opacity else WHITE


def _over(strip: Image.Image, ground: Colour, deep: Deep | None) -> Image.Image:
    if deep is not None:
        values = np.asarray(strip)
        grey = to_grey(values, deep)
        grey[values == strip.info.get("transparency")] = 255
        return Image.fromarray(grey).convert("RGB")
    if not strip.has_transparency_data:
        return strip.convert("RGB")
    strip = strip.convert("RGBA")
    whole = Image.new("RGB", strip.size, ground)
    whole.paste(strip, mask=strip)
    return whole
