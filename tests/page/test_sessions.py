"""Sessions of a login: logging out ends one, and no script of the page can read it."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.page_robot import serving
from tests.support.paths import REPOSITORY

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (photos := tmp_path_factory.mktemp("photos")).mkdir(exist_ok=True)
    arguments = (str(photos), "ann:long enough")
    cache: Path = tmp_path_factory.mktemp("cache")
    with serving(cache, *arguments, module="tests.support.colour_page", cwd=REPOSITORY) as found:
        yield found


def ask(page: str, path: str, *, method: str = "GET", body: str = "", **headers: str) -> tuple[int, list[str], str]:
    """Status, cookies and text."""
    place = urlsplit(page)
    wire = HTTPConnection(place.hostname or "", place.port, timeout=20)
    wire.request(method, path, body or None, headers | (FORM if body else {}))
    with wire.getresponse() as reply:
        found = reply.status, reply.headers.get_all("set-cookie") or [], reply.read().decode(errors="replace")
    wire.close()
    return found


def log_in(page: str) -> str:
    """The cookie of a new session."""
    form = urlencode({"username": "ann", "password": "long enough"})
    status, cookies, _ = ask(page, "/login", method="POST", body=form)
    assert status == 200
    (session,) = [cookie.partition(";")[0] for cookie in cookies if cookie.startswith("access-token-")]
    assert ask(page, "/config", Cookie=session)[0] == 200
    return session


def test_logging_out_ends_this_session_and_no_other_unless_that_is_asked(page: str) -> None:
    first, second, third = (log_in(page) for _ in range(3))
    assert ask(page, "/logout", Cookie=first)[0] == 405
    assert ask(page, "/logout", method="POST", Cookie=first, Origin="http://evil.com")[0] == 403
    assert ask(page, "/config", Cookie=first)[0] == 200
    status, cookies, _ = ask(page, "/logout", method="POST", Cookie=first)
    assert status == 303
    (gone,) = [cookie for cookie in cookies if cookie.startswith("access-token-")]
    assert gone.partition("=")[0] == first.partition("=")[0]
    assert "max-age=0" in gone.lower()
    assert [ask(page, "/config", Cookie=cookie)[0] for cookie in (first, second, third)] == [401, 200, 200]
    assert ask(page, "/logout?all_session=true", method="POST", Cookie=first)[0] == 303  # who is no longer in
    assert [ask(page, "/config", Cookie=cookie)[0] for cookie in (second, third)] == [200, 200]
    assert ask(page, "/logout?all_session=true", method="POST", Cookie=second)[0] == 303
    assert [ask(page, "/config", Cookie=cookie)[0] for cookie in (second, third)] == [401, 401]


def test_no_answer_holds_the_session(page: str) -> None:
    session = log_in(page)
    token = session.partition("=")[2]
    paths = ("/", "/config", "/gradio_api/info", "/gradio_api/token", "/gradio_api/user", "/gradio_api/login_check")
    assert not [path for path in paths if token in ask(page, path, Cookie=session)[2]]


def test_there_is_a_button_to_log_out_where_there_is_a_login(page: str, tmp_path: Path) -> None:
    assert "ck-logout" in ask(page, "/config", Cookie=log_in(page))[2]
    (tmp_path / "photos").mkdir()
    arguments = (str(tmp_path / "photos"),)
    with serving(tmp_path, *arguments, module="tests.support.colour_page", cwd=REPOSITORY) as other:
        assert "ck-logout" not in ask(other, "/config")[2]
