"""Connections that never come to a request: they are closed in time, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from clipkit_apps.server import connections
from clipkit_apps.server.proxies import Proxies
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from tests.support.page_robot import serving
from tests.support.paths import REPOSITORY
from tests.support.waiting import until

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


def connect(place: tuple[str, int], source: str, raw: bytes = HALF) -> socket.socket:
    wire = socket.create_connection(place, 10, source_address=(source, 0))
    wire.sendall(raw)
    wire.settimeout(10)
    return wire


def is_closed(wire: socket.socket) -> bool:
    with suppress(ConnectionError):
        wire.settimeout(0.05)
        try:
            return wire.recv(1) == b""
        except TimeoutError:
            return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="there is one loopback address")
def test_one_address_has_so_many_connections_and_another_keeps_its_own(address: str) -> None:
    place = (urlsplit(address).hostname or "", urlsplit(address).port or 0)
    with ExitStack() as stack:
        first = stack.enter_context(closing(connect(place, "127.0.0.2")))
        many = [stack.enter_context(closing(connect(place, "127.0.0.3"))) for _ in range(connections.MOST_OF_ONE + 30)]
        until(lambda: all(is_closed(wire) for wire in many[:30]), 5)
        assert not any(is_closed(wire) for wire in [first, many[40], many[-1]])
        first.sendall(b"x\r\n\r\n")
        first.settimeout(10)
        assert first.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform != "linux", reason="there is one loopback address")
def test_a_trusted_proxy_has_connections_for_all_its_visitors(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    arguments = (str(tmp_path / "photos"), "ann:long enough", "photos.example.org")
    with (
        serving(tmp_path, *arguments, module="tests.support.colour_page", cwd=REPOSITORY) as page,
        ExitStack() as stack,
    ):
        place = (urlsplit(page).hostname or "", urlsplit(page).port or 0)
        count = connections.MOST_OF_ONE + 30
        many = [stack.enter_context(closing(connect(place, "127.0.0.1"))) for _ in range(count)]
        assert not any(is_closed(wire) for wire in many[:40])


def test_an_answer_that_nobody_reads_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        aborted = 0

        def abort(self) -> None:
            self.aborted += 1

    async def read(is_slow: bool) -> int:
        monkeypatch.setattr(connections, "STUCK_SECONDS", 0.05)
        config, transport = Config(lambda: None), Transport()
        config.load()
        wire: Any = connections.PatientProtocol(config, ServerState(), {}, proxies=Proxies())
        wire.flow, wire.transport = FlowControl(transport), transport  # type: ignore[arg-type]
        wire.pause_writing()
        if not is_slow:
            wire.resume_writing()
        await asyncio.sleep(0.1)
        return transport.aborted

    with ThreadPoolExecutor(1) as threads:
        for is_slow in (True, False):
            assert threads.submit(asyncio.run, read(is_slow)).result() == is_slow


def test_a_web_socket_is_a_request_like_any_other(address: str) -> None:
    place = (urlsplit(address).hostname or "", urlsplit(address).port or 0)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    asked = b"GET /clipkit/static/page.css HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade
    with closing(connect(place, "127.0.0.1", asked + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")) as wire:
        assert wire.recv(100).startswith(b"HTTP/1.1 200")


def test_the_cap_lies_below_what_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (256, 1_024, 4_096, 1_048_576):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.most_connections() <= min(soft // 2, connections.MOST_CONNECTIONS)
        assert connections.most_of_one() <= connections.most_connections() // 2
