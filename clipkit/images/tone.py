"""Tone mapping: deep grey values and HDR colours to 8 bits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from clipkit.images.recipe import Pixels

SAMPLE = 1 << 20  # values from which the white of a deep picture is told
ROBUST = 99.99  # percentile: one pixel in ten thousand may be brighter than white, and is clipped
DEPTHS = (10, 12, 14)  # bits of sensors whose values come in 16; what is darker than that has 16
NO_VALUE = 1e30  # what scientific files write where they have none, in either sign
PHOTOMETRIC, GDAL_NODATA = 262, 42113  # TIFF tags
WHITE_NITS = 203.0  # of a white page in an HDR picture: ITU-R BT.2408
PQ, HLG = 16, 18  # transfer characteristics of ITU-T H.273
BT2020 = 9  # its primaries there
TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # linear BT.2020 to BT.709: ITU-R BT.2087


Floats = npt.NDArray[np.floating[Any]]


class Deep(NamedTuple):
    """How the values of a deep picture become grey. white: the value that is 255. nodata: a value that is none."""

    white: float
    is_inverted: bool = False
    nodata: float | None = None


class Colours(NamedTuple):
    """What an ISO media file says of its colours: code points of ITU-T H.273."""

    primaries: int
    transfer: int


def deep_values(image: Image.Image) -> Deep | None:
    """How to read a picture of more than 8 bits a value; None for one of 8.

    Of its finite values all but the brightest ten-thousandth decide: floats up to 1, 255 and 65535 keep these ranges,
    integers that of their bits (10, 12, 14 or 16), and anything else is scaled to its own brightest value.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return None
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    nodata = _number(tags.get(GDAL_NODATA))
    values = _sample(image, nodata)
    peak = float(np.percentile(values, ROBUST)) if len(values) else 0.0
    white = _white_of_floats(peak) if image.mode == "F" else _white_of_integers(peak)
    return Deep(white, tags.get(PHOTOMETRIC) == 0, nodata)


def to_grey(values: npt.NDArray[Any], deep: Deep) -> npt.NDArray[np.uint8]:
    """Grey 0-255 of deep values; what is no number or no value is black, what is brighter than white is white."""
    is_value = np.isfinite(values)
    if deep.nodata is not None:
        is_value &= values != deep.nodata
    known = np.where(is_value, values, 0).astype(np.float64, copy=False)
    if deep.is_inverted:
        known = deep.white - known
    gain = 256 / (deep.white + 1) if deep.white >= 255 else 255.999 / deep.white
    grey = np.clip(known * gain, 0, 255)
    grey[~is_value] = 0
    return grey.astype(np.uint8)


def colours_of(data: bytes) -> Colours | None:
    """The colours that an AVIF or HEIC file declares (`colr` box of type nclx); None where it declares none."""
    at = data.find(b"colrnclx", 0, 1 << 20)
    if at < 0 or len(data) < at + 12:
        return None
    return Colours(int.from_bytes(data[at + 8 : at + 10]), int.from_bytes(data[at + 10 : at + 12]))


def to_sdr(pixels: Pixels, colours: Colours | None) -> Pixels:
    """Pixels (3, h, w) of a PQ or HLG picture as sRGB, its white page white; any other as it is."""
    if colours is None or colours.transfer not in (PQ, HLG):
        return pixels
    signal = pixels.astype(np.float32) / 255
    light: Floats = _pq_light(signal) if colours.transfer == PQ else _hlg_light(signal)
    if colours.primaries == BT2020:
        light = np.einsum("ij,jhw->ihw", TO_709, light)
    light = np.clip(light, 0, None)
    light = np.where(light > 0.8, 0.8 + 0.2 * (1 - np.exp(-(light - 0.8))), light)  # highlights roll off below 1
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-8) ** (1 / 2.4) - 0.055)
    return np.ascontiguousarray(np.clip(srgb * 255 + 0.5, 0, 255).astype(np.uint8))


def _pq_light(signal: Floats) -> Floats:
    """Linear light by SMPTE ST 2084; 1 is a white page."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = signal ** (1 / m2)
    light: Floats = 10_000 / WHITE_NITS * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return light


def _hlg_light(signal: Floats) -> Floats:
    """Linear light by ARIB STD-B67 for a screen of 1,000 nits, its system gamma of 1.2 taken by channel."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    light: Floats = 1_000 / WHITE_NITS * scene**1.2
    return light


def _sample(image: Image.Image, nodata: float | None) -> npt.NDArray[np.float64]:
    """At most SAMPLE finite values, drawn evenly."""
    factor = max(1, int((image.width * image.height / SAMPLE) ** 0.5))
    size = (max(1, image.width // factor), max(1, image.height // factor))
    small = image if factor == 1 else image.resize(size, Image.Resampling.NEAREST)
    values = np.asarray(small).astype(np.float64).ravel()
    values = values[np.isfinite(values) & (np.abs(values) < NO_VALUE)]
    return values if nodata is None else values[values != nodata]


def _white_of_floats(peak: float) -> float:
    nominal = next((white for white in (1.0, 255.0, 65535.0) if white / 2 < peak <= white), None)
    return nominal or (1.0 if peak <= 1 else peak)


def _white_of_integers(peak: float) -> float:
    if peak > 65535:
        return peak
    return next((2.0**bits - 1 for bits in DEPTHS if peak < 2**bits), 65535.0)


def _number(text: object) -> float | None:
    try:
        return float(str(text).strip(" \0"))
    except ValueError:
        return None
