"""Command `serve`: the service that keeps indexes and text towers warm for `search --keep-warm`."""

from __future__ import annotations

import io
import json
import os
import socket
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipkit.cli import keep_warm
from clipkit.cli.keep_warm import ANSWERED, ELSEWHERE, FLAG, OUTDATED
from clipkit.cli.output import say
from clipkit.core.locks import exclusive_lock
from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from clipkit.index.image_index import ImageIndex, Loader

IDLE_SECONDS = 600.0
REQUEST_SECONDS = 2.0  # to read one; a client writes it at once
MAX_INDEXES = 8
STOP = "stop"
_WRITES = ("preview", "copy_to", "sheet", "save", "forget")  # to files or for a terminal: done where it is asked
_MODELS = ("engine", "device", "precision")


@click.command()
@click.option("--idle", type=float, default=IDLE_SECONDS, show_default=True, help="End after so many quiet seconds.")
@click.option("--stop", "is_stop", is_flag=True, help="End the service that runs.")
def serve(idle: float, is_stop: bool) -> None:
    """Keep indexes and text towers warm for `clipkit search --keep-warm`.

    Such a search starts the service itself, and it ends after ten quiet minutes. It listens on a socket that only this
    user can open, and gives the answers that a search without it gives.
    """
    place = keep_warm.address()
    if not keep_warm.is_available():
        raise ClipkitError("there is no service on this system", hint="clipkit search WORDS")
    if len(os.fsencode(place)) > keep_warm.MAX_PATH:
        raise ClipkitError(f"{place} is too long for a socket", hint="set XDG_RUNTIME_DIR to a short folder")
    if is_stop:
        say("the service has ended" if _stop() else "no service runs")
        return
    with _alone(place) as is_alone:
        if not is_alone:
            say("a service runs already")
            return
        say(f"searches with {FLAG} are answered until {idle:g} s pass without one  (Ctrl-C ends it)")
        with _listening(place) as listener:
            SearchService().run(listener, idle)


class SearchService:
    """Answers of the command line, with the indexes of earlier searches still open."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[tuple[Path, Path], ImageIndex] = OrderedDict()
        self._stamp, self._environment = keep_warm.stamp(), keep_warm.environment()
        self._is_over = False

    def run(self, listener: socket.socket, idle_seconds: float) -> None:
        """Answer one client after the other until none has come for so long."""
        listener.settimeout(idle_seconds)
        while not self._is_over:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                return
            with connection, suppress(OSError, ValueError):  # a client that is gone
                if keep_warm.peer_id(connection) == os.getuid():
                    self._serve(connection)

    def open(self, root: str | Path, *, at: str | Path | None = None, load: Loader | None = None) -> ImageIndex:
        """As `ImageIndex.open`, with what an earlier search has loaded; whatever is wrong is an error as there."""
        from clipkit.index.image_index import ImageIndex

        fresh = ImageIndex.open(root, at=at, load=load)
        key = (fresh.root, fresh.folder)
        index = self._indexes.pop(key, fresh)
        if index is not fresh:
            index.refresh_query_encoder()
        self._indexes[key] = index
        if len(self._indexes) > MAX_INDEXES:
            self._indexes.popitem(last=False)
        return index

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_SECONDS)
        with connection.makefile("rb") as stream:
            request = json.loads(stream.readline(keep_warm.MAX_REQUEST))
        answer, outputs = self._answer(request)
        sizes = [len(output) for output in outputs]
        connection.sendall(json.dumps({**answer, "sizes": sizes}).encode() + b"\n" + b"".join(outputs))

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        if STOP in request or request["stamp"] != self._stamp:
            self._is_over = True
            return {"status": OUTDATED, "pid": os.getpid()}, []
        arguments = [argument for argument in request["arguments"] if argument != FLAG]
        if request["environment"] != self._environment or not _is_served(arguments):
            return {"status": ELSEWHERE}, []
        try:
            os.chdir(request["cwd"])
            code, *outputs = self._run(arguments, request["encoding"])
        except OSError:
            return {"status": ELSEWHERE}, []
        finally:
            os.chdir("/")
        return {"status": ANSWERED, "code": code}, outputs

    def _run(self, arguments: list[str], encoding: Sequence[str]) -> tuple[int, bytes, bytes]:
        from clipkit.cli.main import main

        out, err = io.BytesIO(), io.BytesIO()
        texts = [
            io.TextIOWrapper(stream, name, errors, newline="", write_through=True)
            for stream, name, errors in zip((out, err), encoding[::2], encoding[1::2], strict=True)
        ]
        with redirect_stdout(texts[0]), redirect_stderr(texts[1]):
            code = main(arguments, open_index=self.open)
        for text in texts:
            text.flush()
        return code, out.getvalue(), err.getvalue()


def _is_served(arguments: list[str]) -> bool:
    """Whether it is a search whose only effect is its output, by the model as it comes."""
    from clipkit.cli.search import search

    if arguments[:1] != ["search"]:
        return False
    try:
        with redirect_stdout(io.StringIO()):
            given = search.make_context("search", arguments[1:]).params
    except (click.ClickException, click.exceptions.Exit):
        return False
    return not any(given[name] for name in _WRITES) and {given[name] for name in _MODELS} == {"auto"}


def _stop() -> bool:
    try:
        keep_warm.ask({STOP: True})
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Whether this process is the only service; the lock dies with its process."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(place.with_suffix(".lock"), seconds=0))
        except TimeoutError:
            yield False
            return
        yield True


@contextmanager
def _listening(place: Path) -> Iterator[socket.socket]:
    """A socket that only this user can open; what a service that was killed has left goes."""
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(os.fspath(place))
    finally:
        os.umask(mask)
    listener.listen(16)
    try:
        with listener:
            yield listener
    finally:
        place.unlink(missing_ok=True)
