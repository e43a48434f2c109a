"""Scan of a folder, by stat only, and its comparison with what is known."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field

from clipkit.core.progress import Failure
from clipkit.errors import ClipkitError
from clipkit.images.formats import can_read_raw, can_read_video, is_picture, is_raw, is_video
from clipkit.index.companions import Companions
from clipkit.index.paths import FolderPatterns
from clipkit.index.sidecars import sidecar_stamp, sidecars_among
from clipkit.store.records import Known, ScannedFile

# rclip's list, so that both tools see the same pictures
EXCLUDED_DIRS = ("@eaDir", "node_modules", ".git", "System Volume Information")
# What lies beside pictures and is none: not worth a word at every run.
SIDE_FILES = frozenset(
    [".xmp", ".aae", ".thm", ".txt", ".md", ".csv", ".json", ".html", ".htm", ".ini", ".db", ".log", ".bak", ".tmp"]
)
TICK_NS = 20_000_000  # a file system's clock moves in steps of 1 to 10 ms; two changes within one look like one
COARSE_NS = 2_000_000_000  # FAT's step, and that of some network shares
UNSETTLED = -1  # for an inode: this file changed within a step of being looked at, so its stamp proves nothing yet
_INODE_BITS = (1 << 63) - 1  # SQLite integers are signed; some file systems use all 64 bits


@dataclass
class Scan:
    """What a completed walk found. unreadable: what could not be entered, so nothing below it counts as gone.

    exclusions: what was left out, as `FolderPatterns` remembers it. unmatched: what was typed of it, as it was
    typed, and no folder matched. skipped: files that are no pictures by their suffix, by suffix. unread_raws: RAW files
    that nothing here can read. paired: RAW files and videos that count with the picture of their name. videos: where
    they are asked for. unread_videos: that nothing here can read.
    """

    found: list[ScannedFile] = field(default_factory=list)
    unreadable: list[Failure] = field(default_factory=list)
    exclusions: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    unread_raws: list[str] = field(default_factory=list)
    paired: int = 0
    videos: list[ScannedFile] = field(default_factory=list)
    unread_videos: list[str] = field(default_factory=list)

    @property
    def out_of_sight(self) -> list[str]:
        """Paths of which nobody can tell whether a picture is still there, so nothing at or below them is gone."""
        return [*(failure.path for failure in self.unreadable), *self.unread_raws]


@dataclass(frozen=True)
class Changes:
    """What is to be done. read: new or changed. restored: back, as they were. gone: known and not found.

    stale: pictures whose metadata is to be read again. unread_raws: RAW files that nothing here can read. videos: new
    or changed; their shots are not known yet.
    """

    read: list[ScannedFile]
    restored: list[Known]
    gone: list[Known]
    unchanged: int
    unmatched: tuple[str, ...] = ()  # exclusions that no folder matches
    stale: tuple[ScannedFile, ...] = ()
    unread_raws: int = 0
    videos: tuple[ScannedFile, ...] = ()

    @property
    def moved(self) -> int:
        """How many seem to have moved: what is gone has the size and the date of a file that is new."""
        gone = Counter((row.size_bytes, row.mtime_ns) for row in self.gone)
        return (gone & Counter((file.size_bytes, file.mtime_ns) for file in self.read)).total()


def find_images(
    root: str,
    *,
    exclude_dirs: Collection[str] = (),
    remembered: Collection[str] = (),
    include_hidden: bool = False,
    with_videos: bool = False,
) -> Scan:
    """Every picture below `root`, in a fixed order.

    Links are followed, but each real folder is entered once, so a link to the parent is harmless; a folder reached
    both ways is found under its real name. exclude_dirs, remembered: as `FolderPatterns` reads them. with_videos: those
    too. Raises ClipkitError where the root itself cannot be read.
    """
    scan = Scan()
    excluded = FolderPatterns(exclude_dirs, root, remembered=remembered)
    entered: set[tuple[int, int]] = set()
    links: list[str] = []
    pending = [""]
    while pending or links:
        folder = pending.pop() if pending else links.pop(0)
        entries = _listing(scan, root, folder, entered)
        sidecars, companions = sidecars_among(entries), Companions([entry.name for entry in entries])
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name == ".clipkit" or (entry.name.startswith(".") and not include_hidden):
                continue
            if companions.is_counted_with_another(entry.name):
                scan.paired += 1
                continue
            is_folder = _take(scan, entry, path, sidecars, with_videos)
            if is_folder and entry.name not in EXCLUDED_DIRS and not excluded.matches(path):
                (links if entry.is_symlink() else pending).append(path)
    scan.found.sort(key=lambda found: found.path)
    scan.videos.sort(key=lambda found: found.path)
    kept = (text for text in excluded.texts if not text.startswith("../") and text not in excluded.unmatched)
    scan.exclusions = tuple(kept)  # not what was typed and matches nothing: it may be a slip
    scan.unmatched = excluded.slips
    return scan


def _listing(scan: Scan, root: str, folder: str, entered: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; nothing of a folder that was entered before."""
    try:
        info = os.stat(os.path.join(root, folder))
        if (info.st_dev, info.st_ino) in entered:
            return []
        entered.add((info.st_dev, info.st_ino))
        with os.scandir(os.path.join(root, folder)) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not folder:
            raise ClipkitError(f"cannot read {root}: {error.strerror}", hint=f"ls -ld {root}") from error
        scan.unreadable.append(Failure(folder, error.strerror or type(error).__name__))
        return []


def _take(
    scan: Scan, entry: os.DirEntry[str], path: str, sidecars: Mapping[str, os.DirEntry[str]], with_videos: bool
) -> bool:
    """Whether it is a folder; a file is added to the scan."""
    try:
        if entry.is_dir():
            return True
        if is_raw(entry.name) and not can_read_raw():
            scan.unread_raws.append(path)
        elif is_video(entry.name) and with_videos:
            if can_read_video():
                _add_file(scan.videos, entry.stat(), path, sidecar_stamp(entry.name, sidecars))
            else:
                scan.unread_videos.append(path)
        elif is_picture(entry.name):
            _add_file(scan.found, entry.stat(), path, sidecar_stamp(entry.name, sidecars))
        elif (suffix := os.path.splitext(entry.name)[1].lower()) and suffix not in SIDE_FILES:
            scan.skipped[suffix] += 1
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):  # deleted by now, a link to nothing or to itself
            scan.unreadable.append(Failure(path, error.strerror or type(error).__name__))
    return False


def compare(
    found: Iterable[ScannedFile],
    known: Mapping[str, Known],
    *,
    unreadable: Collection[str] = (),
    checksum: bool = False,
    retry_failed: bool = False,
) -> Changes:
    """What to read, what came back and what is gone. Pure: no disk in it.

    Unchanged means the same size, mtime and ctime. Another ctime, as after a move or a copy over, costs a hash but no
    encoding; another inode alone, as after a remount of many file systems, costs nothing. A file that failed is left
    alone until its stamp changes, unless `retry_failed`.
    """
    read: list[ScannedFile] = []
    restored: list[Known] = []
    unchanged = 0
    paths = set()
    for file in found:
        paths.add(file.path)
        row = known.get(file.path)
        if (
            row is None
            or checksum
            or not row.stamp.agrees(file.stamp)
            or UNSETTLED in (file.inode, row.inode)
            or (retry_failed and not row.is_embedded)
        ):
            read.append(file)
        elif row.state == "missing":
            restored.append(row)
        else:
            unchanged += 1
    below = tuple(f"{path}/" for path in unreadable)
    hidden_for_now = set(unreadable)
    gone = [
        row
        for path, row in known.items()
        if row.state != "missing"
        and path not in paths
        and path not in hidden_for_now
        and not (below and path.startswith(below))
    ]
    return Changes(read, restored, gone, unchanged)


def stale_files(
    found: Iterable[ScannedFile], known: Mapping[str, Known], *, everything: bool = False, but: Container[str] = ()
) -> list[ScannedFile]:
    """Pictures whose sidecar is not the one that was read, or everything, except the paths in `but`."""
    return [
        file
        for file in found
        if (row := known.get(file.path)) is not None
        and row.is_embedded
        and row.sha256 is not None
        and ((everything and file.path not in but) or row.sidecar not in (None, file.sidecar))
    ]


def _add_file(found: list[ScannedFile], info: os.stat_result, path: str, sidecar: str) -> None:
    if stat.S_ISREG(info.st_mode):
        inode = UNSETTLED if is_unsettled(info) else info.st_ino & _INODE_BITS
        found.append(ScannedFile(path, info.st_size, info.st_mtime_ns, info.st_ctime_ns, inode, sidecar))


def is_unsettled(info: os.stat_result) -> bool:
    """Whether a file changed within a step of now: a change more would leave its stamp as it is."""
    newest = max(info.st_mtime_ns, info.st_ctime_ns)
    step = TICK_NS if newest % 1_000_000_000 else COARSE_NS
    return abs(time.time_ns() - newest) < step
