"""Video frames by PyAV: a program that writes those of one video to its standard output, as `images.video` reads them.

python -m clipkit.images.video_frames FILE [SECONDS]
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv"  # no playlist, which would name other files
SMALL = (32, 18)  # pixels of a frame that is compared
CUT = 35.0  # of 255, mean: of 400 pairs of photographs 99.7 % differ by more, of photographs moved by a tenth 20 %
MOST_SHOTS = 500  # of one video, spread evenly: so many wait in memory for their transaction
MOST_PIXELS = 100_000_000
QUALITY = 92
BEAT_SECONDS = 1.0  # between two signs of life
SLACK = 0.006  # seconds: times in names have two digits
# Seconds to seek before a time until a key frame is met that is shown by then: some formats are entered by when a frame
# is decoded, which is up to 16 frames before it is shown, or at any frame.
EARLIER = (0.0, 1.0, 16.0, math.inf)


@dataclass(frozen=True)
class _KeyFrame:
    seconds: float
    small: npt.NDArray[np.int16]  # (18, 32, 3)


def main(arguments: list[str]) -> None:
    """Write the frame at a time, or one of each shot."""
    import av

    file, *wanted = arguments
    try:
        with open(file, "rb") as stream, closing(_opened(stream)) as container:
            track = _track(container)
            exif = _exif({**container.metadata, **track.metadata})
            start = _start(container)
            times = [float(wanted[0])] if wanted else _spread(_times(_shots(_key_frames(container, track)), start))
            track.codec_context.skip_frame = "DEFAULT"
            for seconds in times:
                found = _frame_at(container, track, start + seconds)
                if found is not None:
                    _write({"seconds": seconds}, _jpeg(found, track, exif))
    except (av.FFmpegError, OSError, ValueError) as error:
        with suppress(BrokenPipeError):
            _write({"error": getattr(error, "strerror", None) or str(error) or type(error).__name__})


def _opened(stream: Any) -> Any:
    """The video, from what was opened already: FFmpeg opens no other file, and no address."""
    import av

    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none", "enable_drefs": "0"}
    return av.open(stream, options=options, metadata_errors="replace")


def _track(container: Any) -> Any:
    tracks = [track for track in container.streams.video if not track.disposition & track.disposition.attached_pic]
    if not tracks:
        raise ValueError("there is no picture in it")
    track = tracks[0]
    if track.codec_context.width * track.codec_context.height > MOST_PIXELS:
        raise ValueError(f"its frames have more than {MOST_PIXELS:,} pixels")
    track.thread_type = "AUTO"
    return track


def _key_frames(container: Any, track: Any) -> Iterator[_KeyFrame]:
    """All key frames, small; only they are decoded."""
    track.codec_context.skip_frame = "NONKEY"
    beat = time.monotonic()
    for frame in container.decode(track):
        if frame.time is not None:
            small = frame.reformat(*SMALL, format="rgb24").to_ndarray()
            yield _KeyFrame(frame.time, small.astype(np.int16))
        if time.monotonic() - beat > BEAT_SECONDS:
            _write({})
            beat = time.monotonic()


def _shots(frames: Iterator[_KeyFrame]) -> Iterator[float]:
    """The time in the middle of each run of frames that differ little from its first."""
    run: list[_KeyFrame] = []
    for frame in frames:
        if run and float(np.abs(frame.small - run[0].small).mean()) > CUT:
            yield run[len(run) // 2].seconds
            run = []
        run.append(frame)
    if run:
        yield run[len(run) // 2].seconds


def _start(container: Any) -> float:
    """Where its clock begins: at 0, before it, or, as some recorders do, at the seconds since 1970."""
    return float(container.start_time or 0) / 1_000_000


def _times(shots: Iterator[float], start: float) -> list[float]:
    """As names have them, since the beginning; two shots in one hundredth of a second are one."""
    return list(dict.fromkeys(max(0.0, round(seconds - start, 2)) for seconds in shots))


def _spread(times: list[float]) -> list[float]:
    if len(times) <= MOST_SHOTS:
        return times
    return [times[round(place)] for place in np.linspace(0, len(times) - 1, MOST_SHOTS)]


def _frame_at(container: Any, track: Any, seconds: float) -> Any:
    """What is shown at a time of its clock: the last frame that begins by then, else the first of all."""
    start, until = _start(container), seconds + SLACK
    for earlier in EARLIER:
        place = max(start, until - earlier)
        container.seek(math.floor(place / track.time_base), stream=track)
        frames = container.decode(track)
        found = next(frames, None)
        if place == start or _is_entry(found, until):
            break
    for frame in frames:
        if frame.time is None or frame.time > until:
            break
        found = frame
    return found


def _is_entry(frame: Any, until: float) -> bool:
    return frame is not None and frame.key_frame and (frame.time is None or frame.time <= until)


def _jpeg(frame: Any, track: Any, exif: bytes) -> bytes:
    image = frame.to_image()
    aspect = track.sample_aspect_ratio or Fraction(1)
    if aspect > 0 and aspect != 1:
        image = image.resize((max(1, round(image.width * float(aspect))), image.height))
    turned = image.rotate(frame.rotation, expand=True) if frame.rotation else image
    stream = BytesIO()
    turned.save(stream, "JPEG", quality=QUALITY, exif=exif)
    return stream.getvalue()


def _exif(metadata: dict[str, str]) -> bytes:
    """When, where and by what a video was made, as EXIF says it."""
    exif = Image.Exif()
    apple = "com.apple.quicktime."
    if when := _date(metadata.get(apple + "creationdate") or metadata.get("creation_time") or ""):
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = when
    for tag, name in ((ExifTags.Base.Make, "make"), (ExifTags.Base.Model, "model")):
        if said := metadata.get(apple + name) or metadata.get(f"com.android.{name}"):
            exif[tag] = said[:100]
    if place := _place(metadata.get(apple + "location.ISO6709") or metadata.get("location") or ""):
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    return exif.tobytes()


def _date(text: str) -> str:
    """A date of the video as EXIF writes one; "" for none. FFmpeg gives UTC, Apple's own the time of the place."""
    with suppress(ValueError):
        when = datetime.fromisoformat(text)
        return f"{when:%Y:%m:%d %H:%M:%S}" if when.year > 1904 else ""  # where QuickTime's clock begins: nobody set it
    return ""


def _place(text: str) -> dict[int, Any]:
    """EXIF's words for a position as ISO 6709 has it (+52.5200+013.4050/)."""
    match = re.match(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)", text)
    if not match:
        return {}
    latitude, longitude = float(match[1]), float(match[2])
    gps = ExifTags.GPS
    return {
        gps.GPSLatitudeRef: "S" if latitude < 0 else "N",
        gps.GPSLatitude: _degrees(abs(latitude)),
        gps.GPSLongitudeRef: "W" if longitude < 0 else "E",
        gps.GPSLongitude: _degrees(abs(longitude)),
    }


def _degrees(value: float) -> tuple[float, float, float]:
    minutes = value % 1 * 60
    return float(int(value)), float(int(minutes)), round(minutes % 1 * 60, 3)


def _write(head: dict[str, Any], content: bytes = b"") -> None:
    out = sys.stdout.buffer
    out.write(json.dumps({**head, "bytes": len(content)}).encode() + b"\n" + content)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
