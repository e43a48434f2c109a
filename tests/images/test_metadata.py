"""Metadata of pictures: EXIF, XMP, sidecars and IPTC, also hostile ones; and perceptual hashes."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from pillow_heif import from_pillow

from clipkit.images import guarded_decoder
from clipkit.images.decode import decode, metadata
from clipkit.images.metadata import MAX_TAG, MAX_TAGS, MAX_TITLE, MAX_XMP, camera_of, parse_xmp
from clipkit.images.perceptual_hash import phash
from clipkit.images.recipe import NO_METADATA, Metadata, PixelRecipe
from clipkit.index.sidecars import read_sidecar

RECIPE = PixelRecipe((64, 64), (0.5,) * 3, (0.5,) * 3)
PACKET = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmp:Rating="4"
 tiff:Make="SONY" tiff:Model="ILCE-7M3" exif:GPSLatitude="52,31.2N" exif:GPSLongitude="13,24,36W">
 <dc:subject><rdf:Bag><rdf:li>family</rdf:li><rdf:li>Österreich</rdf:li><rdf:li>Family</rdf:li></rdf:Bag></dc:subject>
 <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Holiday &amp; sea</rdf:li></rdf:Alt></dc:title>
 <exif:DateTimeOriginal>2020-02-03T04:05:06+01:00</exif:DateTimeOriginal>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
FROM_PACKET = Metadata(
    "2020-02-03T04:05:06", "SONY ILCE-7M3", 52.52, -13.41, 4, ("family", "Österreich"), "Holiday & sea"
)


def saved(form: str = "JPEG", **options: object) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (80, 60), "teal").save(stream, form, **options)
    return stream.getvalue()


def exif_of(latitude: object = (52, 31, 12), longitude: object = (13, 24, 36), refs: str = "NE") -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "FUJIFILM", "X100V"
    exif[0x4746] = 3
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2019:07:31 10:00:00"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: refs[0], 2: latitude, 3: refs[1], 4: longitude})
    return exif


def iptc(*records: tuple[int, bytes]) -> bytes:
    """A JPEG with a Photoshop segment that holds these IPTC records."""
    body = b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value for number, value in records)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)
    segment = b"Photoshop 3.0\0" + resource
    data = saved()
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_is_read(form: str) -> None:
    expected = Metadata("2019-07-31T10:00:00", "FUJIFILM X100V", 52.52, 13.41, 3)
    data = saved(form, exif=exif_of())
    assert metadata(data) == decode(data, RECIPE, name="").metadata == expected
    assert guarded_decoder.metadata(data, name="") == guarded_decoder.decode(data, RECIPE, name="").metadata == expected


def test_exif_of_a_heic_is_read() -> None:
    stream = BytesIO()
    from_pillow(Image.new("RGB", (80, 60), "teal")).save(stream, exif=exif_of().tobytes())
    assert metadata(stream.getvalue()) == decode(stream.getvalue(), RECIPE, name="").metadata
    assert metadata(stream.getvalue()) == Metadata("2019-07-31T10:00:00", "FUJIFILM X100V", 52.52, 13.41, 3)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("place", [33, -12])
@pytest.mark.parametrize("form", ["chunk", "chunk with a prefix", "profile"])
def test_exif_of_a_png_is_read_wherever_and_however_a_program_writes_it(form: str, place: int) -> None:
    exif = exif_of().tobytes().removeprefix(b"Exif\0\0")
    profile = b"\nexif\n%8d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode() + b"\n"
    said = {
        "chunk": chunk(b"eXIf", exif),
        "chunk with a prefix": chunk(b"eXIf", b"Exif\0\0" + exif),
        "profile": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),  # ImageMagick
    }
    plain = saved("PNG")
    data = plain[:place] + said[form] + plain[place:]  # after the header, or after the pixels
    assert metadata(data) == decode(data, RECIPE, name="").metadata
    assert metadata(data) == Metadata("2019-07-31T10:00:00", "FUJIFILM X100V", 52.52, 13.41, 3)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024-03-05T10:11:12+01:00", "2024-03-05T10:11:12"),
        ("Tue, 05 Mar 2024 10:11:12 +0100", "2024-03-05T10:11:12"),
        ("Tue 05 Mar 2024 10:11:12 PM", None),
        ("Tue, 99 Mar 2024 10:11:12 GMT", None),
        ("yesterday", None),
        ("5 Mar " * 500, None),
    ],
)
def test_a_png_without_exif_has_the_date_of_its_own_text(text: str, date: str | None) -> None:
    plain = saved("PNG")
    data = plain[:33] + chunk(b"tEXt", b"Creation Time\0" + text.encode()) + plain[33:]
    assert metadata(data).taken_at == decode(data, RECIPE, name="").metadata.taken_at == date


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "PNG"])
def test_xmp_in_the_file_is_read(form: str) -> None:
    if form == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", PACKET)
        data = saved(form, pnginfo=info)
    else:
        data = saved(form, **({"tiffinfo": {700: PACKET.encode()}} if form == "TIFF" else {"xmp": PACKET.encode()}))
    assert metadata(data) == FROM_PACKET


def test_iptc_keywords_and_title_are_read() -> None:
    found = metadata(iptc((5, b"Fest"), (25, "Größe".encode()), (25, "Stra\xdfe".encode("latin-1")), (25, b"x\0y")))
    assert (found.title, found.tags) == ("Fest", ("Größe", "Straße", "x y"))
    assert metadata(iptc((25, b"one"))).tags == ("one",)


def test_a_sidecar_counts_before_the_file_but_the_camera_knows_the_date(tmp_path: Path) -> None:
    (tmp_path / "x.jpg.xmp").write_text(PACKET)
    (tmp_path / "x.xmp").write_text("<x/>")
    (tmp_path / "y.XMP").write_text(PACKET)
    beside = read_sidecar(f"{tmp_path}/x.jpg")
    assert beside == read_sidecar(f"{tmp_path}/y.png")
    assert beside == FROM_PACKET
    inside = Metadata("2019-07-31T10:00:00", "FUJIFILM X100V", 1.0, 2.0, 1, ("old",), None)
    assert beside.over(inside) == Metadata("2019-07-31T10:00:00", *list(vars(FROM_PACKET).values())[1:])
    assert NO_METADATA.over(inside) == inside
    assert read_sidecar(f"{tmp_path}/none.jpg") == read_sidecar(f"{tmp_path}/x.png") == NO_METADATA


@pytest.mark.parametrize(
    ("maker", "model", "name"),
    [
        ("FUJIFILM", "X100V", "FUJIFILM X100V"),
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("OLYMPUS IMAGING CORP.  ", "E-M5", "OLYMPUS E-M5"),
        ("EASTMAN KODAK COMPANY", "KODAK DX6490", "KODAK DX6490"),
        ("LEICA CAMERA AG", "LEICA Q2", "LEICA Q2"),
        ("Apple", "iPhone 12\0\0", "Apple iPhone 12"),
        ("SONY", "", "SONY"),
        ("", "X100V", "X100V"),
        ("", "", None),
        ("\0", "a\x1b[31m\u202eb\n", "a[31mb"),
        ("m" * 9999, "n" * 9999, "m" * 80),
    ],
)
def test_a_camera_is_called_as_people_call_it(maker: str, model: str, name: str | None) -> None:
    assert camera_of({ExifTags.Base.Make: maker, ExifTags.Base.Model: model}) == name


@pytest.mark.parametrize(
    ("latitude", "longitude", "refs", "place"),
    [
        ((52, 31, 12), (13, 24, 36), "SW", (-52.52, -13.41)),
        ((52.52, 0, 0), (13.41, 0, 0), "NE", (52.52, 13.41)),
        ((0, 0, 0), (0, 0, 0), "NE", (None, None)),
        ((91, 0, 0), (13, 0, 0), "NE", (None, None)),
        ((52, 0, 0), (181, 0, 0), "NE", (None, None)),
        ((IFDRational(1, 0), 0, 0), (13, 0, 0), "NE", (None, None)),
    ],
)
def test_a_place_is_one_on_the_earth_or_none(
    latitude: object, longitude: object, refs: str, place: tuple[float | None, float | None]
) -> None:
    found = metadata(saved(exif=exif_of(latitude, longitude, refs)))
    assert (found.latitude, found.longitude) == place


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>' + PACKET.replace("family", "&b;&b;")
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + PACKET.replace("family", "&a;")


@pytest.mark.parametrize(
    "packet",
    [BOMB, OUTSIDE, "", "\0" * 100, "<", "<x>" * 100_000, "\ufeff", "<?xml version='1.0' encoding='nonsense'?><x/>"],
    ids=str.__len__,
)
def test_hostile_xml_says_nothing(packet: str) -> None:
    assert parse_xmp(packet.encode()) == NO_METADATA


def test_of_a_damaged_packet_the_beginning_counts_and_a_huge_one_is_cut() -> None:
    assert parse_xmp(PACKET.partition("<dc:title>")[0].encode()).tags == ("family", "Österreich")
    assert parse_xmp(PACKET.encode() + b"x" * 2 * MAX_XMP).rating == 4
    assert parse_xmp(PACKET.encode("utf-16")) == FROM_PACKET


@pytest.mark.parametrize(
    ("rating", "stars"),
    [("5", 5), ("0", 0), ("-1", 0), ("3.0", 3), ("6", None), ("nan", None), ("", None), ("1e999", None), ("x", None)],
)
def test_a_rating_is_0_to_5_stars(rating: str, stars: int | None) -> None:
    assert parse_xmp(PACKET.replace('Rating="4"', f'Rating="{rating}"').encode()).rating == stars


def test_texts_are_short_and_of_what_can_be_seen() -> None:
    many = "".join(f"<rdf:li>{n} {'x' * 999}</rdf:li>" for n in range(999))
    packet = PACKET.replace("<rdf:li>family</rdf:li>", many).replace("Holiday", "a\u202e\u200b\n  " + "t" * 9999)
    found = parse_xmp(packet.encode())
    assert len(found.tags) == MAX_TAGS
    assert max(map(len, found.tags)) <= MAX_TAG
    assert found.title is not None
    assert found.title.startswith("a tt")
    assert len(found.title) == MAX_TITLE
    assert parse_xmp(PACKET.replace("family", 'a"b').encode()).tags[0] == "a'b"


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_damaged_files_have_less_metadata_and_do_no_harm(cut: int) -> None:
    data = bytearray(saved(exif=exif_of(), xmp=PACKET.encode()))
    data[cut] ^= 0x55
    found = metadata(bytes(data))
    assert found.rating in (None, 0, 1, 2, 3, 4, 5)
    metadata(bytes(data[:cut]))


def gradient(size: tuple[int, int]) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, 400), np.linspace(0, 1, 300))
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y * x), np.sin(5 * y)], axis=-1)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def bits(first: bytes | None, second: bytes | None) -> int:
    assert first is not None
    assert second is not None
    return (int.from_bytes(first) ^ int.from_bytes(second)).bit_count()


def test_a_hash_is_imagehashes_of_the_whole_picture() -> None:
    import imagehash

    image = gradient((400, 300))
    pixels = np.asarray(image).transpose(2, 0, 1)
    assert phash(pixels).hex() == str(imagehash.phash(image))
    assert len(phash(pixels)) == 8


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_near_copies_have_near_hashes_whatever_is_cropped(resize_mode: str) -> None:
    recipe = PixelRecipe((64, 64), (0.5,) * 3, (0.5,) * 3, resize_mode=resize_mode)

    def hashed(image: Image.Image, form: str, recipe: PixelRecipe = recipe, **options: object) -> bytes | None:
        stream = BytesIO()
        image.save(stream, form, **options)
        found = [door(stream.getvalue(), recipe, name="", is_hashed=True) for door in (decode, guarded_decoder.decode)]
        assert found[0].phash == found[1].phash
        assert (found[0].pixels == found[1].pixels).all()
        return found[0].phash

    image = gradient((400, 300))
    exact = hashed(image, "PNG")
    other = PixelRecipe((96, 96), (0.5,) * 3, (0.5,) * 3, exact=True)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    assert bits(exact, phash(np.asarray(image).transpose(2, 0, 1))) <= 2
    assert bits(exact, hashed(image, "PNG", other)) <= 2
    assert bits(exact, hashed(image, "JPEG", quality=30)) <= 6
    assert bits(exact, hashed(gradient((900, 700)), "JPEG")) <= 6
    assert bits(exact, hashed(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned)) <= 6
    assert bits(exact, hashed(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "PNG")) > 12
    assert decode(saved(), recipe, name="").phash is None
