"""Index runs that the page has started: each a process of its own, watched line by line, and stopped when asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipkit.core.interrupts import INTERRUPTED
from clipkit.core.processes import ENDS_WITH_PARENT
from clipkit.core.progress import PROGRESS

LAST_LINES = 12
STOP_SECONDS = 20.0  # for the batch at hand; then the process is killed, and what was committed stays


@dataclass(frozen=True)
class Look:
    """How a run stands. rate: pictures a second. left: seconds, or None where nothing tells. lines: what it said."""

    is_running: bool
    is_stopping: bool
    done: int
    total: int
    path: str
    rate: float
    left: float | None
    lines: tuple[str, ...]
    code: int | None

    @property
    def was_stopped(self) -> bool:
        return self.code is not None and (self.code == INTERRUPTED or self.code < 0)


class CommandRun:
    """`clipkit index` of one folder, beside the page: a decoder that crashes takes neither down.

    It ends with the page, also where that is killed, and nobody calls `end`.
    """

    def __init__(self, root: Path, *, at: Path | None = None, options: Sequence[str] = ()) -> None:
        place = ["--index", str(at)] if at else []
        self._begin(["index", *place, *options, "--", str(root)])

    def _begin(self, words: Sequence[str]) -> None:
        """Start `clipkit` with these words, and watch it."""
        command = [sys.executable, "-P", "-m", "clipkit", *words]
        self._progress: dict[str, Any] = {"done": 0, "total": 0, "path": ""}
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._first: float | None = None  # when the first picture was done: the model is loaded by then
        self._first_done = 0
        self._is_stopping = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed by the system when the page is gone
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, PROGRESS: "json", ENDS_WITH_PARENT: "1"},
            start_new_session=True,  # Ctrl-C in the page's terminal reaches it through `stop`
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name="clipkit-run")
        self._reader.start()

    def look(self) -> Look:
        """How it stands now."""
        code = None if self._reader.is_alive() else self._process.wait()
        done, total = int(self._progress["done"]), int(self._progress["total"])
        passed = time.monotonic() - self._first if self._first else 0.0
        rate = (done - self._first_done) / passed if passed > 0 else 0.0
        left = (total - done) / rate if rate > 0 and code is None else None
        path, lines = str(self._progress["path"]), tuple(self._lines)
        return Look(code is None, self._is_stopping, done, total, path, rate, left, lines, code)

    def stop(self) -> None:
        """Ask it to end after the batch at hand; returns at once."""
        self._is_stopping = True
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """As `stop`, and wait; the page is going."""
        if self._process.poll() is None:
            self.stop()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(STOP_SECONDS)  # the last lines are read: `look` says that it has ended

    def _read(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            try:
                message = json.loads(line) if line.startswith("{") else None
            except ValueError:
                message = None
            if isinstance(message, dict) and {"done", "total", "path"} <= message.keys():
                if self._first is None:
                    self._first, self._first_done = time.monotonic(), int(message["done"])
                self._progress = message
            elif line:
                self._lines.append(line)
        self._process.stderr.close()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
