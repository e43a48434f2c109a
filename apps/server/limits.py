"""Limits by address: how much one of them may have at work at once, and how many bytes it may send in an hour."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

MOST_KEYS = 10_000  # remembered; the one that was quiet for longest goes


def network_of(address: str) -> str:
    """What counts as one address: an IPv6 network of /64, which one household has, or an IPv4 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(getattr(found, "ipv4_mapped", None) or found)


class Refused(Exception):
    """A request that goes no further. status: of HTTP. reason: one sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class _Line:
    semaphore: asyncio.Semaphore
    count: int = 0  # at work and waiting


class Turns:
    """Turns of each address: `at_once` of them work, others wait; more than `most` of one, or `in_all`, are refused."""

    def __init__(self, *, at_once: int, most: int, in_all: int) -> None:
        self._at_once, self._most, self._in_all = at_once, most, in_all
        self._lines: dict[str, _Line] = {}
        self._at_work = 0

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Within it one turn is taken; Refused where there are too many."""
        key = network_of(address)
        line = self._lines.setdefault(key, _Line(asyncio.Semaphore(self._at_once)))
        if line.count >= self._most:
            raise Refused(429, "too many requests from your address at once; try again in a moment")
        line.count += 1
        try:
            async with line.semaphore:
                if self._at_work >= self._in_all:
                    raise Refused(503, "too many requests at once; try again in a moment")
                self._at_work += 1
                try:
                    yield
                finally:
                    self._at_work -= 1
        finally:
            line.count -= 1
            if not line.count:
                del self._lines[key]


class TokenBuckets:
    """A token bucket for each key: it holds `capacity`, and an empty one is full again after `seconds`."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self._capacity, self._rate = capacity, capacity / seconds
        self._taken: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by key: how much was missing, and when

    def wait(self, key: str, amount: int) -> float:
        """Seconds until that much is there; 0: it is there now. No more is asked for than a bucket holds."""
        missing = self._missing(key) + min(amount, self._capacity) - self._capacity
        return max(missing, 0.0) / self._rate

    def take(self, key: str, amount: int) -> None:
        """Take it, whether it is there or not."""
        self._taken[key] = self._missing(key) + amount, time.monotonic()
        self._taken.move_to_end(key)
        while len(self._taken) > MOST_KEYS:
            self._taken.popitem(last=False)

    def _missing(self, key: str) -> float:
        missing, when = self._taken.get(key, (0.0, 0.0))
        return max(missing - (time.monotonic() - when) * self._rate, 0.0)
