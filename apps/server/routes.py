"""HTTP routes: pictures by library and id, their metadata, exports, and the page's style and script."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from clipkit.core.folders import cache_folder
from clipkit.core.text import printable
from clipkit.errors import ClipkitError
from clipkit.explore.albums import read_albums
from clipkit.explore.library import Library
from clipkit.explore.metadata import Fact, kind
from clipkit.images.formats import file_of
from clipkit.images.recipe import NO_METADATA
from clipkit.images.thumbnails import file_metadata
from clipkit.index.sidecars import read_sidecar

from .libraries import Shelf
from .thumbnails import SIZES, Thumbnails

STATIC_FOLDER = Path(__file__).parent.parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript"}
STATIC = {
    file.relative_to(STATIC_FOLDER).as_posix(): TYPES[file.suffix]
    for file in STATIC_FOLDER.rglob("*")
    if file.suffix in TYPES
}
FOREVER = "private, max-age=31536000, immutable"  # the address changes with the content
BRIEFLY = "private, max-age=60"
CHUNK = 2**18
MOST_EXPORTS = 20  # kept in memory; the oldest goes
MOST_EXPORT_BYTES = 256 * 2**20  # of all of them, but for the newest
AT_ONCE = 16  # pictures that are read; the rest of the page runs on the same 40 threads
MAX_ID = 2**62


@dataclass(frozen=True)
class Export:
    """A file that the page has made for somebody to save, or to look at in a window of its own."""

    name: str
    media_type: str
    data: bytes = b""
    is_shown: bool = False
    file: Path | None = None  # that has the data instead, and goes with the export


class Outbox:
    """Exports, each at an address that cannot be guessed."""

    def __init__(self) -> None:
        self._exports: OrderedDict[str, Export] = OrderedDict()
        self._lock = threading.Lock()
        self._folder: TemporaryDirectory[str] | None = None

    def folder(self) -> Path:
        """Where files of exports lie; it goes with the page."""
        with self._lock:
            if self._folder is None:
                uploads = cache_folder() / "uploads"
                uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._folder = TemporaryDirectory(prefix="exports-", dir=uploads)
            folder = Path(self._folder.name)
            folder.mkdir(mode=0o700, exist_ok=True)  # whoever cleans the cache may have taken it
            return folder

    def new_file(self, suffix: str) -> Path:
        """A name for a file of an export."""
        return self.folder() / f"{token_urlsafe(16)}{suffix}"

    def close(self) -> None:
        """Files of exports go."""
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def put(self, export: Export) -> str:
        """The address under which it can be fetched, from where the page lies."""
        token = token_urlsafe(16)
        with self._lock:
            self._exports[token] = export
            while len(self._exports) > MOST_EXPORTS or (self._size() > MOST_EXPORT_BYTES and len(self._exports) > 1):
                _, old = self._exports.popitem(last=False)
                if old.file is not None:
                    old.file.unlink(missing_ok=True)
        return f"clipkit/export/{token}"

    def _size(self) -> int:
        return sum(len(one.data) for one in self._exports.values())

    def get(self, token: str) -> Export | None:
        with self._lock:
            return self._exports.get(token)


class Routes:
    """The addresses of one page, as `launch(app_kwargs={"routes": ...})` takes them."""

    def __init__(self, shelf: Shelf, thumbnails: Thumbnails, outbox: Outbox) -> None:
        self._shelf, self._thumbnails, self._outbox = shelf, thumbnails, outbox
        self._threads = CapacityLimiter(AT_ONCE)

    def all(self) -> list[Route]:
        place = "{index:str}/{id:str}"
        return [
            Route(f"/clipkit/thumb/{place}", self._thumb),
            Route(f"/clipkit/large/{place}", self._large),
            Route(f"/clipkit/file/{place}", self._file),
            Route(f"/clipkit/about/{place}", self._about),
            Route("/clipkit/export/{token:str}", self._export),
            Route("/clipkit/static/{name:path}", self._static),
        ]

    async def _thumb(self, request: Request) -> Response:
        return await run_sync(self._picture, request, "thumb", limiter=self._threads)

    async def _large(self, request: Request) -> Response:
        return await run_sync(self._picture, request, "large", limiter=self._threads)

    async def _file(self, request: Request) -> Response:
        return await run_sync(self._download, request, limiter=self._threads)

    async def _about(self, request: Request) -> Response:
        return await run_sync(self._facts, request, limiter=self._threads)

    def _picture(self, request: Request, size: str) -> Response:
        assert size in SIZES
        try:
            library, fact = self._asked(request)
            file = library.file_of(fact.id) if library and fact else None
            if library is None or fact is None or file is None:
                return _absent()
            data = self._thumbnails.get(file, library.content(fact, file), size)
        except (ClipkitError, OSError):
            return PlainTextResponse("this picture cannot be shown\n", status_code=404)
        is_fixed = request.query_params.get("v") == fact.sha256[:12] != ""
        return Response(data, media_type="image/jpeg", headers={"cache-control": FOREVER if is_fixed else BRIEFLY})

    def _download(self, request: Request) -> Response:
        try:
            library, fact = self._asked(request)
            file = library.file_of(fact.id) if library and fact else None
            if fact is None or file is None:
                return _absent()
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            whole = os.open(file_of(str(file)), flags)  # closed also where nobody waits for it any more
            stream = os.fdopen(whole, "rb")
        except (ClipkitError, OSError):
            return _absent()
        name = printable(file_of(fact.path).rpartition("/")[2])
        size = os.fstat(stream.fileno()).st_size
        headers = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "content-length": str(size),
            "cache-control": "private, no-store",
        }
        return StreamingResponse(_pieces(stream, size), media_type="application/octet-stream", headers=headers)

    def _facts(self, request: Request) -> Response:
        try:
            library, fact = self._asked(request)
            if library is None or fact is None:
                return _absent()
            return JSONResponse(self._described(library, fact), headers={"cache-control": "private, no-store"})
        except ClipkitError as error:
            return JSONResponse({"error": printable(self._shelf.presentable(error.message))}, status_code=404)

    def _described(self, library: Library, fact: Fact) -> dict[str, Any]:
        file = library.file_of(fact.id)
        size = os.stat(file_of(str(file))).st_size if file else None
        whole = str(library.root / fact.path)
        found = read_sidecar(str(file)).over(file_metadata(file)) if file else NO_METADATA
        albums = [name for name, one in read_albums(library.index).items() if fact.sha256 in one.contents]
        return {
            "path": printable(fact.path),
            "place": printable(whole) if self._shelf.is_local and file else printable(fact.path),
            "kind": kind(fact.path),
            "bytes": size,
            "width": fact.width,
            "height": fact.height,
            "taken": printable(fact.taken).replace("T", " "),
            "camera": printable(found.camera or ""),
            "lens": printable(found.lens or ""),
            "exposure": found.exposure or "",
            "latitude": found.latitude,
            "longitude": found.longitude,
            "rating": found.rating,
            "tags": [printable(tag) for tag in found.tags],
            "albums": [printable(name) for name in albums],
            "is_shown": file is not None,
        }

    async def _export(self, request: Request) -> Response:
        export = self._outbox.get(request.path_params["token"])
        if export is None:
            return PlainTextResponse("this export is gone; make it again\n", status_code=404)
        disposition = f"{'inline' if export.is_shown else 'attachment'}; filename*=UTF-8''{quote(export.name, safe='')}"
        headers = {"content-disposition": disposition, "cache-control": "private, no-store"}
        if export.file is not None:
            return FileResponse(export.file, media_type=export.media_type, headers=headers)
        return Response(export.data, media_type=export.media_type, headers=headers)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return _absent()
        headers = {"cache-control": "no-cache"}
        return Response(
            (STATIC_FOLDER / name).read_bytes(), media_type=f"{STATIC[name]}; charset=utf-8", headers=headers
        )

    def _asked(self, request: Request) -> tuple[Library | None, Fact | None]:
        library = self._shelf.get(request.path_params["index"])
        number = request.path_params["id"]
        if library is None or not (number.isascii() and number.isdigit()) or len(number) > 19 or int(number) > MAX_ID:
            return None, None
        return library, library.catalogue().fact(int(number))


def _absent() -> Response:
    return PlainTextResponse("there is no such picture here\n", status_code=404)


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """So many bytes of it, also where it grows meanwhile."""
    with stream:
        while piece := stream.read(min(CHUNK, size)):
            size -= len(piece)
            yield piece
