"""Videos of an index: which are to be read, and their shots as files that can be.

A shot is a picture with a path of its own, `trip/clip.mp4#t=12.48`, and the stamp of its video. All shots of a video
are written in one transaction, so that a video of which the index has any is known as a whole.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from clipkit.core.progress import Progress
from clipkit.errors import ImageError
from clipkit.images.formats import file_of, frame_name, is_video, split_frame
from clipkit.images.video import shots
from clipkit.index.scan import UNSETTLED, Changes, Scan, compare
from clipkit.store.records import Known, ScannedFile


def find_changes(
    scan: Scan, known: Mapping[str, Known], *, checksum: bool = False, retry_failed: bool = False
) -> Changes:
    """What is to be done after a scan, as `compare` says it, videos too. Shots that are known are added to the scan.

    A video is known by the stamp of its shots; one that failed has a row of its own. No disk in it.
    """
    rows = _rows_by_video(known)
    read = []
    for video in scan.videos:
        of_video = [row for row in rows[video.path] if row.stamp.agrees(video.stamp)]
        is_doubtful = UNSETTLED in (video.inode, *(row.inode for row in of_video))
        is_to_retry = retry_failed and not all(row.is_embedded for row in of_video)
        if not of_video or checksum or is_doubtful or is_to_retry:
            read.append(video)
        else:
            scan.found += [_shot(row.path, video) for row in of_video]
    scan.found.sort(key=lambda found: found.path)
    out_of_sight = [*scan.out_of_sight, *(row.path for path in scan.unread_videos for row in rows[path])]
    changes = compare(scan.found, known, unreadable=out_of_sight, checksum=checksum, retry_failed=retry_failed)
    return replace(changes, videos=tuple(read))


class ShotReader:
    """Reads the shots of videos, one video after the other; of each shot the JPEG waits until it is taken."""

    def __init__(self, root: str, videos: Sequence[ScannedFile]) -> None:
        self.count = 0  # shots by now
        self.pending = len(videos)
        self._root, self._videos = root, videos
        self._contents: dict[str, bytes | ImageError] = {}

    def files(self) -> Iterator[ScannedFile]:
        """The shots of all videos; for a video that cannot be read, or not to its end, also the video."""
        for video in self._videos:
            self.pending -= 1
            file = os.path.join(self._root, video.path)
            try:
                for frame in shots(file):
                    yield self._ready(_shot(frame_name(video.path, frame.seconds), video), frame.jpeg)
            except ImageError as error:
                yield self._ready(video, error)

    def take(self, path: str) -> bytes | None:
        """The JPEG of a shot, once; None for what is no shot. ImageError where the video could not be read."""
        content = self._contents.pop(path, None)
        if isinstance(content, ImageError):
            raise content
        return content

    def progress(self, report: Callable[[Progress], None], done: int, files: int, path: str) -> None:
        """Report how many of all are done, as far as is known by now."""
        report(Progress(done, files + self.count + self.pending, path))

    def _ready(self, found: ScannedFile, content: bytes | ImageError) -> ScannedFile:
        self.count += 1
        self._contents[found.path] = content
        return found


def is_of_video(path: str) -> bool:
    """Whether this is a shot, or a video that could not be read."""
    return split_frame(path) is not None or is_video(path)


def _rows_by_video(known: Mapping[str, Known]) -> Mapping[str, list[Known]]:
    rows: dict[str, list[Known]] = defaultdict(list)
    for path, row in known.items():
        if is_of_video(path):
            rows[file_of(path)].append(row)
    return rows


def _shot(path: str, video: ScannedFile) -> ScannedFile:
    return ScannedFile(path, *video.stamp, video.sidecar)
