"""Token of a page without a login: other accounts of this machine reach 127.0.0.1 too, and do not know it."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl

from starlette.responses import RedirectResponse

from .scopes import Scope, cookie_in, headers_of

PARAMETER = "token"
ADVICE = "this page wants its token; open the address that `clipkit ui` printed"


class Token:
    """Who knows it may come in: by `?token=`, by `Authorization: Bearer`, or by the cookie that the page gave."""

    def __init__(self, value: str) -> None:
        self._value = value

    def is_known(self, scope: Scope) -> bool:
        """Whether a request brings it, compared in constant time."""
        headers = headers_of(scope)
        kind, _, given = headers.get("authorization", "").partition(" ")
        offered = [cookie_in(headers.get("cookie", ""), _cookie(scope)), *_from_address(scope)]
        offered += [given.strip()] if kind.lower() == "bearer" else []
        is_same = [secrets.compare_digest(one.encode(), self._value.encode()) for one in offered]
        return any(is_same)

    def redirect(self, scope: Scope) -> RedirectResponse | None:
        """For a browser that opens the page with the token in its address: a cookie, and the address without it."""
        given, rest = _from_address(scope), _without(scope)
        scope["query_string"] = rest
        if scope["path"] != "/" or scope["method"] != "GET" or not given:
            return None
        answer = RedirectResponse(f"/?{rest.decode('latin-1')}" if rest else "/", status_code=303)
        answer.set_cookie(_cookie(scope), self._value, httponly=True, samesite="lax")
        answer.headers["cache-control"] = "no-store"
        return answer


def _cookie(scope: Scope) -> str:
    """Its name; cookies do not tell ports apart, and several pages may run."""
    return f"clipkit-token-{(scope.get('server') or ('', 0))[1]}"


def _from_address(scope: Scope) -> list[str]:
    query = scope.get("query_string", b"").decode("latin-1")
    return [value for name, value in parse_qsl(query, encoding="latin-1") if name == PARAMETER]


def _without(scope: Scope) -> bytes:
    parts = scope.get("query_string", b"").split(b"&")
    return b"&".join(part for part in parts if part.partition(b"=")[0] != PARAMETER.encode())
