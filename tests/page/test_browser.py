"""The page in a real browser: what a person does on it, and that nothing leaves this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.page.conftest import BROKEN, Holiday
from tests.support.page_robot import PHONE, Robot, index, robot, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from clipkit.models.openclip import OpenClipEncoder

pytestmark = pytest.mark.slow
COUNT = 300  # pictures of a run that is long enough to be stopped: five seconds of one processor


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page-cache")


@pytest.fixture(scope="module")
def address(holiday: Holiday) -> str:
    return holiday.address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Robot]:
    with robot(browser, address) as found:
        yield found.open()
        assert found.outside() == set()
        assert found.noises == []


def test_words_find_the_right_photograph_first(page: Robot) -> None:
    for words, name in (("a motorcycle", "motorcycle_left.png"), ("a cup of coffee", "coffee.png")):
        assert page.search(words)[0] == name
    assert page.search("a cat")[0] in ("chelsea.png", "twin of chelsea.png")
    assert page.window.locator(".ck-card").first.get_attribute("data-label") == "strong"
    assert "“a cat”" in page.window.locator(".ck-count b").inner_text()
    numbers = page.window.locator(".ck-figures")
    assert "weak" not in numbers.inner_text()
    assert "searched in" not in numbers.inner_text()
    numbers.locator("summary").click()
    assert "searched in" in numbers.inner_text()
    page.shoot("search")


def test_from_a_picture_one_goes_on_to_more_and_to_less_of_it(page: Robot) -> None:
    page.search("a cup of coffee")
    page.card("camera.png").click()
    facts = page.window.locator(".ck-facts")
    facts.get_by_text("512 \u00d7 512, PNG").wait_for()
    assert "camera.png" in facts.inner_text()
    page.shoot("large")
    with page.new_answer():
        page.window.get_by_role("button", name="More like this").click()
    assert page.names()[0] == "camera.png"
    place = page.names().index("coffee.png")
    page.card("coffee.png").click()
    with page.new_answer():
        page.window.get_by_role("button", name="Less like this").click()
    assert page.names().index("coffee.png") > place
    assert page.window.locator(".ck-chip").count() == 2
    page.shoot("moves")
    with page.new_answer():
        page.window.get_by_role("button", name="remove: more like camera.png").click()
    with page.new_answer():
        page.window.get_by_role("button", name="remove: less like coffee.png").click()
    assert page.names()[0] == "coffee.png"
    assert page.window.locator(".ck-chip").count() == 0


def test_the_address_keeps_the_search(page: Robot, browser: Browser) -> None:
    page.search("a motorcycle")
    page.card("motorcycle_left.png").click()
    with page.new_answer():
        page.window.get_by_role("button", name="More like this").click()
    query = page.window.url.partition("/?")[2]
    assert "q=a+motorcycle" in query
    with robot(browser, f"{page.address}/?{page.token}") as other:
        other.open(f"?{query}")
        assert other.names() == page.names()
        assert other.window.locator("#ck-box").input_value() == "a motorcycle"
        assert other.window.locator(".ck-chip").count() == 1


def test_back_and_forward_show_the_earlier_search_where_it_was_left(page: Robot) -> None:
    page.window.evaluate("window.isSame = true")
    page.window.set_viewport_size({"width": 1000, "height": 500})
    first = page.search("a cat")
    page.window.evaluate("scrollTo(0, 150)")
    page.window.wait_for_function("history.state?.top === 150")
    page.window.locator('.ck-card[data-index="5"]').click()
    with page.new_answer():
        page.window.get_by_role("button", name="More like this").click()
    second = page.names()
    with page.new_answer():
        page.window.go_back()
    assert page.names() == first
    assert page.window.locator(".ck-chip").count() == 0
    page.window.wait_for_function("scrollY === 150")
    with page.new_answer():
        page.window.go_forward()
    assert page.names() == second
    assert page.window.locator(".ck-chip").count() == 1
    assert page.window.locator("#ck-box").input_value() == "a cat"
    assert page.window.evaluate("window.isSame") is True  # the page was not loaded again


def test_filters_are_applied_before_the_search(page: Robot) -> None:
    page.search("a motorcycle")
    page.window.get_by_role("button", name="Filters").click()
    with page.new_answer():
        page.window.get_by_role("checkbox", name="JPEG").check()
    assert page.shows({"china.jpg", "flower.jpg", "rocket.jpg", "hubble_deep_field.jpg", BROKEN})
    assert "Nothing here seems to show" in page.window.locator(".ck-nothing").inner_text()
    with page.new_answer():
        page.window.get_by_label("Folder").select_option("space")
    assert page.shows({"rocket.jpg", "hubble_deep_field.jpg"})
    page.shoot("filtered")
    with page.new_answer():
        page.window.get_by_role("checkbox", name="portrait").check()
    assert page.shows([])
    assert "No picture matches the filters" in page.window.locator(".ck-nothing").inner_text()
    for chip in ("in space", "portrait"):
        with page.new_answer():
            page.window.get_by_role("button", name=f"remove: {chip}", exact=True).click()
    assert page.shows({"china.jpg", "flower.jpg", "rocket.jpg", "hubble_deep_field.jpg", BROKEN})
    assert page.window.get_by_role("checkbox", name="JPEG").is_checked()
    assert not page.window.get_by_role("checkbox", name="portrait").is_checked()


def test_everything_can_be_done_from_the_keyboard(page: Robot) -> None:
    page.window.locator("body").click(position={"x": 5, "y": 5})
    page.window.keyboard.press("/")
    page.window.keyboard.type("a flower")
    page.window.keyboard.press("Enter")
    page.window.get_by_text("“a flower”").wait_for()
    first, second = page.names()[:2]
    page.window.keyboard.press("ArrowDown")
    focused = "document.activeElement.querySelector('.ck-name')?.textContent"
    assert page.window.evaluate(focused) == first == "flower.jpg"
    page.window.keyboard.press("ArrowRight")
    assert page.window.evaluate(focused) == second
    page.window.keyboard.press("Enter")
    view = page.window.locator(".ck-large")
    view.locator(".ck-facts dd").first.wait_for()
    page.window.keyboard.press("ArrowLeft")
    page.window.wait_for_function("name => document.querySelector('.ck-title').textContent === name", arg=first)
    page.window.keyboard.press("Escape")
    view.wait_for(state="detached")
    page.window.wait_for_function(f"first => {focused} === first", arg=first)  # after the browser's own choice
    page.window.keyboard.press("ArrowDown")
    assert page.names().index(str(page.window.evaluate(focused))) > 1


def test_a_dropped_picture_finds_its_like(page: Robot) -> None:
    import skimage

    picture = Path(skimage.__file__).parent / "data" / "motorcycle_right.png"
    with page.new_answer():
        page.window.locator("#ck-file").set_input_files(picture)
    assert page.names()[0] == "motorcycle_left.png"
    chip = page.window.locator(".ck-chip")
    assert "motorcycle_right.png" in chip.inner_text()
    assert chip.locator("img").evaluate("image => image.naturalWidth") > 10
    page.search("a cat")
    with page.new_answer():
        page.window.go_back()
    assert page.names()[0] == "motorcycle_left.png"  # the picture is part of what Back leads to


def test_duplicates_are_found_from_a_picture_and_in_the_library(page: Robot) -> None:
    page.card("chelsea.png").click()
    with page.new_answer():
        page.window.get_by_role("button", name="Find duplicates").click()
    assert "identical" in page.window.locator(".ck-count").inner_text()
    assert page.names()[:2] == ["chelsea.png", "twin of chelsea.png"]
    page.tab("Library")
    page.window.get_by_role("button", name="Duplicates").click()
    copies = page.window.locator(".ck-copies")
    copies.wait_for()
    assert "2 copies" in copies.inner_text()
    assert "twin of chelsea.png" in copies.inner_text()
    assert copies.locator("b").nth(1).inner_text() in ("chelsea.png", "twin of chelsea.png")
    page.window.get_by_role("button", name="Choose the 1 other in Search").click()
    page.window.wait_for_function("document.querySelectorAll('.ck-wall .ck-card').length === 1")
    assert page.names()[0] in ("chelsea.png", "twin of chelsea.png")
    assert "1 picture chosen" in page.window.locator(".ck-chosen-bar").inner_text()
    page.tab("Library")
    page.window.get_by_role("button", name="Near copies").click()
    page.window.get_by_text("pictures are there more than once").or_(
        page.window.get_by_text("picture is there more than once")
    ).first.wait_for()


def test_a_map_is_made_in_the_library_and_opens_in_a_window_of_its_own(page: Robot) -> None:
    page.tab("Library")
    page.window.get_by_role("button", name="Map", exact=True).click()
    link = page.window.get_by_role("link", name="Open the map")
    link.wait_for(timeout=60_000)
    with page.window.expect_popup() as opened:
        link.click()
    shown = opened.value
    shown.locator("#clusters li").first.wait_for()
    shown.wait_for_function("""() => {
        const canvas = document.getElementById("map");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.some((value, place) => place % 4 === 3 && value > 0);
    }""")  # something is drawn
    shown.close()


def test_the_library_is_shown_by_month_the_newest_first(
    browser: Browser, starter: OpenClipEncoder, cache: Path, tmp_path: Path
) -> None:
    days = {"new.jpg": "2024:06:02", "newer.jpg": "2024:06:20", "old.jpg": "2019:12:24", "undated.jpg": ""}
    for number, (name, day) in enumerate(days.items()):
        exif = Image.Exif()
        if day:
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{day} 10:00:00"
        Image.new("RGB", (60, 40), (60 * number, 90, 40)).save(tmp_path / name, exif=exif)
    index(tmp_path, cache, starter)
    with serving(cache, str(tmp_path)) as address, robot(browser, address) as page:
        page.open()
        assert page.names() == ["newer.jpg", "new.jpg", "old.jpg", "undated.jpg"]
        assert page.window.locator(".ck-month").all_text_contents() == ["June 2024", "December 2019", "Without a date"]
        page.window.set_viewport_size({"width": 900, "height": 320})
        page.window.get_by_role("button", name="December 2019").click()
        page.window.wait_for_function("""() => [...document.querySelectorAll('.ck-month')]
            .some(m => m.textContent === 'December 2019' && m.getBoundingClientRect().top < 120)""")
        page.search("a cat")
        assert page.window.locator(".ck-month, .ck-date").count() == 0


def test_a_picture_that_cannot_be_shown_says_its_name(page: Robot) -> None:
    card = page.card(BROKEN)
    card.scroll_into_view_if_needed()
    page.window.locator(".ck-broken").wait_for()
    assert "ck-broken" in str(card.get_attribute("class"))
    card.click()
    page.window.get_by_text("This picture cannot be shown.").wait_for()
    page.shoot("broken")


def test_chosen_pictures_are_saved_as_a_table_and_as_a_sheet(page: Robot) -> None:
    names = page.search("a cat")
    page.window.locator("body").click(position={"x": 5, "y": 5})
    page.window.keyboard.press("Control+a")
    bar = page.window.locator(".ck-chosen-bar")
    assert f"{len(names)} pictures chosen" in bar.inner_text()
    with page.window.expect_download() as download:
        bar.get_by_role("button", name="Table (CSV)").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0] == "score,relevance,path,width,height,taken"
    assert [Path(line.split(",")[2]).name for line in lines[1:]] == names
    with page.window.expect_download() as download:
        bar.get_by_role("button", name="Contact sheet").click()
    sheet = Path(download.value.path()).read_text()
    assert sheet.count("data:image/jpeg;base64") == len(names) - 1  # but the broken one
    page.window.keyboard.press("Escape")
    bar.wait_for(state="hidden")


def test_nothing_moves_while_the_page_loads(page: Robot) -> None:
    watch = """() => { window.moved = 0; new PerformanceObserver(list => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.moved += entry.value;
    }).observe({type: 'layout-shift', buffered: false}); }"""
    page.search("a cat")
    page.window.wait_for_timeout(700)  # what follows input within half a second does not count
    page.window.evaluate(watch)
    page.wait_for_pictures()
    page.window.mouse.wheel(0, 600)
    page.window.wait_for_timeout(800)
    assert page.window.evaluate("window.moved") < 0.02
    boxes = "[...document.querySelectorAll('.ck-card')].map(c => c.getBoundingClientRect().height)"
    assert min(page.window.evaluate(boxes)) > 60


def test_it_is_dark_where_the_system_is_dark_and_can_be_turned(browser: Browser, address: str) -> None:
    with robot(browser, address, color_scheme="dark") as dark:
        dark.open("?q=a+flower")
        colour = "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)"
        assert max(dark.window.evaluate(colour)) < 60
        dark.shoot("dark")
        dark.window.get_by_label("light or dark").click()
        assert min(dark.window.evaluate(colour)) > 200
        assert dark.outside() == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, address: str, scheme: str) -> None:
    with robot(browser, address, viewport=PHONE, color_scheme=scheme, has_touch=True) as phone:
        phone.open("?q=a+cup+of+coffee")
        assert phone.names()[0] == "coffee.png"
        assert not phone.overflows()
        phone.shoot(f"phone-{scheme}")
        phone.window.get_by_role("button", name="Filters").click()
        phone.window.get_by_role("checkbox", name="JPEG").wait_for()
        phone.shoot(f"phone-filters-{scheme}")
        phone.window.get_by_role("button", name="Filters").click()
        assert not phone.overflows()
        phone.card("coffee.png").click()
        phone.window.get_by_role("button", name="More like this").wait_for()
        phone.window.locator(".ck-facts dd").first.wait_for()
        phone.shoot(f"phone-large-{scheme}")
        phone.window.keyboard.press("Escape")
        phone.tab("Library")
        phone.window.locator(".ck-folder").wait_for()
        assert not phone.overflows()
        phone.shoot(f"phone-library-{scheme}")


def test_an_empty_page_teaches_then_indexes_shows_progress_and_can_be_stopped(
    browser: Browser, cache: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0)
    for number in range(COUNT):
        folder = tmp_path / "many" / f"{number // 75}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (80, 120, 3), dtype=np.uint8)).save(folder / f"{number:04}.jpg")
    (tmp_path / "many" / "bad.jpg").write_bytes(b"no picture at all")
    (tmp_path / "empty").mkdir()
    place = {"cwd": tmp_path / "empty", "threads": 1}
    with serving(cache, "--model", "starter", **place) as address, robot(browser, address) as page:
        page.open()
        assert "No pictures yet" in page.window.locator(".ck-search .ck-note").inner_text()
        page.shoot("empty")
        page.tab("Library")
        assert "No folder yet" in page.window.locator("#ck-library").inner_text()
        page.window.locator("#ck-place textarea, #ck-place input").fill(str(tmp_path / "many"))
        page.window.locator("#ck-add").click()
        page.window.get_by_text("pictures/s").wait_for(timeout=120_000)
        page.shoot("indexing")
        page.window.get_by_role("button", name="Stop").click()
        page.window.get_by_text("stopped; what was done is kept").wait_for(timeout=60_000)
        kept = int(page.window.locator(".ck-numbers dd").first.inner_text().replace(",", ""))
        assert kept < COUNT
        page.window.get_by_role("button", name="Update").click()
        page.window.get_by_text("finished").wait_for(timeout=180_000)
        numbers = page.window.locator(".ck-numbers dd").all_inner_texts()
        assert [int(number.replace(",", "")) for number in numbers] == [COUNT, 0, 1]
        page.window.get_by_text("1 could not be read").click()
        assert "bad.jpg" in page.window.locator(".ck-folder").inner_text()
        page.window.get_by_role("button", name="Check").click()
        page.window.get_by_text("none is damaged").wait_for()
        page.shoot("library")
        page.tab("Search")
        page.window.wait_for_selector(".ck-card[data-id]", timeout=60_000)  # nobody has to load the page again
        page.search("noise")
        count = "document.querySelectorAll('.ck-card').length"
        seen: set[str] = set()
        for _ in range(60):  # the whole wall goes by, of which a part is in the document at a time
            seen |= set(page.window.evaluate("[...document.querySelectorAll('.ck-card')].map(c => c.dataset.id)"))
            assert page.window.evaluate(count) < 250
            page.window.mouse.wheel(0, 500)
            page.window.wait_for_timeout(40)
        assert len(seen) == COUNT
        assert page.outside() == set()
        assert page.noises == []


def test_a_login_opens_the_page_and_its_pictures(
    browser: Browser, cache: Path, tmp_path: Path, starter: OpenClipEncoder
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    Image.new("RGB", (300, 200), (200, 90, 40)).save(folder / "one.png")
    index(folder, cache, starter)
    (tmp_path / "login").write_text("ann:a long password\n")
    with (
        serving(cache, str(folder), "--auth-file", str(tmp_path / "login")) as address,
        robot(browser, address) as page,
    ):
        page.window.goto(address)
        page.window.get_by_label("username").fill("ann")
        page.window.get_by_label("password").fill("a long password")
        page.window.get_by_role("button", name="Login").click()
        page.window.wait_for_selector(".ck-card")
        page.wait_for_pictures()
        assert page.pictures_loaded()
        page.shoot("login")
        page.window.get_by_role("button", name="Log out").click()
        page.window.get_by_label("username").wait_for()
        assert page.window.evaluate("async () => (await fetch('config')).status") == 401
        assert page.outside() == set()


def test_names_that_are_programs_stay_names(
    browser: Browser, cache: Path, tmp_path: Path, starter: OpenClipEncoder
) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    names = [
        "<script>alert(2)<\\script>.png",
        '"><svg onload=alert(3)>.png',
        "' onmouseover='alert(4).png",
        "a\u202egnp.exe.png",
        "two\nlines.png",
        "&lt;b&gt;.png",
        "w" * 240 + ".png",
        os.fsdecode(b"not-utf8-\xff\xfe.png"),
    ]
    for number, name in enumerate(names):
        (folder / "<b>sub").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60 + number, 60), (number * 30, 40, 90)).save(folder / "<b>sub" / name)
    index(folder, cache, starter)
    with serving(cache, str(folder)) as address, robot(browser, address) as page:
        page.open()
        assert len(page.names()) == len(names)
        page.search("<img src=x onerror=alert(5)>")
        for place in range(len(names)):
            page.window.locator(f'.ck-card[data-index="{place}"]').click()
            page.window.locator(".ck-facts dd").first.wait_for()
            page.window.keyboard.press("Escape")
            page.window.locator(".ck-large").wait_for(state="detached")
        page.tab("Library")
        page.window.locator(".ck-folder").wait_for()
        time.sleep(0.5)
        assert page.noises == []
        assert page.outside() == set()
        assert not page.overflows()
