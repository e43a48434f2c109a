"""Connections of the server: how many at once, and how long one may keep it waiting for the header of a request."""

from __future__ import annotations

from typing import Any

import gradio.http_server
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # in which the whole header of a request has to be there
IDLE_SECONDS = 5  # between two requests on one connection
MOST_CONNECTIONS = 1_024
SPARE_FILES = 256  # descriptors for everything that is no connection: databases, pictures, processes


def most_connections() -> int:
    """How many connections may be open at once: below what this process may open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(MOST_CONNECTIONS, soft - SPARE_FILES, soft // 2))


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request header does not arrive in time.

    Where there are too many connections, the one that has waited for its header for longest makes room.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_SECONDS, transport.abort)
        if len(self.connections) > most_connections():
            self._make_room()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_between_requests() and self._deadline.cancelled():
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        idle = [one for one in self.connections if isinstance(one, PatientProtocol) and one._is_between_requests()]
        others = [one for one in idle if one is not self]
        oldest = min(others, key=lambda one: one._deadline.when(), default=self)
        oldest._deadline.cancel()
        oldest.transport.abort()
        self.connections.discard(oldest)


class _Server(gradio.http_server.Server):
    """Gradio's server, with our protocol; no sender is taken by his word for the address that he comes from."""

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        config.http = PatientProtocol
        config.timeout_keep_alive = IDLE_SECONDS
        config.proxy_headers = False  # the guard reads X-Forwarded-For, of an allowed proxy alone
        super().__init__(config, *arguments, **options)


def bound_connections() -> None:
    """Have Gradio, which starts uvicorn itself and passes it nothing on, serve with these bounds."""
    gradio.http_server.Server = _Server  # type: ignore[misc]
