"""Pictures of every format, whole and broken, against Pillow, open_clip and known colours."""

from __future__ import annotations

import csv
import os
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageOps

from clipkit.errors import ImageError
from clipkit.images.decode import (
    BYTES_PER_PIXEL,
    MAX_FILE_BYTES,
    cost_bytes,
    decode,
    from_image,
    read_file,
)
from clipkit.images.formats import is_picture
from clipkit.images.metadata import parse_date
from clipkit.images.recipe import Picture, PixelRecipe

# Pillow warns of metadata that it survives. The filters are one list for all threads, so a program sets them, not we.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin", "ignore:Invalid APNG")

FAST = PixelRecipe(size=(224, 224), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
EXACT = replace(FAST, exact=True)
SMALL = replace(FAST, size=(32, 32))
RED, GREEN, BLUE, WHITE = (220, 30, 40), (20, 200, 60), (30, 40, 210), (255, 255, 255)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def quarters(size: tuple[int, int] = (96, 96), mode: str = "RGB") -> Image.Image:
    """Red, green over blue, white: which way is up can be told."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image.resize(size, Image.Resampling.NEAREST).convert(mode)


def corners(picture: Picture) -> list[tuple[int, ...]]:
    _, height, width = picture.pixels.shape
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(value) for value in picture.pixels[:, y, x]) for y, x in places]


def is_near(picture: Picture, *colours: tuple[int, ...], tolerance: int = 6) -> bool:
    expected = colours * (4 // len(colours))
    return bool(np.abs(np.subtract(corners(picture), expected)).max() <= tolerance)


def reference(image: Image.Image, recipe: PixelRecipe) -> np.ndarray:
    """open_clip's own transform, as uint8."""
    from open_clip.transform import image_transform

    transform = image_transform(
        recipe.size,
        is_train=False,
        mean=recipe.mean,
        std=recipe.std,
        resize_mode=recipe.resize_mode,
        interpolation=recipe.interpolation,
        fill_color=recipe.fill_color,
    )
    return np.rint(transform(image).numpy() * 255).astype(np.uint8)


def difference(picture: Picture, expected: np.ndarray) -> np.ndarray:
    return np.abs(picture.pixels.astype(int) - expected.astype(int))


@pytest.fixture(scope="module")
def photographs() -> dict[str, Image.Image]:
    """Real ones, from 512 x 512 to 2 megapixels."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    named = {name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")}
    return {"china": china, "flower": flower, "large": china.resize((1707, 1139), Image.Resampling.LANCZOS), **named}


def test_the_suffix_of_any_case_tells_what_may_be_a_picture() -> None:
    assert all(
        map(is_picture, ["a.jpg", "b.JPEG", "c.d/e.PnG", "f.webp", "g.gif", "h.TIF", "i.heic", "j.avif", "k.bmp"])
    )
    assert not any(map(is_picture, ["a.eps", "jpg", ".jpg", "b.svg", "c.jpg.txt", "d.pdf", ""]))


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_file(tmp_path / "a") == b"abc"


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "nul", "large"])
def test_what_is_no_regular_file_of_fair_size_is_refused_by_name_and_at_once(tmp_path: Path, kind: str) -> None:
    file = str(tmp_path / f"{kind}.jpg")
    if kind == "folder":
        os.mkdir(file)
    if kind == "fifo":
        os.mkfifo(file)
    if kind == "device":
        os.symlink("/dev/zero", file)
    if kind == "nul":
        file += "\0"
    if kind == "large":
        with open(file, "wb") as stream:
            stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match=f"{kind}.jpg"):
        read_file(file)


@pytest.mark.parametrize("recipe", [SMALL, replace(SMALL, exact=True)], ids=["fast", "exact"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF"])
def test_every_format_gives_its_colours(format: str, recipe: PixelRecipe) -> None:
    data = heif(quarters()) if format == "HEIF" else encode(quarters(), format)
    picture = decode(data, recipe, name="wrong suffix.txt")
    assert is_near(picture, RED, GREEN, BLUE, WHITE, tolerance=12)
    assert (picture.width, picture.height, picture.taken_at) == (96, 96, None)
    assert picture.pixels.shape == (3, 32, 32)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous


def heif(image: Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F", "LA"])
@pytest.mark.parametrize("size", [(96, 96), (1500, 1100)], ids=["small", "large"])
def test_every_mode_gives_the_colours_that_pillow_shows(mode: str, size: tuple[int, int]) -> None:
    if mode in ("I;16", "I"):
        grey = np.asarray(quarters(size, "L")).astype(np.uint16 if mode == "I;16" else np.int32) * 256 + 255
        image = Image.fromarray(grey)
    elif mode == "F":
        image = Image.fromarray(np.asarray(quarters(size, "L")).astype(np.float32) / 255)
    else:
        image = {"LAB": lab, "P": Image.Image.quantize}.get(mode, lambda rgb: rgb.convert(mode))(quarters(size))
    assert image.mode == mode
    shown = quarters(size, "L" if mode in ("L", "LA", "I;16", "I", "F") else "1" if mode == "1" else "RGB")
    expected = decode(encode(shown, "BMP"), SMALL, name="")
    tolerance = 5 if mode == "LAB" else 1
    for format in ("TIFF", "PNG") if mode in ("1", "L", "P", "RGB", "RGBA", "I;16", "LA") else ("TIFF",):
        assert difference(decode(encode(image, format), SMALL, name=""), expected.pixels).max() <= tolerance
    assert difference(from_image(image, SMALL), expected.pixels).max() <= tolerance


def lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def test_sixteen_bits_become_their_upper_eight() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = decode(encode(Image.fromarray(values), "PNG"), replace(EXACT, size=(256, 256)), name="")
    assert (picture.pixels == values >> 8).all()


@pytest.mark.parametrize("largest", [1, 200, 10_000])
def test_floats_keep_their_order_and_their_white(largest: float) -> None:
    values = np.linspace(0, largest, 256 * 256, dtype=np.float32).reshape(256, 256)
    values[7, 7] = np.nan
    picture = decode(encode(Image.fromarray(values), "TIFF"), replace(EXACT, size=(256, 256)), name="")
    column = picture.pixels[0, :, 0].astype(int)
    assert column[0] == 0
    assert picture.pixels[0, -1, -1] == (200 if largest == 200 else 255)
    assert (np.diff(column) >= 0).all()
    assert picture.pixels[0, 7, 7] == 0


@pytest.mark.parametrize("size", [(96, 96), (1500, 1100)], ids=["small", "large"])
def test_what_is_transparent_shows_white(size: tuple[int, int]) -> None:
    clear = Image.new("RGBA", size, (*RED, 0))
    half = Image.new("RGBA", size, (*RED, 128))
    mixed = tuple(round((channel * 128 + 255 * 127) / 255) for channel in RED)
    grey = Image.new("LA", size, (90, 0))
    palette = Image.new("P", size, 1)
    palette.putpalette([*WHITE, *RED])
    deep = Image.fromarray(np.full(size[::-1], 513, dtype=np.uint16))
    for data in (
        encode(clear, "PNG"),
        encode(clear, "WEBP"),
        encode(clear, "TIFF"),
        encode(grey, "PNG"),
        encode(palette, "PNG", transparency=1),
        encode(palette, "PNG", transparency=bytes([255, 0])),
        encode(palette, "GIF", transparency=1),
        encode(Image.new("RGB", size, RED), "PNG", transparency=RED),
        encode(Image.new("L", size, 9), "PNG", transparency=9),
        encode(deep, "PNG", transparency=513),
    ):
        assert is_near(decode(data, SMALL, name=""), WHITE, tolerance=0)
    assert is_near(decode(encode(half, "PNG"), SMALL, name=""), mixed, tolerance=1)
    assert is_near(from_image(np.asarray(half), SMALL), mixed, tolerance=1)


def test_a_cmyk_jpeg_has_its_colours_and_not_their_negative() -> None:
    data = encode(quarters((512, 512), "CMYK"), "JPEG", quality=95, subsampling=0)
    assert b"Adobe" in data
    assert is_near(decode(data, FAST, name=""), RED, GREEN, BLUE, WHITE)
    assert is_near(decode(data, EXACT, name=""), RED, GREEN, BLUE, WHITE)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert is_near(decode(data, SMALL, name=""), RED, tolerance=12)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_all_eight_orientations_give_the_same_upright_picture(format: str, photographs: dict[str, Image.Image]) -> None:
    photograph = photographs["chelsea"]
    recipes = [FAST, SMALL, EXACT, replace(FAST, size=(90, 120))]
    lossy = {"quality": 100, "subsampling": 0}
    options = {"JPEG": lossy, "WEBP": {"lossless": True, "quality": 0, "method": 0}}.get(format, {})
    upright = [decode(encode(photograph, format, **options), recipe, name="") for recipe in recipes]
    turns = [None, 0, 3, 1, 5, 2, 6, 4]  # Pillow's numbers of what was done to a picture stored so
    for orientation, turn in enumerate(turns, start=1):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        stored = photograph.copy() if turn is None else photograph.transpose(Image.Transpose(turn))
        stored.getexif()[ExifTags.Base.Orientation] = orientation
        assert ImageOps.exif_transpose(stored).tobytes() == photograph.tobytes()
        data = encode(stored, format, exif=exif, **options)
        for recipe, expected in zip(recipes, upright, strict=True):
            picture = decode(data, recipe, name="")
            assert (picture.width, picture.height) == photograph.size
            apart = difference(picture, expected.pixels)
            assert apart.max() <= (0 if recipe.exact and format != "JPEG" else 9)  # a JPEG's blocks turn with it
            assert apart.mean() <= 0.5


def test_a_heic_with_a_rotation_is_turned_once() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = decode(heif(quarters((96, 64)), exif=exif.tobytes()), SMALL, name="")
    assert (picture.width, picture.height) == (64, 96)
    assert is_near(picture, BLUE, RED, WHITE, GREEN, tolerance=12)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_date_is_the_shutter_and_else_the_file(format: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = "2021:12:31 23:59:58"
    assert decode(encode(quarters(), format, exif=exif), SMALL, name="").taken_at == "2021-12-31T23:59:58"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:02:29 01:02:03"
    expected = "2021-12-31T23:59:58" if format == "TIFF" else "2020-02-29T01:02:03"  # Pillow writes no Exif IFD there
    assert decode(encode(quarters(), format, exif=exif), SMALL, name="").taken_at in (expected, "2020-02-29T01:02:03")


@pytest.mark.parametrize("date", ["", "    :  :     :  :  ", "2021:02:30 00:00:00", "0000:00:00 00:00:00", "yesterday"])
def test_a_date_that_is_none_is_none(date: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = date
    assert decode(encode(quarters(), "JPEG", exif=exif), SMALL, name="").taken_at is None


def test_broken_exif_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = "2021:12:31 23:59:58"
    whole = exif.tobytes()
    for broken in (whole[:12], whole[:-9], b"Exif\0\0" + os.urandom(64), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        for format in ("JPEG", "WEBP"):
            data = encode(quarters(), format, exif=broken)
            assert is_near(decode(data, SMALL, name=""), RED, GREEN, BLUE, WHITE, tolerance=12)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_exact_pixels_are_those_of_open_clip(
    mode: str, interpolation: str, photographs: dict[str, Image.Image]
) -> None:
    recipe = replace(EXACT, resize_mode=mode, interpolation=interpolation, fill_color=77)
    shapes = [(224, 224), (225, 224), (300, 451), (50, 33), (900, 223), (7, 300)]
    pictures = [
        photographs["flower"],
        photographs["rocket"],
        *(photographs["coffee"].resize(shape) for shape in shapes),
    ]
    for size in [(224, 224), (97, 97), (120, 200)]:
        sized = replace(recipe, size=size)
        for image in pictures:
            assert difference(from_image(image, sized), reference(image, sized)).max() == 0
    data = encode(photographs["china"], "JPEG")
    assert difference(decode(data, recipe, name=""), reference(Image.open(BytesIO(data)), recipe)).max() == 0


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "progressive", "grey"])
def test_fast_pixels_are_close_to_the_exact_ones(mode: str, format: str, photographs: dict[str, Image.Image]) -> None:
    for name, image in photographs.items():
        image = image.convert("L") if format == "grey" else image
        options = {"PNG": {"compress_level": 1}, "progressive": {"progressive": True}}.get(format, {})
        data = encode(image, "PNG" if format == "PNG" else "JPEG", **options)
        for size in ((160, 160), (224, 224), (224, 320)):
            fast = decode(data, replace(FAST, resize_mode=mode, size=size), name=name)
            exact = decode(data, replace(EXACT, resize_mode=mode, size=size), name=name)
            apart = difference(fast, exact.pixels)
            assert apart.mean() <= 0.5, (name, size)
            assert apart.max() <= 9, (name, size, apart.max())
            assert (fast.width, fast.height) == image.size == (exact.width, exact.height)


@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000), (3, 2000), (1, 1), (2, 1), (20_000, 5)])
@pytest.mark.parametrize("recipe", [FAST, EXACT], ids=["fast", "exact"])
def test_threads_and_dots_are_pictures_too(size: tuple[int, int], recipe: PixelRecipe) -> None:
    image = Image.new("RGB", size, RED)
    for format in ("JPEG", "PNG"):
        for mode in ("shortest", "squash", "longest"):
            picture = decode(encode(image, format), replace(recipe, resize_mode=mode), name="")
            assert (picture.width, picture.height) == size
            centre = picture.pixels[:, 111:113, 111:113].reshape(3, -1).T if mode != "longest" else []
            assert all(np.abs(np.subtract(pixel, RED)).max() <= 2 for pixel in centre)


def test_the_centre_of_a_long_picture_is_its_centre() -> None:
    long = Image.new("RGB", (4000, 20), BLUE)
    long.paste(RED, (1990, 0, 2010, 20))
    for recipe in (SMALL, replace(SMALL, exact=True)):
        assert is_near(decode(encode(long, "PNG"), recipe, name=""), RED)


def test_an_array_is_a_picture_and_another_array_is_not() -> None:
    rgb = np.asarray(quarters())
    assert (from_image(rgb, SMALL).pixels == from_image(quarters(), SMALL).pixels).all()
    assert (
        from_image(np.asarray(quarters(mode="L")), SMALL).pixels == from_image(quarters(mode="L"), SMALL).pixels
    ).all()
    for wrong in (rgb.astype(np.float32), rgb[None], rgb[..., :2], rgb[:0], rgb[0, 0]):
        with pytest.raises(ImageError, match="picture"):
            from_image(wrong, SMALL)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
REFUSED = {
    "empty.jpg": (b"", "empty"),
    "eps.jpg": (EPS, "not JPEG"),
    "page.jpg": (b"<html>not found</html>", "not JPEG"),
    "half.jpg": (encode(quarters((640, 480)), "JPEG")[:2500], "truncated"),
    "half.png": (encode(quarters((640, 480)).effect_spread(9), "PNG")[:4000], "truncated"),
    "half.webp": (encode(quarters((640, 480)).effect_spread(9), "WEBP")[:4000], "decoded"),
    "half.heic": (heif(quarters((640, 480)))[:400], "decoded"),
}


@pytest.mark.parametrize("recipe", [FAST, EXACT], ids=["fast", "exact"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_picture_is_refused_by_name(name: str, recipe: PixelRecipe) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ImageError, match=f"^{name}: .*{reason}"):
        decode(data, recipe, name=name)
    assert cost_bytes(data, recipe) >= 0


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def test_a_bomb_is_refused_before_a_pixel_is_made() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9000))) + chunk(b"IEND", b"")
    before, started = forget_peak(), time.perf_counter()
    with pytest.raises(ImageError, match=r"bomb\.png: 60000 x 60000 pixels are more than 100 megapixels"):
        decode(data, FAST, name="bomb.png")
    assert peak_bytes() - before < 20e6
    assert time.perf_counter() - started < 1


def resized_header(data: bytes, frame: bytes, size: tuple[int, int]) -> bytes:
    start = data.index(frame) + 5
    return data[:start] + struct.pack(">HH", *size[::-1]) + data[start + 4 :]


def test_a_jpeg_is_measured_after_its_scaling_unless_it_must_be_held_whole() -> None:
    plain, progressive = (encode(quarters((64, 64)), "JPEG", progressive=flag) for flag in (False, True))
    plain = resized_header(plain, b"\xff\xc0", (20_000, 10_000))
    progressive = resized_header(progressive, b"\xff\xc2", (20_000, 10_000))
    assert decode(plain, FAST, name="").width == 20_000
    for data, recipe in ((plain, EXACT), (progressive, FAST)):
        with pytest.raises(ImageError, match="megapixels"):
            decode(data, recipe, name="")
    assert cost_bytes(plain, FAST) < 50e6 < 800e6 <= cost_bytes(plain, EXACT)
    assert cost_bytes(progressive, FAST) > 1e9


@pytest.mark.parametrize("recipe", [FAST, EXACT], ids=["fast", "exact"])
def test_a_big_picture_is_in_memory_once(recipe: PixelRecipe) -> None:
    data = encode(Image.new("RGBA", (5000, 4000), (*RED, 128)), "PNG", compress_level=1)
    before = forget_peak()
    decode(data, recipe, name="")
    assert peak_bytes() - before < cost_bytes(data, recipe) + 40e6
    assert cost_bytes(data, recipe) == (8 if recipe.exact else 4) * 5000 * 4000


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encode(quarters(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="scans"):
        decode(data[:-2] + data[last:-2] * 600 + data[-2:], FAST, name="")


def test_the_cost_follows_the_header() -> None:
    assert cost_bytes(b"nothing", FAST) == 0
    assert cost_bytes(encode(quarters((300, 200)), "PNG"), FAST) == 300 * 200 * 4
    assert cost_bytes(encode(quarters((300, 200)), "WEBP"), FAST) == 300 * 200 * BYTES_PER_PIXEL["WEBP"]
    assert cost_bytes(encode(quarters((4000, 4000)), "JPEG"), FAST) == 500 * 500 * 4


def test_eight_threads_see_what_one_sees(photographs: dict[str, Image.Image]) -> None:
    images = [photographs[name] for name in ("astronaut", "chelsea", "coffee")]
    files = [encode(image, format) for image in images for format in ("JPEG", "PNG", "WEBP", "TIFF")]
    files += [heif(image) for image in images]
    alone = [decode(data, FAST, name="").pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, FAST, name="").pixels, files * 2))
    assert all((pixels == alone[i % len(files)]).all() for i, pixels in enumerate(together))


def test_the_users_pillow_is_left_as_it_was() -> None:
    limit, plugins = Image.MAX_IMAGE_PIXELS, list(Image.OPEN)
    decode(heif(quarters()), FAST, name="")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert plugins == list(Image.OPEN)


def forget_peak() -> int:
    """The memory in use, from which `peak_bytes` counts anew."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux forgets its peak")
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture
def shared_data() -> Path:
    folder = os.environ.get("CLIPKIT_TEST_DATA")
    if not folder:
        pytest.skip("CLIPKIT_TEST_DATA does not point at the photographs")
    return Path(folder)


OURS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "QOI", "TGA"}
MOSTLY_THERE = {  # JPEGs that lack their end: Pillow refuses them, viewers show them
    "gen__photo_no_eoi.jpg",
    "gen__photo_truncated_90pct.jpg",
    "gen__photo_truncated_99pct.jpg",
    "pillow__truncated_jpeg.jpg",
    "ljt__afl-testcases_jpeg_turbo_edges-only_images_id_002570_src_002143_op_arith8_pos_266_val_-1.jpg",
    "ljt__bugs_decompress_github_389_68846842-f95e7180-06cd-11ea-9207-80b34a91f939.jpg",
    "ljt__bugs_decompress_mozilla_1050342_jpeg-image-002.jpg",
}
NOT_READ = {  # though hostile.csv says that Pillow loads them
    "gen__bomb_12000x12000_rgb.png": "100 megapixels",
    # Pillow refuses these at the first load; the list was made by a second, which gives what came before
    "gen__photo_bad_crc.png": "unrecognized data stream",
    "pillow__broken_data_stream.png": "unrecognized data stream",
    "pillow__truncated_end_chunk.png": "Truncated File Read",
    "pillow__crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": "decoder error",
}


@pytest.mark.real
@pytest.mark.parametrize("recipe", [FAST, EXACT], ids=["fast", "exact"])
def test_hostile_files_are_pictures_or_errors_and_nothing_else(shared_data: Path, recipe: PixelRecipe) -> None:
    decode(encode(quarters(), "JPEG"), recipe, name="")
    before = forget_peak()
    with open(shared_data / "hostile" / "hostile.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) > 500
    for row in table:
        name, started, error = row["file"], time.perf_counter(), ""
        try:
            data = read_file(shared_data / "hostile" / "files" / name)
            assert cost_bytes(data, recipe) >= 0
            assert decode(data, recipe, name=name).pixels.shape == (3, 224, 224)
        except ImageError as refused:
            error = refused.message
            assert name in error
        assert time.perf_counter() - started < 10, name
        if row["format"] in OURS and row["pillow_loads"] == "True":
            assert (NOT_READ[name] in error) if name in NOT_READ else not error, error
        elif row["format"] and name not in MOSTLY_THERE:
            assert error, f"{name} is {row['format']} and was read"
    assert peak_bytes() - before <= 600e6


@pytest.mark.real
def test_real_photographs_exactly_as_open_clip_reads_them(shared_data: Path) -> None:
    files = sorted((shared_data / "captions" / "images").iterdir())[::20]
    assert len(files) >= 20
    for file in files:
        with Image.open(file) as image:
            expected = reference(ImageOps.exif_transpose(image).convert("RGB"), EXACT)
        data = read_file(file)
        assert difference(decode(data, EXACT, name=file.name), expected).max() == 0
        assert difference(decode(data, FAST, name=file.name), expected).mean() <= 0.5


# --- what lacks its end ---


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_without_its_last_bytes_is_read_whole(options: dict[str, bool]) -> None:
    data = encode(quarters((640, 480)).effect_spread(9), "JPEG", **options)
    whole, cut = decode(data, FAST, name=""), decode(data[:-2], FAST, name="")
    assert cut.share == 1
    assert np.abs(whole.pixels.astype(int) - cut.pixels).max() <= 1


@pytest.mark.parametrize("recipe", [FAST, EXACT], ids=["fast", "exact"])
def test_of_a_jpeg_that_was_cut_off_what_is_there_is_read_and_the_rest_is_grey(recipe: PixelRecipe) -> None:
    data = encode(quarters((640, 480)).effect_spread(9), "JPEG")
    whole, cut = decode(data, recipe, name=""), decode(data[: int(len(data) * 0.8)], recipe, name="")
    assert 0.6 < cut.share < 0.85
    rows = int(cut.share * recipe.size[0]) - 4
    assert np.abs(whole.pixels[:, :rows].astype(int) - cut.pixels[:, :rows]).max() <= 1
    assert np.abs(cut.pixels[:, rows + 8 :].astype(int) - 128).max() <= 1
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: int(len(data) * 0.4)], recipe, name="")


# --- deep pixels ---


def scene(height: int = 60, width: int = 80) -> np.ndarray:
    """Values 0 to 1 with a dark and a bright side."""
    return np.clip(np.linspace(0, 1, width)[None] * np.linspace(0.3, 1, height)[:, None], 0, 1)


def tiff(values: np.ndarray, tags: dict[int, object] | None = None) -> bytes:
    stream = BytesIO()
    Image.fromarray(values).save(stream, "TIFF", tiffinfo=tags or {})
    return stream.getvalue()


def grey_of(data: bytes) -> np.ndarray:
    return decode(data, FAST, name="").pixels[0].astype(float)


ORDINARY = tiff((scene() * 255).astype(np.uint8))
DEEP = {
    "floats to 1": tiff(scene().astype(np.float32)),
    "floats to 1.2": tiff((scene() * 1.2).astype(np.float32)),
    "floats to 255": tiff((scene() * 255).astype(np.float32)),
    "floats to 65535": tiff((scene() * 65535).astype(np.float32)),
    "10 bits": tiff((scene() * 1023).astype(np.uint16)),
    "12 bits": tiff((scene() * 4095).astype(np.uint16)),
    "14 bits": tiff((scene() * 16383).astype(np.uint16)),
    "16 bits": tiff((scene() * 65535).astype(np.uint16)),
    "32 bits": tiff((scene() * 3_000_000).astype(np.int32)),
    "inverted": tiff(65535 - (scene() * 65535).astype(np.uint16), {262: 0}),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pixels_are_the_picture_that_they_are_in_8_bits(name: str) -> None:
    assert np.abs(grey_of(DEEP[name]) - grey_of(ORDINARY)).max() <= 3


@pytest.mark.parametrize("odd", [1.0001, 7.0, 1e30, np.inf, -np.inf, np.nan])
def test_one_odd_pixel_changes_nothing_else(odd: float) -> None:
    values = scene(200, 200).astype(np.float32)
    plain = grey_of(tiff(values))
    values[100, 100] = odd
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = grey_of(tiff(values))
    assert (np.abs(found - plain) > 3).sum() <= 30


def test_what_a_file_calls_no_data_does_not_count() -> None:
    values = scene().astype(np.float32)
    values[:20] = 5e8
    found = grey_of(tiff(values, {42113: "500000000"}))
    assert found[:60].max() == 0
    assert np.abs(found[120:] - grey_of(ORDINARY)[120:]).max() <= 3


# --- transparency, colours, dates, formats ---


def test_white_shapes_on_nothing_are_told_apart() -> None:
    disc, square = Image.new("RGBA", (96, 96)), Image.new("RGBA", (96, 96))
    ImageDraw.Draw(disc).ellipse((20, 20, 76, 76), fill="white")
    ImageDraw.Draw(square).rectangle((20, 20, 76, 76), fill="white")
    one, other = (decode(encode(image, "PNG"), FAST, name="").pixels for image in (disc, square))
    assert (one != other).any()
    assert one[:, 0, 0].tolist() == [128, 128, 128]
    ImageDraw.Draw(disc).ellipse((40, 40, 60, 60), fill="red")
    assert decode(encode(disc, "PNG"), FAST, name="").pixels[:, 0, 0].tolist() == [255, 255, 255]


def pq(light: np.ndarray) -> np.ndarray:
    """The signal of SMPTE ST 2084 for linear light in which 1 is a white page of 203 nits."""
    y = (light * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def test_a_pq_picture_is_as_bright_as_its_sdr_self() -> None:
    srgb = np.stack([scene(), scene()[:, ::-1], scene() * 0.5], axis=-1) * 0.85
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    signal = pq(np.einsum("ij,hwj->hwi", to_2020, linear))
    plain = encode(Image.fromarray((srgb * 255).round().astype(np.uint8)), "AVIF", quality=100, subsampling="4:4:4")
    coded = encode(Image.fromarray((signal * 255).round().astype(np.uint8)), "AVIF", quality=100, subsampling="4:4:4")
    at = coded.index(b"colrnclx") + 8
    hdr = coded[:at] + bytes([0, 9, 0, 16]) + coded[at + 4 :]
    expected, flat, found = (decode(data, FAST, name="").pixels.astype(int) for data in (plain, coded, hdr))
    assert np.abs(found - expected).mean() < 4
    assert np.abs(flat - expected).mean() > 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021:07:04 10:11:12", "2021-07-04T10:11:12"),
        ("2021-07-04T10:11:12Z", "2021-07-04T10:11:12"),
        ("2021-07-04T10:11:12.50+02:00", "2021-07-04T10:11:12"),
        ("2021:07:04 10:11:12\0\0", "2021-07-04T10:11:12"),
        ("2021/7/4", "2021-07-04T00:00:00"),
        ("0000:00:00 00:00:00", None),
        ("2021:13:04 10:11:12", None),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
    ],
)
def test_a_date_is_read_as_cameras_write_it(text: str, expected: str | None) -> None:
    assert parse_date(text) == expected


def test_the_first_date_that_is_one_counts() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[36867] = "0000:00:00 00:00:00"
    exif[306] = "2020:02:03 04:05:06"
    data = encode(quarters(), "JPEG", exif=exif)
    assert decode(data, FAST, name="").taken_at == "2020-02-03T04:05:06"
    packet = b'<x:xmpmeta><rdf:Description xmp:CreateDate="2019-05-06T07:08:09+02:00"/></x:xmpmeta>'
    assert decode(encode(quarters(), "JPEG", xmp=packet), FAST, name="").taken_at == "2019-05-06T07:08:09"


@pytest.mark.parametrize("kind", ["JPEG2000", "TGA", "ICO", "PPM", "QOI", "MPO"])
def test_further_formats_are_read(kind: str) -> None:
    picture = quarters((64, 64))
    data = qoi(picture) if kind == "QOI" else encode(picture, kind)
    name = f"x.{ {'JPEG2000': 'jp2'}.get(kind, kind.lower()) }".replace(" ", "")
    assert is_picture(name)
    expected = decode(encode(picture, "PNG"), FAST, name="").pixels.astype(int)
    assert np.abs(decode(data, FAST, name=name).pixels.astype(int) - expected).mean() < 3
    assert cost_bytes(data, FAST, name) > 0


def qoi(image: Image.Image) -> bytes:
    """Every pixel as a chunk of its own."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    head = b"qoif" + image.width.to_bytes(4) + image.height.to_bytes(4) + b"\x03\0"
    return head + b"".join(b"\xfe" + bytes(pixel) for pixel in pixels.tolist()) + b"\0" * 7 + b"\1"


def test_the_reason_is_that_of_the_format() -> None:
    with pytest.raises(ImageError, match="big-endian BigTIFF is not read"):
        decode(b"MM\0+" + b"\0" * 60, FAST, name="")
    broken = bytearray(encode(quarters(), "AVIF"))
    at = broken.index(b"ispe")
    broken[at : at + 4] = b"free"
    with pytest.raises(ImageError) as refused:
        decode(bytes(broken), FAST, name="")
    assert "AV1" not in refused.value.message
    assert "plugin" not in refused.value.message


def test_metadata_that_cannot_be_read_costs_no_pixel() -> None:
    """As the TIFFs of a thermal camera: the interoperability directory stands in the first one."""
    plain = tiff((scene() * 255).astype(np.uint8))
    odd = tiff((scene() * 255).astype(np.uint8), {40965: 99_999_999, 274: 6})
    turned = np.rot90((scene() * 255).astype(np.uint8), -1)
    np.testing.assert_array_equal(grey_of(odd), grey_of(tiff(np.ascontiguousarray(turned))))
    assert grey_of(plain).shape == grey_of(odd).shape


def test_a_heic_of_a_phones_200_megapixels_is_read_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heif(quarters((640, 480)))
    expected = decode(data, FAST, name="").pixels.astype(int)
    monkeypatch.setattr("clipkit.images.decode.MAX_PIXELS", 1000)
    monkeypatch.setattr("clipkit.images.decode.STRIP_PIXELS", 10_000)
    found = decode(data, FAST, name="")
    assert (found.width, found.height) == (640, 480)
    assert np.abs(found.pixels.astype(int) - expected).max() <= 2
    monkeypatch.setattr("clipkit.images.decode.MAX_HEIF_PIXELS", 1000)
    with pytest.raises(ImageError, match="more than"):
        decode(data, FAST, name="")
