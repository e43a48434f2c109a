"""Token of the printed address: who has it comes in, and nobody else of this machine."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from gradio_client import Client

from clipkit.index.image_index import ImageIndex
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.page_robot import serving
from tests.support.paths import REPOSITORY

TOKEN = "a-token-of-this-test"
PRIVATE = ("/", "/config", "/gradio_api/info", "/login", "/logout", "/clipkit/export/x", "/gradio_api/queue/data")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The printed address of a page on an index of colours."""
    photos = tmp_path_factory.mktemp("photos")
    for name, colour in COLOURS.items():
        paint(photos / f"{name}.png", colour)
    ImageIndex.create(photos, ColourEncoder()).update()
    cache = tmp_path_factory.mktemp("cache")
    arguments = (str(photos), "", "", "", TOKEN)
    with serving(cache, *arguments, module="tests.support.colour_page", cwd=REPOSITORY) as found:
        yield found


def ask(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    place = urlsplit(address)
    wire = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    wire.request("GET", path, headers=headers)
    reply = wire.getresponse()
    body = reply.read().decode(errors="replace")
    wire.close()
    return reply.status, {name.lower(): value for name, value in reply.getheaders()}, body


@pytest.mark.parametrize("path", PRIVATE)
def test_without_the_token_there_is_a_sentence_and_nothing_else(address: str, path: str) -> None:
    for tried in (path, f"{path}?token=wrong", f"{path}?token=", f"{path}?token={TOKEN[:-1]}"):
        status, headers, body = ask(address, tried)
        assert (status, body.count("\n")) == (401, 1)
        assert "open the address that `clipkit ui` printed" in body
        assert "set-cookie" not in headers
        assert TOKEN not in body
    port = urlsplit(address).port
    for wrong in ({"Authorization": "Bearer x"}, {"Authorization": TOKEN}, {"Cookie": f"clipkit-token-{port}=x"}):
        assert ask(address, path, **wrong)[0] == 401


def test_the_printed_address_gives_a_cookie_and_leaves_the_rest_of_the_query(address: str) -> None:
    assert address.endswith(f"/?token={TOKEN}")
    status, headers, _ = ask(address, f"/?q=a+d%26og&token={TOKEN}&k=1")
    assert (status, headers["location"]) == (303, "/?q=a+d%26og&k=1")
    cookie = headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    session = headers["set-cookie"].partition(";")[0]
    status, headers, body = ask(address, headers["location"], Cookie=session)
    assert status == 200
    assert TOKEN not in body
    assert ask(address, f"/?token={TOKEN}")[1]["location"] == "/"


def test_style_and_script_are_public(address: str) -> None:
    assert ask(address, "/clipkit/static/page.css")[0] == 200


def test_scripts_bring_the_token_in_a_header_or_in_the_address(address: str) -> None:
    assert ask(address, "/gradio_api/info", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(address, f"/gradio_api/info?token={TOKEN}")[0] == 200
    place = address.partition("?")[0]
    client = Client(place, headers={"Authorization": f"Bearer {TOKEN}"}, verbose=False)
    assert client.predict("blue", 1, api_name="/search")["hits"][0]["picture"] == "blue.png"
    client.close()
