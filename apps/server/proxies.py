"""Trusted proxies: whose word counts for where a request comes from, and what the nearest of them said."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

_WITH_PORT = re.compile(r"\[([0-9a-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+", re.ASCII | re.IGNORECASE)


class Proxies:
    """Addresses or networks of proxies; ValueError where one is neither."""

    def __init__(self, addresses: Collection[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(address, strict=False) for address in addresses]

    def __contains__(self, address: str) -> bool:
        """Whether a connection from there is one of theirs."""
        found = _parsed(address)
        return found is not None and any(found in network for network in self._networks)


def forwarded_for(header: str) -> str:
    """Who connected to the nearest proxy: the last address of X-Forwarded-For. Any other is what a visitor claims."""
    last = header.rpartition(",")[2].strip()
    if match := _WITH_PORT.fullmatch(last):
        last = match[1] or match[2]
    return str(_parsed(last) or "")


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
