"""Folders that are watched while the page is open: `clipkit index --watch` for each, a process of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from clipkit.core.text import printable
from clipkit.explore.library import Library

from .libraries import Shelf
from .runs import CommandRun

LOOK_SECONDS = 1.0  # between two looks whether every folder has its watch
RETRY_SECONDS = 60.0  # after a watch that ended by itself: another clipkit was writing, or a disk is not there


class FolderWatches:
    """A watch for each folder of a page that has an index, and no run of the page at work.

    runs: the page's index runs by library key. lock: of those who begin one.
    """

    def __init__(
        self, shelf: Shelf, runs: Mapping[str, CommandRun], lock: threading.Lock, *, say: Callable[[str], None]
    ) -> None:
        self._shelf, self._index_runs, self._lock, self._say = shelf, runs, lock, say
        self._runs: dict[str, CommandRun] = {}
        self._retry_at: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._is_over = threading.Event()
        threading.Thread(target=self._keep, daemon=True, name="clipkit-watches").start()

    def is_watching(self, key: str) -> bool:
        """Whether the folder with that key is watched now."""
        run = self._runs.get(key)
        return run is not None and run.look().is_running

    def pause(self, key: str) -> None:
        """End the watch of a folder, whose index is about to be written by a run; it begins again after that."""
        run = self._runs.pop(key, None)
        if run is not None:
            run.end()
        self._retry_at.pop(key, None)

    def end(self) -> None:
        """End all of them; the page is going."""
        self._is_over.set()
        with self._lock:
            for run in self._runs.values():
                run.stop()
            for key in list(self._runs):
                self.pause(key)

    def _keep(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            with self._lock:
                if not self._is_over.is_set():
                    self._look()

    def _look(self) -> None:
        """Begin what is missing, and end what is no longer shown."""
        libraries = {library.key: library for library in self._shelf.libraries()}
        for key in self._runs.keys() - libraries.keys():
            self.pause(key)
        for library in libraries.values():
            run = self._index_runs.get(library.key)
            if library.is_indexed and not (run is not None and run.look().is_running):
                self._begin(library)

    def _begin(self, library: Library) -> None:
        """Where it is not watched: watch it, or wait after a watch that failed."""
        key, old = library.key, self._runs.get(library.key)
        if old is not None and old.look().is_running:
            return
        if old is not None:
            del self._runs[key]
            self._retry_at[key] = time.monotonic() + RETRY_SECONDS
            reason = next(iter(line for line in old.look().lines if line.startswith("error: ")), "it ended")
            if self._said.get(key) != reason:
                self._said[key] = reason
                self._say(f"{printable(library.name)} is not watched, and tried again each minute: {printable(reason)}")
        elif time.monotonic() >= self._retry_at.get(key, 0.0):
            self._runs[key] = CommandRun(library.root, at=library.at, options=("--watch",))
