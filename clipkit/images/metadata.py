"""Metadata of a picture: date, camera, place, rating, tags and title, from EXIF, XMP, XMP sidecars and IPTC."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate
from typing import Any
from xml.parsers import expat

from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.IptcImagePlugin import getiptcinfo

from clipkit.images.decoder_edge import attempt
from clipkit.images.recipe import Metadata

MAX_XMP = 1 << 20  # bytes of it that are looked at
MAX_CAMERA, MAX_TAG, MAX_TITLE = 80, 100, 300  # characters; what is longer is cut
MAX_TAGS = 100
MOST_DATE = 60  # characters of a date in words
MOST_STARS = 5

DATE = re.compile(r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
XMP_DATE = re.compile(r"(?:exif:DateTimeOriginal|xmp:CreateDate|photoshop:DateCreated)(?:=\"|>)([^\"<]{4,40})")
_COMPANY = re.compile(
    r"[\s,]+(corporation|corp|co|company|inc|ltd|gmbh|ag|camera|computer|imaging|optical|electric|electronics|technologies"
    r"|techwin)\b.*",
    re.IGNORECASE,
)
_XMP_ANGLE = re.compile(r"(\d{1,3}),(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?\s*([NSEW])")
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")  # categories of characters that no name has: controls, bidi marks, surrogates

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC, _TIFF, _EXIF = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_XMP, _PHOTOSHOP = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/photoshop/1.0/"
_DATES = (f"{_EXIF} DateTimeOriginal", f"{_XMP} CreateDate", f"{_PHOTOSHOP} DateCreated")
_KEYWORDS, _NAME, _RATING = f"{_DC} subject", f"{_DC} title", f"{_XMP} Rating"
_MAKE, _MODEL = f"{_TIFF} Make", f"{_TIFF} Model"
_LATITUDE, _LONGITUDE = f"{_EXIF} GPSLatitude", f"{_EXIF} GPSLongitude"
_WANTED = frozenset([*_DATES, _KEYWORDS, _NAME, _RATING, _MAKE, _MODEL, _LATITUDE, _LONGITUDE])
_EXIF_RATING = 0x4746  # stars, as Windows and some cameras write them
_IPTC_TITLE, _IPTC_KEYWORDS = (2, 5), (2, 25)

Properties = Mapping[str, list[str]]  # XMP: namespace and name -> values


def read_metadata(image: Image.Image) -> Metadata:
    """Metadata of a picture whose header is read; what cannot be read, or is none, is left out."""
    exif = attempt(image.getexif) or Image.Exif()
    packet = _xmp(image)
    found = parse_xmp(packet.encode("utf-8", "replace"))
    iptc = (attempt(lambda: getiptcinfo(image)) if isinstance(image, ImageFile) else None) or {}
    place = attempt(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo)) or {}
    inner = attempt(lambda: exif.get_ifd(ExifTags.IFD.Exif)) or {}
    latitude, longitude = _place(_gps_angle(place, 1), _gps_angle(place, 3))
    if latitude is None:
        latitude, longitude = found.latitude, found.longitude
    return Metadata(
        taken_at=attempt(lambda: _taken_at(exif, packet)) or _png_date(image.info.get("Creation Time")),
        camera=camera_of(exif) or found.camera,
        latitude=latitude,
        longitude=longitude,
        rating=found.rating if found.rating is not None else _stars(exif.get(_EXIF_RATING)),
        tags=_tags([*found.tags, *_iptc_texts(iptc, _IPTC_KEYWORDS)]),
        title=found.title or next(iter(_texts(_iptc_texts(iptc, _IPTC_TITLE), MAX_TITLE)), None),
        lens=clean(str(inner.get(ExifTags.Base.LensModel) or ""), MAX_CAMERA) or None,
        exposure=attempt(lambda: exposure_of(inner)) or None,
    )


def parse_xmp(data: bytes) -> Metadata:
    """Metadata of an XMP packet; of a damaged one what stands before the damage."""
    found = _properties(data)
    first = {name: values[0] for name, values in found.items()}
    latitude, longitude = _place(_xmp_angle(first.get(_LATITUDE)), _xmp_angle(first.get(_LONGITUDE)))
    dates = (parse_date(value) for name in _DATES for value in found.get(name, ()))
    return Metadata(
        taken_at=next((day for day in dates if day), None),
        camera=_camera_name(first.get(_MAKE, ""), first.get(_MODEL, "")),
        latitude=latitude,
        longitude=longitude,
        rating=_stars(first.get(_RATING)),
        tags=_tags(found.get(_KEYWORDS, ())),
        title=next(iter(_texts(found.get(_NAME, ()), MAX_TITLE)), None),
    )


def camera_of(exif: Mapping[int, Any]) -> str | None:
    """Maker and model of the camera, the maker once; None where EXIF has none."""
    return _camera_name(*(str(exif.get(tag) or "") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)))


def exposure_of(inner: Mapping[int, Any]) -> str:
    """ "1/250 s, f/2.8, ISO 400, 35 mm", of what EXIF has of it."""
    parts = []
    if (seconds := _positive(inner.get(ExifTags.Base.ExposureTime))) is not None:
        parts.append(f"{seconds:g} s" if seconds >= 0.3 else f"1/{round(1 / seconds):,} s")
    if (aperture := _positive(inner.get(ExifTags.Base.FNumber))) is not None:
        parts.append(f"f/{aperture:.3g}")
    if (sensitivity := _positive(inner.get(ExifTags.Base.ISOSpeedRatings))) is not None:
        parts.append(f"ISO {sensitivity:.0f}")
    if (focal := _positive(inner.get(ExifTags.Base.FocalLength))) is not None:
        parts.append(f"{focal:.3g} mm")
    return ", ".join(parts)


def parse_date(text: str) -> str | None:
    """ "YYYY-MM-DDTHH:MM:SS" of a date as cameras write it, its zone left out; None where it is no date."""
    found = DATE.match(text.replace("\0", "").strip())
    if found is None:
        return None
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
        return datetime(year, month, day, hour, minute, second).isoformat()
    except ValueError:  # 0000:00:00, month 13
        return None


def clean(text: str, limit: int) -> str:
    """The text on one line, without control characters and what is never seen, cut to `limit` characters."""
    spaced = " ".join(text[: 4 * limit].replace("\0", " ").split())
    visible = spaced if spaced.isprintable() else "".join(c for c in spaced if unicodedata.category(c) not in _HIDDEN)
    return visible[:limit].strip()


def _taken_at(exif: Any, packet: str) -> str | None:
    """The first date that is one: of EXIF (taken, digitised, changed), then of XMP; by the clock of its own zone."""
    inner = attempt(lambda: exif.get_ifd(ExifTags.IFD.Exif)) or {}
    texts = [inner.get(tag) for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized)]
    texts.append(exif.get(ExifTags.Base.DateTime))
    texts += XMP_DATE.findall(packet)
    return next((day for text in texts if text and (day := parse_date(str(text)))), None)


def _png_date(text: object) -> str | None:
    """PNG's own date, ISO 8601 or as in a mail (RFC 1123), both of which its specification names."""
    if not isinstance(text, str) or len(text) > MOST_DATE:
        return None
    parts = None if text.endswith("M") else parsedate(text)  # AM and PM would be overlooked
    return parse_date("{}-{}-{} {}:{:02}:{:02}".format(*parts) if parts else text)


def _xmp(image: Image.Image) -> str:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return packet[:MAX_XMP] if isinstance(packet, str) else bytes(packet[:MAX_XMP]).decode("utf-8", "replace")


def _camera_name(maker: str, model: str) -> str | None:
    maker, model = clean(maker, MAX_CAMERA), clean(model, MAX_CAMERA)
    short = _COMPANY.sub("", maker)
    is_named = model.partition(" ")[0].lower() in maker.lower().split() or model.lower().startswith(short.lower())
    return clean(model if model and is_named else f"{short} {model}", MAX_CAMERA) or None


def _stars(value: object) -> int | None:
    """0 to 5; -1 is how XMP says that a picture was rejected."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return max(0, round(number)) if -1 <= number <= MOST_STARS else None


def _positive(value: object) -> float | None:
    """A number that makes sense as a measure; EXIF may have 0/0, or a list of one."""
    value = value[0] if isinstance(value, tuple) and value else value
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and 1e-6 < number < 1e7 else None


def _gps_angle(place: Mapping[int, Any], tag: int) -> float | None:
    """Degrees from EXIF's reference (`tag`) and its degrees, minutes and seconds (the next tag)."""
    try:
        degrees, minutes, seconds = (float(part) for part in (*place[tag + 1], 0, 0)[:3])
        sign = -1 if str(place.get(tag) or "").strip("\0 ").upper() in ("S", "W") else 1
        return sign * (degrees + minutes / 60 + seconds / 3600)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _xmp_angle(text: str | None) -> float | None:
    """Degrees of `52,31.2N` or `52,31,12N`."""
    found = _XMP_ANGLE.fullmatch((text or "").strip())
    if found is None:
        return None
    degrees, minutes, seconds = (float(part or 0) for part in found.groups()[:3])
    return (-1 if found[4] in "SW" else 1) * (degrees + minutes / 60 + seconds / 3600)


def _place(latitude: float | None, longitude: float | None) -> tuple[float | None, float | None]:
    """Both where they are a place on the earth; 0, 0 is what is written without a fix."""
    if latitude is None or longitude is None or not (math.isfinite(latitude) and math.isfinite(longitude)):
        return None, None
    is_there = abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude, longitude) != (0, 0)
    return (round(latitude, 7), round(longitude, 7)) if is_there else (None, None)


def _tags(texts: Iterable[str]) -> tuple[str, ...]:
    """Keywords, each once whatever its case; without quotation marks, by which a search tells where one ends."""
    known: dict[str, str] = {}
    for text in _texts((text.replace('"', "'") for text in texts), MAX_TAG):
        known.setdefault(text.casefold(), text)
    return tuple(known.values())[:MAX_TAGS]


def _texts(texts: Iterable[str], limit: int) -> list[str]:
    return [text for one in texts if (text := clean(one, limit))]


def _iptc_texts(iptc: Mapping[tuple[int, int], Any], key: tuple[int, int]) -> list[str]:
    values = iptc.get(key, [])
    return [_decoded(value) for value in (values if isinstance(values, list) else [values]) if isinstance(value, bytes)]


def _decoded(data: bytes) -> str:
    """UTF-8, as nearly all programs write it; else Latin-1, which reads anything."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _properties(data: bytes) -> dict[str, list[str]]:
    """Wanted properties of an XMP packet. A document type is refused: XMP has none, and bombs are made of them."""
    parser, reader = expat.ParserCreate(namespace_separator=" "), _Reader()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    with suppress(expat.ExpatError, ValueError, LookupError):
        parser.Parse(data[:MAX_XMP].rstrip(b"\0 \r\n"), True)
    return reader.found


def _refuse(*_: object) -> None:
    raise ValueError("XMP has no document type")


class _Reader:
    """Collects the values of wanted properties, whether they are attributes, elements, or items of a list."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self._open: list[str] = []  # wanted properties that the parser is within, "" for any other element
        self._pieces: list[str] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._take()
        is_rdf = name.startswith(_RDF) and not name.endswith("#Description")
        inherited = self._open[-1] if is_rdf and self._open else ""
        self._open.append(name if name in _WANTED else inherited)
        for key in _WANTED & attributes.keys():
            self._add(key, attributes[key])

    def text(self, text: str) -> None:
        if self._open and self._open[-1]:
            self._pieces.append(text)

    def end(self, _: str) -> None:
        self._take()
        self._open.pop()

    def _take(self) -> None:
        if self._pieces:
            self._add(self._open[-1], "".join(self._pieces))
            self._pieces = []

    def _add(self, key: str, value: str) -> None:
        if value.strip() and len(self.found.get(key, ())) < MAX_TAGS:
            self.found.setdefault(key, []).append(value)
