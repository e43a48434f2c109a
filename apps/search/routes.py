"""Search view's server side: JSON in, JSON out, for the script in `static/search`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe
from tempfile import NamedTemporaryFile
from typing import Any
from weakref import WeakValueDictionary

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clipkit.core.arrays import Embeddings
from clipkit.core.folders import cache_folder
from clipkit.core.html import data_url
from clipkit.core.text import counted, printable
from clipkit.errors import ClipkitError, ImageError, QueryError
from clipkit.explore.library import Library
from clipkit.explore.question import Found, ask, clean, plain
from clipkit.images.formats import SUFFIXES
from clipkit.images.thumbnails import thumbnail, to_jpeg

from ..server.runs import Look
from ..server.state import Page
from ..server.visitor import visitor_in
from . import changes, exports
from .answers import JSON, described, library_facts
from .changes import Change, Undos
from .desktop import show_folder
from .evidence import attention_of, evidence
from .imagination import MOST, Imagination
from .questions import MAX_ID, MOST_IDS, Asked, Sent, read_asked

AT_ONCE = 4  # questions at work
OF_ONE_VISITOR = 2  # of them
MOST_PICTURES = 200  # that visitors have dropped, whose embeddings are kept
PREVIEW = 96  # pixels
POLL_SECONDS = 0.2
LOCAL = "that is done on the machine itself"
NO_STORE = {"cache-control": "private, no-store"}


@dataclass(frozen=True)
class _Dropped:
    """A picture that a visitor searches by."""

    name: str
    fingerprint: str
    embedding: Embeddings


class SearchRoutes:
    """The addresses below `/clipkit/search/`, as `launch(app_kwargs={"routes": ...})` takes them."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._undos = Undos()
        self._dropped: OrderedDict[str, _Dropped] = OrderedDict()
        self._lock = threading.Lock()
        self._limiter: anyio.CapacityLimiter | None = None  # one belongs to an event loop
        self._visitors: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def all(self) -> list[Route]:
        actions: dict[str, Callable[[Sent], JSON]] = {
            "ask": self._ask,
            "act": self._act,
            "undo": lambda sent: {"said": self._undos.undo(sent.text("undo"))},
            "index": self._index,
            "save": self._save,
            "why": self._why,
            "imagine": self._imagine,
            "imagined": self._imagined,
            "imagine/stop": self._stop_imagining,
        }
        routes = [
            Route(f"/clipkit/search/{name}", self._json(work), methods=["POST"]) for name, work in actions.items()
        ]
        return [
            *routes,
            Route("/clipkit/search/libraries", self._libraries),
            Route("/clipkit/search/picture", self._picture, methods=["POST"]),
            Route("/clipkit/search/attention/{index:str}/{id:int}", self._attention),
        ]

    def _json(self, work: Callable[[Sent], JSON]) -> Callable[[Request], Any]:
        """A handler that reads JSON, works in a thread, and says errors in sentences."""

        async def handle(request: Request) -> Response:
            try:
                body = json.loads(await request.body() or b"{}")
            except (ValueError, RecursionError):
                return self._refused(QueryError("the request is no JSON", hint="send an object"))
            visitor = _visitor(request)
            return await self._answered(request, lambda: work(Sent(body, visitor)))

        return handle

    async def _answered(self, request: Request, work: Callable[[], JSON]) -> Response:
        """What `work` gives, as JSON."""
        return await self._in_turn(request, lambda: JSONResponse(work(), headers=NO_STORE))

    async def _in_turn(self, request: Request, work: Callable[[], Response]) -> Response:
        """The answer that `work` makes in a thread, in a turn that leaves others theirs."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(AT_ONCE)
        client = request.client.host if request.client else ""
        visitor = _visitor(request) or client
        turns = self._visitors.setdefault(visitor, asyncio.Semaphore(OF_ONE_VISITOR))
        try:
            async with turns:
                return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        except ClipkitError as error:
            return self._refused(error)
        except OSError as error:  # a full disk, a folder that is gone
            return self._refused(ClipkitError(f"the disk refuses: {error.strerror or error}", hint="is it full?"))

    def _refused(self, error: ClipkitError) -> Response:
        message, hint = self._page.shelf.explained(error)
        return JSONResponse({"error": printable(message), "hint": printable(hint)}, status_code=400, headers=NO_STORE)

    # ---- questions ----

    def _ask(self, sent: Sent) -> JSON:
        library = self._library(sent.text("library"))
        if library is None:
            return self._nothing()
        asked = self._asked(sent, library)
        answer = ask(library, asked.question, asked.start + asked.k)
        rest = replace(answer, found=answer.found[asked.start :])
        self._page.prepare(library, rest)
        return described(library, asked, answer)

    def _asked(self, sent: Sent, library: Library) -> Asked:
        dropped = self._dropped_picture(sent.text("picture"), library)
        picture, name = (dropped.embedding, dropped.name) if dropped else (None, "")
        return read_asked(sent, library.catalogue(), picture, name)

    def _dropped_picture(self, token: str, library: Library) -> _Dropped | None:
        if not token:
            return None
        dropped = self._dropped.get(token)
        if dropped is None or dropped.fingerprint != library.encoder.fingerprint:
            raise QueryError("the picture that was dropped is gone", hint="drop it again, or take it away")
        return dropped

    def _library(self, key: str) -> Library | None:
        """The one that was asked for, if it can answer; else the first that can."""
        library = self._page.shelf.get(key)
        return library if library is not None and library.is_indexed else self._page.shelf.first()

    def _nothing(self) -> JSON:
        """No library can answer: why, and what can be indexed."""
        libraries = self._page.shelf.libraries()
        gone = [one for one in libraries if not one.is_there]
        if gone:
            title = f"The folder {printable(gone[0].name)} is not there"
            return {"empty": {"title": title, "text": "Its disk may be gone: connect it, and come back to this tab."}}
        text = "clipkit searches folders that it has indexed, on this machine. Nothing leaves it."
        waiting = [{"key": one.key, "name": printable(one.name)} for one in libraries]
        return {"empty": {"title": "No pictures yet", "text": text, "libraries": waiting}}

    def _why(self, sent: Sent) -> JSON:
        library = self._library(sent.text("library"))
        if library is None:
            raise QueryError("there is no such library here", hint="load the page again")
        return {"terms": evidence(library, self._asked(sent, library).question, sent.number("id", 0, MAX_ID))}

    # ---- pictures made of words ----

    def _imagination(self) -> Imagination:
        if self._page.imagination is None:
            raise QueryError("no model makes pictures here", hint="clipkit ui --imagine MODEL")
        return self._page.imagination

    def _imagine(self, sent: Sent) -> JSON:
        """Begin; the browser looks at the run until it is done."""
        imagination, library = self._imagination(), self._library(sent.text("library"))
        if library is None:
            raise QueryError("no library can be searched yet", hint="index one first")
        n = max(1, sent.number("n", 1, MOST))
        return {"run": imagination.start(library, clean(sent.text("words")), n=n, visitor=sent.visitor)}

    def _imagined(self, sent: Sent) -> JSON:
        return self._imagination().look(sent.text("run"), sent.visitor, seen=sent.number("seen", 0, MOST))

    def _stop_imagining(self, sent: Sent) -> JSON:
        self._imagination().stop(sent.text("run"), sent.visitor)
        return {"said": "No further picture is made."}

    # ---- libraries and their runs ----

    async def _libraries(self, request: Request) -> Response:
        return await self._answered(request, lambda: self._listed(_visitor(request)))

    def _listed(self, visitor: str) -> JSON:
        page, head = self._page, self._page.memory.last(visitor).head
        libraries = []
        for library in page.shelf.libraries():
            look = run.look() if (run := page.runs.get(library.key)) else None
            try:
                facts = library_facts(library)
            except ClipkitError as error:
                facts = {"key": library.key, "name": printable(library.name), "is_indexed": False, "is_there": True}
                facts["error"] = printable(page.shelf.presentable(error.message))
            libraries.append({**facts, "run": _progress(look, page.shelf.presentable) if look else None})
        classes = [printable(name) for name in (head.classes if head else ())]
        more = {"is_local": page.shelf.is_local, "types": sorted(SUFFIXES), "classes": classes}
        more["imagine"] = printable(page.imagination.name) if page.imagination else ""
        return {"libraries": libraries, **more}

    def _index(self, sent: Sent) -> JSON:
        """Begin an index run: of a library, or of a folder of this machine that becomes one."""
        page, folder = self._page, sent.text("folder").strip()
        library = page.shelf.get(sent.text("library"))
        if folder:
            self._check_local()
            library = page.shelf.add(folder)
        if library is None:
            raise ClipkitError("no folder is named", hint="type one: ~/Pictures")
        said = "Indexing has begun." if page.start(library) else "It is being indexed already."
        return {"said": said, "library": library.key}

    # ---- pictures that are dropped ----

    async def _picture(self, request: Request) -> Response:
        name = printable(str(request.query_params.get("name", "picture")).rpartition("/")[2])[:80] or "picture"
        key, body = str(request.query_params.get("library", "")), await request.body()
        return await self._answered(request, lambda: self._take(key, name, body))

    def _take(self, key: str, name: str, body: bytes) -> JSON:
        library = self._library(key)
        if library is None:
            raise QueryError("no library can be searched yet", hint="index one first")
        folder = cache_folder() / "uploads"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with NamedTemporaryFile(dir=folder, suffix=_suffix(name)) as file:
                file.write(body)
                file.flush()
                preview = to_jpeg(thumbnail(file.name, PREVIEW).canvas)  # in a process that may crash
                embedding = library.encoder.encode_images([file.name])
        except ImageError as error:  # it names where on this machine the upload lies
            raise QueryError(f"{name} cannot be read as a picture", hint="drop another") from error
        token = token_urlsafe(16)
        with self._lock:
            self._dropped[token] = _Dropped(name, library.encoder.fingerprint, embedding)
            while len(self._dropped) > MOST_PICTURES:
                self._dropped.popitem(last=False)
        return {"picture": token, "name": name, "preview": data_url(preview, "image/jpeg")}

    # ---- what is done to pictures ----

    def _act(self, sent: Sent) -> JSON:
        library = self._page.shelf.get(sent.text("library"))
        ids = sent.ids("ids", MOST_IDS)
        if library is None or not library.is_indexed:
            raise QueryError("there is no such library here", hint="load the page again")
        if not ids:
            raise QueryError("no picture is chosen", hint="tick some first")
        action = sent.text("action")
        if action in ("csv", "sheet", "zip"):
            return self._export(sent, library, ids, action)
        if action == "reveal":
            self._check_local()
            return {"said": show_folder(library, ids[0])}
        change = self._change(sent, library, ids, action)
        if change.touches_files:
            self._follow(library)
        return {"said": change.said, "undo": self._undos.keep(self._followed(change, library))}

    def _change(self, sent: Sent, library: Library, ids: Sequence[int], action: str) -> Change:
        if action in ("copy", "move", "tag"):
            self._check_local()
        if action == "copy":
            return changes.copy(library, ids, sent.text("folder"))
        if action == "move":
            return changes.move(library, ids, sent.text("folder"))
        if action == "tag":
            return changes.tag(library, ids, sent.text("tags"))
        if action in ("album", "unalbum"):
            return changes.album(library, ids, sent.text("album"), is_removed=action == "unalbum")
        if action == "label":
            memory = self._page.memory
            return changes.label(library, ids, sent.text("label"), memory.last(sent.visitor), memory)
        raise QueryError(f"there is no action {printable(action[:40])!r}", hint="load the page again")

    def _followed(self, change: Change, library: Library) -> Change:
        """The same, whose undo has the index follow where files move."""
        undo = change.undo
        if undo is None or not change.touches_files:
            return change

        def undo_and_index() -> str:
            said = undo()
            self._follow(library)
            return said

        return replace(change, undo=undo_and_index)

    def _follow(self, library: Library) -> None:
        """Index the library; where a run is at work, which may have passed these files already, once more after it."""
        if self._page.start(library):
            return
        run = self._page.runs[library.key]

        def again() -> None:
            while run.look().is_running:
                time.sleep(POLL_SECONDS)
            if not run.look().was_stopped:
                self._page.start(library)

        threading.Thread(target=again, daemon=True, name="clipkit-follow").start()

    def _export(self, sent: Sent, library: Library, ids: Sequence[int], action: str) -> JSON:
        found, outbox = self._found(sent, library, ids), self._page.outbox
        most = exports.MOST_ON_A_SHEET
        if action == "sheet":
            export = exports.as_sheet(library, found, sent.text("words", 100_000)[:200])
            said = f"The first {most:,} of {counted(len(found), 'picture')} are on it." if len(found) > most else ""
            return {"download": outbox.put(export), "said": said}
        export = exports.as_csv(found) if action == "csv" else exports.as_zip(library, found, outbox)
        return {"download": outbox.put(export)}

    def _found(self, sent: Sent, library: Library, ids: Sequence[int]) -> list[Found]:
        """The chosen pictures in the order in which they were chosen, with the scores of the question."""
        asked = self._asked(sent, library)
        answer = ask(library, replace(asked.question, ids=tuple(ids)), len(ids)) if asked.question else None
        scored = {one.fact.id: one for one in (answer.found if answer else ())}
        unscored = {one.fact.id: one for one in plain(library, library.catalogue(), list(ids))}
        return [scored.get(id_, unscored[id_]) for id_ in ids if id_ in unscored]

    def _check_local(self) -> None:
        if not self._page.shelf.is_local:
            raise ClipkitError(LOCAL, hint="clipkit ui FOLDER ... there; here, download")

    def _save(self, sent: Sent) -> JSON:
        """Keep words as a search that has a name."""
        library = self._library(sent.text("library"))
        if library is None:
            raise QueryError("there is no such library here", hint="load the page again")
        library.parse(words := sent.text("words", 100_000))
        library.index.save_search(name := sent.text("name"), words)
        return {"said": f"Saved: @{printable(name.strip().removeprefix('@'))} asks it again."}

    # ---- why ----

    async def _attention(self, request: Request) -> Response:
        library = self._page.shelf.get(request.path_params["index"])
        id_ = int(request.path_params["id"])
        file = library.file_of(id_) if library is not None and id_ < MAX_ID else None
        if library is None or file is None:
            return self._refused(QueryError("there is no such picture here", hint="load the page again"))
        kept = {"cache-control": "private, max-age=3600"}

        def draw() -> Response:
            return Response(attention_of(library, Path(file)), media_type="image/png", headers=kept)

        return await self._in_turn(request, draw)


def _visitor(request: Request) -> str:
    return visitor_in(request.headers.get("cookie", ""))


def _suffix(name: str) -> str:
    """The name's own, where it is one of a picture's: readers go by it."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), ".jpg")


def _progress(look: Look, see: Callable[[str], str]) -> JSON:
    lines = [printable(see(line)) for line in look.lines[-3:]]
    state = "" if look.is_running else "stopped" if look.was_stopped else "finished" if look.code == 0 else "failed"
    numbers = {"done": look.done, "total": look.total, "rate": round(look.rate, 1), "seconds_left": look.left}
    return {"is_running": look.is_running, "state": state, "lines": lines, **numbers}
