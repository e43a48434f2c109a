"""Connections of the server: how many at once, in all and of one address, and how long one may keep it waiting."""

from __future__ import annotations

import logging
from asyncio import TimerHandle
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import gradio.http_server
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import network_of
from .proxies import Proxies

HEADER_SECONDS = 10.0  # in which the whole header of a request has to be there
IDLE_SECONDS = 5  # between two requests on one connection
STUCK_SECONDS = 60.0  # in which a reader has to take some of what it asked for
MOST_CONNECTIONS = 1_024
MOST_OF_ONE = 128  # of one address; a browser has six
SPARE_FILES = 256  # descriptors for everything that is no connection: databases, pictures, processes


def most_connections() -> int:
    """How many connections may be open at once: below what this process may open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(MOST_CONNECTIONS, soft - SPARE_FILES, soft // 2))


def most_of_one() -> int:
    """How many of them one address may have."""
    return min(MOST_OF_ONE, most_connections() // 2)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request header does not arrive, or whose answer is not read, in time.

    Where there are too many connections, of all or of one address, the one that has waited for its header for longest
    makes room. proxies: whose connections are those of many, and count in all alone.
    """

    def __init__(self, *arguments: Any, proxies: Proxies, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._proxies = proxies
        self._stuck: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_SECONDS, transport.abort)
        address = self.client[0] if self.client else ""
        self.network = "" if address in self._proxies else network_of(address)
        all_ = [one for one in self.connections if isinstance(one, PatientProtocol)]
        own = [one for one in all_ if one.network == self.network]
        if len(all_) > most_connections():
            self._make_room(all_)
        elif self.network and len(own) > most_of_one():
            self._make_room(own)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_between_requests() and self._deadline.cancelled():
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(STUCK_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unset_stuck()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._unset_stuck()
        super().connection_lost(exc)

    def _should_upgrade(self) -> bool:
        return False  # the page opens no web sockets, and theirs would not be counted

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _unset_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _make_room(self, among: Sequence[PatientProtocol]) -> None:
        idle = [one for one in among if one is not self and one._is_between_requests()]
        oldest = min(idle, key=lambda one: one._deadline.when(), default=self)
        oldest._deadline.cancel()
        oldest.transport.abort()
        self.connections.discard(oldest)


class _Server(gradio.http_server.Server):
    """Gradio's server, with our protocol; no sender is taken by his word for the address that he comes from."""

    def __init__(self, config: Config, *arguments: Any, proxies: Proxies, **options: Any) -> None:
        config.http = partial(PatientProtocol, proxies=proxies)  # type: ignore[assignment]
        config.timeout_keep_alive = IDLE_SECONDS
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # or each broken request writes a line
        config.proxy_headers = False  # the guard reads X-Forwarded-For, of an allowed proxy alone
        super().__init__(config, *arguments, **options)


def bound_connections(proxies: Collection[str] = ()) -> None:
    """Have Gradio, which starts uvicorn itself and passes it nothing on, serve with these bounds.

    proxies: addresses or networks whose connections are not those of one visitor.
    """
    gradio.http_server.Server = partial(_Server, proxies=Proxies(proxies))  # type: ignore[misc, assignment]
