"""Connections that never come to a request: they are closed in time, and others are answered meanwhile."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from clipkit_apps.server import connections

from tests.support.page_robot import serving
from tests.support.paths import REPOSITORY

HALF_OPEN = 1_200
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    photos = tmp_path / "photos"
    photos.mkdir()
    with serving(tmp_path, str(photos), module="tests.support.colour_page", cwd=REPOSITORY) as found:
        yield found


def test_half_open_connections_hold_nobody_up_and_are_closed(address: str) -> None:
    place = (urlsplit(address).hostname or "", urlsplit(address).port or 0)
    urlopen(f"{address}/clipkit/static/page.css", timeout=20).close()  # warm
    with ExitStack() as stack:
        wires = []
        for _ in range(HALF_OPEN):
            wires.append(stack.enter_context(closing(socket.create_connection(place, 10))))
            wires[-1].sendall(HALF)
        start = time.monotonic()
        with urlopen(f"{address}/clipkit/static/page.css", timeout=10) as reply:
            assert reply.status == 200
        assert time.monotonic() - start < 2
        time.sleep(connections.HEADER_SECONDS - 2)
        for wire in wires[::100]:
            wire.settimeout(10)
            with suppress(ConnectionError):
                assert wire.recv(100) == b""


def test_a_header_that_comes_byte_by_byte_is_cut_off_and_a_quick_one_is_not(address: str) -> None:
    place = (urlsplit(address).hostname or "", urlsplit(address).port or 0)
    with closing(socket.create_connection(place, 10)) as slow:
        slow.sendall(HALF)
        start = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012
            while time.monotonic() - start < connections.HEADER_SECONDS + 5:
                slow.sendall(b"x")
                time.sleep(0.5)
        assert connections.HEADER_SECONDS - 1 < time.monotonic() - start < connections.HEADER_SECONDS + 4
        with closing(HTTPConnection(*place, timeout=10)) as quick:
            for _ in range(2):
                quick.request("GET", "/clipkit/static/page.css")
                reply = quick.getresponse()
                assert (reply.status, len(reply.read()) > 0) == (200, True)


def test_the_cap_lies_below_what_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (256, 1_024, 4_096, 1_048_576):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.most_connections() <= min(soft // 2, connections.MOST_CONNECTIONS)
