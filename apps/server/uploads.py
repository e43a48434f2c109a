"""Uploads: how many bytes a visitor and an address may send in an hour, and no file that stays for ever."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from pathlib import Path

from .limits import Refused, TokenBuckets, network_of
from .scopes import Message, Receive, Scope, headers_of
from .visitor import visitor_in

HOUR = 3_600.0
MOST_OF_VISITOR = 200 * 2**20  # bytes in an hour, the time after which an upload is deleted
MOST_OF_ADDRESS = 1_000 * 2**20  # a browser gets a new visitor whenever it likes
KEEP_SECONDS = 2 * HOUR  # Gradio deletes after one, but not what broke off, nor what a killed page has left
SWEEP_SECONDS = 600.0


class Uploads:
    """What visitors have sent: a visitor is a cookie, or an address that brings none."""

    def __init__(self) -> None:
        self._visitors = TokenBuckets(MOST_OF_VISITOR, HOUR)
        self._addresses = TokenBuckets(MOST_OF_ADDRESS, HOUR)

    def check(self, scope: Scope, amount: int) -> None:
        """Refused where so many bytes are too many now."""
        address, visitor = _keys(scope)
        wait = max(self._visitors.wait(visitor, amount), self._addresses.wait(address, amount))
        if wait:
            most = MOST_OF_VISITOR // 2**20
            minutes = math.ceil(wait / 60)
            raise Refused(429, f"more than {most} MB were sent within an hour; try again in {minutes} min")

    def counted(self, receive: Receive, scope: Scope) -> Receive:
        """As `receive`; what arrives counts, whatever was announced, until it is refused."""
        address, visitor = _keys(scope)

        async def receive_counted() -> Message:
            message = await receive()
            amount = len(message.get("body", b""))
            self.check(scope, amount)
            self._visitors.take(visitor, amount)
            self._addresses.take(address, amount)
            return message

        return receive_counted


def sweep(folder: Path, *, keep_seconds: float = KEEP_SECONDS) -> None:
    """Remove what has lain in `folder` for longer than that, and folders that are empty then."""
    oldest = time.time() - keep_seconds
    for file in sorted(folder.rglob("*"), reverse=True):  # a folder after what is in it
        with suppress(OSError):  # another page may sweep as well; a folder that is not empty stays
            if file.lstat().st_ctime > oldest:
                continue
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()


def keep_swept(folder: Path) -> None:
    """Sweep now and every ten minutes, in the background."""

    def work() -> None:
        while True:
            sweep(folder)
            time.sleep(SWEEP_SECONDS)

    threading.Thread(target=work, daemon=True, name="clipkit-uploads").start()


def _keys(scope: Scope) -> tuple[str, str]:
    """Address and visitor."""
    address = network_of(str(scope["client"][0]))
    return address, visitor_in(headers_of(scope).get("cookie", "")) or address
