"""Login attempts by address: a few are free, then each wrong one makes that address, and no other, wait longer."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from .limits import network_of

FREE = 5  # wrong ones in a row without a wait
LONGEST_WAIT = 600.0  # seconds
FORGET = 3600.0  # seconds after the last wrong one
MOST_ADDRESSES = 10_000  # remembered; the one that was quiet for longest goes


@dataclass
class _Attempts:
    wrong: int = 0
    last: float = 0.0  # of the wrong ones
    before: float = 0.0


class Logins:
    """Wrong logins of each address. An IPv6 network of /64, which one household has, counts as one."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0: now, and what it tries counts as wrong until `succeed`."""
        key, now = network_of(address), time.monotonic()
        found = self._attempts.setdefault(key, _Attempts())
        self._attempts.move_to_end(key)
        if found.wrong and now - found.last > FORGET:
            found.wrong = 0
        pause = min(2.0 ** (found.wrong - FREE), LONGEST_WAIT) if found.wrong >= FREE else 0.0
        if (left := found.last + pause - now) > 0 and pause:
            return left
        found.wrong, found.before, found.last = min(found.wrong + 1, 64), found.last, now
        while len(self._attempts) > MOST_ADDRESSES:
            self._attempts.popitem(last=False)
        return 0.0

    def succeed(self, address: str) -> None:
        """The password was right, so this attempt does not count; others do: one user may not guess for another."""
        found = self._attempts.get(network_of(address))
        if found is not None:
            found.wrong, found.last = max(found.wrong - 1, 0), found.before
