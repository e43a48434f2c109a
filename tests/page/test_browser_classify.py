"""Classify and Compare in a real browser: sort, put right, learn, export; compare, stop, go on, open again."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from tests.page.conftest import HOSTILE, Holiday
from tests.support.page_robot import PHONE, Robot, environment, robot

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
CLASSES = "cat, person, coffee, flower, building, motorcycle, space"
ASIDE = "unsure, or none of these"


@pytest.fixture(scope="module")
def address(holiday: Holiday) -> str:
    return holiday.address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Robot]:
    with robot(browser, address, accept_downloads=True) as found:
        yield found.open()
        assert found.outside() == set()
        assert found.noises == []
        assert found.window.title() != "run"


def sort(page: Robot, classes: str = CLASSES) -> None:
    page.tab("Classify")
    page.window.locator("#ck-classes textarea").fill(classes)
    before = turn(page)
    page.window.get_by_role("button", name="Sort", exact=True).click()
    sorted_anew(page, before)


def turn(page: Robot) -> str:
    return str(page.window.evaluate("document.querySelector('.ck-columns')?.dataset.turn ?? ''"))


def sorted_anew(page: Robot, before: str) -> None:
    page.window.wait_for_function(
        "b => (document.querySelector('.ck-columns')?.dataset.turn ?? b) !== b", arg=before, timeout=60_000
    )


def column(page: Robot, name: str) -> list[str]:
    script = 'n => [...document.querySelectorAll(`.ck-column[aria-label="${n}"] .ck-pick img`)].map(i => i.alt)'
    found: list[str] = page.window.evaluate(script, name)
    return found


def pick(page: Robot, name: str) -> Any:
    return page.window.locator("#ck-board .ck-pick", has=page.window.locator(f'img[alt="{name}"]'))


def labelled(page: Robot, number: int) -> None:
    """Wait until the server has heard of so many labels."""
    page.window.wait_for_function("n => document.querySelector('#ck-learn')?.dataset.labels === n", arg=str(number))


def taken(page: Robot, button: str, place: Path) -> Path:
    with page.window.expect_download() as waiting:
        page.window.locator(button).click()
    file = place / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def test_words_sort_three_are_put_right_the_rest_is_learned_and_taken_away(
    page: Robot, holiday: Holiday, tmp_path: Path
) -> None:
    folder = holiday.folder
    page.tab("Classify")
    page.window.wait_for_selector("#ck-board .ck-note")
    page.shoot("classify-empty")
    sort(page)
    assert column(page, "motorcycle") == ["motorcycle_left.png"]
    assert "chelsea.png" in column(page, "cat")
    assert f"of {holiday.count} pictures in 7 classes" in page.window.locator("#ck-sorted").inner_text()
    page.shoot("classify")

    pick(page, "moon.png").click()  # by the mouse
    page.window.locator(".ck-choose .ck-chance-line").first.wait_for()
    page.shoot("classify-picture")
    page.window.locator(".ck-choice", has_text="space").click()
    page.window.keyboard.press("Escape")
    pick(page, "hubble_deep_field.jpg").focus()  # and by keys
    page.window.keyboard.press("7")
    pick(page, "camera.png").focus()
    page.window.keyboard.press("2")
    labelled(page, 3)
    assert {"moon.png", "hubble_deep_field.jpg"} <= set(column(page, "space")) or not column(page, "space")

    before = turn(page)
    page.window.locator("#ck-learn").click()
    sorted_anew(page, before)
    assert {"moon.png", "hubble_deep_field.jpg"} <= set(column(page, "space"))
    assert "camera.png" in column(page, "person")
    assert "Learned from 3 labelled pictures" in page.window.locator(".ck-lesson").inner_text()
    page.shoot("classify-learned")

    page.window.get_by_text("Export", exact=True).click()
    with open(taken(page, "#ck-labels-csv", tmp_path), newline="") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    assert len(rows) == holiday.count
    assert (rows["space/moon.png"]["label"], rows["space/moon.png"]["by_hand"]) == ("space", "yes")
    head = taken(page, "#ck-save-head", tmp_path)
    command = [sys.executable, "-m", "clipkit", "classify", "--head", str(head), "--csv", str(folder)]
    said = subprocess.run(command, env=environment(holiday.cache), check=True, capture_output=True, text=True).stdout
    assert {row["label"] for row in csv.DictReader(said.splitlines()) if row["path"].endswith("moon.png")} == {"space"}

    page.window.locator("#ck-sort-into textarea, #ck-sort-into input").first.fill(str(tmp_path / "sorted"))
    page.window.locator("#ck-plan").click()
    page.window.locator(".ck-plan").wait_for()
    assert not (tmp_path / "sorted").exists()
    page.window.get_by_role("button", name="Copy now").click()
    page.window.get_by_text(f"{holiday.count} pictures are copied").wait_for()
    assert (tmp_path / "sorted" / "space" / "moon.png").read_bytes() == (folder / "space" / "moon.png").read_bytes()


def test_arrows_move_and_backspace_takes_a_label_back(page: Robot) -> None:
    sort(page, "cat, coffee, flower")
    first = page.window.locator("#ck-board .ck-pick").first
    first.focus()
    name = page.window.evaluate("document.activeElement.querySelector('img').alt")
    page.window.keyboard.press("ArrowRight")
    assert page.window.evaluate("document.activeElement.querySelector('img').alt") != name
    page.window.keyboard.press("ArrowLeft")
    page.window.keyboard.press("3")
    labelled(page, 1)
    assert column(page, "flower")[0] == name
    pick(page, name).focus()
    page.window.keyboard.press("Backspace")
    page.window.wait_for_function("!document.querySelector('#ck-learn').dataset.labels")
    assert name in column(page, "cat")


def test_classes_and_labels_outlive_a_reload_and_are_the_visitors_own(
    page: Robot, browser: Browser, address: str
) -> None:
    sort(page, "cat, dog, flower")
    pick(page, "moon.png").focus()
    page.window.keyboard.press("3")
    labelled(page, 1)
    page.window.reload()
    page.window.wait_for_selector(".ck-wall .ck-card[data-id]")
    page.tab("Classify")
    labelled(page, 1)
    assert page.window.locator("#ck-classes textarea").input_value() == "cat, dog, flower"
    assert column(page, "flower")[0] == "moon.png"
    with robot(browser, address) as other:
        other.open().tab("Classify")
        other.window.wait_for_selector("#ck-board .ck-note")
        other.window.wait_for_timeout(1_000)  # what would come, if it did
        assert other.window.locator("#ck-classes textarea").input_value() == ""
        sort(other, "cat, dog, flower")
        assert other.window.evaluate("document.querySelector('#ck-learn').dataset.labels || '0'") == "0"
        assert other.window.locator(".ck-pick.ck-fixed").count() == 0


def test_the_slider_sets_everything_or_nothing_aside(page: Robot) -> None:
    sort(page)
    before = turn(page)
    slider = page.window.locator("#ck-strict input[type=range]")
    slider.focus()
    page.window.keyboard.press("Home")
    slider.dispatch_event("pointerup")
    sorted_anew(page, before)
    assert column(page, ASIDE) == []


def cut_of(page: Robot, name: str) -> Any:
    return page.window.locator(f'.ck-column[aria-label="{name}"] .ck-cut')


def split_of(page: Robot, name: str) -> str:
    return page.window.locator(f'.ck-column[aria-label="{name}"] .ck-split').inner_text()


def unsure(page: Robot, count: int) -> None:
    """Wait until the column of what is unsure has so many pictures."""
    script = "([name, n]) => document.querySelectorAll(`.ck-column[aria-label='${name}'] .ck-pick`).length === n"
    page.window.wait_for_function(script, arg=[ASIDE, count])


def test_the_cut_of_a_class_is_dragged_by_the_mouse_and_the_table_has_it(page: Robot, tmp_path: Path) -> None:
    sort(page)
    cats, aside, turned = column(page, "cat"), len(column(page, ASIDE)), turn(page)
    assert len(cats) >= 2
    cut_of(page, "cat").scroll_into_view_if_needed()
    box = cut_of(page, "cat").bounding_box()
    mouse = page.window.mouse
    mouse.move(box["x"] + 5, box["y"] + 20)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=5)
    mouse.move(box["x"] + box["width"] + 30, box["y"] + 20, steps=5)
    assert split_of(page, "cat").startswith("0 assigned")  # while it moves
    mouse.up()
    unsure(page, aside + len(cats))
    assert column(page, "cat") == []
    assert column(page, "motorcycle") == ["motorcycle_left.png"]
    assert turn(page) == turned  # nothing else was drawn anew
    page.window.get_by_text("Export", exact=True).click()
    with open(taken(page, "#ck-labels-csv", tmp_path), newline="") as stream:
        labels = {row["image"]: row["label"] for row in csv.DictReader(stream)}
    assert {labels[name] for name in cats} == {"unknown"}
    assert labels["motorcycle_left.png"] == "motorcycle"
    cut_of(page, "cat").dblclick()  # as it was
    unsure(page, aside)
    assert column(page, "cat") == cats


def test_arrows_move_the_cut_and_it_outlives_a_reload(page: Robot) -> None:
    sort(page, "cat, coffee")
    cats, aside = column(page, "cat"), len(column(page, ASIDE))
    handle = cut_of(page, "cat").get_by_role("slider", name="Cut for cat")
    handle.focus()
    page.window.keyboard.press("End")
    unsure(page, aside + len(cats))
    assert handle.get_attribute("aria-valuetext").startswith("0 assigned")
    assert handle.evaluate("node => node === document.activeElement")
    page.window.keyboard.press("Home")
    page.window.wait_for_function(
        "n => document.querySelectorAll('[aria-label=cat] .ck-pick').length >= n", arg=len(cats)
    )
    assert split_of(page, "cat").endswith(" 0 unsure")
    for step in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.window.keyboard.press(step)
    assert handle.get_attribute("aria-valuenow") == "1"
    page.window.keyboard.press("End")
    unsure(page, aside + len(cats))
    page.window.reload()
    page.window.wait_for_selector(".ck-wall .ck-card[data-id]")
    page.tab("Classify")
    page.window.wait_for_selector(".ck-columns")
    assert column(page, "cat") == []
    before = turn(page)
    slider = page.window.locator("#ck-strict input[type=range]")
    slider.focus()
    page.window.keyboard.press("Home")
    slider.dispatch_event("pointerup")
    sorted_anew(page, before)
    assert set(column(page, "cat")) >= set(cats)  # the slider moves the cuts of all classes


def test_a_finger_drags_the_cut_and_still_scrolls_the_page(browser: Browser, address: str) -> None:
    with robot(browser, address, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        page.open()
        sort(page, "cat, coffee")
        cats, aside = len(column(page, "cat")), len(column(page, ASIDE))
        split, touch = split_of(page, "cat"), page.window.context.new_cdp_session(page.window)

        def swipe(right: float, down: float) -> None:
            box = cut_of(page, "cat").bounding_box()
            x, y = box["x"] + 20, box["y"] + 20
            touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
            for part in range(1, 9):
                at = {"x": x + right * part / 8, "y": y + down * part / 8}
                touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        swipe(0, -200)
        page.window.wait_for_function("scrollY > 50")
        still = "() => new Promise(done => { const y = scrollY; setTimeout(() => done(y === scrollY), 200); })"
        page.window.wait_for_function(still)  # the page rolls on for a while, and the cut with it
        assert split_of(page, "cat") == split
        swipe(400, 0)
        unsure(page, min(aside + cats, 24))
        assert page.noises == []


def test_names_that_are_html_are_shown_and_not_run(page: Robot) -> None:
    sort(page, "cat, <script>document.title='run'</script>, \"onload=x")
    assert pick(page, "coffee.png").count() == 1
    assert page.window.evaluate("n => [...document.querySelectorAll('.ck-pick img')].some(i => i.alt === n)", HOSTILE)
    assert page.window.locator("#ck-board script").count() == 0
    assert "<script>" in page.window.locator("#ck-board").inner_text()
    page.window.locator("#ck-board .ck-pick").first.click()
    assert "<script>" in page.window.locator(".ck-choices").inner_text()
    page.window.keyboard.press("Escape")


def test_both_tabs_fit_a_telephone_and_the_dark(browser: Browser, address: str) -> None:
    with robot(browser, address, viewport=PHONE, color_scheme="dark") as page:
        page.open("?__theme=dark")
        sort(page)
        assert not page.overflows()
        page.shoot("classify-phone-dark")
        page.window.locator("#ck-board .ck-pick").first.click()
        page.window.locator(".ck-choose .ck-choice").first.wait_for()
        assert page.window.locator(".ck-choose .ck-choice").first.is_visible()
        page.window.keyboard.press("Escape")
        page.tab("Compare")
        page.window.wait_for_selector("#ck-comparison .ck-note, #ck-comparison .ck-result")  # as other tests left it
        assert not page.overflows()
        assert page.noises == []


def test_an_error_is_a_sentence_and_leaves_the_columns(page: Robot) -> None:
    sort(page, "cat, coffee")
    page.window.locator("#ck-classes textarea").fill(" , ")
    page.window.get_by_role("button", name="Sort", exact=True).click()
    page.window.locator("#ck-classify-notice", has_text="there are no classes").wait_for()
    assert "chelsea.png" in column(page, "cat")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of painted pictures, which differ a little."""
    made = tmp_path_factory.mktemp("labelled") / "colours"
    for name, colour in {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}.items():
        (made / name).mkdir(parents=True)
        for number in range(10):
            shade = tuple(max(part - 9 * number, 0) for part in colour)
            Image.new("RGB", (64 + number, 64), shade).save(made / name / f"{name} {number}.png")
    return made


def test_a_comparison_is_stopped_goes_on_and_is_opened_again(page: Robot, colours: Path, tmp_path: Path) -> None:
    page.tab("Compare")
    page.window.wait_for_selector("#ck-comparison .ck-note")  # no other test compares on this server
    page.shoot("compare-empty")
    box = page.window.locator("#ck-dataset input")
    # The tab's own choice comes a moment after the tab, and would replace what was typed before.
    page.window.wait_for_function("document.querySelector('#ck-dataset input').value === 'holiday'")
    box.fill(str(colours))
    box.press("Enter")
    page.window.locator("#ck-compare").click()
    now = page.window.locator("#ck-compare-now")
    now.get_by_text(" of ").wait_for(timeout=90_000)
    page.tab("Search")  # the page stays usable
    assert page.search("a motorcycle")[0] == "motorcycle_left.png"
    page.tab("Compare")
    page.window.locator("#ck-compare-stop").click()
    now.get_by_text("continue from there").wait_for(timeout=60_000)
    page.shoot("compare-stopped")
    page.window.locator("#ck-compare").click()
    page.window.locator(".ck-result").wait_for(timeout=150_000)
    assert "text-probe" in page.window.locator(".ck-results").inner_text()
    assert page.window.locator(".ck-figure img").count() == 1
    assert page.window.locator(".ck-matrix rect").count() >= 2
    page.shoot("compare")
    file = taken(page, "#ck-results-json", tmp_path)
    assert {row["method"] for row in json.loads(file.read_text())["rows"]} >= {"zeroshot", "knn", "probe"}

    page.window.reload()
    page.window.wait_for_selector(".ck-wall .ck-card[data-id]")
    page.tab("Compare")
    page.window.locator(".ck-result").wait_for()  # the last result is still there
    (tmp_path / "broken.json").write_text("{")
    with page.window.expect_file_chooser() as chooser:
        page.window.locator("#ck-open-results").click()
    chooser.value.set_files(tmp_path / "broken.json")
    page.window.locator("#ck-compare-notice", has_text="is not the result of a comparison").wait_for()
    page.window.locator("#ck-results-path input, #ck-results-path textarea").first.fill(str(file))
    page.window.keyboard.press("Enter")
    page.window.wait_for_function("!document.querySelector('#ck-compare-notice').innerText.trim()")
    assert page.window.locator(".ck-result").count() == 1


def test_the_endpoint_answers_without_a_browser(address: str, holiday: Holiday) -> None:
    """As with curl: an event is made, and its stream ends with the answer."""
    asked = json.dumps({"data": ["cat, motorcycle", 1, "simple", True, ""]}).encode()
    address, _, token = address.partition("/?token=")
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    request = Request(f"{address}/gradio_api/call/classify", asked, headers)
    with urlopen(request, timeout=60) as response:
        event = json.load(response)["event_id"]
    with urlopen(f"{address}/gradio_api/call/classify/{event}?token={token}", timeout=60) as response:
        lines = response.read().decode().splitlines()
    (answer,) = json.loads(next(line.removeprefix("data: ") for line in lines if line.startswith("data: [")))
    found = {one["class"]: one for one in answer["classes"]}
    assert found["motorcycle"]["pictures"][0]["picture"] == "motorcycle_left.png"
    assert sum(one["count"] for one in found.values()) == answer["asked"] == holiday.count
    with urlopen(f"{address}/gradio_api/info?token={token}", timeout=60) as response:
        assert set(json.load(response)["named_endpoints"]) == {"/search", "/classify"}
