"""Screenshots for docs/images: each tab of a page that shows public-domain photographs. python docs/screenshots.py"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

import skimage  # noqa: E402

import clipkit  # noqa: E402
from tests.support.page_robot import PHONE, chromium, index, robot, serving  # noqa: E402

# In the public domain or CC0, as scikit-image says of each.
PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon")
SPACE = ("hubble_deep_field", "rocket")
WIDE = {"width": 1280, "height": 800}


def main() -> None:
    os.environ["CLIPKIT_SCREENSHOTS"] = str(REPOSITORY / "docs" / "images")
    with TemporaryDirectory(prefix="clipkit-") as scratch, chromium() as browser:
        folder = Path(scratch) / "Pictures"
        folder.mkdir()
        for name in (*(f"{name}.png" for name in PHOTOGRAPHS), *(f"{name}.jpg" for name in SPACE)):
            shutil.copyfile(Path(skimage.__file__).parent / "data" / name, folder / name)
        index(folder, Path(scratch), clipkit.load_encoder("starter"))
        with serving(Path(scratch), str(folder), "--model", "starter") as address:
            with robot(browser, address, viewport=WIDE) as page:
                page.open().search("a cup of coffee")  # the first one waits for the model
                page.search("a cat")
                page.shoot("search")
                page.tab("Classify")
                page.window.locator("#ck-classes textarea").fill("cat, coffee, rocket, astronaut, bricks, coins")
                page.window.locator("#ck-sort").click()
                page.window.wait_for_selector("#ck-board .ck-pick, #ck-board img")
                page.shoot("classify")
                page.tab("Compare")
                results = REPOSITORY / "benchmarks" / "results" / "pets_compare" / "results.json"
                page.window.locator("#ck-results-path textarea, #ck-results-path input").first.fill(str(results))
                page.window.keyboard.press("Enter")
                page.window.wait_for_selector(".ck-results")
                page.window.locator("#ck-results-path textarea, #ck-results-path input").first.fill("")
                page.shoot("compare")
            with robot(browser, address, viewport=PHONE, color_scheme="dark") as page:
                page.open().search("a cup of coffee")
                page.shoot("phone")


if __name__ == "__main__":
    main()
