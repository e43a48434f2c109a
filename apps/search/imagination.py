"""Pictures made of words for the page: one run at a time, in a thread of its own beside the searches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from clipkit.core.html import data_url
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore.library import Library
from clipkit.generate.imagination import mean_query
from clipkit.generate.pictures import GeneratedPicture, PictureGenerator, check_request
from clipkit.images.thumbnails import to_jpeg

from .. import html

MOST = 4  # pictures of a run
FOUND = 8  # photographs that are shown
ALONE_SECONDS = 60.0  # after which nobody is taken to wait for the next picture
JSON = dict[str, Any]


@dataclass
class _Run:
    """What one visitor has asked for, and how far it is."""

    visitor: str
    library: Library
    words: str
    n: int
    token: str = field(default_factory=lambda: token_urlsafe(16))
    pictures: list[GeneratedPicture] = field(default_factory=list)
    found: list[JSON] = field(default_factory=list)
    error: ClipkitError | None = None
    is_running: bool = True
    is_stopped: bool = False
    looked: float = field(default_factory=time.monotonic)

    def is_wanted(self) -> bool:
        return not self.is_stopped and time.monotonic() - self.looked < ALONE_SECONDS


class Imagination:
    """Makes pictures by a model that is loaded when it is first asked. load: makes the generator."""

    def __init__(self, model: str, load: Callable[[], PictureGenerator]) -> None:
        self.name = Path(model).name if Path(model).is_dir() else model  # not where it lies on this machine
        self._path, self._load = model, load
        self._generator: PictureGenerator | None = None
        self._run: _Run | None = None
        self._lock = threading.Lock()

    def start(self, library: Library, words: str, *, n: int, visitor: str) -> str:
        """Begin; the token of the run. QueryError while another is at work, and for an empty prompt."""
        check_request(words, n=n, seed=0)
        with self._lock:
            if self._run is not None and self._run.is_running:
                raise QueryError("pictures are being made already, one run at a time", hint="try again in a while")
            run = self._run = _Run(visitor, library, words, min(n, MOST))
        threading.Thread(target=self._work, args=(run,), daemon=True, name="clipkit-imagine").start()
        return run.token

    def look(self, token: str, visitor: str, *, seen: int = 0) -> JSON:
        """How far the run is, and the pictures after the first `seen`.

        QueryError where it is no longer kept; ClipkitError where it failed.
        """
        run = self._of(token, visitor)
        run.looked = time.monotonic()
        is_running = run.is_running  # first: what is looked up below belongs to it
        if run.error is not None:
            raise ClipkitError(self._without_place(run.error.message), hint=run.error.hint)
        pictures = [_shown(picture, run.words) for picture in run.pictures[seen:]]
        state: JSON = {"is_running": is_running, "n": run.n, "pictures": pictures, "found": run.found}
        return {**state, "safety": self._without_place(str(getattr(self._generator, "safety", "")))}

    def stop(self, token: str, visitor: str) -> None:
        """No further picture is begun."""
        self._of(token, visitor).is_stopped = True

    def end(self) -> None:
        """The page closes."""
        if self._run is not None:
            self._run.is_stopped = True

    def _without_place(self, message: str) -> str:
        """A sentence for visitors, whom the place of the model on this machine does not concern."""
        return printable(message.replace(self._path, self.name))

    def _of(self, token: str, visitor: str) -> _Run:
        run = self._run
        if run is None or run.token != token or run.visitor != visitor:
            raise QueryError("these pictures are not kept any more", hint="ask for them again")
        return run

    def _work(self, run: _Run) -> None:
        error: ClipkitError | None = ClipkitError("the pictures could not be made", hint="what the terminal says")
        try:
            if self._generator is None:
                self._generator = self._load()
            for seed in range(run.n):
                if run.is_wanted():
                    run.pictures += self._generator.generate(run.words, seed=seed)
            run.found = _found(run) if run.pictures else []
            error = None
        except ClipkitError as known:
            error = known
        finally:  # whatever happened, the next may begin
            run.error = error
            run.is_running = False


def _shown(picture: GeneratedPicture, words: str) -> JSON:
    name = f"imagined: {printable(words)}, seed {picture.seed}"
    return {"image": data_url(to_jpeg(picture.pixels), "image/jpeg"), "name": name, "refused": picture.is_refused}


def _found(run: _Run) -> list[JSON]:
    """The photographs nearest to the mean of the pictures' embeddings, of the whole library."""
    library = run.library
    (hits,) = library.index.search_embeddings(mean_query(run.pictures, library.encoder), FOUND)
    catalogue = library.catalogue()
    facts = ((hit, catalogue.fact(hit.id)) for hit in hits)
    return [
        {"id": fact.id, "name": html.file_name(fact), "version": fact.sha256[:12], "score": round(float(hit.score), 4)}
        for hit, fact in facts
        if fact is not None
    ]
