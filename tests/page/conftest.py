"""One browser and one page with the starter for all tests of the page; a test that changes the library has its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.page_robot import chromium, index, photographs, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from clipkit.models.openclip import OpenClipEncoder

BROKEN = "broken.jpg"
HOSTILE = "<img src=x onerror=document.title='run'>.png"


@dataclass(frozen=True)
class Holiday:
    """A running page on `count` photographs.

    One was damaged after it was indexed, one is there twice, and the name of one is HTML.
    """

    address: str
    folder: Path
    cache: Path
    count: int


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def holiday(browser: Browser, starter: OpenClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holiday]:
    """`clipkit ui` as a person starts it. Tests read its folder and never change it."""
    folder, cache = photographs(tmp_path_factory.mktemp("photos") / "holiday"), tmp_path_factory.mktemp("page-cache")
    (folder / "twin of chelsea.png").write_bytes((folder / "chelsea.png").read_bytes())
    Image.new("RGB", (300, 200), (20, 90, 40)).save(folder / BROKEN)
    Image.new("RGB", (90, 60), (200, 120, 20)).save(folder / HOSTILE)
    index(folder, cache, starter)
    (folder / BROKEN).write_bytes(b"\xff\xd8\xff no picture any more")
    with serving(cache, str(folder), "--model", "starter") as address:
        yield Holiday(address, folder, cache, 17)
