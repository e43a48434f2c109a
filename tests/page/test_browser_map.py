"""The map file in a real browser: a lasso by mouse and by touch, and what can be done with what it selects."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from clipkit.explore.mapping import Map
from clipkit.output.map_html import map_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
ODD = 'left/"quoted", <b>.jpg'
LEFT = ["left/a.jpg", "left/b.jpg", "left/c.jpg", ODD]


def the_map(many: int = 0) -> Map:
    """Four pictures on the left, called beach; two on the right, an outlier and one called snow; and more beside it."""
    positions = [(0.0, 0.0), (0.1, 0.5), (0.2, 0.2), (0.05, 1.0), (0.9, 0.4), (1.0, 0.6), *[(0.95, 0.5)] * many]
    paths = (*LEFT, "right/d.jpg", "right/e.jpg", *(f"right/{number}.jpg" for number in range(many)))
    clusters = np.array([0, 0, 0, 0, 1, -1, *[1] * many])
    ids = np.arange(len(paths)) * 3 + 10
    return Map(ids, paths, np.array(positions, np.float32), clusters, ("beach", "snow"), (5,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "map.html")


def written(file: Path, *, many: int = 0, search: str = "") -> Path:
    file.write_text("".join(map_page(the_map(many), {}, title="photos", search=search)), "utf-8")
    return file


def opened(browser: Browser, file: Path, **options: Any) -> Page:
    context = browser.new_context(viewport={"width": 1000, "height": 700}, **options)
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(file.as_uri())
    page.locator("#clusters li").first.wait_for()
    return page


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    found = opened(browser, file)
    yield found
    found.context.close()


def corners(page: Page, side: str = "left") -> list[tuple[float, float]]:
    """Of a lasso round the left or the right half of the map."""
    box = page.locator("#map").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    start, end = (box["x"] + 2, middle) if side == "left" else (middle, box["x"] + box["width"] - 2)
    top, bottom = box["y"] + 60, box["y"] + box["height"] - 60
    half = 0.5 * (start + end)
    return [
        (start, top - 58),
        (half, top - 58),
        (end, top - 58),
        (end, bottom + 58),
        (half, bottom + 58),
        (start, bottom + 58),
    ]


def draw(page: Page, side: str = "left") -> None:
    first, *others = corners(page, side)
    page.mouse.move(*first)
    page.mouse.down()
    for corner in others:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()


def test_a_drag_with_shift_selects_what_it_goes_round(page: Page) -> None:
    assert page.locator("#selection").is_hidden()
    page.keyboard.down("Shift")
    draw(page)
    page.keyboard.up("Shift")
    assert page.locator("#how-many").inner_text() == "4 pictures"
    assert page.locator("#to-search").is_hidden()
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#selection").is_hidden()


def test_a_drag_without_shift_moves_the_map_and_selects_nothing(page: Page) -> None:
    draw(page)
    assert page.locator("#selection").is_hidden()


def test_the_lasso_button_selects_until_it_is_pressed_again_or_escape_is(page: Page) -> None:
    button = page.get_by_role("button", name="Lasso")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    draw(page, "right")
    assert page.locator("#how-many").inner_text() == "2 pictures"
    draw(page, "left")  # in its place
    assert page.locator("#how-many").inner_text() == "4 pictures"
    page.keyboard.press("Escape")
    assert page.locator("#selection").is_hidden()
    assert button.get_attribute("aria-pressed") == "false"


def test_a_list_is_saved_with_the_clusters(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Lasso").click()
    draw(page)
    with page.expect_download() as waited:
        page.get_by_role("button", name="Save list").click()
    assert waited.value.suggested_filename == "selection.csv"
    waited.value.save_as(tmp_path / "selection.csv")
    with open(tmp_path / "selection.csv", encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [["path", "cluster"], *[[path, "beach"] for path in LEFT]]


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_paths_are_copied_a_line_each(has_clipboard: bool, page: Page) -> None:
    instead = "{ writeText: async (text) => { window.copied = text; } }" if has_clipboard else "undefined"
    page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{ value: {instead} }})")
    page.evaluate("document.addEventListener('copy', (event) => { window.copied = event.target.value; })")
    page.get_by_role("button", name="Lasso").click()
    draw(page)
    page.get_by_role("button", name="Copy paths").click()
    page.get_by_text("4 paths copied").wait_for()
    assert page.evaluate("window.copied").splitlines() == LEFT


def test_the_search_page_is_asked_for_the_selected_ids_500_at_most(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, written(tmp_path / "map.html", many=600, search="http://127.0.0.1:1/?library=<a>"))
    page.get_by_role("button", name="Lasso").click()
    draw(page)
    link = page.locator("#to-search")
    assert link.get_attribute("href") == "http://127.0.0.1:1/?library=<a>&set=10,13,16,19"
    assert link.inner_text() == "Show in Search"
    draw(page, "right")
    assert len((link.get_attribute("href") or "").rpartition("=")[2].split(",")) == 500
    assert link.inner_text() == "Show the first 500 in Search"
    page.context.close()


def test_a_finger_draws_a_lasso_and_two_zoom(browser: Browser, file: Path) -> None:
    page = opened(browser, file, has_touch=True)
    page.get_by_role("button", name="Lasso").tap()
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    first, *others = corners(page)
    touch("touchStart", first)
    for corner in others:
        touch("touchMove", corner)
    touch("touchEnd")
    assert page.locator("#how-many").inner_text() == "4 pictures"
    touch("touchStart", (300, 300))
    touch("touchStart", (300, 300), (400, 400))
    touch("touchMove", (250, 250), (450, 450))
    touch("touchEnd")
    assert page.locator("#how-many").inner_text() == "4 pictures"  # a pinch selects nothing else
    page.context.close()
