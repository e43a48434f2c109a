"""Camera RAW files: previews, orientation, metadata, and what is done without them; DNG files are written by hand."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ImageError
from clipkit.explore import search
from clipkit.images import guarded_decoder
from clipkit.images.decode import cost_bytes, decode, decode_whole, metadata
from clipkit.images.raw import is_raw_content
from clipkit.images.recipe import PixelRecipe
from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.raws import dng

rawpy = pytest.importorskip("rawpy", reason="pip install 'clipkit[raw]'")

SQUASHED = PixelRecipe((64, 64), (0.5,) * 3, (0.5,) * 3, resize_mode="squash")
PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<r:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></r:RDF></x:xmpmeta>'
)
RED, BLUE = (220, 30, 40), (30, 40, 210)


def jpeg(size: tuple[int, int] = (1024, 768), *, top: tuple[int, int, int] = RED, **options: object) -> bytes:
    """Its upper half `top`, its lower half white."""
    image = Image.new("RGB", size, "white")
    image.paste(top, (0, 0, size[0], size[1] // 2))
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def halves(pixels: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Mean colour of each half of (3, h, w)."""
    h, w = pixels.shape[1] // 2, pixels.shape[2] // 2
    parts = {"top": pixels[:, : h - 2], "bottom": pixels[:, h + 2 :], "left": pixels[..., : w - 2]}
    return {
        name: tuple(part.mean((1, 2)).round().astype(int))
        for name, part in {**parts, "right": pixels[..., w + 2 :]}.items()
    }


def near(colour: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= 6


def test_the_preview_is_read_and_sizes_are_those_of_the_sensor() -> None:
    data = dng(BLUE, preview=jpeg((640, 480)))
    picture = decode(data, SQUASHED, name="a.DNG", is_hashed=True)
    assert near(halves(picture.pixels)["top"], RED)
    assert near(halves(picture.pixels)["bottom"], (255, 255, 255))
    assert (picture.width, picture.height) == (1024, 768)
    assert picture.phash is not None
    assert decode_whole(data, name="a.dng").shape == (480, 640, 3)


@pytest.mark.parametrize(("orientation", "side"), [(1, "top"), (3, "bottom"), (6, "right"), (8, "left")])
def test_a_preview_is_turned_as_the_raw_file_says(orientation: int, side: str) -> None:
    data = dng(BLUE, preview=jpeg(), orientation=orientation)
    picture = decode(data, SQUASHED, name="a.dng")
    assert near(halves(picture.pixels)[side], RED)
    assert (picture.width, picture.height) == ((768, 1024) if orientation >= 5 else (1024, 768))
    whole = decode_whole(data, name="a.dng")
    assert near(halves(whole.transpose(2, 0, 1))[side], RED)


def test_a_preview_that_is_upright_already_is_not_turned_again() -> None:
    picture = decode(dng(BLUE, preview=jpeg((768, 1024)), orientation=6), SQUASHED, name="a.dng")
    assert near(halves(picture.pixels)["top"], RED)
    assert (picture.width, picture.height) == (768, 1024)


@pytest.mark.parametrize("preview", [None, jpeg((160, 120)), jpeg()[:3000]], ids=["none", "small", "damaged"])
def test_without_a_preview_that_is_good_enough_the_sensor_is_developed(preview: bytes | None) -> None:
    data = dng((0, 0, 255), preview=preview, orientation=6)
    picture = decode(data, SQUASHED, name="a.dng")
    red, _, blue = halves(picture.pixels)["top"]
    assert red < 20 < 200 < blue
    assert (picture.width, picture.height) == (768, 1024)
    assert decode_whole(data, name="a.dng").shape == (512, 384, 3)
    assert cost_bytes(data, SQUASHED, "a.dng") > 0


def test_date_camera_exposure_and_xmp_come_from_the_file() -> None:
    for preview in (None, jpeg()):
        data = dng(BLUE, preview=preview, xmp=PACKET.encode())
        found = metadata(data, name="a.dng")
        assert found == decode(data, SQUASHED, name="a.dng").metadata
        assert (found.taken_at, found.camera) == ("2021-05-06T07:08:09", "NIKON D750")
        assert (found.exposure, found.rating) == ("1/250 s, ISO 400", 4)


def test_a_decoder_beside_this_process_reads_the_same() -> None:
    data = dng(BLUE, preview=jpeg(), orientation=6)
    here, there = decode(data, SQUASHED, name="a.dng"), guarded_decoder.decode(data, SQUASHED, name="a.dng")
    assert np.array_equal(here.pixels, there.pixels)
    assert (here.metadata, here.width) == (there.metadata, there.width)


def test_the_content_decides_before_the_name() -> None:
    assert near(halves(decode(jpeg(), SQUASHED, name="a.nef").pixels)["top"], RED)
    assert is_raw_content(b"II*\0\x10\0\0\0CR\2\0", "x.tif")
    assert is_raw_content(b"FUJIFILMCCD-RAW ", "x")
    assert is_raw_content(b"\0\0\0\x18ftypcrx ", "x")
    assert not is_raw_content(b"II*\0\x10\0\0\0\0\0", "x.tif")


@pytest.mark.parametrize("data", [b"II*\0" + bytes(500), b"FUJIFILMCCD-RAW " + bytes(500), dng(BLUE)[:2000]])
def test_a_damaged_raw_file_is_a_sentence(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"a\.dng: "):
        decode(data, SQUASHED, name="a.dng")
    assert cost_bytes(data, SQUASHED, "a.dng") == 0
    metadata(data, name="a.dng")


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"a\.dng: RAW files are read by rawpy") as caught:
        decode(dng(BLUE), SQUASHED, name="a.dng")
    assert caught.value.hint == "pip install 'clipkit[raw]'"
    assert metadata(dng(BLUE), name="a.dng").camera == "NIKON D750"


def test_a_raw_file_that_its_decoder_dies_of_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rawpy.py").write_text("import os\ndef imread(stream):\n    os.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = guarded_decoder.DecoderPool()
    with pytest.raises(ImageError, match=r"a\.dng: its decoder"):
        pool.run("decode", dng(BLUE), "a.dng", SQUASHED)
    answer, _ = pool.run("decode", jpeg(), "b.jpg", SQUASHED)
    pool.close()
    assert answer["width"] == 1024


def test_raw_files_are_indexed_beside_others(tmp_path: Path) -> None:
    (tmp_path / "one.nef").write_bytes(dng((255, 0, 0), preview=jpeg(top=BLUE)))
    (tmp_path / "two.dng").write_bytes(dng((255, 0, 0)))
    paint(tmp_path / "two.png", COLOURS["green"])
    paint(tmp_path / "three.jpg", COLOURS["cyan"])
    (tmp_path / "three.dng").write_bytes(dng(BLUE))
    index = ImageIndex.create(tmp_path, ColourEncoder())
    report = index.update()
    assert (report.encoded, report.paired, report.unread_raws, report.failed) == (4, 1, 0, ())
    assert sorted(index.paths) == ["one.nef", "three.jpg", "two.dng", "two.png"]
    assert [hit.path for hit in search(index, "red type:dng")] == ["two.dng"]
    assert sorted(hit.path for hit in search(index, "red type:raw")) == ["one.nef", "two.dng"]
    (tmp_path / "three.dng.xmp").write_text(PACKET)
    assert index.update().refreshed == 1
    assert [hit.path for hit in search(index, "rating:4")] == ["three.jpg"]
    (tmp_path / "three.jpg").unlink()
    assert (index.update().encoded, len(index)) == (1, 4)
