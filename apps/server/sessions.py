"""Sessions of a login: which request has one, and how it ends. Gradio keeps them; its own logout ends all of a user."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.responses import RedirectResponse

from .scopes import Scope, cookie_in, headers_of


def is_logged_in(scope: Scope) -> bool:
    """As Gradio decides it: a cookie with a token that its login has given."""
    return bool(_tokens(scope))


def log_out(scope: Scope) -> RedirectResponse:
    """End the session of a request, with `?all_session=true` all of its user; the answer leads to the login."""
    sessions, query = scope["app"].tokens, parse_qs(scope.get("query_string", b"").decode("latin-1"))
    tokens = _tokens(scope)
    if query.get("all_session") == ["true"]:
        users = {sessions[token] for token in tokens}
        tokens = [token for token, user in list(sessions.items()) if user in users]
    for token in tokens:
        sessions.pop(token, None)
    answer = RedirectResponse("./", status_code=303)  # from where the proxy serves the page
    for name in _names(scope):
        answer.delete_cookie(name, httponly=True, samesite="lax", secure=scope["scheme"] == "https")
    return answer


def _tokens(scope: Scope) -> list[str]:
    cookies = headers_of(scope).get("cookie", "")
    found = [cookie_in(cookies, name) for name in _names(scope)]
    return [token for token in found if token in scope["app"].tokens]


def _names(scope: Scope) -> tuple[str, str]:
    """Gradio's cookies: one over TLS, and one over any line."""
    id_ = scope["app"].cookie_id
    return f"access-token-{id_}", f"access-token-unsecure-{id_}"
