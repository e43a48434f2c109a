"""Videos: their frames as pictures, read by a process of its own for each video.

A video is a file from anybody, and FFmpeg is a large decoder: what crashes or hangs in it costs the video, no more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any

from clipkit.core.processes import HANG_SECONDS, cause_of_death
from clipkit.errors import ImageError
from clipkit.images.formats import can_read_video

PROGRAM = (sys.executable, "-P", "-m", "clipkit.images.video_frames")  # -P: no module from among the photos
MAX_FRAME_BYTES = 256 * 2**20
HINT = "pip install 'clipkit[video]'"


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video. seconds: since its beginning. jpeg: upright, with the video's date, place and camera."""

    seconds: float
    jpeg: bytes


def shots(file: str) -> Iterator[VideoFrame]:
    """One frame of each shot of a video, in order; ImageError, which names the file, as soon as one cannot be read.

    A shot is a run of key frames that look alike: a video has one wherever its encoder saw a cut, and every few
    seconds beside. The frame is the key frame in the middle of them.
    """
    yield from _frames(file)


def frame(file: str, seconds: float) -> bytes:
    """The frame that is shown at this time, as JPEG; ImageError where there is none."""
    with closing(_frames(file, f"{seconds:.6f}")) as frames:
        return next(frames).jpeg


def _frames(file: str, *time: str) -> Generator[VideoFrame, None, None]:
    if not can_read_video():
        raise ImageError(f"{file}: frames of videos are read by PyAV, which is not here", hint=HINT)
    command = [*PROGRAM, os.path.abspath(file), *time]
    with _Reader(command, file) as reader:
        count = 0
        for head, content in reader.messages():
            if "error" in head:
                raise ImageError(f"{file}: {head['error']}")
            if content:
                count += 1
                yield VideoFrame(float(head["seconds"]), content)
    if not count:
        raise ImageError(f"{file}: it has no frame" + (f" at {float(time[0]):.2f} s" if time else ""))


class _Reader:
    """A process that writes messages: a line of JSON, then as many bytes as it says. It is gone after `with`."""

    def __init__(self, command: list[str], file: str) -> None:
        self._file = file
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nowhere, stdout=pipe, stderr=nowhere)
        self._is_hanging = False

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass

    def messages(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Its messages; ImageError where it dies, or says nothing for too long."""
        stream = self._process.stdout
        assert stream is not None
        while line := self._next_line(stream):
            head = json.loads(line)
            size = int(head.get("bytes", 0))
            content = stream.read(size) if 0 < size <= MAX_FRAME_BYTES else b""
            if len(content) < size:
                break
            yield head, content
        if self._is_hanging:
            raise ImageError(f"{self._file}: its decoder hangs: {HANG_SECONDS:.0f} seconds without a frame")
        if code := self._process.wait():
            raise ImageError(f"{self._file}: its decoder {cause_of_death(code) or 'failed'}")

    def _next_line(self, stream: IO[bytes]) -> bytes:
        timer = threading.Timer(HANG_SECONDS, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            return stream.readline()
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._is_hanging = True
        self._process.kill()
