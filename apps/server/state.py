"""Shared state of all tabs of one page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from clipkit.explore.library import Library
from clipkit.explore.metadata import Fact
from clipkit.explore.question import Answer
from clipkit.index.places import refuse_url

from ..classify.session import Memory
from ..search.imagination import Imagination
from .libraries import Shelf
from .routes import Outbox
from .runs import CommandRun
from .thumbnails import Thumbnails
from .watching import FolderWatches

VISIBLE = 24  # pictures of an answer that are made ahead: about what the first screen shows


@dataclass
class Page:
    """What all tabs of a page share.

    shelf: the libraries. memory: what each visitor has sorted by hand. runs: index runs by library key, the last of
    each. watches: where folders are watched. imagination: what makes pictures of words, where there is a model for it.
    """

    shelf: Shelf
    thumbnails: Thumbnails
    outbox: Outbox = field(default_factory=Outbox)
    memory: Memory = field(default_factory=Memory)
    runs: dict[str, CommandRun] = field(default_factory=dict)
    watches: FolderWatches | None = None
    imagination: Imagination | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, library: Library, answer: Answer) -> None:
        """Make the thumbnails of what is about to be seen, before the browser asks."""
        self.thumbnails.prepare([partial(self._draw, library, one.fact) for one in answer.found[:VISIBLE]])

    def watch(self, say: Callable[[str], None]) -> None:
        """From now on index what changes in the folders."""
        self.watches = FolderWatches(self.shelf, self.runs, self.lock, say=say)

    def start(self, library: Library, *options: str) -> bool:
        """Start an index run; False where one is running. ClipkitError where the pictures are not on this machine."""
        refuse_url(library.root, "an index run")
        with self.lock:
            run = self.runs.get(library.key)
            if run is not None and run.look().is_running:
                return False
            if self.watches is not None:
                self.watches.pause(library.key)
            model = ("--model", self.shelf.model) if self.shelf.model and not library.is_indexed else ()
            self.runs[library.key] = CommandRun(library.root, at=library.at, options=(*model, *options))
            return True

    def is_running(self) -> bool:
        """Whether any run is at work."""
        return any(run.look().is_running for run in list(self.runs.values()))

    def end(self) -> None:
        """The page closes: runs that it has started are stopped, and what they committed stays."""
        self.outbox.close()
        if self.imagination is not None:
            self.imagination.end()
        if self.watches is not None:
            self.watches.end()
        for run in list(self.runs.values()):
            run.end()

    def _draw(self, library: Library, fact: Fact) -> None:
        if (file := library.file_of(fact.id)) is not None:
            self.thumbnails.get(file, library.content(fact, file), "thumb")
