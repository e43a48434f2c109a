"""ASGI scopes: their types, and what one says of a request, its headers and one of its cookies."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Gradio's and ours have no quotes. Python's reader of cookies takes half a minute for a header of quoted backslashes.
_OWN_COOKIE = re.compile(r"(access-token|clipkit)-[\w-]+=[\w.-]*", re.ASCII)


def headers_of(scope: Scope) -> dict[str, str]:
    """Values by name, in small letters."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def cookie_in(header: str, name: str) -> str:
    """The cookie of that name in a Cookie header, the last of several; "" where there is none."""
    pairs = (pair.partition("=") for pair in header.split(";"))
    return next((value.strip() for key, _, value in reversed(list(pairs)) if key.strip() == name), "")


def own_cookies(header: bytes) -> bytes:
    """What of a Cookie header is the page's; other servers of this machine send theirs to it, too."""
    pairs = (pair.strip() for pair in header.decode("latin-1").split(";"))
    return "; ".join(pair for pair in pairs if _OWN_COOKIE.fullmatch(pair)).encode()
