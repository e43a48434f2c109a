"""Libraries of one page, and each model once."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from clipkit.core.folders import cache_folder
from clipkit.core.text import printable
from clipkit.errors import ClipkitError
from clipkit.explore.library import Library
from clipkit.images.guarded_decoder import warm_up
from clipkit.index.image_index import Loader
from clipkit.models.encoder import Encoder


class Shelf:
    """All libraries of one page, in the order they came.

    Attributes:
        is_local: whether only this machine can reach the page; adding folders and copying are for such a page alone.
        model: what a folder without an index gets.
    """

    def __init__(self, load: Loader, *, is_local: bool = True, model: str | None = None) -> None:
        self.is_local = is_local
        self.model = model
        self._load_model = load
        self._encoders: dict[tuple[str, bool], Encoder] = {}
        self._libraries: dict[str, Library] = {}
        self._lock = threading.Lock()

    def add(self, root: str | Path, *, at: Path | None = None) -> Library:
        """The library of a folder, new or known; ClipkitError where there is no such folder."""
        place = Path(os.path.abspath(os.path.expanduser(root)))
        if not os.path.isdir(place):  # pathlib's own raises for a name that no disk could hold
            raise ClipkitError(f"{place} is not a folder on this machine", hint="clipkit ui FOLDER, one that is there")
        library = Library(place, self._load, at=at)
        return self._libraries.setdefault(library.key, library)

    def presentable(self, text: str) -> str:
        """A text as visitors may read it: to others than this machine's users without the places of its disk."""
        if self.is_local:
            return text
        places = {str(library.root): library.name for library in self._libraries.values()}
        places |= {str(library.folder): f"{library.name}'s index" for library in self._libraries.values()}
        places |= {str(cache_folder()): "the cache", sys.prefix: "Python", str(Path.home()): "~"}
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(place, places[place]) if len(place) > 1 else text
        return text

    def explained(self, error: ClipkitError) -> tuple[str, str]:
        """Message and hint of an error, as visitors may read them."""
        return self.presentable(error.message), self.presentable(error.hint or "")

    def remove(self, key: str) -> None:
        """Show it no longer; nothing on the disk changes."""
        self._libraries.pop(key, None)

    def libraries(self) -> list[Library]:
        return list(self._libraries.values())

    def choices(self, libraries: Sequence[Library]) -> list[tuple[str, str]]:
        """Names and keys, for a list to choose from; equal names with what tells them apart."""
        names = [printable(library.name) for library in libraries]
        seen: Counter[str] = Counter()
        found = []
        for name, library in zip(names, libraries, strict=True):
            seen[name] += 1
            place = printable(str(library.root.parent)) if self.is_local else str(seen[name])
            found.append((f"{name} ({place})" if names.count(name) > 1 else name, library.key))
        return found

    def get(self, key: str) -> Library | None:
        """The library with that key; None where there is none."""
        return self._libraries.get(key)

    def first(self) -> Library | None:
        """The first that can answer; None where none can."""
        return next((library for library in self.libraries() if library.is_indexed), None)

    def indexed(self, name: str = "") -> Library:
        """The first of that name or key (empty: of any) that can answer; ClipkitError where none can."""
        for library in self.libraries():
            if library.is_indexed and name in ("", library.name, library.key):
                return library
        raise ClipkitError("there is no such library here, or it has no index yet", hint="the Library tab lists them")

    def warm(self, report: Callable[[str], None]) -> None:
        """Load models and catalogues; what fails is reported, and shown again when somebody asks."""
        warm_up()  # the decoders, while the models are loaded
        for library in self.libraries():
            try:
                library.warm()
            except ClipkitError as error:
                report(f"{library.name}: {error.message}")

    def _load(self, name: str, exact_pixels: bool) -> Encoder:
        with self._lock:  # one model in memory for all libraries that were made with it
            if (name, exact_pixels) not in self._encoders:
                self._encoders[name, exact_pixels] = self._load_model(name, exact_pixels)
            return self._encoders[name, exact_pixels]
