"""The page without a browser: what may be asked, what is answered, what never leaves, and its JSON API."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from click.testing import CliRunner
from clipkit_apps import html
from clipkit_apps.library.tab import LibraryActions
from clipkit_apps.search import answers, changes, exports, questions
from clipkit_apps.server import guard, logins, routes, scopes, thumbnails
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.runs import CommandRun, Look
from clipkit_apps.server.state import Page
from PIL import Image

import clipkit
from clipkit.cli.main import app
from clipkit.core.text import printable
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore import metadata
from clipkit.explore import question as asking
from clipkit.explore.library import Library
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder, paint
from tests.support.page_robot import serving

APPS = Path(html.__file__).parent


def run_async(coroutine: Coroutine[Any, Any, None]) -> None:
    """In a thread: the browser's driver has an event loop in this one for as long as the session lasts."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, coroutine).result()


@pytest.fixture
def shelf(photos: Path) -> Shelf:
    """One library: the eight colours, and below it a folder `sub` with wide and tall ones that have dates."""
    for name, size, day in (("wide", (60, 20), "2019:07:31 10:00:00"), ("tall", (20, 60), "2021:01:02 03:04:05")):
        exif = Image.Exif()
        exif[0x0132] = day
        exif[0x010F], exif[0x0110] = "Leica", "Leica M6"
        file = photos / "sub" / f"{name}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (250, 10, 10)).save(file, exif=exif)
    encoder = ColourEncoder()
    ImageIndex.create(photos, encoder).update()
    found = Shelf(lambda name, exact: encoder)
    found.add(photos)
    return found


@pytest.fixture
def library(shelf: Shelf) -> Library:
    first = shelf.first()
    assert first is not None
    return first


def id_of(library: Library, path: str) -> int:
    return next(id_ for id_, other in library.index.store.paths()[1].items() if other == path)


def names(answer: asking.Answer) -> list[str]:
    return [one.fact.path for one in answer.found]


# ---- asking ----------------------------------------------------------------------------------------------------------


def test_words_and_moves_find_what_they_name(library: Library) -> None:
    assert names(asking.ask(library, asking.Question("blue"), 1)) == ["blue.png"]
    blue = id_of(library, "blue.png")
    assert names(asking.ask(library, asking.Question(more=(blue,)), 1)) == ["blue.png"]
    away = asking.ask(library, asking.Question("magenta", less=(blue,)))
    plain = asking.ask(library, asking.Question("magenta"))
    assert names(away).index("blue.png") > names(plain).index("blue.png")


def test_a_moved_question_is_the_sum_that_it_says(library: Library) -> None:
    red, blue = id_of(library, "red.png"), id_of(library, "blue.png")
    rows = dict(zip(library.index.paths, library.index.embeddings, strict=True))
    total = library.index.encoder.encode_texts(["green"])[0]
    total = total + asking.MORE * rows["red.png"] - asking.LESS * rows["blue.png"]
    query = asking.embedding_of(library, asking.Question("green", more=(red,), less=(blue,)))
    np.testing.assert_allclose(query[0], total / np.linalg.norm(total), atol=1e-6)


def test_words_are_never_a_file_of_this_machine(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(library.root)
    monkeypatch.setenv("HOME", str(library.root))
    grey, red = library.index.encoder.encode_texts(["grey", "red"])  # grey is all that the encoder makes of other words
    for words in ("./blue.png", str(library.root / "blue.png"), "~/blue.png", "../photos/blue.png", "./no such.png"):
        np.testing.assert_allclose(asking.embedding_of(library, asking.Question(words))[0], grey, atol=1e-6)
        added = asking.embedding_of(library, asking.Question(f"{words} + red"))[0]
        np.testing.assert_allclose(added, (grey + red) / np.linalg.norm(grey + red), atol=1e-6)


def test_words_are_cleaned_before_they_are_asked_or_shown() -> None:
    assert asking.clean("a\u202e cat\x00\x1b[31m\n\ud800 \u200f!") == "a cat[31m !"
    assert asking.clean("x" * 1000) == "x" * 1000
    with pytest.raises(QueryError, match="1,001 characters"):
        asking.clean("x" * 1001)


def test_a_longer_answer_goes_on_where_the_shorter_one_ended(library: Library) -> None:
    question = asking.Question("red")
    short, whole = asking.ask(library, question, 4), asking.ask(library, question, 10)
    assert names(short) == names(whole)[:4]
    assert (short.has_more, whole.has_more) == (True, False)
    assert len(asking.ask(library, question, 10**9).found) == 10


def test_duplicates_of_a_picture_are_those_with_its_bytes_then_those_that_look_the_same(library: Library) -> None:
    (library.root / "again.png").write_bytes((library.root / "blue.png").read_bytes())
    paint(library.root / "nearly.png", (2, 0, 253))
    library.index.update()
    answer = asking.ask(library, asking.Question(twins_of=id_of(library, "blue.png")))
    assert set(names(answer)[:2]) == {"blue.png", "again.png"}
    assert names(answer)[2:] == ["nearly.png"]
    assert library.catalogue().duplicates() == [sorted(one.hit.id for one in answer.found[:2])]


# ---- relevance -------------------------------------------------------------------------------------------------------


def test_the_page_says_when_nothing_fits(library: Library) -> None:
    question = asking.Question("an invoice")  # grey, as are the phrases that it is compared with
    answer = asking.ask(library, question)
    assert answer.verdict == "nothing"
    assert answers._warning(answer, question).startswith("Nothing here seems to show")
    assert answer.found  # and shows what comes closest
    assert asking.ask(library, asking.Question("an invoice", least="likely")).found == ()


# ---- filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (metadata.Filters(folder="sub"), {"sub/wide.jpg", "sub/tall.jpg"}),
        (metadata.Filters(shapes=("portrait",)), {"sub/tall.jpg"}),
        (metadata.Filters(shapes=("landscape",)), {"sub/wide.jpg"}),
        (metadata.Filters(kinds=("JPEG",)), {"sub/wide.jpg", "sub/tall.jpg"}),
        (metadata.Filters(since="2020"), {"sub/tall.jpg"}),
        (metadata.Filters(until=metadata.parse_day("2019", is_end=True)), {"sub/wide.jpg"}),
        (metadata.Filters(since="2019-07-31", until=metadata.parse_day("2019-07", is_end=True)), {"sub/wide.jpg"}),
        (metadata.Filters(since="2022"), set()),
    ],
)
def test_a_filter_leaves_what_it_says_and_the_search_stays_inside(
    library: Library, filters: metadata.Filters, expected: set[str]
) -> None:
    answer = asking.ask(library, asking.Question("red", filters=filters))
    assert set(names(answer)) == expected
    assert answer.total == len(expected)


def test_a_folder_that_holds_nothing_is_said_with_one_that_does(library: Library) -> None:
    with pytest.raises(QueryError, match="no pictures are indexed in subb") as caught:
        questions.as_folder("subb", library.catalogue())
    assert caught.value.hint == "choose one of the list, such as sub"


def test_the_catalogue_follows_the_index(library: Library) -> None:
    assert len(library.catalogue()) == 10
    paint(library.root / "new.png", (1, 2, 3))
    library.index.update()
    assert len(library.catalogue()) == 11
    assert library.catalogue().folders == ["sub"]
    assert library.catalogue().kinds == ["JPEG", "PNG"]
    assert library.catalogue().years == ("2019-07-31", "2021-01-02")


@pytest.mark.parametrize("text", ["2019-7-1", "yesterday", "2019-01-01T00", "' or 1=1"])
def test_what_is_no_date_is_said_to_be_none(text: str) -> None:
    with pytest.raises(QueryError, match="is no date"):
        metadata.parse_day(text)


# ---- what is shown ---------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Every tag and attribute that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(str(text))  # slices of Markup would be Markup

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</button></div><iframe>",
    "${alert(1)}{{constructor}}",
    "a\u202egnp.exe",
    "line\nline\r\x00\x1b[31m",
    os.fsdecode(b"\xff\xfe<b>"),
    "javascript:alert(1)",
    "&lt;script&gt;",
    "x" * 255,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_a_tag_or_an_attribute(name: str) -> None:
    def shown(text: str) -> Reader:
        fact = metadata.Fact(7, f"{text}/{text}", 30, 20, text, "ab" * 32)
        written = html.grid("key", [fact]) + html.note(text, text, steps=[text]) + html.table([[text]], [text])
        written.encode()  # no lone surrogate is left
        assert not any(char in written for char in "\u202e\x00\x1b")
        return Reader(written)

    plain, odd = shown("plain"), shown(name)
    assert odd.tags == plain.tags
    assert odd.attributes == plain.attributes
    assert printable(name) in odd.words


def test_a_table_for_spreadsheets_runs_nothing() -> None:
    fact = metadata.Fact(1, "=cmd|' /C calc'!A0.png", 1, 1, "", "")
    found = asking.Found(clipkit.Hit(0.5, fact.path, "/x", 1), fact, "weak")
    text = exports.as_csv([found]).data.decode()
    assert text.splitlines()[1].split(",")[2].startswith("'=cmd")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_that_leads_out_of_its_library_is_a_name_only(library: Library, tmp_path: Path) -> None:
    outside = paint(tmp_path / "private" / "secret.png", (9, 9, 9))
    (library.root / "link.png").symlink_to(outside)
    (library.root / "linked").symlink_to(outside.parent)
    (library.root / "inside.png").symlink_to(library.root / "red.png")
    library.index.update()
    paths = library.index.store.paths()[1]
    assert {"link.png", "linked/secret.png", "inside.png"} <= set(paths.values())
    served = {path for id_, path in paths.items() if library.file_of(id_) is not None}
    assert served == set(paths.values()) - {"link.png", "linked/secret.png"}
    answer = asking.ask(library, asking.Question("grey"), 100)
    assert len(names(answer)) == len(paths)
    assert not any("private" in hit.file for hit in exports.shown(library, answer.found))
    changes.copy(library, list(paths), str(tmp_path / "copies"))
    copied = list((tmp_path / "copies").iterdir())
    assert len(copied) == len(paths) - 2
    assert not list((tmp_path / "copies").glob("*secret*"))


def test_what_is_no_picture_any_more_is_not_served(library: Library) -> None:
    red = id_of(library, "red.png")
    (library.root / "red.png").unlink()
    assert library.file_of(red) is None
    (library.root / "red.png").mkdir()
    assert library.file_of(red) is None
    assert library.file_of(10**9) is None


def test_a_thumbnail_is_upright_small_made_once_and_made_again_for_another_content(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    file = tmp_path / "turned.tif"
    Image.new("RGB", (900, 300), (200, 30, 30)).save(file, exif=exif)
    made = thumbnails.Thumbnails(tmp_path / "cache")
    data = made.get(file, "one", "thumb")
    with Image.open(BytesIO(data)) as small:
        assert small.format == "JPEG"
        assert (small.width, small.height) == (107, 320)
        assert not small.getexif()
    file.write_bytes(b"gone")
    assert made.get(file, "one", "thumb") == data
    with pytest.raises(clipkit.ImageError):
        made.get(file, "two", "thumb")


def test_the_cache_stays_below_its_bound_and_the_oldest_go(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    made = thumbnails.Thumbnails(tmp_path / "cache", max_bytes=300_000)
    for number in range(30):
        file = tmp_path / f"{number}.png"
        Image.fromarray(noise.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(file)
        made.get(file, str(number), "thumb")
        for entry in (tmp_path / "cache").glob("*/*.jpg"):
            os.utime(entry, ns=(entry.stat().st_atime_ns, entry.stat().st_mtime_ns - 10**9))
    left = sorted((tmp_path / "cache").glob("*/*.jpg"), key=lambda entry: entry.stat().st_mtime_ns)
    assert 0 < sum(entry.stat().st_size for entry in left) <= 330_000
    assert made._target("29", "thumb").exists()
    assert not made._target("0", "thumb").exists()


def test_wishes_are_fulfilled_newest_first() -> None:
    made: list[int] = []
    is_open, is_done = threading.Event(), threading.Event()
    cache = thumbnails.Thumbnails(Path("nowhere"))
    cache.prepare([is_open.wait])
    time.sleep(0.05)
    cache.prepare([lambda: made.append(3), lambda: made.append(4), is_done.set])
    cache.prepare([lambda: made.append(1), lambda: made.append(2)])
    is_open.set()
    assert is_done.wait(5)
    assert made == [1, 2, 3, 4]


def test_an_export_has_an_address_that_cannot_be_guessed_and_does_not_stay_for_ever() -> None:
    outbox = routes.Outbox()
    places = [outbox.put(routes.Export(f"{n}", "text/csv", b"x")) for n in range(routes.MOST_EXPORTS + 1)]
    assert all(len(place.rpartition("/")[2]) >= 20 for place in places)
    assert outbox.get(places[0].rpartition("/")[2]) is None
    last = outbox.get(places[-1].rpartition("/")[2])
    assert last is not None
    assert last.name == str(routes.MOST_EXPORTS)


def test_exports_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MOST_EXPORT_BYTES", 25)
    outbox = routes.Outbox()
    tokens = [outbox.put(routes.Export("x", "text/csv", bytes(n))).rpartition("/")[2] for n in (10, 10, 10, 30)]
    assert [outbox.get(token) is not None for token in tokens] == [False, False, False, True]
    small = outbox.put(routes.Export("x", "text/csv", b"")).rpartition("/")[2]
    assert [outbox.get(token) is not None for token in (tokens[-1], small)] == [False, True]


def test_a_download_of_a_file_that_grows_ends_where_it_was_announced(tmp_path: Path) -> None:
    file = tmp_path / "growing.jpg"
    file.write_bytes(bytes(routes.CHUNK + 5))
    pieces = routes._pieces(open(file, "rb"), routes.CHUNK + 3)  # noqa: SIM115  closed where it ends
    assert [len(piece) for piece in pieces] == [routes.CHUNK, 3]


# ---- the guard -------------------------------------------------------------------------------------------------------


def knock(
    path: str, *, method: str = "GET", body: Sequence[bytes] = (b"",), hosts: Any = guard.LOOPBACK, **headers: str
) -> tuple[int, dict[str, str], list[bytes]]:
    """What comes back for a request, and what the page behind the guard has read of its body."""
    sent: list[Any] = []
    read: list[bytes] = []
    pieces = iter(body)

    async def page(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            read.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive() -> Any:
        piece = next(pieces, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs.items()]
    app = SimpleNamespace(cookie_id="me", tokens={"secret": "ann"})
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "app": app}
    watched = guard.Guard(page, hosts=hosts, has_login="cookie" in headers)
    run_async(watched(scope, receive, send))
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, read


def test_every_answer_has_the_strict_headers_also_a_refusal() -> None:
    for path, status in (("/", 200), ("/nothing", 404)):
        found, headers, _ = knock(path)
        assert found == status
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "http:" not in headers["content-security-policy"]


OWN = ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:7860")
FOREIGN = ("127.0.0.1.evil.com", "evil.com", "", "127.0.0.2", "evil.com#@localhost", "localhost.", "[", "0.0.0.0")


@pytest.mark.parametrize("host", [*OWN, *FOREIGN])
def test_only_our_own_names_are_answered(host: str) -> None:
    assert knock("/", host=host)[0] == (200 if host in OWN else 421)


def test_a_page_for_others_answers_to_numbers_and_its_own_name_but_not_to_a_name_that_dns_points_here() -> None:
    assert knock("/", hosts=None, host="192.168.1.7:7860")[0] == 200
    assert knock("/", hosts=None, host=socket.gethostname())[0] == 200
    assert knock("/", hosts=None, host="attacker.example")[0] == 421


UNUSED = (
    "proxy=http://evil.com component_server stream/1 deep_link vibe-edit dev/reload custom_component/x run-history/x"
)
ODD_PATHS = ("/monitoring", "/docs", "/openapi.json", "/clipkit/../etc", "/\\evil", "/assets/../../x", "/\0")


@pytest.mark.parametrize("path", [*(f"/gradio_api/{name}" for name in UNUSED.split()), *ODD_PATHS])
def test_what_the_page_does_not_need_is_not_there(path: str) -> None:
    assert knock(path)[0] == 404


@pytest.mark.parametrize(
    ("header", "passed"),
    [
        ("access-token-me=secret; clipkit-visitor=abc", "access-token-me=secret; clipkit-visitor=abc"),
        ("other[x]=1; access-token-unsecure-me=secret;", "access-token-unsecure-me=secret"),
        ('access-token-me=secret; clipkit-visitor="a\\073"', "access-token-me=secret"),
        ("session=of another page", ""),
    ],
)
def test_only_cookies_of_the_page_reach_it(header: str, passed: str) -> None:
    assert scopes.own_cookies(header.encode()).decode() == passed
    assert scopes.cookie_in(header, "access-token-me") == ("secret" if "access-token-me" in header else "")


def test_requests_of_other_pages_and_odd_methods_are_refused() -> None:
    assert knock("/gradio_api/queue/join", method="POST", origin="http://evil.com")[0] == 403
    assert knock("/gradio_api/queue/join", method="POST", origin="http://127.0.0.1:7860")[0] == 200
    assert knock("/", method="DELETE")[0] == 405
    for site in ("cross-site", "same-site"):  # as pictures and streams of a page that wants to keep this one busy
        assert knock("/clipkit/large/a/1", sec_fetch_site=site, sec_fetch_mode="no-cors")[0] == 403
        assert knock("/", sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 200
    for site in ("same-origin", "none"):
        assert knock("/clipkit/large/a/1", sec_fetch_site=site, sec_fetch_mode="no-cors")[0] == 200


def test_a_body_is_counted_whatever_it_claims() -> None:
    path = "/gradio_api/queue/join"
    assert knock(path, method="POST", content_length=str(guard.MAX_BODY + 1))[0] == 413
    assert knock(path, method="POST", content_length="-1")[0] == 413
    pieces = [b"x" * 2**18] * 5
    status, _, read = knock(path, method="POST", body=pieces)
    assert status == 413
    assert sum(map(len, read)) <= guard.MAX_BODY
    assert knock("/gradio_api/upload", method="POST", body=pieces)[0] == 200
    assert knock("/gradio_api/upload", method="POST", content_length=str(21 * 2**20))[0] == 413


def test_a_body_that_never_arrives_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)

    async def slow() -> guard.Message:
        await asyncio.sleep(10)
        raise AssertionError

    async def wait() -> None:
        await guard._bounded(slow, 10)()

    with pytest.raises(guard.Refused, match="took too long"):
        run_async(wait())


@pytest.mark.parametrize("path", ["/clipkit/thumb/a/1", "/clipkit/file/a/1", "/config", "/gradio_api/file=x"])
def test_our_own_addresses_ask_for_the_same_login(path: str) -> None:
    assert knock(path, cookie="")[0] == 401
    assert knock(path, cookie="access-token-me=guess")[0] == 401
    assert knock(path, cookie="access-token-unsecure-me=secret")[0] == 200
    assert knock("/", cookie="")[0] == 200  # the login form


class Door:
    """A guard before a login, and when it is. `right` is the password."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(logins.time, "monotonic", lambda: self.now)
        self._guard = guard.Guard(self._page, allowed=("photos.example.org",), has_login=True)
        self._is_right = False

    def login(self, address: str = "10.0.0.1", *, is_right: bool = False, **headers: str) -> int:
        """The status of the answer."""
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        self._is_right = is_right
        pairs = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
        scope = {"type": "http", "method": "POST", "path": "/login", "headers": raw, "client": (address, 1)}
        run_async(self._guard(scope, None, send))  # type: ignore[arg-type]
        return statuses[0]

    async def _page(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200 if self._is_right else 400, "headers": []})


def test_whoever_guesses_passwords_waits_longer_and_longer_and_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch)
    assert [door.login() for _ in range(20)] == [400] * logins.FREE + [429] * (20 - logins.FREE)
    assert door.login("10.0.0.2", is_right=True) == 200
    assert door.login(is_right=True) == 429  # also with the right one, or waiting would tell it
    waits = []
    for _ in range(12):
        start = door.now
        while door.login() == 429:
            door.now += 1
        waits.append(door.now - start)
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == logins.LONGEST_WAIT
    door.now += logins.LONGEST_WAIT
    assert door.login(is_right=True) == 200
    assert door.login() == 400  # it was right long after the last wrong one
    assert door.login() == 429
    door.now += logins.FORGET + 1
    assert [door.login() for _ in range(6)] == [400] * logins.FREE + [429]


def test_who_has_a_login_cannot_guess_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(monkeypatch)
    guesses = []
    for _ in range(30):
        guesses.append(door.login())
        door.login(is_right=True)
    assert guesses == [400] * logins.FREE + [429] * (30 - logins.FREE)
    door.now += logins.FORGET + 1
    assert [door.login(is_right=True) for _ in range(30)] == [200] * 30


def test_behind_a_proxy_the_forwarded_address_counts_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    door, name = Door(monkeypatch), "photos.example.org"
    for number in range(20):  # what a visitor claims stands before what the proxy adds
        door.login("127.0.0.1", host=name, x_forwarded_for=f"10.9.9.{number}, 10.0.0.1")
    assert door.login("127.0.0.1", host=name, x_forwarded_for="10.0.0.1", is_right=True) == 429
    assert door.login("127.0.0.1", host=name, x_forwarded_for="10.0.0.2", is_right=True) == 200
    for number in range(20):
        door.login("10.0.0.3", x_forwarded_for=f"10.9.9.{number}")
    assert door.login("10.0.0.3", x_forwarded_for="10.8.8.8", is_right=True) == 429
    for number in range(20):  # past the proxy, by a machine that claims to be one
        door.login("10.0.0.4", host=name, x_forwarded_for=f"10.9.9.{number}")
    assert door.login("10.0.0.4", host=name, x_forwarded_for="10.8.8.8", is_right=True) == 429


def test_the_table_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MOST_ADDRESSES", 8)
    table = logins.Logins()
    for number in range(100):
        assert table.wait(f"10.0.0.{number}") == 0
    assert len(table._attempts) == 8
    found = [table.wait(f"2001:db8::{number}") for number in range(1, 8)]  # one network
    assert [bool(wait) for wait in found] == [False] * logins.FREE + [True] * 2


# ---- the command -----------------------------------------------------------------------------------------------------


def test_other_machines_are_let_in_only_with_a_login(photos: Path) -> None:
    done = CliRunner().invoke(app, ["ui", str(photos), "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "needs --auth-file FILE or --auth USER:PASSWORD" in done.output
    done = CliRunner().invoke(app, ["ui", str(photos), "--auth", "ann:short"])
    assert done.exit_code == 2
    assert "the password of 8 characters at least" in done.output


@pytest.fixture
def served_with(monkeypatch: pytest.MonkeyPatch, photos: Path) -> Callable[..., tuple[Any, str]]:
    """The logins that `clipkit ui` asks for with these options, None where it does not begin; and what it said."""
    given: list[Any] = []

    def serve(*_: Any, auth: Any, **__: Any) -> Any:
        given.append(auth)
        return SimpleNamespace(address="http://127.0.0.1:1/", stop=lambda: None)

    monkeypatch.setattr("clipkit_apps.launch.serve", serve)
    monkeypatch.setattr("clipkit_apps.launch.wait", lambda: None)

    def run(*options: str, **environment: str) -> tuple[Any, str]:
        given.clear()
        done = CliRunner().invoke(app, ["ui", str(photos), *options], env=environment)
        assert done.exit_code == (0 if given else 2), done.output
        return next(iter(given), None), done.output

    return run


def test_logins_come_from_a_file_or_the_environment(
    served_with: Callable[..., tuple[Any, str]], tmp_path: Path
) -> None:
    file = tmp_path / "logins"
    file.write_bytes(b"\xef\xbb\xbfann:a long: password \r\n\r\nbob:another one\n")
    file.chmod(0o600)
    logins = [("ann", "a long: password "), ("bob", "another one")]
    assert served_with("--auth-file", str(file))[0] == logins
    assert served_with(CLIPKIT_AUTH="eve:from outside")[0] == [("eve", "from outside")]
    assert served_with("--auth-file", str(file), CLIPKIT_AUTH="eve:from outside")[0] == logins
    assert served_with("--auth", "joe:on the line", CLIPKIT_AUTH="eve:from outside")[0] == [("joe", "on the line")]
    assert "may read" not in served_with("--auth-file", str(file))[1]
    file.chmod(0o644)
    found, said = served_with("--auth-file", str(file))
    assert (found, f"chmod 600 {file}" in said) == (logins, True)


def test_what_is_wrong_with_a_login_is_said_without_the_password(
    served_with: Callable[..., tuple[Any, str]], tmp_path: Path
) -> None:
    file = tmp_path / "logins"

    def said(*options: str, **environment: str) -> str:
        found, text = served_with(*options, **environment)
        assert found is None
        return " ".join(text.split())

    assert "cannot be read: No such file" in said("--auth-file", str(file))
    file.write_text("\n")
    assert "logins is empty; it wants USER:PASSWORD, one a line" in said("--auth-file", str(file))
    file.write_text("ann:long enough\nbob:secret\n")
    text = said("--auth-file", str(file))
    assert "logins, line 2, wants USER:PASSWORD" in text
    assert "secret" not in text
    file.write_bytes(b"ann:\xff\xfe long enough")
    assert "cannot be read" in said("--auth-file", str(file))
    assert "--auth-file FILE reads a file" in said("--auth", str(file))
    assert "not both" in said("--auth", "ann:long enough", "--auth-file", str(file))
    assert "--auth wants USER:PASSWORD" in said(CLIPKIT_AUTH="secret")


@pytest.mark.parametrize(
    ("options", "has_token"), [((), True), (("--no-token",), False), (("--auth", "ann:long enough"), False)]
)
def test_a_page_wants_a_token_unless_it_has_a_login_or_is_told_not_to(
    options: tuple[str, ...], has_token: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def serve(*_: Any, token: str, **__: Any) -> Any:
        given.append(token)
        return SimpleNamespace(address="http://127.0.0.1:1/", stop=lambda: None)

    monkeypatch.setattr("clipkit_apps.launch.serve", serve)
    monkeypatch.setattr("clipkit_apps.launch.wait", lambda: None)
    for _ in range(2):
        assert CliRunner().invoke(app, ["ui", str(photos), *options]).exit_code == 0
    assert [bool(token) for token in given] == [has_token, has_token]
    assert not has_token or (len(set(given)) == 2 and min(map(len, given)) >= 32)


def test_a_port_in_use_and_a_folder_that_is_not_there_are_sentences(photos: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["ui", str(photos), "--port", str(port)])
    assert isinstance(done.exception, ClipkitError)
    assert f"port {port} of 127.0.0.1 is in use" in done.exception.message
    done = CliRunner().invoke(app, ["ui", "nowhere"])
    assert isinstance(done.exception, ClipkitError)


def test_gradio_is_imported_by_the_page_alone() -> None:
    for file in Path(clipkit.__file__).parent.rglob("*.py"):
        assert "import gradio" not in file.read_text()
    for file in [
        "html.py",
        *(f"search/{name}.py" for name in ("questions", "answers", "changes", "exports", "routes")),
    ]:
        assert "gradio as" not in (APPS / file).read_text()
    for name in ("libraries", "guard", "thumbnails", "routes"):
        assert "gradio as" not in (APPS / "server" / f"{name}.py").read_text()


# ---- a page that runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def served(shelf: Shelf, photos: Path, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "secret.txt").write_text("secret")
    with serving(tmp_path, str(photos), module="tests.support.colour_page", cwd=APPS.parent) as found:
        yield found


CLIENT = """
import json, sys
from gradio_client import Client
place, auth, *calls = json.loads(sys.argv[1])
client = Client(place, auth=auth and tuple(auth), verbose=False)
print(json.dumps(sorted(client.view_api(return_format="dict", print_info=False)["named_endpoints"])))
for call in calls:
    try:
        print(json.dumps(client.predict(*call, api_name="/search")))
    except Exception as error:
        print(json.dumps(str(error)))
"""


def client(place: str, *calls: list[Any], auth: list[str] | None = None) -> list[Any]:
    """What gradio_client says, in a process of its own: its endpoints, then an answer for each call."""
    command = [sys.executable, "-c", CLIENT, json.dumps([place, auth, *calls])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def fetch(address: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = Request(address, data=data, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except HTTPError as error:
        with error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


def test_pictures_come_by_id_and_nothing_else_does(served: str, library: Library) -> None:
    tall = id_of(library, "sub/tall.jpg")
    status, headers, data = fetch(f"{served}/clipkit/thumb/{library.key}/{tall}")
    assert (status, headers["content-type"], headers["x-content-type-options"]) == (200, "image/jpeg", "nosniff")
    assert data[:3] == b"\xff\xd8\xff"
    status, headers, data = fetch(f"{served}/clipkit/file/{library.key}/{tall}")
    assert data == (library.root / "sub" / "tall.jpg").read_bytes()
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''tall.jpg"
    assert headers["content-type"] == "application/octet-stream"
    said = json.loads(fetch(f"{served}/clipkit/about/{library.key}/{tall}")[2])
    assert (said["path"], said["camera"], said["taken"]) == ("sub/tall.jpg", "Leica M6", "2021-01-02 03:04:05")
    assert (said["width"], said["height"], said["is_shown"]) == (20, 60, True)
    for odd in ("0", "-1", "1.0", "1e3", "9" * 30, "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "1%00", "\u0661"):
        for what in ("thumb", "large", "file", "about"):
            address_ = f"{served}/clipkit/{what}/{library.key}/{odd.encode().decode('latin-1')}"
            assert fetch(address_.replace("\xd9\xa1", "%D9%A1"))[0] in (400, 404)
    assert fetch(f"{served}/clipkit/thumb/{'0' * 12}/1")[0] == 404
    assert fetch(f"{served}/clipkit/static/routes.py")[0] == 404
    assert fetch(f"{served}/gradio_api/file={library.root}/red.png")[0] in (403, 404)
    assert fetch(f"{served}/gradio_api/file={library.root.parent}/secret.txt")[0] in (403, 404)
    assert fetch(served, Host="evil.com")[0] == 421


def test_the_api_answers_to_a_python_client_and_to_curl(served: str) -> None:
    endpoints, answer, inside, refused = client(served, ["blue", 2], ["blue", 5, "sub"], ["x" * 1001])
    assert "/search" in endpoints
    assert [hit["picture"] for hit in answer["hits"]] == ["blue.png", "cyan.png"]  # magenta is as near, and comes later
    assert answer["asked"] == 10
    assert {hit["picture"] for hit in inside["hits"]} == {"sub/wide.jpg", "sub/tall.jpg"}
    assert "1,001 characters" in refused
    status, headers, data = fetch(f"{served}{answer['hits'][0]['thumbnail']}")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    body = json.dumps({"words": "red", "k": 1}).encode()
    _, _, data = fetch(f"{served}/gradio_api/call/v2/search", data=body, Content_Type="application/json")
    stream = fetch(f"{served}/gradio_api/call/search/{json.loads(data)['event_id']}")[2].decode()
    result = json.loads(stream.partition("data: ")[2].splitlines()[0])
    assert [hit["picture"] for hit in result[0]["hits"]] == ["red.png"]


def test_a_login_is_asked_for_everything(shelf: Shelf, photos: Path, library: Library, tmp_path: Path) -> None:
    paths = [f"/clipkit/thumb/{library.key}/1", f"/clipkit/file/{library.key}/1", "/config", "/gradio_api/info"]
    with serving(
        tmp_path, str(photos), "ann:long enough", module="tests.support.colour_page", cwd=APPS.parent
    ) as place:
        assert {fetch(f"{place}{path}")[0] for path in paths} == {401}
        assert fetch(f"{place}/")[0] == 200
        _, answer = client(place, ["blue", 1], auth=["ann", "long enough"])
    assert answer["hits"][0]["picture"] == "blue.png"


def test_finished_and_not_indexed_yet_do_not_stand_together(shelf: Shelf, library: Library) -> None:
    page = Page(shelf, thumbnails.Thumbnails(library.root.parent / "thumbs"))
    look = Look(is_running=False, is_stopping=False, done=1, total=1, path="", rate=1, left=None, lines=(), code=0)
    page.runs[library.key] = cast("CommandRun", SimpleNamespace(look=lambda: look))
    (library.folder / "index.db").unlink()
    shown = LibraryActions(page).shelf()
    assert "finished" in shown
    assert "its index is gone" in shown
    assert "not indexed yet" not in shown


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # event loops that Gradio makes and leaves to others
def test_an_idle_page_leaves_the_processor_alone(shelf: Shelf, tmp_path: Path) -> None:
    """Gradio looks for events a thousand times a second, unless it is told to wait."""
    from clipkit_apps.page import build

    blocks = build(Page(shelf, thumbnails.Thumbnails(tmp_path / "thumbs")))
    assert blocks._queue.sleep_when_free >= 0.01
    del blocks
    gc.collect()
