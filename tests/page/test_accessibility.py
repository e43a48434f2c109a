"""No tab has a serious or critical fault for axe-core: light and dark, on a desk and on a telephone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clipkit.evaluate.comparison import compare
from tests.page.conftest import Holiday
from tests.page.test_adapt import FOUND
from tests.page.test_browser_classify import sort
from tests.support.accessibility import accessibility_faults
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.page_robot import PHONE, SIZE, Robot, robot

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Browser, holiday: Holiday) -> Iterator[Robot]:
    with robot(browser, holiday.address) as found:
        yield found.open()
        assert found.noises == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results.json of a comparison of four colours, some of them confused."""
    folder = tmp_path_factory.mktemp("compared")
    for name in ("red", "green", "blue", "white"):
        for number in range(6):
            shade = tuple(max(part - 4 * number, 0) for part in COLOURS[name if number < 5 else "red"])
            paint(folder / "colours" / name / f"{number}.png", shade)  # type: ignore[arg-type]
    found = compare(folder / "colours", ColourEncoder(), methods=("zeroshot", "knn"), shots=(1, 2), seeds=2)
    (folder / "results.json").write_text(found.to_json())
    return folder / "results.json"


def test_search_with_everything_open(page: Robot) -> None:
    assert accessibility_faults(page.window) == []
    page.search("a cat")
    page.window.get_by_role("button", name="Filters").click()
    page.window.locator('.ck-card[data-index="1"]').hover()
    page.window.locator('.ck-card[data-index="1"] .ck-tick').click()
    assert accessibility_faults(page.window) == []
    page.window.get_by_role("button", name="Album …").click()
    page.window.locator(".ck-prompt").wait_for()
    assert accessibility_faults(page.window) == []
    page.window.keyboard.press("Escape")
    page.window.locator('.ck-card[data-index="0"] .ck-open').click()
    page.window.locator(".ck-large .ck-facts dd").first.wait_for()
    page.window.locator(".ck-why summary").click()
    page.window.locator(".ck-reasons p").first.wait_for()
    assert accessibility_faults(page.window) == []


def test_classify_before_and_after_it_sorts(page: Robot) -> None:
    page.tab("Classify")
    page.window.wait_for_selector("#ck-board .ck-note")
    assert accessibility_faults(page.window) == []
    sort(page)
    page.window.get_by_text("Export", exact=True).click()
    assert accessibility_faults(page.window) == []
    page.window.locator("#ck-board .ck-pick").first.click()
    page.window.locator(".ck-choose .ck-chance-line").first.wait_for()
    assert accessibility_faults(page.window) == []


def test_compare_before_and_with_results(page: Robot, results: Path) -> None:
    page.tab("Compare")
    page.window.wait_for_selector("#ck-comparison .ck-note, #ck-comparison .ck-result")
    assert accessibility_faults(page.window) == []
    page.window.locator("#ck-results-path input, #ck-results-path textarea").first.fill(str(results))
    page.window.keyboard.press("Enter")
    page.window.get_by_text("colours: ").first.wait_for()
    page.window.get_by_text("Side by side").click()
    page.window.locator(".ck-sides").wait_for()
    assert accessibility_faults(page.window) == []


def test_adapt_before_and_with_its_table(page: Robot, tmp_path: Path) -> None:
    (tmp_path / "adaptation.json").write_text(json.dumps(FOUND.to_json()))
    page.tab("Compare")
    page.window.get_by_role("button", name="Adapt: tune a model").click()
    page.window.locator("#ck-adapt-start").wait_for()
    page.window.locator("#ck-adapt-start").click()
    page.window.locator("#ck-adapt-notice", has_text="the dataset is not named").wait_for()
    page.window.locator("#ck-adapt-out input, #ck-adapt-out textarea").first.fill(str(tmp_path))
    page.window.locator("#ck-adapt-open").click()
    page.window.locator("#ck-adapted table").wait_for()
    assert page.window.locator("#ck-adapted tbody tr").count() == 3
    assert accessibility_faults(page.window) == []
    for shade in ("light", "dark"):
        for name, size in (("wide", SIZE), ("phone", PHONE)):
            page.window.set_viewport_size(size)  # type: ignore[arg-type]
            assert not page.overflows()
            page.window.locator("#ck-adapted").scroll_into_view_if_needed()
            page.shoot(f"adapt-{name}-{shade}")
        page.window.locator(".ck-shade").click()
    page.window.set_viewport_size(SIZE)  # type: ignore[arg-type]


def test_library_with_its_lists_open(page: Robot) -> None:
    page.tab("Library")
    page.window.wait_for_selector("#ck-library .ck-folder")
    page.window.evaluate("document.querySelectorAll('#ck-library details').forEach(one => one.open = true)")
    assert accessibility_faults(page.window) == []
