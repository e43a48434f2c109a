"""The card Imagine: one run at a time, beside the searches, for the visitor who asked; what it finds, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from clipkit_apps.search import imagination
from clipkit_apps.search.imagination import Imagination
from clipkit_apps.search.routes import SearchRoutes
from clipkit_apps.server.libraries import Shelf
from clipkit_apps.server.state import Page
from clipkit_apps.server.thumbnails import Thumbnails
from starlette.applications import Starlette
from starlette.testclient import TestClient

from clipkit.cli.main import main
from clipkit.errors import ClipkitError, ModelError, QueryError
from clipkit.explore.library import Library
from clipkit.generate import DiffusionGenerator, GeneratedPicture
from clipkit.index.image_index import ImageIndex
from tests.page.conftest import Holiday
from tests.support.accessibility import accessibility_faults
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.page_robot import Robot, index, photographs, robot, serving
from tests.support.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from clipkit.models.openclip import OpenClipEncoder


soon = partial(until, seconds=30)


@dataclass
class Painter:
    """Paints the colour that is the prompt, red for any other; each picture waits for `go`."""

    model: str = "painter"
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    refuses: bool = False

    def generate(self, prompt: str, *, n: int = 1, seed: int = 0) -> list[GeneratedPicture]:
        assert self.go.acquire(timeout=20)
        if prompt == "fails":
            raise ModelError("the model fails", hint="another")
        if prompt == "breaks":
            raise ZeroDivisionError
        pixels = np.full((8, 8, 3), COLOURS.get(prompt, COLOURS["red"]), np.uint8)
        return [GeneratedPicture(pixels, seed, self.refuses)]


@pytest.fixture
def shelf(photos: Path) -> Shelf:
    ImageIndex.create(photos, ColourEncoder()).update()
    found = Shelf(lambda *_: ColourEncoder())
    found.add(photos)
    return found


@pytest.fixture
def library(shelf: Shelf) -> Library:
    return shelf.libraries()[0]


@pytest.fixture
def painter_() -> Painter:
    return Painter()


@pytest.fixture
def made(painter_: Painter) -> Iterator[Imagination]:
    imagination = Imagination("painter", lambda: painter_)
    yield imagination
    imagination.end()
    painter_.go.release(8)


def done(made: Imagination, token: str, visitor: str = "a") -> dict[str, Any]:
    assert soon(lambda: not made.look(token, visitor)["is_running"])
    return made.look(token, visitor)


def test_pictures_come_one_by_one_and_find_their_colour(made: Imagination, painter_: Painter, library: Library) -> None:
    token = made.start(library, "blue", n=2, visitor="a")
    painter_.go.release()
    assert soon(lambda: len(made.look(token, "a")["pictures"]) == 1)
    state = made.look(token, "a")
    assert (state["is_running"], state["n"], state["found"]) == (True, 2, [])
    assert state["pictures"][0]["image"].startswith("data:image/jpeg;base64,")
    painter_.go.release()
    state = done(made, token)
    assert [picture["name"] for picture in state["pictures"]] == [f"imagined: blue, seed {seed}" for seed in (0, 1)]
    assert [picture["name"][-1] for picture in made.look(token, "a", seen=1)["pictures"]] == ["1"]
    assert len(state["found"]) == len(COLOURS)
    assert state["found"][0]["name"] == "blue.png"
    assert state["found"][0]["score"] > state["found"][1]["score"]


def test_one_run_at_a_time_and_of_its_visitor_alone(made: Imagination, painter_: Painter, library: Library) -> None:
    token = made.start(library, "blue", n=1, visitor="a")
    for visitor in ("a", "b"):
        with pytest.raises(QueryError, match="one run at a time"):
            made.start(library, "red", n=1, visitor=visitor)
    for other, visitor in ((token, "b"), ("guessed", "a")):
        with pytest.raises(QueryError, match="not kept any more"):
            made.look(other, visitor)
        with pytest.raises(QueryError, match="not kept any more"):
            made.stop(other, visitor)
    painter_.go.release()
    done(made, token)
    assert made.start(library, "red", n=1, visitor="b") != token
    painter_.go.release()


def test_no_more_pictures_than_four(made: Imagination, painter_: Painter, library: Library) -> None:
    painter_.go.release(100)
    assert len(done(made, made.start(library, "red", n=100, visitor="a"))["pictures"]) == 4


def test_a_stopped_run_searches_with_what_was_made(made: Imagination, painter_: Painter, library: Library) -> None:
    token = made.start(library, "blue", n=4, visitor="a")
    painter_.go.release()
    assert soon(lambda: len(made.look(token, "a")["pictures"]) == 1)
    made.stop(token, "a")
    painter_.go.release()
    state = done(made, token)
    assert len(state["pictures"]) <= 2
    assert state["found"][0]["name"] == "blue.png"


def test_a_run_that_nobody_looks_at_makes_no_further_picture(
    made: Imagination, painter_: Painter, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagination, "ALONE_SECONDS", 0.0)
    token = made.start(library, "blue", n=4, visitor="a")
    state = done(made, token)
    assert (state["pictures"], state["found"]) == ([], [])


@pytest.mark.parametrize(("words", "said"), [("fails", "the model fails"), ("breaks", "could not be made")])
def test_a_run_that_fails_says_so_and_the_next_may_begin(
    made: Imagination, painter_: Painter, library: Library, words: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # pytest's own makes a warning of it
    painter_.go.release(4)
    token = made.start(library, words, n=1, visitor="a")

    def has_failed() -> bool:
        try:
            return not made.look(token, "a")["is_running"]
        except ClipkitError as error:
            return said in error.message

    assert soon(has_failed)
    assert done(made, made.start(library, "red", n=1, visitor="a"))["found"][0]["name"] == "red.png"


def test_pictures_that_were_all_refused_are_said(made: Imagination, painter_: Painter, library: Library) -> None:
    painter_.refuses = True
    painter_.go.release()
    token = made.start(library, "red", n=1, visitor="a")
    with pytest.raises(ClipkitError, match="refused every picture"):
        soon(lambda: not made.look(token, "a")["is_running"])


def test_the_page_does_not_say_where_a_model_lies(tmp_path: Path) -> None:
    (tmp_path / "secret" / "tiny").mkdir(parents=True)
    assert Imagination(str(tmp_path / "secret" / "tiny"), Painter).name == "tiny"
    assert Imagination("owner/name", Painter).name == "owner/name"


def test_an_error_does_not_say_where_the_model_lies(pipelines: Callable[[str], Path], library: Library) -> None:
    folder = pipelines("painter")
    made = Imagination(str(folder), lambda: DiffusionGenerator(folder, device="cpu", steps=1))
    token = made.start(library, "very " * 80, n=1, visitor="a")
    with pytest.raises(ClipkitError, match="tokens with those of begin and end, and pipeline reads 77"):
        soon(lambda: not made.look(token, "a")["is_running"])


@pytest.fixture
def wire(shelf: Shelf, made: Imagination, tmp_path: Path) -> TestClient:
    page = Page(shelf, Thumbnails(tmp_path / "thumbs"), imagination=made)
    return TestClient(Starlette(routes=SearchRoutes(page).all()))


def post(wire: TestClient, address: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    answer = wire.post(f"/clipkit/search/{address}", json=fields)
    return answer.status_code, answer.json()


def test_other_searches_are_answered_while_a_picture_is_made(wire: TestClient, painter_: Painter) -> None:
    code, begun = post(wire, "imagine", words="blue", n=1)
    assert code == 200
    for _ in range(8):
        code, answer = post(wire, "ask", words="green")
        assert (code, answer["pictures"][0]["name"]) == (200, "green.png")
    assert post(wire, "imagined", **begun)[1]["is_running"]
    painter_.go.release()
    assert soon(lambda: not post(wire, "imagined", **begun)[1]["is_running"])
    assert post(wire, "imagined", **begun)[1]["found"][0]["name"] == "blue.png"


@pytest.mark.parametrize(
    ("address", "fields", "said"),
    [
        ("imagine", {"words": ""}, "the prompt is empty"),
        ("imagine", {"words": "x" * 10_000}, "words is no text, or too long"),
        ("imagine", {"words": "red", "n": "four"}, "n is no number"),
        ("imagine", {"words": ["red"]}, "words is no text"),
        ("imagined", {"run": "guessed"}, "not kept any more"),
        ("imagine/stop", {}, "not kept any more"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(
    wire: TestClient, address: str, fields: dict[str, Any], said: str
) -> None:
    code, answer = post(wire, address, **fields)
    assert code == 400
    assert said in answer["error"]


def test_without_a_model_there_is_no_card(shelf: Shelf, tmp_path: Path, wire: TestClient) -> None:
    assert wire.get("/clipkit/search/libraries").json()["imagine"] == "painter"
    bare = TestClient(Starlette(routes=SearchRoutes(Page(shelf, Thumbnails(tmp_path / "bare"))).all()))
    assert bare.get("/clipkit/search/libraries").json()["imagine"] == ""
    code, answer = post(bare, "imagine", words="red")
    assert (code, answer["hint"]) == (400, "clipkit ui --imagine MODEL")


def test_a_model_that_is_none_is_said_before_the_page_is_served(
    photos: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ui", str(photos), "--imagine", str(photos)]) == 1
    assert "holds no pipeline" in capfd.readouterr().err
    monkeypatch.setattr("clipkit.generate.diffusion.find_spec", lambda _: None)
    assert main(["ui", str(photos), "--imagine", str(photos)]) == 1
    assert "pip install 'clipkit[imagine]'" in capfd.readouterr().err


@pytest.mark.slow
def test_in_a_browser_words_become_pictures_and_those_find_photographs(
    browser: Browser, starter: OpenClipEncoder, pipelines: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = photographs(tmp_path / "photos")
    index(folder, tmp_path, starter)
    arguments = [str(folder), "--model", "starter", "--imagine", str(pipelines("painter"))]
    with serving(tmp_path, *arguments) as address, robot(browser, address) as page:
        _imagine(page.open())
        assert page.noises == []
        assert page.outside() == set()


def _imagine(page: Robot) -> None:
    card = page.window.locator(".ck-imagine")
    assert not card.is_visible()
    page.search("a red rocket")
    card.wait_for()
    page.window.get_by_label("how many pictures").select_option("1")
    page.window.get_by_role("button", name="Make pictures").click()
    card.locator(".ck-like").first.wait_for()
    assert card.locator(".ck-imagined img").count() == 1
    assert card.locator(".ck-imagined img").get_attribute("alt") == "imagined: a red rocket, seed 0"
    said = card.locator("[role=status]").inner_text()
    assert said == "1 picture made. Safety checker: left out of pipeline by whoever saved it"
    assert accessibility_faults(page.window) == []
    assert not page.overflows()
    page.shoot("imagine")
    near = card.locator(".ck-like").first
    name = str(near.get_attribute("aria-label")).removeprefix("more like ").rpartition(",")[0]
    with page.new_answer():
        near.click()
    assert page.names()[0] == name
    assert not card.is_visible()


@pytest.mark.slow
def test_in_a_browser_without_a_model_there_is_no_card(browser: Browser, holiday: Holiday) -> None:
    with robot(browser, holiday.address) as page:
        page.open().search("a cat")
        assert not page.window.locator(".ck-imagine").is_visible()


def test_the_painter_of_the_tests_is_what_the_page_takes(painter: DiffusionGenerator, library: Library) -> None:
    made = Imagination(painter.model, lambda: painter)
    state = done(made, made.start(library, "a blue bicycle", n=1, visitor="a"))
    assert state["found"][0]["name"] == "blue.png"
