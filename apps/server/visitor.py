"""Who a visitor is: a random cookie that tells one browser from another, so that what is done by hand stays apart."""

from __future__ import annotations

import re
import secrets
from typing import Any

from .scopes import Scope, cookie_in, headers_of

COOKIE = "clipkit-visitor"
YEAR = 365 * 86_400  # seconds
_VALUE = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)


def visitor_in(cookies: str) -> str:
    """The visitor that a Cookie header names; "" for none."""
    found = cookie_in(cookies, COOKIE)
    return found if _VALUE.fullmatch(found) else ""


def visitor_of(request: Any) -> str:
    """The visitor of an event, from its gr.Request; where the browser keeps no cookies, its window."""
    if request is None:
        return ""
    return visitor_in(str(dict(request.headers).get("cookie", ""))) or f"window {request.session_hash}"


def visitor_cookie(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The header that names a new visitor, where the page is opened by one."""
    if scope["path"] != "/" or scope["method"] != "GET" or visitor_in(headers_of(scope).get("cookie", "")):
        return []
    secure = "; Secure" if scope["scheme"] == "https" else ""
    value = f"{COOKIE}={secrets.token_urlsafe(16)}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Lax{secure}"
    return [(b"set-cookie", value.encode())]
