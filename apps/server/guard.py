"""Request guard: who may ask what, how much, from where, and what a browser may do with it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from clipkit.core.text import printable

from .limits import Refused, Turns
from .logins import Logins
from .proxies import Proxies, forwarded_for
from .requests import reason_for_client, say_failure
from .scopes import Message, Receive, Scope, Send, headers_of, own_cookies
from .sessions import is_logged_in, log_out
from .token import ADVICE, Token
from .uploads import Uploads
from .visitor import visitor_cookie

App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_UPLOAD = 20 * 2**20 + 2**14  # a picture, and the form around it
MAX_BODY = 2**20  # everything else: JSON of events
MAX_ADDRESS = 8_192  # characters of path and query
BODY_SECONDS = 30.0  # in which a whole body has to arrive
AT_ONCE = 96  # requests at work
STREAMS_AT_ONCE = 256  # that only wait for news: two for each browser tab
OF_ONE_AT_ONCE = 24  # requests of one address at work; a browser has six connections
OF_ONE = 128  # of them with those that wait: a proxy passes on what HTTP/2 brings it at once
STREAMS_OF_ONE = 96
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LOCAL_PROXIES = ("127.0.0.0/8", "::1")
# What the page needs of Gradio. Everything else it offers (proxies, streams, deep links, run history) is not there.
OPEN = ("/", "/login", "/logout", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
OPEN_BELOW = ("/assets/", "/static/", "/svelte/")
EVENTS = "/gradio_api/"
GRADIO = (
    *("queue/join", "queue/data", "upload", "upload_progress", "cancel", "reset", "info", "app_id"),
    *("startup-events", "login_check", "theme.css"),
)
GRADIO_BELOW = ("call/", "run/", "api/", "heartbeat/", "file=")
OURS = "/clipkit/"
UPLOADS = (f"{EVENTS}upload", f"{OURS}search/picture")
ASKS_TOKEN = ("/", "/login", "/logout")  # of what is public where there is a login
OURS_OPEN = ("/clipkit/static/",)  # the page's own style and script: the login page wants them too
WAITING = ("/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/call/", "/gradio_api/upload_progress")
# What a proxy says of a request. It is read here, for a name that was allowed, and goes no further: Gradio would write
# it into the page.
FORWARDED = (b"forwarded", b"x-forwarded-", b"x-gradio-server", b"x-original-", b"x-rewrite-")
SESSION, UNSECURE = b"access-token-", b"access-token-unsecure-"  # Gradio's two cookies: over TLS, and over any line
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_OUTSIDE = re.compile(r"file=\s*/*[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # Gradio would fetch it for whoever asks
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own start and templates need both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Guard:
    """ASGI middleware around the whole page.

    hosts: names by which the page may be called; None: any address in numbers, and this machine's names. A name that
    an attacker's DNS points here is neither. allowed: names that a proxy before the page serves it under. proxies:
    where such a one connects from; of these alone it counts what X-Forwarded-Host, -Proto and -For say. root_path: the
    path below which the proxy serves it.
    has_login: whether a session is needed for what is not public. token: what has to be known where there is no login.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Collection[str] | None = LOOPBACK,
        allowed: Collection[str] = (),
        proxies: Collection[str] = LOCAL_PROXIES,
        root_path: str = "",
        has_login: bool = False,
        token: str = "",
    ) -> None:
        self._app = app
        self._allowed = {name.lower() for name in allowed}
        self._proxies = Proxies(proxies)
        self._root_path = root_path
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._own_names = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()} if hosts is None else ()
        self._has_login = has_login
        self._token = Token(token) if token else None
        self._requests = Turns(at_once=OF_ONE_AT_ONCE, most=OF_ONE, in_all=AT_ONCE)
        self._streams = Turns(at_once=STREAMS_OF_ONE, most=STREAMS_OF_ONE, in_all=STREAMS_AT_ONCE)
        self._logins, self._uploads = Logins(), Uploads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page opens no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        is_public = self._take_from_proxy(scope)
        is_started = False

        async def send_guarded(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                if _is_login(scope) and message["status"] == 200:
                    self._logins.succeed(str(scope["client"][0]))
                names = {name for name, _ in HEADERS}
                own = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in names]
                visitor = visitor_cookie(scope) if message["status"] == 200 else []
                message = {**message, "headers": [*_one_cookie(own, scope), *visitor, *HEADERS]}
            await send(message)

        try:
            self._check(scope, is_public=is_public)
            async with self._turns(scope).turn(str(scope["client"][0])):
                await self._pass(scope, receive, send_guarded)
        except Refused as refused:
            if not is_started:
                await _answer(send_guarded, refused)
        except Exception as error:  # noqa: BLE001  of any kind, or the server prints a page for each such request
            await _answer_failure(str(scope["path"]), error, None if is_started else send_guarded)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on to the page."""
        rest = [pair for pair in scope["headers"] if not pair[0].lower().startswith(FORWARDED)]
        scope["headers"] = [(name, own_cookies(value) if name == b"cookie" else value) for name, value in rest]
        if _is_upload(scope):
            receive = self._uploads.counted(receive, scope)
        redirect = self._token.redirect(scope) if self._token else None
        if scope["path"] == "/logout":
            redirect = log_out(scope)
        await (redirect or self._app)(scope, _bounded(receive, _limit(scope)), send)

    def _turns(self, scope: Scope) -> Turns:
        is_waiting = scope["method"] == "GET" and str(scope["path"]).startswith(WAITING)
        return self._streams if is_waiting else self._requests

    def _take_from_proxy(self, scope: Scope) -> bool:
        """Whether the page is asked under an allowed name; host, client, scheme and path are set as the proxy says."""
        headers = headers_of(scope)
        scope["client"] = scope.get("client") or ("", 0)
        scope["scheme"] = "http"  # uvicorn takes any sender's word for it
        is_proxy = str(scope["client"][0]) in self._proxies
        names = [headers.get("host", "")]
        if is_proxy and self._is_own(names[0]):
            names.append(headers.get("x-forwarded-host", ""))
        public = next((name for name in names if self._is_allowed(name)), "")
        if not public:
            return False
        rest = [pair for pair in scope["headers"] if pair[0] != b"host" or pair[1].decode("latin-1") != names[0]]
        scope["headers"] = [*rest, (b"host", public.encode("latin-1"))]
        if is_proxy:
            scope["client"] = (forwarded_for(headers.get("x-forwarded-for", "")) or scope["client"][0], 0)
            scope["scheme"] = "https" if headers.get("x-forwarded-proto", "").lower() == "https" else "http"
        path = str(scope["path"])
        if self._root_path and path.startswith(f"{self._root_path}/"):
            scope["path"] = path.removeprefix(self._root_path)
            scope["raw_path"] = (scope.get("raw_path") or path.encode()).removeprefix(self._root_path.encode())
        return True

    def _is_allowed(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        return match is not None and match[1].lower() in self._allowed

    def _check(self, scope: Scope, *, is_public: bool) -> None:
        headers = headers_of(scope)
        path = str(scope["path"])
        if len(scope.get("raw_path") or path) + len(scope.get("query_string", b"")) > MAX_ADDRESS:
            raise Refused(414, "the address is too long")
        host = headers.get("host", "")
        if not (is_public or self._is_own(host)) or [name for name, _ in scope["headers"]].count(b"host") != 1:
            raise Refused(421, "this page is not served under that name")
        origin = headers.get("origin", "")
        if scope["method"] not in ("GET", "HEAD") and origin and origin.partition("://")[2].lower() != host.lower():
            raise Refused(403, "the request comes from another page")
        is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if is_foreign and headers.get("sec-fetch-mode") != "navigate":  # a link may lead here
            raise Refused(403, "the request comes from another page")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise Refused(405, "only GET, HEAD and POST are answered")
        if not _is_known(path):
            raise Refused(404, "there is nothing at this address")
        if self._has_login and not _is_public(path) and not is_logged_in(scope):
            raise Refused(401, "log in first")
        is_free = _is_public(path) and path not in ASKS_TOKEN
        if self._token and not is_free and not self._token.is_known(scope):
            raise Refused(401, ADVICE)
        if path == "/logout" and scope["method"] != "POST":  # another page can have a browser GET it
            raise Refused(405, "log out by POST")
        if _is_login(scope) and (wait := self._logins.wait(str(scope["client"][0]))):
            raise Refused(429, f"too many wrong logins from your address; try again in {math.ceil(wait)} s")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > _limit(scope):
            raise Refused(413, f"more than {_limit(scope):,} bytes were sent")
        if _is_upload(scope):
            self._uploads.check(scope, int(length))

    def _is_own(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().strip("[]")
        if self._hosts is not None:
            return name in self._hosts
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._own_names
        return True


async def broken(_: Request, __: Exception) -> PlainTextResponse:
    """What is answered when something inside the page has failed: Gradio's own 500 would come without our headers."""
    headers = {name.decode(): value.decode() for name, value in HEADERS}
    return PlainTextResponse("the page cannot answer that\n", status_code=503, headers=headers)


def _one_cookie(headers: list[tuple[bytes, bytes]], scope: Scope) -> list[tuple[bytes, bytes]]:
    """Of Gradio's two session cookies the one for this line, never sent along from another site."""
    remaining = []
    for name, value in headers:
        if name.lower() == b"set-cookie" and value.startswith(SESSION):
            if value.startswith(UNSECURE) == (scope["scheme"] == "https"):
                continue
            value = re.sub(rb"(?i)samesite=none", b"SameSite=lax", value)
        remaining.append((name, value))
    return remaining


def _is_known(path: str) -> bool:
    if "\\" in path or "\0" in path or any(part in (".", "..") for part in path.split("/")):
        return False
    if path in OPEN or path == "/config" or path.startswith((*OPEN_BELOW, OURS)):
        return True
    rest = path.removeprefix(EVENTS)
    is_ours = rest.rstrip("/") in GRADIO or rest.startswith(GRADIO_BELOW)
    return rest != path and is_ours and not _OUTSIDE.match(rest)


def _is_public(path: str) -> bool:
    return path in OPEN or path.startswith((*OPEN_BELOW, *OURS_OPEN)) or path == f"{EVENTS}startup-events"


def _is_login(scope: Scope) -> bool:
    return scope["method"] == "POST" and str(scope["path"]).rstrip("/") == "/login"


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and str(scope["path"]).rstrip("/") in UPLOADS


def _limit(scope: Scope) -> int:
    return MAX_UPLOAD if _is_upload(scope) else MAX_BODY


def _bounded(receive: Receive, limit: int) -> Receive:
    """Counts what arrives, whatever was announced, and waits for a body no longer than it should take."""
    taken, is_complete = 0, False
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive_bounded() -> Message:
        nonlocal taken, is_complete
        if is_complete:
            return await receive()  # from here on: only that the other side has gone
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise Refused(408, "the request took too long to arrive") from error
        taken += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if taken > limit:
            raise Refused(413, f"more than {limit:,} bytes were sent")
        return message

    return receive_bounded


async def _answer_failure(path: str, error: Exception, send: Send | None) -> None:
    """400 and a reason where the request was wrong, else 503 and a line on the terminal."""
    reason = reason_for_client(path, error)
    if not reason:
        say_failure(f"{printable(path)[:100]}", error)
    if send and reason:
        body = json.dumps({"detail": reason}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif send:
        await _answer(send, Refused(503, "the page cannot answer that"))


async def _answer(send: Send, refused: Refused) -> None:
    headers: Iterator[tuple[bytes, bytes]] = iter([(b"content-type", b"text/plain; charset=utf-8")])
    await send({"type": "http.response.start", "status": refused.status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": f"{refused.reason}\n".encode()})
