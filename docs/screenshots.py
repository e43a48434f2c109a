"""Screenshots for docs/images: each tab of a page that shows public-domain photographs. python docs/screenshots.py"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

import skimage  # noqa: E402

import clipkit  # noqa: E402
from tests.support.page_robot import PHONE, Robot, chromium, index, robot, serving  # noqa: E402

# In the public domain or CC0, as scikit-image says of each.
PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon")
SPACE = ("hubble_deep_field", "rocket")
WIDE = {"width": 1280, "height": 800}


IMAGES = REPOSITORY / "docs" / "images"


def main() -> None:
    with TemporaryDirectory(prefix="clipkit-") as scratch, chromium() as browser:
        folder = Path(scratch) / "Pictures"
        folder.mkdir()
        for name in (*(f"{name}.png" for name in PHOTOGRAPHS), *(f"{name}.jpg" for name in SPACE)):
            shutil.copyfile(Path(skimage.__file__).parent / "data" / name, folder / name)
        index(folder, Path(scratch), clipkit.load_encoder("starter"))
        with serving(Path(scratch), str(folder), "--model", "starter") as address:
            with robot(browser, address, viewport=WIDE) as page:
                page.open().search("a cup of coffee")  # the first one waits for the model
                shoot_search(page)
                shoot_classify(page)
                shoot_compare(page)
            with robot(browser, address, viewport=WIDE, color_scheme="dark") as page:
                shoot_large(page)
            with robot(browser, address, viewport=PHONE, device_scale_factor=1.5) as page:
                page.open()
                page.wait_for_pictures()
                save(page, "phone.jpg")


def shoot_search(page: Robot) -> None:
    page.search("a cat")
    for place in (0, 2, 3):
        page.window.locator(f'.ck-card[data-index="{place}"]').hover()
        page.window.locator(f'.ck-card[data-index="{place}"] .ck-tick').click()
    page.window.mouse.move(5, 5)
    page.wait_for_pictures()
    save(page, "search.jpg")
    page.window.keyboard.press("Escape")


def shoot_large(page: Robot) -> None:
    page.open().search("a cup of coffee")
    page.card("coffee.png").click()
    page.window.locator(".ck-similar img").first.wait_for()
    page.window.locator(".ck-why summary").click()
    page.window.locator(".ck-reasons p").first.wait_for()
    save(page, "large.jpg")


def shoot_classify(page: Robot) -> None:
    page.tab("Classify")
    page.window.locator("#ck-classes textarea").fill("a cat, a cup of coffee, a rocket, an astronaut, bricks")
    page.window.locator("#ck-sort").click()
    page.window.wait_for_selector("#ck-board .ck-pick, #ck-board img")
    page.window.locator("#ck-strict input[type=number]").fill("15")
    page.window.keyboard.press("Tab")
    page.window.wait_for_timeout(2_000)  # the columns are sorted again
    save(page, "classify.png")


def shoot_compare(page: Robot) -> None:
    page.tab("Compare")
    results = REPOSITORY / "benchmarks" / "results" / "pets_compare" / "results.json"
    path = page.window.locator("#ck-results-path textarea, #ck-results-path input").first
    path.fill(str(results))
    page.window.keyboard.press("Enter")
    page.window.wait_for_selector(".ck-results")
    path.fill("")
    save(page, "compare.png")


def save(page: Robot, name: str) -> None:
    page.window.wait_for_timeout(700)  # fades are over
    ways = {"type": "jpeg", "quality": 86} if name.endswith(".jpg") else {}
    page.window.screenshot(path=IMAGES / name, **ways)


if __name__ == "__main__":
    main()
