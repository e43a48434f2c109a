"""A small local model hub: the few answers of huggingface.co that a download needs, and a record of who asked what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """folder: holds ORG/REPO/FILE. requests: "METHOD path" in order. broken: names that end half-way, then fail."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    checksums: dict[Path, str] = field(default_factory=dict)

    def checksum(self, file: Path) -> str:
        if file not in self.checksums:
            with open(file, "rb") as stream:
                self.checksums[file] = hashlib.file_digest(stream, "sha256").hexdigest()
        return self.checksums[file]

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to see this hub and an empty cache instead of the real ones."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "CLIPKIT_CACHE": str(home / "clipkit"),
        }


@contextmanager
def serve(folder: Path) -> Iterator[FakeHub]:
    """A hub on a free port of this machine, for as long as the block lasts."""
    hub = FakeHub(folder)

    class Handler(_Handler):
        shown = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    shown: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.shown.requests.append(f"{self.command} {path}")
        repo, separator, rest = path.strip("/").partition("/resolve/")
        folder = self.shown.folder / repo
        file = folder / rest.partition("/")[2]
        if not separator or not folder.is_dir():
            self._send_error("RepoNotFound")
        elif not file.is_file():
            self._send_error("EntryNotFound")
        else:
            self._send_file(file, with_body=with_body)

    def _send_error(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_file(self, file: Path, *, with_body: bool) -> None:
        is_broken = with_body and file.name in self.shown.broken
        if is_broken and self.shown.requests.count(f"GET {urlsplit(self.path).path}") > 1:
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = file.stat().st_size
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.shown.checksum(file)}"')
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if not with_body:
            return
        with open(file, "rb") as stream:
            if is_broken:
                self.wfile.write(stream.read(size // 2))
                self.close_connection = True
                return
            while chunk := stream.read(1 << 20):
                self.wfile.write(chunk)
