"""A page that runs, and a browser that looks at it: what the tests of the page share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from clipkit.index.image_index import ImageIndex
from clipkit.models.encoder import Encoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
START_SECONDS = 240.0  # torch and Gradio from a cold disk, on a busy machine
PATIENCE_MS = 60_000  # for one answer: the first one loads the model
SIZE = {"width": 1600, "height": 1000}
PHONE = {"width": 390, "height": 844}
# Photographs that scikit-image and scikit-learn bring along. china.jpg and flower.jpg are CC BY: fine to test with, not
# to show in docs/images.
PHOTOGRAPHS = {
    "skimage/data": ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
MORE_PHOTOGRAPHS = ("hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "page.png", "rocket.jpg")


def photographs(folder: Path) -> Path:
    """Fourteen photographs in `folder`, some of them in a folder `space` below it."""
    skimage = pytest.importorskip("skimage", reason="scikit-image's photographs are not installed")
    packages = Path(skimage.__file__).parent.parent
    (folder / "space").mkdir(parents=True)
    for source, names in {**PHOTOGRAPHS, "skimage/data ": MORE_PHOTOGRAPHS}.items():
        for name in names:
            is_space = name.startswith(("hubble", "moon", "rocket"))
            shutil.copyfile(packages / source.strip() / name, folder / ("space" if is_space else "") / name)
    return folder


def index(folder: Path, cache: Path, encoder: Encoder) -> None:
    """An index of the folder, its search cache in `cache`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPKIT_CACHE", str(cache))
        ImageIndex.create(folder, encoder).update()


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "CLIPKIT_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def serving(
    cache: Path, *arguments: str, module: str = "", cwd: Path | None = None, threads: int | None = None
) -> Iterator[str]:
    """The address of `clipkit ui` with these arguments, or of another module, in a process of its own.

    threads: how many processors the models of the page and of its runs may use.
    """
    command = [sys.executable, "-m", *([module] if module else ["clipkit", "ui"]), *arguments]
    log = cache / f"ui-{time.monotonic_ns()}.log"
    with open(log, "wb") as said:
        process = subprocess.Popen(
            command,
            env=environment(cache) | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=cwd or cache,
            start_new_session=True,
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if match := re.search(r"clipkit is at (http\S+)", log.read_text()):
            return match[1].rstrip("/")
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"clipkit ui did not start: {log.read_text()}")


@dataclass
class Robot:
    """A browser window on a page, and everything that it has asked for.

    Attributes:
        address: without the token that `clipkit ui` prints; `open` sends it.
        requests: every address the browser wanted, in order.
        noises: script errors, dialogs and console errors; a test that expects none asks `quiet`.
    """

    window: Page
    address: str
    requests: list[str] = field(default_factory=list)
    noises: list[str] = field(default_factory=list)
    token: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.address, _, self.token = self.address.partition("/?")
        self.window.on("request", lambda request: self.requests.append(request.url))
        self.window.on("pageerror", lambda error: self.noises.append(f"error: {error}"))
        self.window.on("dialog", self._dialog)
        self.window.set_default_timeout(PATIENCE_MS)

    def open(self, query: str = "") -> Robot:
        """Go to the page and wait until it has something to show."""
        if self.token:
            query = f"{query}&{self.token}" if query else f"?{self.token}"
        self.window.goto(f"{self.address}/{query}")
        self.window.wait_for_selector(".ck-wall .ck-card[data-id], .ck-search .ck-note", timeout=60_000)
        return self

    def search(self, words: str) -> list[str]:
        """Type and press Enter; the names of the pictures that come, in order."""
        with self.new_answer():
            self.window.locator("#ck-box").fill(words)
            self.window.locator("#ck-box").press("Enter")
        return self.names()

    @contextmanager
    def new_answer(self) -> Iterator[None]:
        """Wait until the grid is another one than before."""
        before = self.turn()
        yield
        self.window.wait_for_function(
            "before => document.querySelector('.ck-wall')?.dataset.turn !== before", arg=before
        )

    def turn(self) -> str:
        return str(self.window.evaluate("document.querySelector('.ck-wall')?.dataset.turn ?? ''"))

    def names(self) -> list[str]:
        """What the wall shows near the window, in order."""
        found: list[str] = self.window.evaluate(
            """[...document.querySelectorAll('.ck-wall .ck-card[data-id]')]
                .sort((a, b) => a.dataset.index - b.dataset.index).map(c => c.querySelector('.ck-name').textContent)"""
        )
        return found

    def shows(self, names: Collection[str]) -> bool:
        """Whether the grid comes to show just these; one choice may bring two answers, and the first is the old one."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while set(self.names()) != set(names) and time.monotonic() < deadline:
            time.sleep(0.05)
        return set(self.names()) == set(names)

    def card(self, name: str) -> Any:
        return self.window.locator(".ck-wall .ck-card", has=self.window.locator(f'img[alt="{name}"]')).first

    def tab(self, name: str) -> None:
        self.window.get_by_role("tab", name=name).click()

    def pictures_loaded(self) -> bool:
        """Whether every picture on the screen has pixels."""
        script = (
            "[...document.querySelectorAll('.ck-card img')].filter(i => i.getBoundingClientRect().top < innerHeight)"
        )
        return bool(self.window.evaluate(f"{script}.every(i => i.complete && i.naturalWidth > 0)"))

    def wait_for_pictures(self) -> None:
        script = (
            "[...document.querySelectorAll('.ck-card img')].filter(i => i.getBoundingClientRect().top < innerHeight)"
        )
        self.window.wait_for_function(f"() => {script}.every(i => i.complete)")

    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        return bool(self.window.evaluate("document.documentElement.scrollWidth > innerWidth + 1"))

    def outside(self) -> set[str]:
        """Hosts other than this machine that the browser has asked."""
        hosts = {urlsplit(url).hostname or "" for url in self.requests if url.startswith(("http:", "https:", "ws"))}
        return hosts - {"127.0.0.1"}

    def shoot(self, name: str) -> None:
        """A screenshot, where CLIPKIT_SCREENSHOTS names a folder for them."""
        if folder := os.environ.get("CLIPKIT_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.wait_for_pictures()
            self.window.wait_for_timeout(300)  # fades are over
            self.window.screenshot(path=str(Path(folder) / f"{name}.png"))

    def _dialog(self, dialog: Any) -> None:
        self.noises.append(f"dialog: {dialog.message}")
        dialog.accept()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless; skips with a reason where it or its driver is absent."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    with driver.sync_playwright() as playwright:
        options: Sequence[str] = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(options))
        yield browser
        browser.close()


@contextmanager
def robot(browser: Browser, address: str, **options: Any) -> Iterator[Robot]:
    """A new window, with nothing remembered. options: those of playwright, `viewport` or `color_scheme` say."""
    context = browser.new_context(**{"viewport": SIZE, **options})
    yield Robot(context.new_page(), address)
    context.close()
