"""Watching a folder: its index follows what changes on the disk, until somebody ends it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from clipkit.core.text import printable
from clipkit.errors import ClipkitError, IndexLocked
from clipkit.images.formats import is_picture, is_video
from clipkit.index.image_index import ImageIndex
from clipkit.index.places import FOLDER

QUIET_MS = 300  # without a change, after which a burst is over
BURST_MS = 1_200  # of a burst that goes on, after which what there is of it is indexed
POLL_SECONDS = 1.0  # between two looks whether the folder is there
SIDECAR = ".xmp"


def watch_folder(
    index: ImageIndex, update: Callable[[], None], *, include_hidden: bool = False, notify: Callable[[str], None]
) -> None:
    """Call `update` after each burst of changes below the index's root; returns only by an exception.

    A folder that is gone, as an unmounted disk, is waited for, and read again when it is back. Another program that
    writes the index is waited for, too. notify: given a sentence when such a thing begins or ends. KeyboardInterrupt
    ends it; ClipkitError where the system cannot watch so many folders.
    """
    watched = _WatchedRoot(index)
    while True:
        _wait_for(watched, notify)
        is_due, is_refused = True, False  # due: what has changed before the system began to watch
        for changes in _bursts(index, include_hidden):
            if not watched.is_same():
                break
            if changes or is_due:
                is_refused = not _tried(watched, update, notify if not is_refused else _silent)
                is_due = is_refused


class _WatchedRoot:
    """The folder of an index: whether it is there, and still the one that is watched."""

    def __init__(self, index: ImageIndex) -> None:
        self.root, self._file = index.root, index.store.file
        self._device = os.stat(self.root).st_dev
        self._watched: tuple[int, int] | None = None

    def is_there(self) -> bool:
        """Not a disk that is unmounted: then the folder, or the index in it, is gone, or the folder is empty."""
        try:
            is_filled = os.stat(self.root).st_dev == self._device or bool(os.listdir(self.root))
        except OSError:
            return False
        return is_filled and self._file.exists()

    def begin(self) -> None:
        """From here on it is watched as it is now."""
        status = os.stat(self.root)
        self._watched = (status.st_dev, status.st_ino)

    def is_same(self) -> bool:
        """Whether what is watched is what lies there."""
        try:
            status = os.stat(self.root)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._watched and self.is_there()


def _wait_for(watched: _WatchedRoot, notify: Callable[[str], None]) -> None:
    if not watched.is_there():
        notify(f"{printable(str(watched.root))} is gone; waiting until it is back")
        while not watched.is_there():
            time.sleep(POLL_SECONDS)
        notify(f"{printable(str(watched.root))} is back")
    watched.begin()


def _tried(watched: _WatchedRoot, update: Callable[[], None], notify: Callable[[str], None]) -> bool:
    """Whether the update was made; not where another program writes, or the folder went away under it."""
    try:
        update()
    except IndexLocked as error:
        notify(f"{printable(error.message)}; waiting until it has ended")
        return False
    except (ClipkitError, OSError):
        if watched.is_same():
            raise
        return False
    return True


def _silent(_: str) -> None:
    """What was said once is not said every second."""


def _bursts(index: ImageIndex, include_hidden: bool) -> Iterator[Collection[object]]:
    """Changes of pictures, a set a burst; an empty set where there was none for POLL_SECONDS."""
    import watchfiles

    is_wanted = _filter(index.root, index.folder, include_hidden)
    try:
        yield from watchfiles.watch(
            index.root,
            watch_filter=lambda _, path: is_wanted(path),
            debounce=BURST_MS,
            step=QUIET_MS,
            rust_timeout=round(1000 * POLL_SECONDS),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
    except OSError as error:  # RustNotify's own errors are OSErrors: too many folders, or the root went away
        if index.root.is_dir():
            fact = f"this system cannot watch {index.root}: {error}"
            raise ClipkitError(fact, hint="clipkit index, now and then") from error


def _filter(root: Path, folder: Path, include_hidden: bool) -> Callable[[str], bool]:
    """Which paths matter: pictures, their sidecars and what may be a folder, not the index's own files."""
    inside, above = os.fspath(folder) + os.sep, os.fspath(root) + os.sep

    def is_wanted(path: str) -> bool:
        parts = path.removeprefix(above).split(os.sep)
        is_hidden = any(part.startswith(".") for part in parts) and not include_hidden
        if is_hidden or FOLDER in parts or f"{path}{os.sep}".startswith(inside):
            return False
        name = parts[-1]
        return (
            is_picture(name) or is_video(name) or name.endswith(SIDECAR) or "." not in name or not os.path.isfile(path)
        )

    return is_wanted
