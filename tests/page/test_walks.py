"""Walks through the search view in a real browser: what a person does from one end to the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.support.page_robot import PHONE, Robot, index, photographs, robot, serving
from tests.support.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from clipkit.models.openclip import OpenClipEncoder

pytestmark = pytest.mark.slow
FIVE = 5
SECONDS = 60.0  # for an answer, on a busy machine


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walk-cache")


@pytest.fixture
def fresh(cache: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A page on fourteen photographs that nobody has indexed."""
    folder = photographs(tmp_path / "holiday")
    with serving(cache, str(folder), "--model", "starter") as address:
        yield address, folder


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


def index_here(page: Robot) -> None:
    """Press the button that stands where nothing is indexed, and wait for the pictures."""
    page.open()
    assert "No pictures yet" in page.window.locator(".ck-search .ck-note").inner_text()
    page.shoot("walk-empty")
    page.window.get_by_role("button", name="Index holiday").click()
    page.window.wait_for_selector(".ck-card[data-id]", timeout=120_000)
    page.window.wait_for_function("document.querySelector('.ck-runs').hidden", timeout=120_000)
    page.window.wait_for_function("document.querySelectorAll('.ck-card[data-id]').length === 14")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_an_empty_page_to_copies_and_back(
    browser: Browser, fresh: tuple[str, Path], tmp_path: Path, scheme: Any
) -> None:
    address, folder = fresh
    before = {file: file.read_bytes() for file in folder.rglob("*.png")}
    with robot(browser, address, color_scheme=scheme) as page:
        index_here(page)
        home = page.names()
        found = page.search("a cat")
        assert found[0] == "chelsea.png"
        page.window.locator('.ck-card[data-index="0"]').hover()
        page.window.locator('.ck-card[data-index="0"] .ck-tick').click()
        page.window.locator(f'.ck-card[data-index="{FIVE - 1}"] .ck-tick').click(modifiers=["Shift"])
        bar = page.window.locator(".ck-chosen-bar")
        assert f"{FIVE} pictures chosen" in bar.inner_text()
        page.shoot(f"walk-chosen-{scheme}")
        bar.get_by_role("button", name="Copy …").click()
        page.window.locator(".ck-prompt input").fill(str(tmp_path / "copies"))
        page.window.locator(".ck-prompt").get_by_role("button", name="Copy").click()
        page.window.get_by_text(f"{FIVE} pictures copied to").wait_for()
        assert names_in(tmp_path / "copies") == set(found[:FIVE])
        page.window.get_by_role("button", name="Undo").click()
        page.window.get_by_text("The copies are gone.").wait_for()
        assert names_in(tmp_path / "copies") == set()
        page.window.go_back()
        until(lambda: page.names() == home, SECONDS)
        assert page.window.locator("#ck-box").input_value() == ""
        page.window.go_forward()
        until(lambda: page.names() == found, SECONDS)
        assert page.outside() == set()
        assert page.noises == []
    assert {file: file.read_bytes() for file in folder.rglob("*.png")} == before


def test_the_same_by_touch_on_a_telephone(browser: Browser, fresh: tuple[str, Path]) -> None:
    address, _ = fresh
    with robot(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        index_here(page)
        found = page.search("a cup of coffee")
        assert found[0] == "coffee.png"
        first = page.window.locator('.ck-card[data-index="0"] .ck-open')
        first.dispatch_event("pointerdown", {"pointerType": "touch", "bubbles": True})
        page.window.locator(".ck-chosen-bar").wait_for()  # a long press
        first.dispatch_event("pointerup", {"pointerType": "touch", "bubbles": True})
        page.window.locator('.ck-card[data-index="1"] .ck-open').tap()  # with one chosen, a tap chooses
        assert "2 pictures chosen" in page.window.locator(".ck-chosen-bar").inner_text()
        assert not page.overflows()
        page.shoot("walk-phone-chosen")
        page.window.get_by_role("button", name="★ Favourite").tap()
        page.window.get_by_text("2 pictures put into favourites.").wait_for()
        page.window.get_by_role("button", name="choose none").tap()
        with page.new_answer():
            page.window.go_back()
        page.window.get_by_role("button", name="★ favourites (2)").tap()
        assert page.shows(set(found[:2]))
        page.window.locator('.ck-card[data-index="0"] .ck-open').tap()
        page.window.locator(".ck-large .ck-facts dd").first.wait_for()
        page.shoot("walk-phone-large")
        page.window.get_by_role("button", name="close").tap()
        page.window.locator(".ck-large").wait_for(state="detached")
        assert page.noises == []


def test_answers_come_while_one_types_and_the_last_one_wins(browser: Browser, holiday: Any) -> None:
    with robot(browser, holiday.address) as page:
        page.open()
        length = page.window.evaluate("history.length")
        page.window.locator("#ck-box").press_sequentially("a motorcycle", delay=40)
        page.window.get_by_text("“a motorcycle”").first.wait_for()
        until(lambda: page.names()[:1] == ["motorcycle_left.png"], SECONDS)
        assert page.window.evaluate("history.length") == length + 1  # not one for every letter
        with page.new_answer():
            page.window.go_back()
        assert page.window.locator("#ck-box").input_value() == ""


SLOW = """milliseconds => { const plain = window.fetch; window.fetch = async (address, how = {}) => {
    if (String(address).endsWith('/ask')) await new Promise((go, stop) => {
        setTimeout(go, milliseconds);
        how.signal?.addEventListener('abort', () => stop(new DOMException('', 'AbortError')));
    });
    return plain(address, how);
}; }"""


def test_what_is_typed_before_an_answer_comes_leaves_the_search_of_before_in_the_history(
    browser: Browser, holiday: Any
) -> None:
    with robot(browser, holiday.address) as page:
        page.open()
        page.search("a cat")
        length = page.window.evaluate("history.length")
        page.window.evaluate(SLOW, 700)
        page.window.locator("#ck-box").fill("a motor")
        page.window.wait_for_timeout(600)  # it is asked, and its answer is not there
        page.window.locator("#ck-box").fill("a motorcycle")
        until(lambda: page.names()[:1] == ["motorcycle_left.png"], SECONDS)
        assert page.window.evaluate("history.length") == length + 1
        with page.new_answer():
            page.window.go_back()
        assert "q=a+cat" in page.window.url


def test_words_that_are_taken_back_before_their_answer_comes_are_not_shown(browser: Browser, holiday: Any) -> None:
    with robot(browser, holiday.address) as page:
        page.open()
        found = page.search("a cat")
        page.window.evaluate(SLOW, 700)
        page.window.locator("#ck-box").fill("a motorcycle")
        page.window.wait_for_timeout(600)
        page.window.locator("#ck-box").fill("a cat")
        page.window.wait_for_timeout(2000)
        assert page.names() == found
        assert "q=a+cat" in page.window.url


def test_an_error_is_seen_where_the_window_is_and_goes_with_the_next_answer(browser: Browser, holiday: Any) -> None:
    with robot(browser, holiday.address, viewport={"width": 1000, "height": 500}) as page:
        page.open()
        found = page.search("a cat")
        page.window.mouse.wheel(0, 400)
        page.window.wait_for_function("scrollY > 300")
        page.window.locator("#ck-box").fill("a cat AND")
        page.window.locator(".ck-toast").get_by_text("The query ends where more was expected").wait_for()
        page.window.locator("#ck-box").fill("a cat")
        page.window.get_by_text("“a cat”").first.wait_for()
        page.window.route("**/clipkit/search/ask", lambda route: route.abort())
        page.window.locator("#ck-box").fill("a dog")
        page.window.locator(".ck-headline").or_(page.window.locator(".ck-toast")).get_by_text(
            "does not answer"
        ).wait_for()
        page.window.unroute("**/clipkit/search/ask")
        with page.new_answer():
            page.window.locator("#ck-box").press("Enter")
        assert "does not answer" not in page.window.locator(".ck-headline").inner_text()
        assert found
        assert page.noises == []


def test_pictures_are_taken_out_of_the_album_that_is_shown(browser: Browser, fresh: tuple[str, Path]) -> None:
    address, _ = fresh
    with robot(browser, address) as page:
        index_here(page)
        home = page.names()
        first, second = page.search("a cat")[:2]
        for place in (0, 1):
            page.window.locator(f'.ck-card[data-index="{place}"]').hover()
            page.window.locator(f'.ck-card[data-index="{place}"] .ck-tick').click()
        bar = page.window.locator(".ck-chosen-bar")
        assert bar.get_by_role("button", name="Take out of the album").is_hidden()
        bar.get_by_role("button", name="★ Favourite").click()
        page.window.get_by_role("button", name="★ favourites (2)").click()
        assert page.shows({first, second})
        for name, remaining in ((first, {second}), (second, {*home})):
            page.card(name).hover()
            page.card(name).locator(".ck-tick").click()
            bar.get_by_role("button", name="Take out of the album").click()
            assert page.shows(remaining)
        assert page.window.locator(".ck-chip").count() == 0  # an empty album is gone


def test_what_was_done_in_the_large_view_is_said_there_and_can_be_undone(
    browser: Browser, fresh: tuple[str, Path]
) -> None:
    address, _ = fresh
    with robot(browser, address) as page:
        index_here(page)
        page.window.locator('.ck-card[data-index="0"] .ck-open').click()
        view = page.window.locator(".ck-large")
        favourite = view.get_by_role("button", name="★ Favourite")
        favourite.click()
        view.locator('.ck-favourite[aria-pressed="true"]').wait_for()
        page.window.get_by_role("button", name="Undo").click()  # nothing lies over it
        view.locator('.ck-favourite[aria-pressed="false"]').wait_for()
        view.get_by_role("button", name="Choose").click()
        assert view.get_by_role("button", name="Choose").get_attribute("aria-pressed") == "true"
        page.window.keyboard.press("Escape")
        view.wait_for(state="detached")
        assert "1 picture chosen" in page.window.locator(".ck-chosen-bar").inner_text()
        page.window.locator("#ck-box").press_sequentially("a c")
        page.window.locator(".ck-chosen-bar").wait_for(state="hidden")
        page.window.locator('.ck-card[data-index="0"]').hover()
        page.window.locator('.ck-card[data-index="0"] .ck-tick').click()
        page.window.locator("#ck-box").press("Escape")
        page.window.locator(".ck-chosen-bar").wait_for(state="hidden")
        page.window.locator("#ck-box").press("Escape")
        assert page.window.locator("#ck-box").input_value() == "a c"  # what is shown is what was asked
        assert page.noises == []


def test_back_leads_to_the_library_that_was_open_and_a_reload_stays_there(
    browser: Browser, holiday: Any, starter: OpenClipEncoder, tmp_path: Path
) -> None:
    Image.new("RGB", (60, 40), (200, 20, 20)).save(tmp_path / "red.png")
    index(tmp_path, holiday.cache, starter)
    with (
        serving(holiday.cache, str(holiday.folder), str(tmp_path)) as address,
        robot(browser, address) as page,
    ):
        page.open()
        with page.new_answer():
            page.window.locator(".ck-cover", has_text=tmp_path.name).click()
        page.search("red")
        with page.new_answer():
            page.window.go_back()
        assert page.names() == ["red.png"]
        page.window.reload()
        page.window.wait_for_selector(".ck-card[data-id]")
        assert page.names() == ["red.png"]
        page.window.locator("#ck-file").set_input_files(
            {"name": "big.jpg", "mimeType": "image/jpeg", "buffer": bytes(21 * 2**20)}
        )
        page.window.get_by_text("big.jpg is larger than 20 MB").wait_for()


def test_a_window_that_is_narrowed_lays_the_wall_out_again(browser: Browser, holiday: Any) -> None:
    with robot(browser, holiday.address) as page:
        page.open()
        boxes = "[...document.querySelectorAll('.ck-card')].map(c => c.getBoundingClientRect().right)"
        assert max(page.window.evaluate(boxes)) > 1200
        page.window.set_viewport_size({"width": 700, "height": 800})
        page.window.wait_for_function(f"Math.max(...{boxes}) <= 700")
        assert not page.overflows()
