"""The page behind a TLS proxy: which names count, and the configurations of docs/page.md in a real nginx."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner
from clipkit_apps.server import guard

from clipkit.cli.main import app
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder
from tests.support.page_robot import robot, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAME = "photos.localhost"  # browsers find every name below localhost on this machine
DOCUMENTED = "photos.example.org"
ROOT = Path(__file__).parents[2]
CONFIGURATIONS = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "page.md").read_text(encoding="utf-8"), re.DOTALL)
LOGIN = "ann:long enough"


# ---- which names count -----------------------------------------------------------------------------------------------


def knock(
    path: str = "/", *, method: str = "GET", root_path: str = "", sender: str = "127.0.0.1", **headers: str
) -> tuple[int, dict[str, Any]]:
    """The status that a guard with one allowed name answers with, and the request as the page would get it."""
    seen: dict[str, Any] = {}
    statuses: list[int] = []
    cookies = (b"access-token-me=s; Secure; SameSite=none", b"access-token-unsecure-me=s")

    async def page(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        answer = [(b"set-cookie", cookie) for cookie in cookies]
        await send({"type": "http.response.start", "status": 200, "headers": answer})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            seen["cookies"] = [value for name, value in message["headers"] if name == b"set-cookie"]

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, "scheme": "https"}
    scope |= {"client": (sender, 1), "app": SimpleNamespace(cookie_id="me", tokens={})}
    proxies = (*guard.LOCAL_PROXIES, "10.1.0.0/16")
    watched = guard.Guard(page, allowed=(DOCUMENTED,), proxies=proxies, root_path=root_path)
    with ThreadPoolExecutor(1) as threads:  # the browser's driver has an event loop in this one
        threads.submit(asyncio.run, watched(scope, None, send)).result()  # type: ignore[arg-type]
    return statuses[0], seen


@pytest.mark.parametrize(
    ("headers", "status", "scheme"),
    [
        ({"host": DOCUMENTED}, 200, "http"),
        ({"host": DOCUMENTED.upper(), "x_forwarded_proto": "https"}, 200, "https"),
        ({"host": f"{DOCUMENTED}:8443", "x_forwarded_proto": "https"}, 200, "https"),
        ({"host": "127.0.0.1:7860", "x_forwarded_host": DOCUMENTED, "x_forwarded_proto": "https"}, 200, "https"),
        ({"host": "127.0.0.1:7860", "x_forwarded_proto": "https"}, 200, "http"),
        ({"host": "127.0.0.1", "x_forwarded_host": "evil.com", "x_forwarded_proto": "https"}, 200, "http"),
        ({"host": "evil.com"}, 421, ""),
        ({"host": "evil.com", "x_forwarded_host": DOCUMENTED}, 421, ""),
        ({"host": f"evil.{DOCUMENTED}"}, 421, ""),
        ({"host": f"{DOCUMENTED}.evil.com"}, 421, ""),
    ],
)
def test_a_proxy_is_believed_for_an_allowed_name_only(headers: dict[str, str], status: int, scheme: str) -> None:
    got, seen = knock(**headers)
    assert got == status
    if status == 200:
        assert seen["scheme"] == scheme
        assert not [name for name, _ in seen["headers"] if name.startswith(b"x-forwarded")]
        (session,) = (cookie for cookie in seen["cookies"] if cookie.startswith(b"access-token-"))
        assert (b"unsecure" in session) == (scheme == "http")
        assert b"SameSite=none" not in session
        (visitor,) = (cookie for cookie in seen["cookies"] if cookie.startswith(b"clipkit-visitor="))
        assert b"HttpOnly; SameSite=Lax" in visitor
        assert (b"Secure" in visitor) == (scheme == "https")


@pytest.mark.parametrize(
    ("sender", "is_believed"),
    [
        *(("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.1.2.3", True)),
        *(("10.2.0.1", False), ("192.168.1.7", False), ("2001:db8::1", False), ("", False), ("127.0.0.1.evil", False)),
    ],
)
def test_only_the_connection_of_a_trusted_proxy_is_believed(sender: str, is_believed: bool) -> None:
    said = {"x_forwarded_proto": "https", "x_forwarded_for": "10.9.9.9"}
    status, seen = knock(sender=sender, host=DOCUMENTED, **said)
    assert (status, seen["scheme"]) == (200, "https" if is_believed else "http")
    assert seen["client"][0] == ("10.9.9.9" if is_believed else sender)
    origin = f"https://{DOCUMENTED}"
    named = {"host": "127.0.0.1:7860", "x_forwarded_host": DOCUMENTED, "origin": origin}
    assert knock("/gradio_api/queue/join", method="POST", sender=sender, **named)[0] == (200 if is_believed else 403)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        *(("10.0.0.1", "10.0.0.1"), ("1.1.1.1, 10.0.0.1", "10.0.0.1"), ("1.1.1.1,127.0.0.1", "127.0.0.1")),
        *(("10.0.0.1:4711", "10.0.0.1"), ("[2001:db8::1]:4711", "2001:db8::1"), ("2001:db8::1", "2001:db8::1")),
        *(("", "127.0.0.1"), ("10.0.0.1, unknown", "127.0.0.1"), ("10.0.0.1,", "127.0.0.1"), ("x" * 99, "127.0.0.1")),
    ],
)
def test_who_asks_is_the_last_address_that_the_proxy_has_written(header: str, address: str) -> None:
    assert knock(host=DOCUMENTED, x_forwarded_for=header)[1]["client"][0] == address
    assert knock(host="localhost", x_forwarded_for=header)[1]["client"][0] == "127.0.0.1"


def test_only_a_post_of_our_own_page_logs_out() -> None:
    assert knock("/logout", host="localhost")[0] == 405
    assert knock("/logout", method="HEAD", host="localhost")[0] == 405
    assert knock("/logout", method="POST", host="localhost", origin="https://evil.com")[0] == 403
    assert knock("/logout", method="POST", host="localhost")[0] == 303


def test_the_origin_is_that_of_the_public_name() -> None:
    proxied = {"host": "127.0.0.1:7860", "x_forwarded_host": DOCUMENTED, "x_forwarded_proto": "https"}
    join = "/gradio_api/queue/join"
    assert knock(join, method="POST", origin=f"https://{DOCUMENTED}", **proxied)[0] == 200
    assert knock(join, method="POST", origin=f"https://{DOCUMENTED}", host=DOCUMENTED)[0] == 200
    assert knock(join, method="POST", origin="https://evil.com", **proxied)[0] == 403
    assert knock(join, method="POST", origin="http://127.0.0.1:7860", **proxied)[0] == 403
    assert knock(join, method="POST", origin=f"https://{DOCUMENTED}", host="127.0.0.1:7860")[0] == 403


def test_a_path_of_the_proxy_is_taken_off() -> None:
    assert knock("/photos/theme.css", root_path="/photos", host=DOCUMENTED)[1]["path"] == "/theme.css"
    assert knock("/theme.css", root_path="/photos", host=DOCUMENTED)[1]["path"] == "/theme.css"
    assert knock("/photos2/theme.css", root_path="/photos", host=DOCUMENTED)[0] == 404
    assert knock("/photos/../etc", root_path="/photos", host=DOCUMENTED)[0] == 404
    assert knock("/photos/theme.css", root_path="/photos", host="127.0.0.1")[0] == 404


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--allow-host", DOCUMENTED], "--allow-host lets other machines in, so it needs --auth"),
        (["--allow-host", "https://a.org", "--auth", LOGIN], "--allow-host takes a name"),
        (["--allow-host", "*.a.org", "--auth", LOGIN], "--allow-host takes a name"),
        (["--trusted-proxy", "10.0.0.7"], "--trusted-proxy needs --allow-host NAME"),
        (["--trusted-proxy", "nginx", "--allow-host", "a.org", "--auth", LOGIN], "--trusted-proxy takes an address"),
        (["--root-path", "/photos"], "--allow-host NAME says under which name"),
        (["--root-path", "photos", "--allow-host", "a.org", "--auth", LOGIN], "--root-path begins with a slash"),
    ],
)
def test_what_a_proxy_needs_is_said(photos: Path, options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["ui", str(photos), *options])
    assert done.exit_code == 2
    assert message in done.output


# ---- a proxy that runs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proxied:
    """A page behind nginx: its public address, without a slash at the end, and its library."""

    address: str
    index: ImageIndex

    def ask(self, path: str, *, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, list[str]], bytes]:
        """Status, headers and body of one request over TLS."""
        parts = urlsplit(self.address)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection("127.0.0.1", parts.port, context=context, timeout=20)
        named = {"Host": parts.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request("POST" if body is not None else "GET", f"{parts.path}{path}", body, named)
        with connection.getresponse() as answer:
            found: dict[str, list[str]] = {}
            for name, value in answer.getheaders():
                found.setdefault(name.lower(), []).append(value)
            content = answer.read()
        connection.close()
        return answer.status, found, content


@contextmanager
def nginx(configuration: str, folder: Path, *, upstream: str) -> Iterator[int]:
    """The port at which nginx serves a configuration of docs/page.md before a page."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program or not shutil.which("openssl"):
        pytest.skip("there is no nginx or no openssl on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={NAME} -keyout photos.key -out photos.pem"
    subprocess.run(make.split(), cwd=folder, check=True, capture_output=True)
    for old, new in (
        ("listen 443", f"listen 127.0.0.1:{port}"),
        (DOCUMENTED, NAME),
        ("/etc/ssl/", f"{folder}/"),
        ("http://127.0.0.1:7860", upstream),
    ):
        assert old in configuration
        configuration = configuration.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    whole = f"pid {folder}/pid; daemon off; events {{}} http {{ access_log off; {places} {configuration} }}"
    (folder / "nginx.conf").write_text(whole)
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    )
    try:
        _wait_for(port, process, folder / "error.log")
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as knock_:
            if knock_.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nginx did not start: {log.read_text()}")


@pytest.fixture(params=["", "/photos"], ids=["root", "below a path"])
def proxied(request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> Iterator[Proxied]:
    index = ImageIndex.create(photos, ColourEncoder())
    index.update()
    path, configuration = request.param, CONFIGURATIONS[bool(request.param)]
    arguments = (str(photos), LOGIN, NAME, path)
    with (
        serving(tmp_path, *arguments, module="tests.support.colour_page", cwd=ROOT) as upstream,
        nginx(configuration, tmp_path, upstream=upstream) as port,
    ):
        yield Proxied(f"https://{NAME}:{port}{path}", index)


def test_a_login_goes_over_tls_alone(proxied: Proxied) -> None:
    form = urlencode({"username": "ann", "password": "long enough"}).encode()
    origin = f"https://{urlsplit(proxied.address).netloc}"
    kind = "application/x-www-form-urlencoded"
    assert proxied.ask("/config")[0] == 401
    assert proxied.ask("/login", body=form, Origin="https://evil.com", Content_Type=kind)[0] == 403
    assert proxied.ask("/", Host="evil.com")[0] == 421
    status, headers, _ = proxied.ask("/login", body=form, Origin=origin, Content_Type=kind)
    assert status == 200
    (cookie,) = headers["set-cookie"]
    assert "secure" in cookie.lower().split("; ")
    assert "httponly" in cookie.lower().split("; ")
    session = cookie.partition(";")[0]
    status, _, config = proxied.ask("/config", Cookie=session)
    assert status == 200
    assert f'"root":"{proxied.address}"'.encode() in config.replace(b'": "', b'":"')


def test_a_browser_searches_through_the_proxy(proxied: Proxied, browser: Browser) -> None:
    with robot(browser, proxied.address, ignore_https_errors=True) as page:
        page.window.goto(f"{proxied.address}/")
        page.window.get_by_label("username").fill("ann")
        page.window.get_by_label("password").fill("long enough")
        page.window.get_by_role("button", name="Login").click()
        page.window.wait_for_selector(".ck-wall .ck-card[data-id]", timeout=60_000)
        assert page.search("blue")[0] == "blue.png"
        page.wait_for_pictures()
        assert page.pictures_loaded()
        assert page.outside() == {NAME}
        assert not [url for url in page.requests if url.startswith("http:")]
